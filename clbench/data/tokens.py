"""Tokenisers, and packing: documents in, fixed-length blocks of token ids out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from clbench.errors import UserError

END = 256
"""Id of the end-of-document token of the `bytes` tokeniser."""

_DOCUMENTS_AT_ONCE = 256


class Tokenizer(Protocol):
    """Turns texts into token ids.

    name: how it is asked for. vocabulary: number of ids. end: the id put after each document. widest: bytes that one
    token stands for at most on ordinary text (a guide for how much text a token budget needs, not a bound). identity:
    equal for tokenisers that give equal ids.
    """

    name: str
    identity: str
    vocabulary: int
    end: int
    widest: int

    def encode(self, texts: Sequence[str]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Ids of all texts in order, with `end` after each, and the UTF-8 bytes each id stands for: [n], [n].

        The bytes of a text's ids sum to the text's bytes; `end` stands for none.
        """
        ...


class ByteTokenizer:
    """One id per UTF-8 byte (0-255), and 256 for the end of a document."""

    name = identity = "bytes"
    vocabulary = 257
    end = END
    widest = 1

    def encode(self, texts: Sequence[str]) -> tuple[NDArray[Any], NDArray[Any]]:
        encoded = [text.encode() for text in texts]
        ends = np.cumsum([len(part) + 1 for part in encoded], dtype=np.int64) - 1
        is_byte = np.ones(int(ends[-1]) + 1 if len(ends) else 0, dtype=bool)
        is_byte[ends] = False
        ids = np.full(len(is_byte), END, dtype=np.int16)
        ids[is_byte] = np.frombuffer(b"".join(encoded), dtype=np.uint8)
        return ids, is_byte.astype(np.int16)


class HubTokenizer:
    """A `transformers` tokeniser, by hub name or local folder; documents end with its end-of-sequence token."""

    widest = 8

    def __init__(self, source: str) -> None:
        from transformers import AutoTokenizer

        self.name = f"hf:{source}"
        try:
            self.inner = AutoTokenizer.from_pretrained(source)
        except Exception as error:
            reason = str(error).strip().split("\n")[0]
            advice = "give a local folder that holds one, or run once with a network"
            raise UserError(f"tokenizer {self.name!r} cannot be loaded ({reason}); {advice}") from None
        if self.inner.eos_token_id is None:
            raise UserError(f"tokenizer {self.name!r} has no end-of-sequence token, which separates documents")
        if not self.inner.is_fast:
            raise UserError(f"tokenizer {self.name!r} gives no character offsets, which bits per byte need")
        self.inner.model_max_length = 1 << 40
        self.vocabulary = len(self.inner)
        self.end = int(self.inner.eos_token_id)
        rules = f"{self.inner.backend_tokenizer.to_str()} {self.end}"
        self.identity = blake2b(rules.encode(), digest_size=16).hexdigest()

    def encode(self, texts: Sequence[str]) -> tuple[NDArray[Any], NDArray[Any]]:
        if not texts:
            return np.zeros(0, np.int32), np.zeros(0, np.int32)
        coded = self.inner(list(texts), add_special_tokens=False, return_offsets_mapping=True)
        ids: list[NDArray[Any]] = []
        sizes: list[NDArray[Any]] = []
        for text, tokens, spans in zip(texts, coded["input_ids"], coded["offset_mapping"], strict=True):
            ids.append(np.asarray([*tokens, self.end], dtype=np.int32))
            sizes.append(_bytes_of_spans(text, [end for _, end in spans]))
        return np.concatenate(ids), np.concatenate(sizes)


