"""The evaluation table: which set scored what, after how many steps. Every metric is a function of it."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from clbench.errors import UserError

KINDS = ("boundary", "trace")
ROLES = ("", "adaptation", "held-out")
WEIGHTS = ("deploy", "train", "anneal")
LARGEST_STEP = 2**63 - 1

RowKey = tuple[int, int, str, str, str, str]


@dataclass(frozen=True, slots=True)
class Row:
    """One evaluation of one set.

    step: optimiser steps done so far. tasks_seen: tasks completed, `end_task` included.
    value: the score; None = measured but not scorable; NaN or infinite = diverged.
    n: samples scored. belongs_to: index of the task the set belongs to, None = held out.
    kind: `boundary` (full evaluation at a task's end) or `trace` (continual, on the fixed subset).
    weights: which weights were scored. se: standard error of the paired per-sample difference to the row at
    the last switch. base: chance accuracy, or unigram cross-entropy, of the set. role: `adaptation` for a set that the
    stream as a whole adapts to, `held-out` for one of what was known before, "" where a stream has no such parts.
    """

    step: int
    tasks_seen: int
    eval_set: str
    value: float | None
    n: int | None = None
    belongs_to: int | None = None
    kind: Literal["boundary", "trace"] = "boundary"
    metric: str = "value"
    weights: Literal["deploy", "train", "anneal"] = "deploy"
    se: float | None = None
    base: float | None = None
    role: Literal["", "adaptation", "held-out"] = ""

    @property
    def key(self) -> RowKey:
        """What makes the row unique in a table."""
        return (self.step, self.tasks_seen, self.eval_set, self.kind, self.metric, self.weights)

    def to_json(self) -> str:
        """One line of JSON, without the newline. NaN and infinities become the strings nan, inf, -inf."""
        fields = {name: getattr(self, name) for name in columns_of([self])}
        return json.dumps({name: _to_plain(value) for name, value in fields.items()}, ensure_ascii=False)

    @classmethod
    def from_json(cls, line: str) -> Row:
        """The row `to_json` wrote, every float bit for bit. Raises UserError for a damaged line."""
        try:
            fields = json.loads(line)
            row = cls(**{name: _from_plain(name, value) for name, value in fields.items()})
        except (ValueError, TypeError, AttributeError) as error:
            message = f"damaged line in an evaluation log: {error}: {line.strip()[:80]!r}; drop the line"
            raise UserError(message) from None
        fault = row_fault(row)
        if fault:
            raise UserError(f"damaged line in an evaluation log: {fault}; drop the line")
        return row


COLUMNS = tuple(field.name for field in dataclasses.fields(Row))
_FLOATS = ("value", "se", "base")


def columns_of(rows: Iterable[Row]) -> tuple[str, ...]:
    """The columns that a table of these rows is written with: `role` where a row has one."""
    return COLUMNS if any(row.role for row in rows) else tuple(name for name in COLUMNS if name != "role")


class EvaluationTable:
    """Rows in the order they were measured; no two with the same key, one `belongs_to` and one role for every set."""

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self._rows: list[Row] = []
        self._position: dict[RowKey, int] = {}
        self._owner: dict[str, int | None] = {}
        self._role: dict[str, str] = {}
        self.extend(rows)

    def append(self, row: Row) -> None:
        """Add a row. Raises UserError where it is malformed, a duplicate, or contradicts an earlier row."""
        fault = row_fault(row) or self._conflict(row)
        if fault:
            raise UserError(f"evaluation table, row {len(self._rows) + 1}: {fault}")
        self._position[row.key] = len(self._rows)
        self._owner.setdefault(row.eval_set, row.belongs_to)
        self._role.setdefault(row.eval_set, row.role)
        self._rows.append(row)

    def extend(self, rows: Iterable[Row]) -> None:
        for row in rows:
            self.append(row)

    @property
    def rows(self) -> list[Row]:
        """A copy of the list of rows."""
        return list(self._rows)

    @property
    def last_step(self) -> int:
        """Step of the row added last, those of branches (weights `anneal`) left out; -1 while there is none."""
        return next((row.step for row in reversed(self._rows) if row.weights != "anneal"), -1)

    def truncate(self, n: int) -> None:
        """Keep the first `n` rows (a checkpoint stores the length of the table up to it)."""
        if not 0 <= n <= len(self._rows):
            raise ValueError(f"cannot keep {n} of {len(self._rows)} rows")
        kept = self._rows[:n]
        self._rows, self._position, self._owner, self._role = [], {}, {}, {}
        self.extend(kept)

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows)

    def write(self, path: str | Path) -> None:
        """Write as Parquet with a fixed schema, atomically. Raises UserError if the disk refuses."""
        from clbench.table_files import write_parquet

        write_parquet(self._rows, Path(path))

    @classmethod
    def read(cls, path: str | Path) -> EvaluationTable:
        """Read anybody's log, CSV or Parquet.

        Required columns: step, tasks_seen, eval_set, value; the others of `Row` are optional. Without a
        `belongs_to` column, sets belong to tasks in their order of appearance; in such a column an empty
        cell means held out. Columns of other names are ignored. Raises UserError naming file, row and column.
        """
        from clbench.table_files import read_rows

        table = cls()
        for place, row in read_rows(Path(path)):
            fault = row_fault(row) or table._conflict(row)
            if fault:
                raise UserError(f"{place}: {fault}")
            table.append(row)
        return table

    def _conflict(self, row: Row) -> str | None:
        if row.key in self._position:
            return (
                f"the same evaluation as row {self._position[row.key] + 1} (step {row.step}, "
                f"tasks_seen {row.tasks_seen}, eval_set {row.eval_set!r}, kind {row.kind}, "
                f"metric {row.metric!r}, weights {row.weights}); keep one of them"
            )
        owner = self._owner.get(row.eval_set, row.belongs_to)
        if owner != row.belongs_to:
            return (
                f"eval_set {row.eval_set!r} has belongs_to {_owner_text(row.belongs_to)} here and "
                f"{_owner_text(owner)} in an earlier row; give it the same in every row"
            )
        role = self._role.get(row.eval_set, row.role)
        if role != row.role:
            return (
                f"eval_set {row.eval_set!r} has role {row.role or 'empty'} here and {role or 'empty'} in an earlier "
                "row; give it the same in every row"
            )
        return None


def row_fault(row: Row) -> str | None:
    """What is wrong with a row taken alone, and the remedy; None if nothing is."""
    for name in ("step", "tasks_seen", "n", "belongs_to"):
        number = getattr(row, name)
        if number is None and name in ("n", "belongs_to"):
            continue
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= LARGEST_STEP:
            return f"{name} is {number!r}; it must be a whole number, 0 or more"
    for name in _FLOATS:
        number = getattr(row, name)
        if number is not None and (isinstance(number, bool) or not isinstance(number, (int, float))):
            return f"{name} is {number!r}; it must be a number, or empty"
    for name in ("eval_set", "metric"):
        text = getattr(row, name)
        if not isinstance(text, str) or not text.strip():
            return f"{name} is {text!r}; it must be a name"
    if row.kind not in KINDS:
        return f"kind is {row.kind!r}; it must be boundary or trace"
    if row.weights not in WEIGHTS:
        return f"weights is {row.weights!r}; it must be deploy, train or anneal"
    if row.role not in ROLES:
        return f"role is {row.role!r}; it must be adaptation, held-out or empty"
    if row.role == "held-out" and row.belongs_to is not None:
        return f"role is held-out, and belongs_to {row.belongs_to}; a held-out set belongs to no task: leave one empty"
    return _uncertainty_fault(row)


def _uncertainty_fault(row: Row) -> str | None:
    diverged = row.value is not None and not math.isfinite(row.value)
    for name in ("se", "base"):
        number = getattr(row, name)
        if number is not None and not math.isfinite(number) and not diverged:
            return f"{name} is {number}, beside a value that is finite; leave it empty where it is unknown"
    if row.se is not None and row.se < 0:
        return f"se is {row.se}; a standard error is 0 or more"
    return None


def _owner_text(owner: int | None) -> str:
    return "empty (held out)" if owner is None else str(owner)


def _to_plain(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _from_plain(name: str, value: Any) -> Any:
    return float(value) if name in _FLOATS and value in ("nan", "inf", "-inf") else value
