"""Estimates: from records where there are some, else from a probe of the run itself."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clbench.launch import start_run
from clbench.record import write_record
from clbench.sweeps.cost import Cost
from clbench.sweeps.estimate import Estimate, estimate
from clbench.sweeps.plan import Plan, make_plan
from clbench.sweeps.probe import ProbeProcess, measure
from clbench.sweeps.probe_groups import Group, probe_groups
from clbench.sweeps.suite import read_suite

SMALL = "stream: split-digits, tasks: 2, train_per_task: 48, test_per_task: 20"
Planner = Callable[[str], Plan]


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Planner:
    monkeypatch.setenv("CLBENCH_CACHE", str(tmp_path / "cache"))

    def make(entries: str) -> Plan:
        (tmp_path / "mine.yaml").write_text(f"defaults: {{{SMALL}}}\nruns:\n{entries}\n")
        return make_plan(read_suite(tmp_path / "mine.yaml"), tmp_path / "results")

    return make


def finished(found: Plan, **cost: float) -> Path:
    """Run the plan's only job; these costs are then in its record."""
    [job] = found.jobs
    folder, record = start_run(job.spec, found.out)
    record["cost"] |= cost
    write_record(folder, record)
    return folder


def costs(found: Plan) -> list[tuple[float | None, str]]:
    known: Estimate = estimate(found, probe=False)
    return [(known.costs[p.job.number].seconds, known.costs[p.job.number].source) for p in found.runs]


def test_other_seeds_take_what_the_known_ones_took(plan: Planner) -> None:
    finished(plan("- {strategy: finetune, epochs: 1}"), seconds_total=10, peak_memory_bytes=5)
    finished(plan("- {strategy: finetune, epochs: 1, seed: 1, order_seed: 4}"), seconds_total=20, peak_memory_bytes=7)
    found = plan("- {strategy: finetune, epochs: 1, seeds: 0-2}")
    assert costs(found) == [(10, "done"), (15, "measured: 2 runs"), (15, "measured: 2 runs")]
    assert estimate(found, probe=False).costs[2].memory == 7


def test_the_learning_rate_changes_no_time_and_the_length_scales_training(plan: Planner) -> None:
    spent: dict[str, float] = {"seconds_total": 10, "seconds_train": 6, "seconds_trace": 2}
    finished(plan("- {strategy: finetune, epochs: 1}"), **spent)
    assert costs(plan("- {strategy: finetune, epochs: 1, lr: 0.2}")) == [(10, "measured: 1 similar run")]
    assert costs(plan("- {strategy: finetune, epochs: 3}")) == [(26, "scaled from 1 run")]
    assert costs(plan("- {strategy: finetune, steps: 3}")) == [(None, "unknown")]
    assert costs(plan("- {strategy: replay, epochs: 1}")) == [(None, "unknown")]
    assert costs(plan("- {strategy: finetune, epochs: 1, seed: 5, resources: {cpus: 2}}")) == [(None, "unknown")]


@pytest.mark.parametrize("change", [{"status": "failed"}, {"environment": {"processor": "another"}}])
def test_unfinished_runs_and_those_of_other_processors_tell_nothing(plan: Planner, change: dict[str, Any]) -> None:
    folder = finished(plan("- {strategy: finetune, epochs: 1}"), seconds_total=10)
    record = json.loads((folder / "record.json").read_text())
    for key, value in change.items():
        record[key] = record[key] | value if isinstance(value, dict) else value
    write_record(folder, record)
    assert costs(plan("- {strategy: finetune, epochs: 1, seed: 1}")) == [(None, "unknown")]


def test_a_resumed_run_needs_only_what_is_left(plan: Planner) -> None:
    finished(plan("- {strategy: finetune, epochs: 1}"), seconds_total=10)
    folder = finished(plan("- {strategy: finetune, epochs: 1, seed: 1}"), seconds_total=3)
    record = json.loads((folder / "record.json").read_text())
    write_record(folder, record | {"status": "interrupted"})
    saved = folder / "checkpoint" / "1"
    saved.mkdir(parents=True)
    (saved / "state.json").write_text(json.dumps({"meters": {"before": {"total": 4.0}}}))
    found = plan("- {strategy: finetune, epochs: 1, seeds: 0-1}")
    assert [planned.action for planned in found.runs] == ["done", "resume"]
    assert costs(found)[1] == (6, "measured: 1 run")


