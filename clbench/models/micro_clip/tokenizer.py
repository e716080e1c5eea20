"""micro-clip's tokeniser: words of a fixed vocabulary, and the bytes of every other word. No torch at import.

A text is taken apart into pieces: words, numbers and single signs. Between two pieces a space is the rule and is not
written; a mark before a piece says what else stands there, and how the word is written where not in lower case. A
piece that the vocabulary lacks is spelled: `SPELL`, then its bytes in UTF-8. So no two texts of at most `CONTEXT` - 2
tokens have the same tokens, and `decode` gives the text back. A longer one is cut, and ends in a digest of all of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

CONTEXT = 24
SIZE = 2048
VOCABULARY = Path(__file__).with_name("vocabulary.txt")

PAD, SPELL, CUT = 0, 1, 2
BEFORE = (" ", "", "-", "_")
# A word of the vocabulary as it is, with a capital, in capitals:
WRITTEN: tuple[Callable[[str], str], ...] = (str, str.capitalize, str.upper)
FIRST_MARK = CUT + 1
FIRST_BYTE = FIRST_MARK + len(BEFORE) * len(WRITTEN) - 1  # a space and lower case have no mark
FIRST_WORD = FIRST_BYTE + 256
START, END = SIZE - 2, SIZE - 1  # the end has the largest id: open_clip's text tower looks for it
WORDS = START - FIRST_WORD
DIGEST = 4  # bytes

PIECE = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+|[^\W\d_A-Za-z]+|.", re.DOTALL)
"""Words of English letters, parted where a capital follows small letters; digits; other letters; any one sign."""


@cache
def words() -> tuple[str, ...]:
    """The vocabulary's words, numbers and signs, in lower case; the first has the id `FIRST_WORD`."""
    return tuple(VOCABULARY.read_text(encoding="utf-8").split())


@cache
def _ids() -> dict[str, int]:
    return {word: FIRST_WORD + number for number, word in enumerate(words())}


def encode(text: str) -> list[int]:
    """The tokens of a text, without start, end and padding: as many as it needs."""
    found: list[int] = []
    at = 0
    while at < len(text):
        before = "" if at == 0 else _before(text, at)
        at += len(before)
        match = PIECE.match(text, at)
        assert match is not None
        found += _piece(match[0], BEFORE.index(" " if at == 0 else before))
        at = match.end()
    return found


def _before(text: str, at: int) -> str:
    """What parts the piece that ended here from the next: a space, hyphen or underscore, if anything follows it."""
    return text[at] if text[at] in BEFORE and at + 1 < len(text) else ""


def _piece(piece: str, before: int) -> list[int]:
    word = piece.lower()
    known = _ids().get(word)
    for number, written in enumerate(WRITTEN):
        if known is not None and written(word) == piece:
            return [*_mark(before, number), known]
    spelled = piece.encode("utf-8", "surrogatepass")
    return [*_mark(before, 0), SPELL, *(FIRST_BYTE + byte for byte in spelled)]


def _mark(before: int, written: int) -> list[int]:
    number = before * len(WRITTEN) + written
    return [FIRST_MARK + number - 1] if number else []


def decode(tokens: Sequence[int]) -> str:
    """The text of what `encode` gives, or of a row of `tokenize` that was not cut."""
    content = [token for token in tokens if token not in (PAD, START, END)]
    text, before, written, at = "", 0, 0, 0
    while at < len(content):
        token = content[at]
        at += 1
        if FIRST_MARK <= token < FIRST_BYTE:
            before, written = divmod(token - FIRST_MARK + 1, len(WRITTEN))
            continue
        if token == SPELL:
            end = next((i for i in range(at, len(content)) if not _is_byte(content[i])), len(content))
            piece = bytes(byte - FIRST_BYTE for byte in content[at:end]).decode("utf-8", "surrogatepass")
            at = end
        else:
            piece = WRITTEN[written](words()[token - FIRST_WORD])
        text += piece if not text else BEFORE[before] + piece
        before, written = 0, 0
    return text


def _is_byte(token: int) -> bool:
    return FIRST_BYTE <= token < FIRST_WORD


def row(text: str) -> list[int]:
    """`CONTEXT` tokens: start, the text's, end, padding."""
    tokens, room = encode(text), CONTEXT - 2
    if len(tokens) > room:
        digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=DIGEST).digest()
        tokens = [*tokens[: room - DIGEST - 1], CUT, *(FIRST_BYTE + byte for byte in digest)]
    return [START, *tokens, END, *[PAD] * (room - len(tokens))]


def tokenize(texts: Sequence[str]) -> Tensor:
    """int64 [len(texts), CONTEXT]."""
    import torch

    return torch.tensor([row(text) for text in texts], dtype=torch.int64).reshape(len(texts), CONTEXT)
