"""From domains to the blocks of a stream: read, split, kept apart, packed; kept on disk once that is done."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np

from clbench.errors import UserError

from .document_split import SIDES, DocumentSplit, Side
from .generated import DOMAINS
from .text_config import TextConfig, TextPhase
from .text_domains import Library
from .text_overlap import overlap_note, overlaps
from .text_sources import Domain

if TYPE_CHECKING:
    from clbench.data.tokens import Packed, Tokenizer

VERSION = 2  # of how blocks are made and kept on disk


@dataclass
class Part:
    """Rows start..stop of the blocks: a side of a phase or of a probe."""

    name: str
    side: Side
    start: int
    stop: int


@dataclass
class PackedStream:
    """All blocks of a stream, int16 or int32 [N, context + 1], in parts; of each evaluation part the bytes of a target
    token; what there is to say about the documents; and the fingerprint of the rows with their parts."""

    blocks: np.ndarray
    parts: list[Part]
    bytes_per_target: dict[str, float]
    notes: str
    fingerprint: str


def packed_stream(
    phases: Sequence[TextPhase],
    probes: Sequence[Domain],
    config: TextConfig,
    library: Library,
    tokenizer: Tokenizer,
) -> PackedStream:
    """The blocks of these phases and probes, from the cache where they are in it. Raises `UserError`."""
    from clbench.data.block_cache import key_of, load_blocks, store_blocks

    key = _key(phases, probes, config, library, tokenizer)
    found = load_blocks(key_of(key)) if key is not None else None
    if found is not None:
        blocks, meta = found
        parts = [Part(**part) for part in meta["parts"]]
        return PackedStream(blocks, parts, meta["bytes_per_target"], meta["notes"], meta["fingerprint"])
    packed = Packing(phases, probes, config, library, tokenizer).stream()
    if key is not None:
        store_blocks(key_of(key), packed.blocks, {k: v for k, v in asdict(packed).items() if k != "blocks"})
    return packed


def _key(
    phases: Sequence[TextPhase], probes: Sequence[Domain], config: TextConfig, library: Library, tokenizer: Tokenizer
) -> Any:
    """Everything the blocks hang on; None where that cannot be told cheaply."""
    named = [(phase.name, phase.domain, phase.tokens) for phase in phases] + [(p.name, p, 0) for p in probes]
    sources = [[library.identity(source) for source in domain.sources] for _, domain, _ in named]
    if any(None in identities for identities in sources):
        return None
    domains = [
        [name, tokens, domain.shares, identities]
        for (name, domain, tokens), identities in zip(named, sources, strict=True)
    ]
    settings = [config.context, config.eval_blocks, config.validation]
    return [VERSION, tokenizer.identity, settings, len(phases), domains]


class Packing:
    """Packs the blocks of one stream."""

    def __init__(
        self,
        phases: Sequence[TextPhase],
        probes: Sequence[Domain],
        config: TextConfig,
        library: Library,
        tokenizer: Tokenizer,
    ) -> None:
        self.phases = phases
        self.probes = probes
        self.config = config
        self.library = library
        self.tokenizer = tokenizer
        self.trained = list(dict.fromkeys(phase.domain for phase in phases))
        self.dropped: dict[Domain, int] = {}

    def stream(self) -> PackedStream:
        from clbench.data.fingerprint import content_fingerprint

        splits = {domain: self._read(domain) for domain in [*self.trained, *self.probes]}
        notes = self._keep_apart(splits)
        rows: dict[tuple[str, Side], list[Packed]] = {}
        for domain in self.trained:
            for side in SIDES:
                rows |= self._pack(domain, splits[domain], side)
        for domain in self.probes:
            rows |= self._pack(domain, splits[domain], "evaluation")
        names = [phase.name for phase in self.phases] + [domain.name for domain in self.probes]
        parts, start = [], 0
        for name in names:
            for side in SIDES:
                count = sum(len(packed.blocks) for packed in rows.get((name, side), []))
                if count:
                    parts.append(Part(name, side, start, start + count))
                    start += count
        blocks = np.concatenate([packed.blocks for part in parts for packed in rows[part.name, part.side]])
        owners = [f"{part.name}/{part.side}" for part in parts for _ in range(part.stop - part.start)]
        sizes = {name: _bytes_per_target(packed) for (name, side), packed in rows.items() if side == "evaluation"}
        return PackedStream(blocks, parts, sizes, notes, content_fingerprint(blocks, owners))

    def _read(self, domain: Domain) -> list[DocumentSplit]:
        """The documents of each source: generated ones go on until every side has text for its blocks."""
        splits = []
        for number, source in enumerate(domain.sources):
            enough: dict[Side, list[float]] = {}
            for side in SIDES if domain in self.trained else ("evaluation",):
                counts: Sequence[float] | None = self._counts(domain, side, number)
                if counts is None and source.place in DOMAINS:
                    place = source.place
                    raise UserError(f"the generated domain {place} has no end; give tokens=NUMBER instead of 0")
                if counts is None or any(counts):
                    enough[side] = [self._characters(blocks) for blocks in accumulate(counts or [math.inf])]
            splits.append(self.library.split(source, enough))
        return splits

    def _characters(self, blocks: float) -> float:
        """Text for that many blocks of the widest likely tokens."""
        return (blocks * self.config.context + 1) * self.tokenizer.widest

    def _counts(self, domain: Domain, side: Side, number: int) -> list[int] | None:
        """Blocks of a side of each of the domain's phases that are its source `number`'s; None: all there are."""
        if side == "evaluation":
            return [quotas(self.config.eval_blocks, domain.shares)[number]]
        phases = [phase for phase in self.phases if phase.domain == domain]
        if side == "validation" and self.config.validation == 0:
            return [0] * len(phases)
        if any(phase.tokens == 0 for phase in phases):
            return None
        counts = [phase.tokens // self.config.context for phase in phases]
        if side == "validation":
            counts = [max(1, round(blocks * self.config.validation)) for blocks in counts]
        return [quotas(blocks, domain.shares)[number] for blocks in counts]

    def _keep_apart(self, splits: dict[Domain, list[DocumentSplit]]) -> str:
        """Drop every training document that stands in any evaluation set (of any domain), and every validation
        document alike; what was dropped, and what overlaps in part, in words."""
        evaluated = {key for domain in splits for split in splits[domain] for key in split.sides["evaluation"]}
        self.dropped = {domain: sum(split.drop(evaluated) for split in splits[domain]) for domain in self.trained}
        notes = [
            f"{count} documents of {domain.name} left out of training: they stand in an evaluation set"
            for domain, count in self.dropped.items()
            if count
        ]
        texts: dict[Side, dict[str, list[str]]] = {
            side: {
                domain.name: [text for split in splits[domain] for text in split.texts(side)]
                for domain in (self.trained if side == "train" else splits)
                if any(source.place not in DOMAINS for source in domain.sources)
            }
            for side in ("train", "evaluation")
        }
        overlap = overlap_note(overlaps(texts["train"], texts["evaluation"]))
        return "; ".join([*notes, overlap] if overlap else notes)

    def _pack(self, domain: Domain, splits: list[DocumentSplit], side: Side) -> dict[tuple[str, Side], list[Packed]]:
        """The blocks of a side by phase. Each source is packed once; phases take their blocks one after another.
        Evaluation blocks are the first phase's."""
        from clbench.data.tokens import Packed, pack

        phases = [phase.name for phase in self.phases if phase.domain == domain] or [domain.name]
        found: dict[tuple[str, Side], list[Packed]] = {(name, side): [] for name in phases}
        for number, split in enumerate(splits):
            counts = self._counts(domain, side, number)
            limit = None if counts is None else sum(counts)
            if side == "evaluation":
                packed = pack(split.texts(side), self.tokenizer, self.config.context).first_by_hash(limit or 0)
            else:
                packed = pack(split.texts(side), self.tokenizer, self.config.context, limit)
            if len(packed.blocks) < (1 if limit is None else limit):
                raise UserError(self._too_small(domain, number, side, len(packed.blocks), limit))
            start = 0
            for name, count in zip(phases, counts or [len(packed.blocks)], strict=False):
                part = slice(start, start + count)
                found[name, side].append(Packed(packed.blocks[part], packed.target_bytes[part]))
                start += count
        return {key: packed for key, packed in found.items() if packed}

    def _too_small(self, domain: Domain, number: int, side: Side, blocks: int, limit: int | None) -> str:
        context = self.config.context
        name = domain.name if len(domain.sources) == 1 else f"{domain.name} ({domain.sources[number].name})"
        found = f"text domain {name}: {blocks} {side} blocks of {context} tokens"
        if side == "train" and self.dropped[domain]:
            found += f" without the {self.dropped[domain]} documents that stand in an evaluation set"
        if blocks == 0:
            return f"{found}; it needs more text, or a smaller context"
        if side == "evaluation" and len(domain.sources) == 1:
            return f"{found}, but eval_blocks={self.config.eval_blocks}; set eval_blocks={blocks} or fewer"
        if side != "train":
            wanted = "eval_blocks" if side == "evaluation" else "tokens or a larger validation share"
            return f"{found}, but {limit} are asked for; set fewer {wanted}"
        phases = sum(phase.domain == domain for phase in self.phases)
        if phases == len(domain.sources) == 1 and self.config.upstream_tokens is None:
            fits = f"set tokens={blocks * context} or fewer, or 0 for all"
            return f"{found}, but tokens={self.config.tokens}; {fits}"
        asked = f"{(limit or 0) * context} are asked of it" + (f" in {phases} phases" if phases > 1 else "")
        return f"{found} ({blocks * context} tokens), but {asked}; set fewer tokens"


def quotas(n: int, shares: Sequence[float]) -> list[int]:
    """`n` in whole numbers by share: rounded down, the largest remainders (then the first) rounded up."""
    exact = [n * share for share in shares]
    counts = [math.floor(value + 1e-9) for value in exact]
    order = sorted(range(len(shares)), key=lambda i: (counts[i] - exact[i], i))
    for i in order[: n - sum(counts)]:
        counts[i] += 1
    return counts


def _bytes_per_target(packed: list[Packed]) -> float:
    targets = sum(part.blocks[:, 1:].size for part in packed)
    return float(sum(int(part.target_bytes.sum()) for part in packed)) / targets if targets else 0.0
