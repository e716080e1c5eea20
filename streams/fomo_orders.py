"""The orders in which a stream's concepts come.

An order is a permutation of concept keys. What is random in it is drawn for each name on its own, so that another set
more leaves the order of all others as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from clbench.errors import UserError, did_you_mean

from .keyed import draw, shuffled

REVERSE = "reverse:"


@dataclass
class Known:
    """What orders are made from: keys of the concepts, as listed, and of each its set; the sets' years; counts of
    each concept in the pre-training; and of a base model, its score of each concept (float [n], high is easy) and the
    normalised embedding of its primer (float [n, d]). The last ones are functions: not every order needs them."""

    keys: list[str]
    set_of: Mapping[str, str]
    years: Mapping[str, int | None]
    counts: Callable[[], np.ndarray]
    scores: Callable[[str], np.ndarray]
    embeddings: Callable[[], np.ndarray]
    clusters: int = 10


def ordered(kind: str, known: Known, seed: int) -> list[str]:
    """The keys in the order of that kind; `reverse:KIND` is its exact reversal. Raises UserError."""
    if kind.startswith(REVERSE):
        return ordered(kind.removeprefix(REVERSE), known, seed)[::-1]
    if kind not in ORDERS:
        raise UserError(f"unknown ordering {kind!r}{did_you_mean(kind, ORDERS)} (or {REVERSE}KIND)")
    return ORDERS[kind](known, seed)


def check_kind(kind: str) -> str:
    """The kind, if there is such an order. Raises ValueError."""
    base = kind.removeprefix(REVERSE)
    if base not in ORDERS:
        raise ValueError(f"there are the orderings {', '.join(ORDERS)}, and {REVERSE} before any of them")
    return kind


def _listed(known: Known, seed: int) -> list[str]:
    """As the sets are listed, classes as in the source."""
    return list(known.keys)


def _random(known: Known, seed: int) -> list[str]:
    return shuffled(known.keys, seed, "random")


def _by_dataset(known: Known, seed: int) -> list[str]:
    """Sets in a random order, each contiguous, its concepts in a random order."""
    sets = shuffled(set(known.set_of.values()), seed, "dataset")
    place = {name: i for i, name in enumerate(sets)}
    return sorted(_random(known, seed), key=lambda key: place[known.set_of[key]])


def _time_chunk(known: Known, seed: int) -> list[str]:
    """By year; of one year set after set."""
    return sorted(_by_dataset(known, seed), key=_year(known))


def _time_mix(known: Known, seed: int) -> list[str]:
    """By year; the concepts of one year shuffled together."""
    return sorted(_random(known, seed), key=_year(known))


def _year(known: Known) -> Callable[[str], int]:
    years: dict[str, int] = {}
    for name, year in known.years.items():
        if year is None:
            raise UserError(
                f"an order by time needs the year of every set, and that of {name} is not known: "
                f"years={{{name}: 2014}}, or `year` in its info.json"
            )
        years[name] = year
    return lambda key: years[known.set_of[key]]


def _frequency(known: Known, seed: int) -> list[str]:
    """From concepts that captions of the pre-training seldom name to those they often name; ties at random."""
    return _ascending(known, known.counts(), seed)


def _by_score(score: str) -> Callable[[Known, int], list[str]]:
    """From what the base model knows to what it does not."""

    def order(known: Known, seed: int) -> list[str]:
        return _ascending(known, -known.scores(score), seed)

    return order


def _ascending(known: Known, values: np.ndarray, seed: int) -> list[str]:
    value = dict(zip(known.keys, values.tolist(), strict=True))
    return sorted(known.keys, key=lambda key: (value[key], draw(seed, "ties", key)))


def _similarity(known: Known, seed: int) -> list[str]:
    """A walk from concept to concept: from a random one to the nearest that is left, by the cosine of the primers."""
    vectors = known.embeddings()
    at = min(range(len(known.keys)), key=lambda i: draw(seed, "start", known.keys[i]))
    left = np.ones(len(vectors), bool)
    walk = [at]
    for _ in range(len(vectors) - 1):
        left[at] = False
        at = int(np.where(left, vectors @ vectors[at], -np.inf).argmax())
        walk.append(at)
    return [known.keys[i] for i in walk]


def _cluster(known: Known, seed: int) -> list[str]:
    """Groups of concepts with near primers (k-means), one group after another, in a random order."""
    group = kmeans(known.embeddings(), known.clusters, [draw(seed, "centre", key) for key in known.keys])
    place = {key: draw(seed, "cluster", int(g)) for key, g in zip(known.keys, group.tolist(), strict=True)}
    return sorted(_random(known, seed), key=lambda key: place[key])


def kmeans(vectors: np.ndarray, k: int, draws: Sequence[int], rounds: int = 50) -> np.ndarray:
    """int64 [n]: the cluster of each row, Lloyd's iterations from the rows of the k smallest draws."""
    centres = vectors[np.argsort(np.array(draws, np.uint64), kind="stable")[:k]].astype(np.float64)
    group = np.full(len(vectors), -1)
    for _ in range(rounds):
        distance = (centres * centres).sum(1) - 2 * vectors @ centres.T
        nearest = distance.argmin(1)
        if (nearest == group).all():
            break
        group = nearest
        for number in range(len(centres)):
            if (group == number).any():
                centres[number] = vectors[group == number].mean(0)
    return group


def neighbour_cosine(vectors: np.ndarray) -> float:
    """The mean cosine of each normalised row with the next one."""
    return float((vectors[1:] * vectors[:-1]).sum(1).mean()) if len(vectors) > 1 else 1.0


ORDERS: dict[str, Callable[[Known, int], list[str]]] = {
    "listed": _listed,
    "random": _random,
    "dataset": _by_dataset,
    "time_chunk": _time_chunk,
    "time_mix": _time_mix,
    "frequency": _frequency,
    "easy_hard": _by_score(""),
    "loss": _by_score("loss_all"),
    "similarity": _similarity,
    "cluster": _cluster,
}
NEEDS_MODEL = ("easy_hard", "loss", "similarity", "cluster")
