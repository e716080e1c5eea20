"""Generated text domains: no download, equal on every machine, as many documents as one wants."""

from __future__ import annotations

import string
from collections.abc import Callable, Iterator
from functools import cache
from itertools import count
from random import Random

from clbench.errors import UserError, did_you_mean
from clbench.rng import derive_seed

from .generated_code import Program
from .generated_prose import Fact, Language, drifted

VERSION = 1  # of the texts below; a change of any of them is a new one
MONTHS = ("month1", "month2", "month3", "month4", "month5", "month6")
DOMAINS = ("prose", "prose2", "code", "math", "cipher", *MONTHS)
FACTS_OF_A_MONTH = 0.5  # share of its sentences: facts are what drifts, so they are told often


def documents(name: str, seed: int = 0, kappa: float = 1.0, drift: float = 0.25) -> Iterator[str]:
    """The documents of a domain, one after another without end; document i depends on (name, seed, i) and the shift.

    seed: of the documents; the language, its facts and the cipher's key never change. kappa: `cipher` only, the
    share of the alphabet that is permuted. drift: `month1`, `month2`, ... only, the share of the facts that change
    from one month to the next. Raises `UserError` for an unknown name.
    """
    if name not in DOMAINS:
        raise UserError(f"unknown generated domain {name!r}{did_you_mean(name, DOMAINS)}")
    source = "prose" if name == "cipher" else name
    table = letter_map(kappa) if name == "cipher" else {}
    write = _writer(name, drift)
    for index in count():
        text = write(Random(derive_seed(seed, source, index)))
        yield text.translate(table) if table else text


def generate(name: str, size: int, seed: int = 0, kappa: float = 1.0, drift: float = 0.25) -> list[str]:
    """The first documents of a domain, until they hold `size` bytes (all domains are ASCII)."""
    chosen: list[str] = []
    total = 0
    for text in documents(name, seed, kappa, drift):
        if total >= size:
            break
        chosen.append(text)
        total += len(text)
    return chosen


def letter_map(kappa: float) -> dict[int, str]:
    """A cipher as a table for `str.translate`: round(26 kappa) letters, upper case alike, move in one cycle.

    The letters are taken in a fixed keyed order, so those that move at one kappa also move at any larger one. (One
    letter alone cannot move.)
    """
    letters = sorted(string.ascii_lowercase, key=lambda letter: derive_seed(0, "cipher", letter))
    moved = letters[: round(kappa * len(letters))]
    table: dict[int, str] = {}
    for letter, image in zip(moved, moved[1:] + moved[:1], strict=True):
        table[ord(letter)] = image
        table[ord(letter.upper())] = image.upper()
    return table


def _writer(name: str, drift: float) -> Callable[[Random], str]:
    """What makes a document of a domain (`cipher` is enciphered afterwards)."""
    if name in MONTHS:
        return _month(MONTHS.index(name) + 1, drift).document
    if name == "code":
        return lambda random: Program(random).text()
    if name == "math":
        return _arithmetic
    return (_prose2() if name == "prose2" else _prose()).document


def facts_of_month(number: int, drift: float) -> list[Fact]:
    """What is true in a month: the facts of `prose` in the first, then `drift` of them (rounded) change each month."""
    return drifted(_prose().facts, 0, number - 1, drift)


@cache
def _month(number: int, drift: float) -> Language:
    language = Language(seed=0, share_of_facts=FACTS_OF_A_MONTH)
    language.facts = facts_of_month(number, drift)
    return language


@cache
def _prose() -> Language:
    return Language(seed=0)


@cache
def _prose2() -> Language:
    return Language(seed=0, replaced=0.5, reverse_topics=True)


def _arithmetic(random: Random) -> str:
    """20 to 40 lines of true sums (`127+45=172`) and remainders (`127*45%13=8`)."""
    lines = []
    for _ in range(20 + int(random.random() * 21)):
        left, right = (_number(random) for _ in range(2))
        if random.random() < 0.6:
            lines.append(f"{left}+{right}={left + right}")
        else:
            modulus = 2 + int(random.random() * 18)
            lines.append(f"{left}*{right}%{modulus}={left * right % modulus}")
    return "\n".join(lines) + "\n"


def _number(random: Random) -> int:
    """Of two or three digits, equally often."""
    return int(10 + 90 * random.random()) if random.random() < 0.5 else int(100 + 900 * random.random())