@pytest.mark.parametrize("strategy", ["finetune", "gdumb, epochs: 4", "nmc", "joint", "ewc"])
def test_a_probe_knows_the_length_of_a_run_it_cuts_short(plan: Planner, tmp_path: Path, strategy: str) -> None:
    """Steps, not seconds: the machine may be busy. Where no phase is cut short the estimate is of the whole run."""
    from clbench.sweeps.probe_session import ProbeSession

    [job] = plan(f"- {{strategy: {strategy}, train_per_task: 100}}").jobs
    record = start_run(job.spec, tmp_path / "whole")[1]
    sessions: list[ProbeSession] = []
    closing = ProbeSession.seconds

    class Kept(ProbeSession):
        def seconds(self) -> float | None:
            sessions.append(self)
            return closing(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("clbench.sweeps.probe_session.ProbeSession", Kept)
        patch.setattr("clbench.sweeps.probe_session.PHASE_SHARE", 0.0)  # as few steps of each phase as there may be
        found = measure(job.spec, tmp_path, time.time() + 100)
    assert found["problem"] is None and found["seconds"] > 0 and found["memory"] > 1e7
    [session] = sessions
    lengths = sum(phase.length for task in session.tasks for phase in task.phases)
    done = sum(len(phase.steps) for task in session.tasks for phase in task.phases)
    if strategy.startswith("gdumb"):  # its memory fills in a phase that is cut short, too
        assert done < lengths <= record["cost"]["steps"]
    else:
        assert done < lengths == record["cost"]["steps"]
    scored = session.first_scored + sum(task.scored for task in session.tasks)
    traced = sum(task.traced * phase.evaluations for task in session.tasks for phase in task.phases)
    assert scored <= record["cost"]["samples_evaluate"] <= scored + traced


def test_a_budget_of_steps_limits_the_estimate(plan: Planner, tmp_path: Path) -> None:
    whole, short = (
        measure(
            plan(f"- {{strategy: finetune, epochs: 2000, eval_grid: none, budget: {budget}}}").jobs[0].spec,
            tmp_path,
            time.time() + 2,
        )
        for budget in ("{}", "{steps: 24}")
    )
    assert 0 < short["seconds"] < whole["seconds"] / 10


FAILING = """
import time
from clbench.strategy import Strategy


class Raising(Strategy):
    "Raises in its first step."

    def loss(self, batch):
        raise ValueError("not\\ntoday")


class Sleeping(Strategy):
    "Never ends a step."

    def loss(self, batch):
        time.sleep(1000)


class Dying(Strategy):
    "Ends its process."

    def loss(self, batch):
        import os
        os._exit(9)
"""


def test_probes_that_fail_are_said_and_leave_nothing(plan: Planner, tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text(FAILING)
    asked: list[str] = []
    known = estimate(plan("- {strategies: ['./odd.py:Raising', './odd.py:Dying']}"), say=asked.append)
    assert [known.costs[number].source for number in (1, 2)] == ["unknown"] * 2
    assert len(asked) == 2 and "20 s at most" in asked[0]
    raising, dying = known.notes
    assert "strategy Raising raised in loss in task 0: ValueError: not today" in raising
    assert dying.endswith("its process ended with code 9")
    assert not (tmp_path / "results").exists()


def test_a_probe_that_hangs_is_ended_in_time(plan: Planner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "odd.py").write_text(FAILING)
    monkeypatch.setattr("clbench.sweeps.probe.GRACE", 0.5)
    known = estimate(plan("- {strategy: './odd.py:Sleeping'}"), probe_seconds=1)
    assert known.costs[1].source == "unknown" and known.notes[0].endswith("no figure within 1 s")


def test_no_time_for_probes(plan: Planner) -> None:
    asked: list[str] = []
    known = estimate(plan("- {strategies: [finetune, ewc]}"), say=asked.append, all_probes_seconds=0)
    assert [known.costs[number].source for number in (1, 2)] == ["unknown"] * 2 and not asked and not known.notes


def test_every_stream_is_probed_first_then_every_strategy(plan: Planner) -> None:
    found = plan(
        "- {strategy: finetune, grid: {epochs: [1, 2]}}\n"
        "- {strategies: [ewc, finetune], stream: rotated-digits, tasks: 3, epochs: 1}"
    )
    asked: list[str] = []
    known = estimate(found, say=asked.append)
    assert {cost.source for cost in known.costs.values()} == {"probe"}
    assert [text.split(" (")[0].removeprefix("probing ") for text in asked] == [
        "finetune split-digits epochs=1.0 seed=0",
        "finetune rotated-digits seed=0",
        "ewc rotated-digits seed=0",
        "finetune split-digits epochs=2.0 seed=0",
    ]


def test_what_is_not_probed_is_derived_from_what_is(plan: Planner) -> None:
    """replay takes three times as long as finetune, as on the other stream; and twice as long with two epochs."""
    found = plan(
        "- {strategies: [finetune, replay], epochs: 1}\n- {strategy: finetune, epochs: 2}\n"
        "- {strategies: [finetune, replay, ewc], stream: rotated-digits, tasks: 3, epochs: 1}\n"
        "- {strategy: replay, stream: permuted-digits, tasks: 3}"
    )
    groups = [Group([planned]) for planned in found.runs]
    for group, seconds in zip(groups, (2.0, 6.0, None, 10.0, None, None, None), strict=True):
        group.tried = True
        group.cost = Cost(seconds, 100, "probe") if seconds else None
    assert probe_groups(groups, lambda text: None, 20, 0) == []
    derived = [group.cost for group in groups if group.cost is None or group.cost.source != "probe"]
    assert derived == [
        Cost(4.0, 100, "scaled from probe of a similar run"),
        Cost(30.0, 100, "scaled from probe of finetune"),
        Cost(10.0, 100, "scaled from probe of finetune"),
        None,
    ]


def test_ctrl_c_leaves_no_probe_behind(plan: Planner, tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text(FAILING)
    group = Group(plan("- {strategy: './odd.py:Sleeping'}").runs)
    process: list[ProbeProcess] = []

    def interrupted(running: list[ProbeProcess]) -> ProbeProcess:
        process.extend(running)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("clbench.sweeps.probe_groups.next_ended", interrupted)
        probe_groups([group], lambda text: None, 20, 120)
    assert len(process) == 1 and not process[0].process.is_alive()
