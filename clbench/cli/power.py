"""`clbench power`: how many seeds it takes to tell two rows apart."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clbench.board_filter import Filter
from clbench.board_records import board_records, warn_left_out
from clbench.cli.board_text import clean
from clbench.errors import UserError, did_you_mean
from clbench.leaderboard import Board, Row, make_boards
from clbench.power import ALPHA, MOST, POWER, Plan, plan, spread
from clbench.ranking import row_values
from clbench.statistics import paired_difference

Answer = tuple[Plan, dict[str, Any], str]  # the plan, what it is about for JSON, and in a line


@dataclass(frozen=True)
class Asked:
    """The options of `clbench power`."""

    rows: tuple[str, ...]
    stream: str | None = None
    model: str | None = None
    metric: str = "average"
    difference: float | None = None
    sd: float | None = None
    pairs: int | None = None
    power: float = POWER
    alpha: float = ALPHA
    comparisons: int = 1


def power_command(asked: Asked, results: Path, as_json: bool) -> None:
    """Print how many pairs of runs are needed, and what those there are can show. Raises UserError."""
    _check(asked)
    found, about, text = _from_sd(asked) if asked.sd is not None else _from_rows(asked, results)
    if as_json:
        sys.stdout.write(json.dumps(about | found.as_dict(), indent=1, allow_nan=False, ensure_ascii=False) + "\n")
    else:
        sys.stdout.write("\n".join([text, *_lines(found, asked)]) + "\n")


def _check(asked: Asked) -> None:
    if asked.sd is None and len(asked.rows) != 2:
        raise UserError("name two rows, as in: clbench power replay finetune --stream split-digits; or give --sd")
    if asked.sd is not None and asked.rows:
        raise UserError("rows and --sd are both given: the spread comes from one of them")
    for name, value in (("--sd", asked.sd), ("--difference", asked.difference)):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise UserError(f"{name} {value:g}: give a positive number, in units of the metric")
    for name, share in (("--power", asked.power), ("--alpha", asked.alpha)):
        if not 0 < share < 1:
            raise UserError(f"{name} {share:g}: give a number between 0 and 1")
    if asked.comparisons < 1:
        raise UserError(f"--comparisons {asked.comparisons}: give 1 or more")
    if asked.pairs is not None and asked.sd is None:
        raise UserError("--pairs goes with --sd: two rows have the pairs they have")
    if asked.pairs is not None and asked.pairs < 2:
        raise UserError(f"--pairs {asked.pairs}: a paired test needs 2 or more")


def _from_sd(asked: Asked) -> Answer:
    assert asked.sd is not None
    if asked.difference is None and asked.pairs is None:
        raise UserError("--sd alone says nothing: give --difference (how many pairs?) or --pairs (what can they show?)")
    shares = (asked.power, asked.alpha, asked.comparisons)
    found = plan(asked.sd, asked.difference, asked.pairs, *shares, observed=False)
    return found, {}, f"paired differences with standard deviation {asked.sd:g}"


def _from_rows(asked: Asked, results: Path) -> Answer:
    board, first, second = _find(asked, results)
    a, b = row_values(first, asked.metric), row_values(second, asked.metric)
    unit, differences = _differences(a, b)
    if len(differences) < 2:
        raise UserError(
            f"{first.label} and {second.label} share {len(differences)} runs of equal task order and seed with a value "
            f"of {asked.metric}: the spread needs two or more (`clbench run ... --seeds 0-2`), or give --sd"
        )
    sd, mean = spread(differences), math.fsum(differences) / len(differences)
    if sd <= 1e-12 * max(map(abs, [*a.values(), *b.values()])):
        raise UserError(
            f"all {len(differences)} pairs of {first.label} and {second.label} differ by the same {mean:g}: "
            "no spread to plan with; give --sd"
        )
    wanted = asked.difference if asked.difference is not None else mean
    found = plan(sd, wanted, len(differences), asked.power, asked.alpha, asked.comparisons)
    text = f"{first.label} - {second.label} on {board.stream} (data {board.content[:8]}, model {board.model})"
    about = {
        "rows": [first.label, second.label],
        "metric": asked.metric,
        "observed": mean,
        "unit": unit,
        **board.as_dict(),
    }
    more = f"{asked.metric} {mean:+.4g}, standard deviation {sd:.4g} over {len(differences)} pairs of {unit}"
    return found, about, f"{clean(text)}: {more}"


def _differences(a: dict[Hashable, float], b: dict[Hashable, float]) -> tuple[str, list[float]]:
    """What the paired test counts: a difference for each pair of runs, or the mean for each task order."""
    found = paired_difference(a, b)
    if found is None or not found.orders:
        return "runs", [a[key] - b[key] for key in sorted(a.keys() & b.keys(), key=repr)]
    by_order: dict[Hashable, list[float]] = {}
    for key in sorted(a.keys() & b.keys(), key=repr):
        by_order.setdefault(key[0] if isinstance(key, tuple) else key, []).append(a[key] - b[key])
    return "orders", [math.fsum(values) / len(values) for values in by_order.values()]


def _find(asked: Asked, results: Path) -> tuple[Board, Row, Row]:
    """The one board that has both rows."""
    records = board_records(results, stream=asked.stream)
    boards = make_boards(records, asked.metric, asked.stream, warn_left_out, Filter(model=asked.model))
    rows = {name for board in boards for row in board.rows if row.runs for name in (row.strategy, row.label)}
    for name in asked.rows:
        if name not in rows:
            where = f" on {asked.stream}" if asked.stream else ""
            raise UserError(f"no finished runs of {name!r}{where} in {results}{did_you_mean(name, rows)}")
    fits = [board for board in boards if all(_named(board, name) for name in asked.rows)]
    if not fits:
        places = "; ".join(f"{name}: {_places(b for b in boards if _named(b, name))}" for name in asked.rows)
        raise UserError(f"{asked.rows[0]} and {asked.rows[1]} share no board ({places}), so they are not compared")
    if len(fits) > 1:
        raise UserError(
            f"{asked.rows[0]} and {asked.rows[1]} share {len(fits)} boards ({_places(fits)}): narrow --stream, --model"
        )
    first, second = (_one(fits[0], name) for name in asked.rows)
    if first is second:
        raise UserError(f"{asked.rows[0]!r} and {asked.rows[1]!r} are the same row: name two")
    return fits[0], first, second


def _places(boards: Iterable[Board]) -> str:
    return ", ".join(sorted({f"{board.stream} with {board.model}" for board in boards}))


def _named(board: Board, name: str) -> list[Row]:
    rows = [row for row in board.rows if row.runs]
    exact = [row for row in rows if row.label == name]
    return exact or [row for row in rows if row.strategy == name]


def _one(board: Board, name: str) -> Row:
    rows = _named(board, name)
    if len(rows) > 1:
        labels = ", ".join(repr(row.label) for row in rows)
        raise UserError(f"{name!r} is {len(rows)} rows of the board; name one in full: {labels}")
    return rows[0]


def _lines(found: Plan, asked: Asked) -> Sequence[str]:
    level = f"alpha {found.alpha:g}" + (f" / {found.comparisons} comparisons" if found.comparisons > 1 else "")
    test = f"two-sided paired t-test, {level}, power {found.power:g}"
    lines = [test]
    if found.difference == 0:
        lines.append("  their mean difference is 0: give the --difference to plan for")
    elif found.difference is not None:
        what = f"a difference of {abs(found.difference):.4g}" + ("" if asked.difference else " (the one observed)")
        lines.append(f"  to show {what}: {_count(found.n)} pairs")
        if found.sd_upper is not None:
            lines.append(
                f"  {_count(found.n_upper)} if the spread is {found.sd_upper:.4g}, the upper 80 % limit that "
                f"{found.pairs} pairs leave: plan with this one"
            )
    if found.smallest is not None:
        lines.append(f"  {found.pairs} pairs show a difference of {found.smallest:.4g} or more")
    return lines


def _count(n: int | None) -> str:
    return f"more than {MOST}" if n is None else str(n)
