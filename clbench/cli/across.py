"""`clbench leaderboard --across`: strategies compared over streams."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass

from clbench.cli.board_text import clean
from clbench.critical_difference import CriticalDifference, critical_difference
from clbench.errors import UserError
from clbench.leaderboard import Board, lower_is_better

FEW = 6  # streams: with fewer, no pair can reach 0.05 in Wilcoxon's test


@dataclass(frozen=True)
class Field:
    """What takes part: a score for each of `names` on each of `boards`. left_out: why others do not."""

    names: list[str]
    boards: list[Board]
    scores: list[list[float]]
    left_out: list[str]


def across_text(boards: Sequence[Board], metric: str, format: str) -> str:
    """Average ranks and what can be told apart, as a table, csv or json. Raises UserError for other formats, and
    where no two strategies have runs on two streams."""
    if format not in ("table", "csv", "json"):
        raise UserError(f"--across is printed as table, csv or json, not {format}; use --format")
    field = gather(boards, metric)
    if len(field.boards) < 2:
        raise UserError("--across needs boards of two streams or more with equal rows (`clbench runs list`)")
    if len(field.names) < 2:
        raise UserError(f"--across needs two strategies or more on all streams, not {_who(field.boards)}")
    labels = [_label(board) for board in field.boards]
    found = critical_difference(field.scores, field.names, labels, lower_is_better(metric))
    if format == "json":
        answer = {"metric": metric, **found.as_dict(), "left_out": field.left_out}
        return json.dumps(answer, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    return _csv(found) if format == "csv" else _table(found, metric, field.left_out)


def gather(boards: Sequence[Board], metric: str) -> Field:
    """One board for each data: the one with most rows; of its rows those that every board has (by label).

    Boards of settings chosen on test data, and rows that see all data, do not take part.
    """
    chosen: dict[tuple[str, str], Board] = {}
    left_out: list[str] = []
    for board in sorted(boards, key=lambda board: -len(_scores(board, metric))):
        place = (board.stream, board.content)
        if board.chosen_on_test:
            left_out.append(f"{_label(board)}: settings chosen on test data")
        elif place in chosen:
            left_out.append(f"{_label(board)}: another board of the same data has more rows (model {board.model})")
        else:
            chosen[place] = board
    found = sorted(chosen.values(), key=lambda board: (board.stream, board.content))
    scores = [_scores(board, metric) for board in found]
    names = sorted(set.intersection(*(set(score) for score in scores))) if scores else []
    partly = sorted({name for score in scores for name in score} - set(names))
    left_out += [f"{name}: not on every stream" for name in partly]
    return Field(names, found, [[score[name] for score in scores] for name in names], left_out)


def _scores(board: Board, metric: str) -> dict[str, float]:
    values = {clean(row.label): row.value(metric).estimate for row in board.rows if not row.needs.get("sees_all_data")}
    return {label: value.mean for label, value in values.items() if value is not None}


def _who(boards: Sequence[Board]) -> str:
    return "; ".join(f"{_label(board)}: {', '.join(clean(row.label) for row in board.rows[:4])}" for board in boards)


def _label(board: Board) -> str:
    return clean(f"{board.stream} {board.content[:8]}")


def _csv(found: CriticalDifference) -> str:
    from clbench.cli.board_formats import safe_cell

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([safe_cell(value) for value in ("strategy", "average_rank", *found.streams)])
    for name, average, ranks in zip(found.names, found.average_ranks, found.ranks, strict=True):
        writer.writerow([safe_cell(name), average, *ranks])
    return text.getvalue()


def _table(found: CriticalDifference, metric: str, left_out: Sequence[str]) -> str:
    from clbench.cli.text import columns

    count = len(found.streams)
    rows = [["", "average rank", *(str(number) for number in range(1, count + 1))]]
    for name, average, ranks in zip(found.names, found.average_ranks, found.ranks, strict=True):
        rows.append([name, f"{average:.3f}", *(f"{rank:g}" for rank in ranks)])
    test = f"Friedman chi2({len(found.names) - 1}) = {found.friedman:.2f}, p = {found.friedman_p:.4f}"
    if found.iman_davenport is not None and found.iman_davenport_p is not None:
        test += f"; Iman-Davenport F = {found.iman_davenport:.2f}, p = {found.iman_davenport_p:.4f}"
    lines = [f"ranks by {metric} on {count} streams, 1 is best", *columns(rows)]
    lines += [f"  {number}: {stream}" for number, stream in enumerate(found.streams, 1)]
    lines += ["", test, f"Nemenyi, 0.05: critical difference of average ranks {found.nemenyi:.3f}"]
    lines += _groups(found.nemenyi_cliques)
    lines += ["Wilcoxon's signed ranks, corrected by Holm, 0.05"]
    lines += _groups(found.wilcoxon_cliques)
    lines += [f"  {t.a} - {t.b}: p = {t.p:.4f}, corrected {t.p_holm:.4f}" for t in found.pairs if t.p < 0.05]
    if count < FEW:
        lines.append(f"with {count} streams Wilcoxon's test cannot reach 0.05 (it takes {FEW}), whatever the scores")
    lines += [f"left out: {text}" for text in left_out]
    return "\n".join(lines) + "\n"


def _groups(groups: Sequence[Sequence[str]]) -> list[str]:
    return [f"  not told apart: {', '.join(group)}" for group in groups] or ["  all are told apart"]