def _bytes_of_spans(text: str, ends: Sequence[int]) -> NDArray[Any]:
    """Bytes that each token adds, from where it ends in `text` (in characters), and 0 for the end of the document.

    A character spread over several tokens counts with the first. What the tokeniser leaves out counts with the next
    token, or with the last one at the end of the text, so that the sum is the text's size.
    """
    data = np.frombuffer(text.encode(), dtype=np.uint8)
    starts = np.append(np.flatnonzero((data & 0xC0) != 0x80), len(data))
    reached = np.maximum.accumulate(starts[np.asarray(ends, dtype=np.int64)])
    if len(reached):
        reached[-1] = len(data)
    return np.append(np.diff(reached, prepend=0), 0).astype(np.int32)


def build_tokenizer(name: str) -> Tokenizer:
    """`bytes`, or `hf:NAME` with a name on the Hugging Face hub or a local folder. Raises `UserError`."""
    if name == "bytes":
        return ByteTokenizer()
    kind, _, source = name.partition(":")
    if kind == "hf" and source:
        looks_local = source.startswith((".", "/", "~"))
        path = Path(source).expanduser()
        if looks_local and not path.is_dir():
            raise UserError(f"tokenizer {name!r}: there is no folder {path}")
        return HubTokenizer(str(path) if looks_local else source)
    raise UserError(f"unknown tokenizer {name!r}; use 'bytes', or 'hf:NAME' with a hub name or a local folder")


class Packed(NamedTuple):
    """Blocks of tokens, int16 or int32 [N, context + 1], and the UTF-8 bytes of each block's targets, int64 [N]."""

    blocks: NDArray[Any]
    target_bytes: NDArray[Any]

    @property
    def bytes_per_target(self) -> float:
        """Mean over all targets; 0.0 where there are none."""
        targets = self.blocks[:, 1:].size
        return float(self.target_bytes.sum()) / targets if targets else 0.0

    def first_by_hash(self, n: int) -> Packed:
        """At most `n` blocks: those whose contents have the smallest blake2b hashes, in that order.

        A sample of all documents that is the same on every machine and does not hang on the order of the rest. Equal
        blocks are numbered, so that they do not stand next to each other.
        """
        seen: Counter[bytes] = Counter()
        hashes = []
        for row in self.blocks.astype("<i4"):
            content = row.tobytes()
            hashes.append(blake2b(content + seen[content].to_bytes(8, "little"), digest_size=8).digest())
            seen[content] += 1
        chosen = sorted(range(len(hashes)), key=hashes.__getitem__)[:n]
        return Packed(self.blocks[chosen], self.target_bytes[chosen])


def pack(documents: Sequence[str], tokenizer: Tokenizer, context: int, limit: int | None = None) -> Packed:
    """Blocks of `context` + 1 tokens from documents laid end to end, the end token after each.

    Neighbouring blocks share one token: the last target of a block is the first input of the next, so every token but
    the very first is a target exactly once. There is no padding; what does not fill a block at the end is dropped.
    `limit`: at most so many blocks, the first ones; only the documents needed for them are tokenised.
    """
    needed = None if limit is None else limit * context + 1
    ids: list[NDArray[Any]] = []
    sizes: list[NDArray[Any]] = []
    have = 0
    for start in range(0, len(documents), _DOCUMENTS_AT_ONCE):
        if needed is not None and have >= needed:
            break
        some_ids, some_sizes = tokenizer.encode(documents[start : start + _DOCUMENTS_AT_ONCE])
        ids.append(some_ids)
        sizes.append(some_sizes)
        have += len(some_ids)
    count = max(0, (have - 1) // context)
    if limit is not None:
        count = min(count, limit)
    kind = np.int16 if tokenizer.vocabulary <= np.iinfo(np.int16).max else np.int32
    if count == 0:
        return Packed(np.zeros((0, context + 1), kind), np.zeros(0, np.int64))
    used = count * context + 1
    windows = np.lib.stride_tricks.sliding_window_view(np.concatenate(ids)[:used], context + 1)[::context]
    target_bytes = np.concatenate(sizes)[1:used].reshape(count, context).sum(1, dtype=np.int64)
    return Packed(windows.astype(kind), target_bytes)
