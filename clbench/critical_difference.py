"""Several strategies over several streams: Friedman's test, and which strategies it does not tell apart.

After Demsar 2006, "Statistical comparisons of classifiers over multiple data sets" (JMLR 7), and Benavoli, Corani &
Mangili 2016, "Should we really use post-hoc tests based on mean-ranks?" (JMLR 17): by Nemenyi's test two strategies may
differ or not depending on which others are in the pool; Wilcoxon's signed ranks with Holm's correction look at the two
alone. Both are given.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from clbench.statistics import holm

if TYPE_CHECKING:
    from numpy.typing import NDArray

ALPHA = 0.05
FEWEST = 2  # strategies, and streams


@dataclass(frozen=True)
class PairTest:
    """Wilcoxon's signed-rank test of two strategies over the streams; two-sided, exact.

    p_holm: corrected for all pairs.
    """

    a: str
    b: str
    p: float
    p_holm: float


@dataclass(frozen=True)
class CriticalDifference:
    """Strategies by average rank, best first, and what can be told apart.

    ranks[i][j]: of names[i] on streams[j], 1 the best, equal values share the mean of their ranks. friedman,
    friedman_p: chi-square of Friedman's test, corrected for equal ranks, and its p; iman_davenport, iman_davenport_p:
    the F statistic made from it, less conservative. nemenyi: average ranks that are closer than this critical
    difference are not told apart at 0.05. cliques: the largest groups of names in which no two are told apart.
    """

    names: list[str]
    streams: list[str]
    average_ranks: list[float]
    ranks: list[list[float]]
    friedman: float
    friedman_p: float
    iman_davenport: float | None
    iman_davenport_p: float | None
    nemenyi: float
    nemenyi_cliques: list[list[str]]
    pairs: list[PairTest]
    wilcoxon_cliques: list[list[str]]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def critical_difference(
    scores: Sequence[Sequence[float]], names: Sequence[str], streams: Sequence[str], lower_is_better: bool = False
) -> CriticalDifference:
    """scores[i][j]: of names[i] on streams[j]. Raises ValueError for fewer than two names or streams."""
    import numpy as np
    from scipy import stats

    table = np.asarray(scores, dtype=np.float64)
    if table.shape != (len(names), len(streams)) or min(table.shape) < FEWEST:
        raise ValueError("a critical difference needs a score of two strategies or more on two streams or more")
    if not lower_is_better:
        table = -table
    ranks = stats.rankdata(table, axis=0)
    average = ranks.mean(axis=1)
    order = np.lexsort((np.asarray(names), average))
    table, ranks, average = table[order], ranks[order], average[order]
    names = [names[i] for i in order]
    count, blocks = table.shape
    chi, chi_p, f, f_p = _friedman(ranks)
    critical = float(stats.studentized_range.ppf(1 - ALPHA, count, math.inf) / math.sqrt(2))
    critical *= math.sqrt(count * (count + 1) / (6 * blocks))
    near = np.abs(average[:, None] - average[None, :]) < critical
    pairs = [(i, j) for i in range(count) for j in range(i + 1, count)]
    p = np.array([_wilcoxon(table[i] - table[j]) for i, j in pairs])
    corrected = holm(p)
    tied = np.ones((count, count), dtype=bool)
    for (i, j), value in zip(pairs, corrected, strict=True):
        tied[i, j] = tied[j, i] = value >= ALPHA
    return CriticalDifference(
        names=list(names),
        streams=list(streams),
        average_ranks=[float(value) for value in average],
        ranks=[[float(value) for value in line] for line in ranks],
        friedman=chi,
        friedman_p=chi_p,
        iman_davenport=f,
        iman_davenport_p=f_p,
        nemenyi=critical,
        nemenyi_cliques=_named(cliques(near), names),
        pairs=[
            PairTest(names[i], names[j], float(raw), float(fixed))
            for (i, j), raw, fixed in zip(pairs, p, corrected, strict=True)
        ],
        wilcoxon_cliques=_named(cliques(tied), names),
    )


def cliques(tied: NDArray[Any]) -> list[list[int]]:
    """Maximal sets of two or more in which all are tied with each other (Bron & Kerbosch 1973, with pivots).

    tied: [k, k] bool, symmetric.
    """
    count = len(tied)
    beside = [{j for j in range(count) if j != i and tied[i, j]} for i in range(count)]
    found: list[list[int]] = []

    def extend(chosen: list[int], open_: set[int], done: set[int]) -> None:
        if not open_ and not done:
            if len(chosen) > 1:
                found.append(sorted(chosen))
            return
        pivot = max(open_ | done, key=lambda i: len(beside[i] & open_))
        for i in sorted(open_ - beside[pivot]):
            extend([*chosen, i], open_ & beside[i], done & beside[i])
            open_ = open_ - {i}
            done = done | {i}

    extend([], set(range(count)), set())
    return sorted(found)


def _friedman(ranks: NDArray[Any]) -> tuple[float, float, float | None, float | None]:
    """Chi-square with its p, and Iman & Davenport's F with its p (None where every stream ranks alike: F has no
    bound). ranks: [k, n]."""
    from scipy import special

    count, blocks = ranks.shape
    spread = ((ranks - (count + 1) / 2) ** 2).sum()
    if spread == 0:  # every value equal on every stream
        return 0.0, 1.0, 0.0, 1.0
    sums = ranks.sum(axis=1)
    between = ((sums - sums.mean()) ** 2).sum()
    chi = float((count - 1) * between / spread)
    chi_p = float(special.chdtrc(count - 1, chi))
    rest = blocks * (count - 1) - chi
    if rest <= 1e-9:
        return chi, chi_p, None, None
    f = (blocks - 1) * chi / rest
    return chi, chi_p, f, float(special.fdtrc(count - 1, (count - 1) * (blocks - 1), f))


def _wilcoxon(differences: NDArray[Any]) -> float:
    """Two-sided p of the signed-rank test, exact also where ranks are equal or differences 0 (which take ranks and
    count half for either side): the distribution of the positive ranks' sum over all signs, one rank after another.
    scipy.stats.wilcoxon tries all 2^n signs there: seconds a pair."""
    import numpy as np
    from scipy import stats

    ranks = np.rint(2 * stats.rankdata(np.abs(differences))).astype(int)  # doubled, so that shared ranks are integers
    ranks, positive = ranks[differences != 0], differences[differences != 0] > 0
    chance = np.ones(1)
    for rank in ranks:
        either = np.zeros(rank)
        chance = (np.concatenate([chance, either]) + np.concatenate([either, chance])) / 2
    total = int(ranks[positive].sum())
    return float(min(1.0, 2 * chance[: total + 1].sum(), 2 * chance[total:].sum()))


def _named(groups: list[list[int]], names: Sequence[str]) -> list[list[str]]:
    return [[names[i] for i in group] for group in groups]
