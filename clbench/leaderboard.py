"""The leaderboard: finished runs, gathered into boards of what may be compared and rows of what may be averaged.

Records come from `clbench.board_records`; ranks are in `clbench.ranking`, filters in `clbench.board_filter`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clbench.board_records import FINISHED, VERIFIED, last_verdict
from clbench.board_terms import CHOSEN
from clbench.engine.world import ALONE
from clbench.errors import UserError, did_you_mean
from clbench.metrics.definitions import BETTER, DEFINITIONS, GAIN, base_key
from clbench.record import Record
from clbench.statistics import Estimate, mean_interval
from clbench.upstream import same_for_all

if TYPE_CHECKING:
    from clbench.board_filter import Filter

COLUMNS = ("average", "average_incremental", "forgetting", "gap_depth", "retention")
LOSS_COLUMNS = ("average", "bits_per_byte:average", "adaptation", "forgetting", "gap_depth", "retention")
ROLE_COLUMNS = (
    "geometric_mean",
    "knowledge_accumulation",
    "zero_shot_retention",
    "gap_heldout_depth",
    "average",
    "transfer",
    "forgetting",
)
COSTS = ("seconds_train", "stored_bytes", "flops_train")
MORE_IS_BETTER = ("samples_per_second",)
LARGEST = 1e150  # squares of larger numbers overflow
ENVIRONMENT = ("precision", "channels_last", "compile")
TEXTS = {
    "stream": ("name", "content", "order", "notes", "objective", "scenario", "primary", "direction"),
    "strategy": ("name", "summary", "source_hash"),
    "spec": ("strategy", "head", "tune", "eval_grid", "chosen_on"),
}
TABLES = {"strategy": ("needs",), "spec": ("strategy_settings", "budget")}


@dataclass
class Value:
    """A metric over the runs of a row; `estimate` is None and all runs are left out where none has a value."""

    estimate: Estimate | None
    left_out: int

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        found = self.estimate
        empty = {"mean": None, "low": None, "high": None, "n": 0}
        return {**(found.as_dict() if found else empty), "left_out": self.left_out}


@dataclass
class Row:
    """One strategy with one group of settings. `settings`: those in which rows of this strategy on the board differ.

    runs: completed ones, one for each (order, seed); none where all diverged. diverged: such pairs of which only a
    diverged run exists; failures: those runs.
    other_source: runs made with another source of the strategy than the newest one, which are left out.
    """

    strategy: str
    summary: str
    all_settings: dict[str, Any]
    needs: dict[str, Any]
    chosen_on: str
    runs: list[tuple[Path, Record]]
    diverged: int = 0
    other_source: int = 0
    settings: dict[str, Any] = field(default_factory=dict)
    failures: list[tuple[Path, Record]] = field(default_factory=list)
    _values: dict[tuple[str, int], Value] = field(default_factory=dict, repr=False, compare=False)

    def value(self, key: str) -> Value:
        """Mean over the runs that have a value under the present version of the metric."""
        known = (key, len(self.runs))
        if known not in self._values:
            numbers = [number for _, record in self.runs if (number := metric_value(record, key)) is not None]
            self._values[known] = Value(mean_interval(numbers) if numbers else None, len(self.runs) - len(numbers))
        return self._values[known]

    @property
    def verified(self) -> int:
        """Runs whose latest repetition on this machine gave the same (`clbench verify`)."""
        return sum(last_verdict(record) in VERIFIED for _, record in self.runs)

    @property
    def refuted(self) -> int:
        """Runs whose latest repetition gave something else."""
        return sum(last_verdict(record) == "differs" for _, record in self.runs)

    @property
    def imported(self) -> int:
        """Runs that came from elsewhere (`clbench import`)."""
        return sum(bool(record.get("origin")) for _, record in self.runs)

    @property
    def seeds(self) -> dict[tuple[str, int], Record]:
        """Runs by what pairs them: (order hash, run seed)."""
        return {pair(record): record for _, record in self.runs}

    @property
    def label(self) -> str:
        """The strategy with the settings that tell it from the others."""
        return " ".join([self.strategy, *(f"{key}={plain(value)}" for key, value in self.settings.items())])


@dataclass
class Board:
    """Rows that may stand beside each other: equal data, model, upstream, head, tuned part, budget, and kind of choice.

    upstream: what taught the first task (`clbench.upstream.same_for_all`); None: each run itself. stream_settings:
    those in which boards of streams of one name differ.
    """

    stream: str
    content: str
    notes: str
    objective: str
    scenario: str
    primary: str
    direction: str
    model: str
    weights: str | None
    head: str
    tune: str
    budget: dict[str, float]
    chosen_on_test: bool
    upstream: str | None
    rows: list[Row]
    hidden: int = 0  # rows that a filter left out
    stream_settings: dict[str, Any] = field(default_factory=dict)

    @property
    def stream_label(self) -> str:
        """The stream with the settings that tell it from others of its name."""
        return " ".join([self.stream, *(f"{key}={plain(value)}" for key, value in self.stream_settings.items())])

    @property
    def invalid_base(self) -> bool:
        """Whether the model of a run knew too little of the held-out sets for forgetting to mean something."""
        evaluations = [record.get("evaluation") or {} for row in self.rows for _, record in row.runs]
        return any("invalid_base" in evaluation for evaluation in evaluations)

    @property
    def columns(self) -> tuple[str, ...]:
        """The metrics that tables show of it, the one that ranks its rows where none is asked for first."""
        return _columns([record for row in self.rows for _, record in row.runs], self.direction)

    def as_dict(self) -> dict[str, Any]:
        """What identifies the board, for JSON."""
        names = ("stream", "content", "notes", "objective", "scenario", "primary", "direction", "model", "weights")
        more = ("head", "tune", "budget", "chosen_on_test", "upstream")
        return {name: getattr(self, name) for name in (*names, *more)}


def make_boards(
    runs: Iterable[tuple[Path, Record]],
    metric: str | None = None,
    stream: str | None = None,
    warn: Callable[[str], None] = lambda text: None,
    choose: Filter | None = None,
) -> list[Board]:
    """Boards by stream, rows best first by `metric` (None: the first of a board's columns), those of which every run
    diverged last; runs that are not finished are passed over.

    Records that lack a part are told to `warn`. choose: which boards and rows to keep. Raises UserError for a metric
    no run has, a stream without runs while others have some, or a model that no board has.
    """
    finished = []
    for folder, record in runs:
        if record["status"] in FINISHED:
            if is_whole(record):
                finished.append((folder, record))
            else:
                warn(f"{folder / 'record.json'} lacks a part of a finished record (`clbench verify {folder}`)")
    streams = {record["stream"]["name"] for _, record in finished}
    if stream is not None:
        if streams and stream not in streams:
            raise UserError(f"no finished runs on stream {stream!r}{did_you_mean(stream, streams)}")
        finished = [(folder, record) for folder, record in finished if record["stream"]["name"] == stream]
    if metric is not None:
        _check_metric(metric, [record for _, record in finished])
    groups: dict[str, list[tuple[Path, Record]]] = {}
    for folder, record in finished:
        groups.setdefault(_text(_board_of(record)), []).append((folder, record))
    boards = [_make_board(members, metric) for members in groups.values()]
    _tell_streams_apart(boards)
    if choose is not None:
        boards = choose.boards(boards)
    return sorted((board for board in boards if board.rows), key=_board_order)


def group_runs(runs: Iterable[tuple[Path, Record]]) -> list[Row]:
    """Rows, in order of appearance: one for each strategy, version and group of settings.

    Rows of which every run diverged say in what they differ from all others, and change nothing in what others say.
    """
    groups: dict[str, list[tuple[Path, Record]]] = {}
    for folder, record in runs:
        groups.setdefault(_text(row_settings(record)), []).append((folder, record))
    rows = [_make_row(members) for members in groups.values()]
    mark_differences(rows)
    apart = {id(row): row.settings for row in rows if not row.runs}
    mark_differences([row for row in rows if row.runs])
    for row in rows:
        row.settings = apart.get(id(row), row.settings)
    return rows


def row_settings(record: Record) -> dict[str, Any]:
    """What a row's runs have in common besides the board: seeds, threads, device and place of data are not in it."""
    spec = record["spec"]
    return {
        "strategy": spec["strategy"],
        "version": record["strategy"]["version"],
        **spec["strategy_settings"],
        "eval_grid": spec["eval_grid"],
        **{key: record["environment"][key] for key in ENVIRONMENT},
        **{key: record["environment"].get(key, alone) for key, alone in ALONE.items()},
        "chosen_on": spec["chosen_on"],
    }


def metric_value(record: Record, key: str) -> float | None:
    """A metric or a cost of a run; None where it is undefined, beyond LARGEST, or of another version of its formula."""
    metrics = record["metrics"]
    if key in record["cost"] and key not in metrics:
        return _number(record["cost"][key])
    plain_key = base_key(key)
    if plain_key not in DEFINITIONS or metrics.get("versions", {}).get(key) != DEFINITIONS[plain_key].version:
        return None
    return _number(metrics.get(key))


def lower_is_better(key: str) -> bool:
    """Whether a small value of a metric or a cost is the good one (scores of losses are negated: higher is better)."""
    definition = DEFINITIONS.get(base_key(key))
    if definition is None:
        return key not in MORE_IS_BETTER
    return definition.sign != BETTER and not definition.sign.startswith(GAIN)


def metric_keys(records: Iterable[Record]) -> list[str]:
    """Every metric that a record has a value of."""
    keys: dict[str, None] = {}
    for record in records:
        keys.update(dict.fromkeys(key for key in record["metrics"].get("versions", {})))
    return list(keys)


def pair(record: Record) -> tuple[str, int]:
    """What runs of two strategies are paired by: order hash and run seed."""
    return record["stream"]["order"], record["spec"]["seed"]


def plain(value: Any) -> str:
    """A setting's value in a label."""
    return value if isinstance(value, str) else json.dumps(value)


def _board_of(record: Record) -> dict[str, Any]:
    spec, stream, model = record["spec"], record["stream"], record["model"] or {}
    trained_before = model.get("checkpoint") is not None
    return {
        "stream": stream["name"],
        "content": stream["content"],
        "objective": stream["objective"],
        "scenario": stream["scenario"],
        "primary": stream["primary"],
        "direction": stream["direction"],
        "model": model.get("spec") or spec["backbone"] or "none",
        "weights": model["weights_sha256"] if trained_before else None,
        "head": spec["head"],
        "tune": spec["tune"],
        "budget": spec["budget"],
        "chosen_on_test": spec["chosen_on"] == "test",
        "upstream": same_for_all(spec),
    }


def is_whole(record: Record) -> bool:
    """Whether everything a board reads is there, and of the type it must have."""
    try:
        texts = [record[part][key] for part, keys in TEXTS.items() for key in keys]
        tables = [record[part][key] for part, keys in TABLES.items() for key in keys]
        spec, model = record["spec"], record["model"]
        tables += [record["environment"], record["metrics"].get("versions", {}), model or {}]
        numbers = [spec["seed"], record["strategy"]["version"], *spec["budget"].values()]
        _text([_board_of(record), row_settings(record)])
    except (KeyError, TypeError, AttributeError):
        return False
    return (
        all(isinstance(text, str) for text in [*texts, record.get("started"), record.get("run")])
        and all(isinstance(table, dict) for table in tables)
        and all(_number(number) is not None for number in numbers)
        and spec["chosen_on"] in CHOSEN
    )


def _columns(records: Sequence[Record], direction: str) -> tuple[str, ...]:
    """Of streams whose sets have roles: accumulation and retention first."""
    if any(metric_value(record, ROLE_COLUMNS[0]) is not None for record in records):
        return ROLE_COLUMNS
    return COLUMNS if direction == "higher" else LOSS_COLUMNS


def _make_board(members: Sequence[tuple[Path, Record]], asked: str | None) -> Board:
    rows = group_runs(members)
    shown = [record for row in rows for _, record in row.runs]
    metric = asked or _columns(shown, members[0][1]["stream"]["direction"])[0]

    def order(row: Row) -> tuple[bool, bool, float, str]:
        estimate = row.value(metric).estimate
        sign = 1 if lower_is_better(metric) else -1
        return not row.runs, estimate is None, sign * estimate.mean if estimate else 0.0, row.label

    return Board(notes=members[0][1]["stream"]["notes"], rows=sorted(rows, key=order), **_board_of(members[0][1]))


def _tell_streams_apart(boards: Iterable[Board]) -> None:
    by_stream: dict[str, list[Board]] = {}
    for board in boards:
        by_stream.setdefault(board.stream, []).append(board)
    for group in by_stream.values():
        given = [
            (board.rows[0].runs or board.rows[0].failures)[0][1]["spec"].get("stream_settings") or {} for board in group
        ]
        differing = [
            key
            for key in sorted({key for settings in given for key in settings})
            if len({_text(settings.get(key)) for settings in given}) > 1
        ]
        for board, settings in zip(group, given, strict=True):
            board.stream_settings = {key: settings[key] for key in differing if settings.get(key) is not None}


def _make_row(members: Sequence[tuple[Path, Record]]) -> Row:
    """The source of the newest completed run counts, and of each (order, seed) the newest run, completed ones first."""
    members = sorted(members, key=lambda item: (item[1]["started"], item[1]["run"]))
    newest = max(members, key=lambda item: (item[1]["status"] == "completed", item[1]["started"], item[1]["run"]))[1]
    current = [m for m in members if m[1]["strategy"]["source_hash"] == newest["strategy"]["source_hash"]]
    completed = {pair(record): (folder, record) for folder, record in current if record["status"] == "completed"}
    diverged = {pair(record): (folder, record) for folder, record in current if record["status"] == "diverged"}
    failed = [diverged[key] for key in diverged if key not in completed]
    return Row(
        strategy=newest["strategy"]["name"],
        summary=newest["strategy"]["summary"],
        all_settings=row_settings(newest),
        needs=newest["strategy"]["needs"],
        chosen_on=newest["spec"]["chosen_on"],
        runs=list(completed.values()),
        diverged=len(failed),
        other_source=len(members) - len(current),
        failures=failed,
    )


def mark_differences(rows: Sequence[Row]) -> None:
    """Set each row's `settings` to those in which rows of its strategy differ."""
    by_strategy: dict[str, list[Row]] = {}
    for row in rows:
        by_strategy.setdefault(row.strategy, []).append(row)
    for group in by_strategy.values():
        values: dict[str, set[str]] = {}
        for key in {key for row in group for key in row.all_settings}:
            values[key] = {_text(row.all_settings.get(key)) for row in group}
        for row in group:
            row.settings = {key: value for key, value in row.all_settings.items() if len(values[key]) > 1}


def _check_metric(metric: str, records: Sequence[Record]) -> None:
    costs = {key for record in records for key in record["cost"]}
    known = {*DEFINITIONS, *COSTS, *costs, *metric_keys(records)}
    if metric not in known:
        raise UserError(f"unknown metric {metric!r}{did_you_mean(metric, known)}")


def _board_order(board: Board) -> tuple[Any, ...]:
    return board.stream, board.content, board.chosen_on_test, board.model, _text(board.as_dict())


def _number(value: Any) -> float | None:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or abs(value) > LARGEST:
        return None
    return None if value != value else float(value)


def _text(value: Mapping[str, Any] | Any) -> str:
    return json.dumps(value, sort_keys=True)
