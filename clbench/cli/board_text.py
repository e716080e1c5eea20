"""What the formats of a leaderboard have in common: columns, cells, captions and notes, as plain text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from clbench.board_terms import CHOSEN, NEEDS, uses
from clbench.budgets import budget_text
from clbench.leaderboard import COSTS, Board, Row, Value
from clbench.metrics.definitions import COUNT, DEFINITIONS, base_key
from clbench.quantities import with_prefix
from clbench.ranking import Ranking, rank
from clbench.statistics import Estimate

INTERVAL = (
    "±: half of the mean's 95 % interval over n runs: Student's t, from five runs on the bootstrap; one run has none"
)
INVALID = (
    "invalid base: before any training the model scored less than 1.5 times chance on the held-out sets, in one run or "
    "more: retention says nothing"
)
ZERO = 1e-12


@dataclass
class Shown:
    """A board as it is printed. columns: metrics, the one that ranks first."""

    board: Board
    columns: Sequence[str]

    @property
    def metric(self) -> str:
        """What ranks the rows."""
        return self.columns[0]

    @cached_property
    def ranking(self) -> Ranking:
        """The rows compared by the metric that ranks them."""
        return rank(self.board.rows, self.metric)

    @cached_property
    def filled(self) -> list[str]:
        """The chosen metric, and those of the others that a row has a value of."""
        rows = self.board.rows
        return [key for i, key in enumerate(self.columns) if i == 0 or any(row.value(key).estimate for row in rows)]

    def place(self, i: int) -> str:
        """The ranks that row i may have."""
        placing = self.ranking.placings[i]
        return placing.label if placing else "-"


def clean(text: str) -> str:
    """Names and settings of anybody's strategies on one line, without control characters."""
    return "".join(c if c.isprintable() else " " for c in text)


def header(shown: Shown) -> list[str]:
    """The columns' names."""
    costs = ["train s", "stored", "FLOPs"]
    return ["#", "strategy", *shown.filled, "needs", *costs, "n", "verified", "chosen on"]


def cells(shown: Shown, i: int) -> list[str]:
    """The cells of row i."""
    row = shown.board.rows[i]
    marks = "".join(need.mark for key, need in NEEDS.items() if uses(row.needs, key)) or "-"
    seconds, stored, flops = (row.value(key).estimate for key in COSTS)
    return [
        shown.place(i),
        name(row),
        *([cell(row.value(key), key, len(row.runs)) for key in shown.filled] if row.runs else numberless(shown)),
        marks,
        "-" if seconds is None else f"{seconds.mean:.1f}",
        "-" if stored is None else with_prefix(stored.mean, "B"),
        "-" if flops is None else with_prefix(flops.mean),
        runs(row),
        verified(row),
        CHOSEN[row.chosen_on],
    ]


def name(row: Row) -> str:
    """The strategy, and in brackets what tells it from other rows of it."""
    return clean(row.strategy + (f" ({settings(row)})" if row.settings else ""))


def settings(row: Row) -> str:
    """The settings that tell it from other rows of its strategy."""
    return clean(row.label[len(row.strategy) + 1 :])


def numberless(shown: Shown) -> list[str]:
    """The metrics of a row of which every run diverged."""
    return ["diverged", *["-"] * (len(shown.filled) - 1)]


def runs(row: Row) -> str:
    """`3`, or `2 (+1 diverged)`."""
    return f"{len(row.runs)}" + (f" (+{row.diverged} diverged)" if row.diverged else "")


def verified(row: Row) -> str:
    """`2/3`: runs that were repeated with the same outcome; those with another outcome or from elsewhere are named."""
    more = [f"{count} {what}" for count, what in ((row.refuted, "refuted"), (row.imported, "imported")) if count]
    if not row.runs:
        return "-"
    return f"{row.verified}/{len(row.runs)}" + (f" ({', '.join(more)})" if more else "")


def cell(value: Value, key: str, runs: int) -> str:
    """`0.8123 ± 0.0123`, with the number of runs where some have no value."""
    estimate = value.estimate
    if estimate is None:
        return "-"
    text = " ± ".join(mean_and_half(estimate, key))
    return text + (f" [{estimate.n} of {runs}]" if value.left_out else "")


def mean_and_half(estimate: Estimate, key: str) -> list[str]:
    """The mean, and half of its interval where it has one: with as many decimals, or `1.23e-05` where decimals would
    not do. What is below ZERO is rounding."""
    numbers = [number for number in (estimate.mean, estimate.half_width) if number is not None]
    definition = DEFINITIONS.get(base_key(key))
    counted = definition is not None and definition.sign == COUNT
    size = max(map(abs, numbers))
    if size >= 1e6 or ZERO < size < 5e-4:
        form = ".2e"
    else:
        form = ".1f" if counted or abs(estimate.mean) >= 100 else ".4f"
    return [f"{number:{form}}" for number in numbers]


def title(board: Board) -> str:
    """Stream, data and notes."""
    return clean(f"{board.stream_label} (data {board.content[:8]})" + (f": {board.notes}" if board.notes else ""))


def about(board: Board) -> str:
    """What is equal for all rows of the board."""
    weights = f", weights {board.weights[:8]}" if board.weights else ""
    measure = f"scores are {board.primary}: higher is better"
    if board.direction == "lower":
        measure = f"scores are -{board.primary}: closer to 0 is better"
    parts = [f"{board.objective}, {board.scenario}-incremental", f"model {board.model}{weights}"]
    parts += [f"{board.head} head", f"tuned: {board.tune}", measure]
    if board.upstream:
        parts.append(f"task 0 from an upstream: {board.upstream}")
    if board.budget:
        parts.append(f"budget {budget_text(board.budget)}")
    if board.chosen_on_test:
        parts.append("hyper-parameters CHOSEN ON TEST DATA: not comparable with other boards")
    return clean("; ".join(parts))


def notes(shown: Shown, chosen: str) -> list[str]:
    """What the reader of one board has to know. chosen: the filter, in words."""
    board = shown.board
    used = [need for key, need in NEEDS.items() if any(uses(row.needs, key) for row in board.rows)]
    found = ["needs: " + "; ".join(f"{need.mark} {need.meaning}" for need in used)] if used else []
    if any(len(row.runs) > 1 for row in board.rows):
        found.append(INTERVAL)
    if len(board.rows) > 1:
        found.append(ranks_note(shown))
    if board.invalid_base:
        found.append(INVALID)
    if chosen:
        found.append(f"shown: {chosen} ({board.hidden} of {board.hidden + len(board.rows)} rows left out)")
    for row in board.rows:
        if row.other_source:
            left_out = "1 run" if row.other_source == 1 else f"{row.other_source} runs"
            found.append(f"{name(row)}: {left_out} of another source of it than the newest left out")
    return found


def ranks_note(shown: Shown) -> str:
    """How the ranks were made."""
    if shown.ranking.comparisons == 0:
        return "#: no two rows share two runs of equal task order and seed, so no rank is ruled out"
    several = f", also corrected for all {shown.ranking.comparisons} comparisons" * (shown.ranking.comparisons > 1)
    return (
        f"#: the ranks that a row may have by {shown.metric}: two rows differ where the 95 % interval of their paired "
        f"difference leaves 0 out (Student's t, each two rows on their own); --json has the p-values{several}"
    )
