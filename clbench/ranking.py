"""Ranks of the rows of a board, with ties: what the paired differences between them do and do not show."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from clbench.leaderboard import Row, lower_is_better, metric_value
from clbench.statistics import Difference, Key, PairedTests, difference_at, holm, paired_tests

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Placing:
    """The ranks a row may have, among the rows with a value.

    first: 1 + the number of rows shown to be better. last: the number of rows minus those shown to be worse. A row is
    shown to be better where the 95 % interval of the paired difference leaves 0 out; every two rows are compared on
    their own, so nothing has to be transitive.
    """

    first: int
    last: int

    @property
    def label(self) -> str:
        """`2`, or `1-3` where several ranks are possible."""
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


@dataclass
class Ranking:
    """Rows compared by one metric, each with each. Rows are named by their index.

    values[i]: of row i by (order hash, run seed). means[i]: None where row i has no value.
    """

    metric: str
    lower_is_better: bool
    values: Sequence[Mapping[Any, float]]
    means: list[float | None]
    _cache: dict[tuple[int, int], Difference | None] = field(default_factory=dict, repr=False)

    def difference(self, a: int, b: int) -> Difference | None:
        """Row a minus row b, p corrected by Holm for all `comparisons`; None where no runs of the two pair up."""
        if (a, b) not in self._cache:
            i, sign = self._place(a, b)
            found = difference_at(self._tests, i, self._corrected(i))
            if found is not None and sign < 0:
                low, high = (None if end is None else -end for end in (found.high, found.low))
                found = Difference(-found.mean, low, high, found.n, found.p, found.p_holm, found.orders, found.reason)
            self._cache[a, b] = found
        return self._cache[a, b]

    def better(self, a: int, b: int) -> bool:
        """Whether row a is shown to be better than row b."""
        return bool(self._better[a, b])

    def tied(self, a: int, b: int) -> bool:
        """Whether neither of two rows with a value is shown to be better than the other."""
        has_values = self.means[a] is not None and self.means[b] is not None
        return has_values and not self._better[a, b] and not self._better[b, a]

    @property
    def best(self) -> int | None:
        """The row with the best mean; None where no row has a value."""
        sign = 1 if self.lower_is_better else -1
        ranked = [(sign * mean, i) for i, mean in enumerate(self.means) if mean is not None]
        return min(ranked)[1] if ranked else None

    @cached_property
    def placings(self) -> list[Placing | None]:
        """One for each row; None where it has no value."""
        ranked = sum(mean is not None for mean in self.means)
        above, below = self._better.sum(axis=0), self._better.sum(axis=1)
        return [
            None if mean is None else Placing(1 + int(above[i]), ranked - int(below[i]))
            for i, mean in enumerate(self.means)
        ]

    @property
    def comparisons(self) -> int:
        """How many pairs of rows could be tested: what Holm's correction corrects for."""
        import numpy as np

        return int((~np.isnan(self._tests.p)).sum())

    def describe(self, a: int, b: int) -> dict[str, Any]:
        """The difference of two rows for JSON; the same keys with null, and the reason, where there is none."""
        found = self.difference(a, b)
        if found is not None:
            return found.as_dict()
        missing = dict.fromkeys(("mean", "low", "high", "p", "p_holm", "orders"))
        return {**missing, "n": 0, "reason": NO_PAIRS}

    @cached_property
    def _tests(self) -> PairedTests:
        """Of every pair of rows (i, j), i < j, one line after another."""
        import numpy as np

        keys = sorted({key for row in self.values for key in row}, key=repr)
        orders = [key[0] if isinstance(key, tuple) and key else key for key in keys]
        table = np.full((len(self.values), len(keys)), np.nan)
        column = {key: number for number, key in enumerate(keys)}
        for i, row in enumerate(self.values):
            for key, value in row.items():
                table[i, column[key]] = value
        parts = [paired_tests(table[i : i + 1], table[i + 1 :], orders) for i in range(len(table) - 1)]
        names = ("mean", "low", "high", "p", "n", "orders")
        if not parts:
            return PairedTests(*(np.zeros(0) for _ in names))
        return PairedTests(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    @cached_property
    def _holm(self) -> NDArray[Any]:
        return holm(self._tests.p)

    @cached_property
    def _better(self) -> NDArray[Any]:
        """[rows, rows] bool: row i is shown to be better than row j."""
        import numpy as np

        count = len(self.values)
        better = np.zeros((count, count), dtype=bool)
        i, j = np.triu_indices(count, 1)
        lower, higher = self._tests.high < 0, self._tests.low > 0  # False for NaN
        better[i, j], better[j, i] = (lower, higher) if self.lower_is_better else (higher, lower)
        return better

    def _corrected(self, i: int) -> float | None:
        value = float(self._holm[i])
        return None if value != value else value

    def _place(self, a: int, b: int) -> tuple[int, int]:
        """Where the test of two rows stands, and the sign it has to be given."""
        if a == b:
            raise ValueError("a row is not compared with itself")
        i, j = min(a, b), max(a, b)
        return i * len(self.values) - i * (i + 1) // 2 + j - i - 1, 1 if a < b else -1


NO_PAIRS = "no runs of the two have equal task order and seed"


def rank(rows: Sequence[Row], metric: str) -> Ranking:
    """Compare the rows of a board, each with each, by a metric; in the order of the rows."""
    values = [row_values(row, metric) for row in rows]
    return rank_values(values, lower_is_better(metric), metric)


def rank_values(values: Sequence[Mapping[Key, float]], lower: bool, metric: str = "value") -> Ranking:
    """The same from plain numbers: for each row, value by (order, seed)."""
    means = [sum(row.values()) / len(row) if row else None for row in values]
    return Ranking(metric, lower, values, means)


def row_values(row: Row, metric: str) -> dict[Hashable, float]:
    """A metric of a row's runs by (order hash, run seed), without those that have no value."""
    found = {key: metric_value(record, metric) for key, record in row.seeds.items()}
    return {key: value for key, value in found.items() if value is not None}
