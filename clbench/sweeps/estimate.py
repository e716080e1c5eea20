"""What the runs of a plan will take: from runs that are there, else from a short probe of the run itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clbench.errors import UserError
from clbench.record import Record
from clbench.runs import iter_records
from clbench.spec import RunSpec, make_spec
from clbench.sweeps.cost import LENGTHS, Cost, length_ratio
from clbench.sweeps.history import part
from clbench.sweeps.plan import Plan, Planned
from clbench.sweeps.probe_groups import Group, probe_groups

PROBE_SECONDS = 20.0
ALL_PROBES_SECONDS = 120.0
SEEDS = ("seed", "order_seed", "data_root")
SAME_TIME = ("lr", "momentum", "weight_decay", "clip", "schedule")
"""Settings of a strategy that change its numbers, and not how long it takes."""


@dataclass(frozen=True)
class Estimate:
    """Costs by job number: for finished runs what they took, for others what is left of what they will take."""

    costs: Mapping[int, Cost]
    notes: tuple[str, ...] = ()

    def seconds(self, number: int) -> float | None:
        """Of a job, None where unknown."""
        return self.costs[number].seconds if number in self.costs else None


def estimate(
    plan: Plan,
    probe: bool = True,
    say: Callable[[str], None] = lambda text: None,
    probe_seconds: float = PROBE_SECONDS,
    all_probes_seconds: float = ALL_PROBES_SECONDS,
) -> Estimate:
    """Time and memory of every run of a plan.

    First from completed runs under the plan's results folder, on this processor with as many threads: those that
    differ in seeds alone, or in settings such as the learning rate; else those of another length, scaled. Where there
    are none and `probe` is set, from the run itself, a few steps of each phase in a process of its own, `probe_seconds`
    at most for one and `all_probes_seconds` for all; or from probes of runs on the same stream (see `probe_groups`).
    `say` is told before each probe. Writes nothing.
    """
    known = _Known(plan.out)
    costs: dict[int, Cost] = {}
    open_groups: dict[str, list[Planned]] = {}
    for planned in plan.runs:
        found = known.of(planned)
        if found is None:
            open_groups.setdefault(_key(planned.job.spec), []).append(planned)
        costs[planned.job.number] = found or Cost()
    groups = [Group(runs) for runs in open_groups.values()]
    notes = probe_groups(groups, say, probe_seconds, all_probes_seconds) if probe and groups else []
    costs |= {planned.job.number: group.cost for group in groups if group.cost for planned in group.runs}
    for planned in plan.runs:
        if planned.action == "resume" and planned.folder is not None:
            costs[planned.job.number] = _what_is_left(costs[planned.job.number], planned.folder)
    return Estimate(costs, tuple(notes))


class _Known:
    """Completed runs of this kind of machine."""

    def __init__(self, out: Path) -> None:
        from clbench.engine.environment import processor

        self._by_folder: dict[Path, Record] = {}
        self._equal: dict[str, list[Record]] = {}
        self._similar: dict[str, list[Record]] = {}
        self._scalable: dict[str, list[tuple[RunSpec, Record]]] = {}
        here = processor()
        for folder, record in iter_records(out, lambda text: None):
            self._by_folder[folder] = record
            if record["status"] != "completed" or part(record, "environment").get("processor") != here:
                continue
            try:
                spec = make_spec(record["spec"])
            except UserError:
                continue
            self._equal.setdefault(_key(spec), []).append(record)
            self._similar.setdefault(_key(spec, SAME_TIME), []).append(record)
            self._scalable.setdefault(_key(spec, (*SAME_TIME, *LENGTHS)), []).append((spec, record))

    def of(self, planned: Planned) -> Cost | None:
        """From the best matching runs, None where there are none."""
        spec = planned.job.spec
        if planned.action == "done" and planned.folder in self._by_folder:
            record = self._by_folder[planned.folder]
            return Cost(_cost(record, "seconds_total"), _memory([record]), "done")
        if records := self._equal.get(_key(spec)):
            return _mean(records, [1.0] * len(records), f"measured: {_runs(records)}")
        if records := self._similar.get(_key(spec, SAME_TIME)):
            return _mean(records, [1.0] * len(records), f"measured: {_runs(records, 'similar ')}")
        ratios = [
            (record, ratio)
            for other, record in self._scalable.get(_key(spec, (*SAME_TIME, *LENGTHS)), [])
            if (ratio := length_ratio(spec, other)) is not None
        ]
        if not ratios:
            return None
        records = [record for record, _ in ratios]
        return _mean(records, [ratio for _, ratio in ratios], f"scaled from {_runs(records)}")


def _key(spec: RunSpec, leave_out: Sequence[str] = ()) -> str:
    """What two runs that take equally long have in common."""
    values = spec.model_dump(mode="json", exclude=set(SEEDS))
    values["strategy_settings"] = {k: v for k, v in values["strategy_settings"].items() if k not in leave_out}
    return json.dumps(values, sort_keys=True)


def _mean(records: Sequence[Record], ratios: Sequence[float], source: str) -> Cost:
    """Training and continual evaluation scaled, the rest as it was."""
    seconds = []
    for record, ratio in zip(records, ratios, strict=True):
        total = _cost(record, "seconds_total")
        if total is not None:
            scaled = (_cost(record, "seconds_train") or 0.0) + (_cost(record, "seconds_trace") or 0.0)
            seconds.append(total + (ratio - 1) * min(total, scaled))
    if not seconds:
        return Cost(source="unknown")
    return Cost(sum(seconds) / len(seconds), _memory(records), source)


def _memory(records: Sequence[Record]) -> int | None:
    found = [value for record in records if (value := _cost(record, "peak_memory_bytes")) is not None]
    return round(max(found)) if found else None


def _cost(record: Record, key: str) -> float | None:
    value = record["cost"].get(key)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _runs(records: Sequence[Record], kind: str = "") -> str:
    return f"{len(records)} {kind}run{'s' if len(records) > 1 else ''}"


def _what_is_left(cost: Cost, folder: Path) -> Cost:
    """The cost without the time an unfinished run has taken up to its checkpoint."""
    if cost.seconds is None:
        return cost
    spent = 0.0
    for state in sorted(folder.glob("checkpoint/*/state.json")):
        try:
            content: Any = json.loads(state.read_text(encoding="utf-8"))
            spent = max(spent, float(content["meters"]["before"]["total"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return Cost(max(0.0, cost.seconds - spent), cost.memory, cost.source)
