"""The plan of a sweep: full specifications, and what the records under the results folder leave to do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clbench.errors import UserError
from clbench.launch import start_run
from clbench.record import read_record, write_record
from clbench.sweeps.cost import Cost
from clbench.sweeps.estimate import Estimate, estimate
from clbench.sweeps.job import Job
from clbench.sweeps.plan import Plan, make_plan
from clbench.sweeps.show import plan_as_dict, ranges, show_plan, totals
from clbench.sweeps.suite import read_suite

SMALL = "stream: split-digits, tasks: 2, train_per_task: 48, test_per_task: 20"
MINE = """
from clbench.strategy import Strategy


class Mine(Strategy):
    "Finetuning under another name."
"""
Planner = Callable[[str], Plan]


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Planner:
    """`plan("- {strategy: ewc}")`: the plan of these entries on two small tasks, against the results beside them."""
    monkeypatch.setenv("CLBENCH_CACHE", str(tmp_path / "cache"))

    def make(entries: str, defaults: str = SMALL) -> Plan:
        (tmp_path / "mine.yaml").write_text(f"defaults: {{{defaults}}}\nruns:\n{entries}\n")
        return make_plan(read_suite(tmp_path / "mine.yaml"), tmp_path / "results")

    return make


def run_all(found: Plan) -> list[Path]:
    return [start_run(job.spec, found.out)[0] for job in found.jobs]


def edit(folder: Path, **parts: Any) -> None:
    """Change a record as clbench would, sealed anew."""
    record = read_record(folder)
    for key, value in parts.items():
        record[key] = record[key] | value if isinstance(value, dict) else value
    write_record(folder, record)


def actions(found: Plan) -> list[tuple[str, str]]:
    return [(planned.action, planned.reason) for planned in found.runs]


def test_specifications_are_resolved_as_a_run_resolves_them(plan: Planner) -> None:
    found = plan("- {strategy: replay, epochs: 1, resources: {memory: 1GB}}")
    [job] = found.jobs
    assert job.spec.strategy_settings["lr"] == 0.05 and job.spec.strategy_settings["batch_size"] == 16
    assert (job.spec.backbone, job.spec.threads, job.spec.device) == ("mlp", 1, "cpu")
    assert (job.resources.cpus, job.resources.gpus, job.resources.memory) == (1, 0, 10**9)
    folder, record = start_run(job.spec, found.out)
    assert record["spec"] == job.spec.model_dump(mode="json")
    assert record["spec_hash"] == job.spec.hash()
    again = plan("- {strategy: replay, epochs: 1, lr: 0.05}")  # spelled out: the same run
    assert actions(again) == [("done", "completed")]
    assert again.runs[0].folder == folder and again.jobs == []


def test_completed_and_diverged_runs_are_done_and_new_seeds_are_not(plan: Planner) -> None:
    first, second = run_all(plan("- {strategy: finetune, epochs: 1, seeds: 0-1}"))
    edit(second, status="diverged", error="the loss is not finite")
    found = plan("- {strategy: finetune, epochs: 1, seeds: 0-2, order_seeds: [0]}")
    assert actions(found) == [("done", "completed"), ("done", "diverged"), ("run", "new")]
    assert [planned.folder for planned in found.runs] == [first, second, None]
    assert [job.number for job in found.jobs] == [3]
    (first / "config.yaml").write_text((first / "config.yaml").read_text() + "\n")
    found = plan("- {strategy: finetune, epochs: 1, seeds: 0-1}")
    assert actions(found) == [("run", "its record was edited"), ("done", "diverged")], "no board takes it"


@pytest.mark.parametrize("status", ["interrupted", "running", "failed"])
def test_unfinished_runs_are_resumed_from_their_checkpoint_or_run_again(plan: Planner, status: str) -> None:
    [folder] = run_all(plan("- {strategy: finetune, epochs: 1}"))
    edit(folder, status=status, state_hash=None)
    shown = "killed" if status == "running" else status
    assert actions(plan("- {strategy: finetune, epochs: 1}")) == [("run", f"{shown} without a checkpoint")]
    (folder / "checkpoint" / "1").mkdir(parents=True)
    found = plan("- {strategy: finetune, epochs: 1}")
    assert actions(found) == [("resume", shown)]
    assert found.jobs[0].resume == folder
    edit(folder, environment={"versions": {"torch": "1.0"}})
    found = plan("- {strategy: finetune, epochs: 1}")
    assert actions(found) == [("run", f"{shown}, but package clbench has changed")]
    assert found.jobs[0].resume is None


def test_more_threads_cannot_resume_and_need_not_repeat(plan: Planner) -> None:
    [folder] = run_all(plan("- {strategy: finetune, epochs: 1}"))
    more = "- {strategy: finetune, epochs: 1, resources: {cpus: 2}}"
    assert actions(plan(more)) == [("done", "completed")]
    edit(folder, status="interrupted")
    (folder / "checkpoint" / "1").mkdir(parents=True)
    assert actions(plan(more)) == [("run", "interrupted, but the number of threads has changed")]


def test_a_run_that_another_process_is_at_work_on_is_said(plan: Planner) -> None:
    import fcntl

    [folder] = run_all(plan("- {strategy: finetune, epochs: 1}"))
    edit(folder, status="running")
    (folder / "checkpoint" / "1").mkdir(parents=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert actions(plan("- {strategy: finetune, epochs: 1}")) == [
            ("run", "another process is at work on an equal run")
        ]


def test_another_source_or_other_data_is_run_afresh(plan: Planner, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    entry = "- {strategy: './mine.py', epochs: 1}"
    [folder] = run_all(plan(entry))
    assert actions(plan(entry)) == [("done", "completed")]
    edit(folder, stream={"content": "0" * 32})
    assert actions(plan(entry)) == [("run", "the stream's data has changed since it was run")]
    edit(folder, strategy={"source_hash": "0" * 64})
    assert actions(plan(entry)) == [("run", "the strategy's source has changed since it was run")]
    assert plan(entry).notes == (
        "mine split-digits seed=0: run afresh: the strategy's source has changed since it was run",
    )
    newer = tmp_path / "results" / "runs" / "split-digits" / "mine" / "99999999-000000-00000000"
    shutil.copytree(folder, newer)
    edit(folder, status="failed")
    assert actions(plan(entry)) == [("run", "the strategy's source has changed since it was run")]


def test_damaged_and_foreign_records_are_passed_over_and_named(plan: Planner) -> None:
    folders = run_all(plan("- {strategy: finetune, epochs: 1, seeds: 0-3}"))
    (folders[0] / "record.json").write_text('{"schema": 1, "spec": {')
    edit(folders[1], schema=99)
    edit(folders[2], spec={"precision": "fp8"})
    (folders[3] / "record.json").unlink()
    found = plan("- {strategy: finetune, epochs: 1, seeds: 0-3}")
    assert [planned.action for planned in found.runs] == ["run"] * 4
    assert len(found.notes) == 4 and all(text.startswith("left out: ") for text in found.notes)
    for folder in folders:
        assert sum(str(folder) in note and "\n" not in note for note in found.notes) == 1


@pytest.mark.slow
@pytest.mark.parametrize("rubbish", [None, [], {"versions": 3, "seconds_total": "x"}])
def test_a_record_with_rubbish_in_it_stops_no_plan(plan: Planner, rubbish: Any) -> None:
    [folder] = run_all(plan("- {strategy: finetune, epochs: 1}"))
    original = (folder / "record.json").read_text()
    (folder / "checkpoint" / "1").mkdir(parents=True)
    (folder / "checkpoint" / "1" / "state.json").write_text("[]")
    for part in json.loads(original):
        record = json.loads(original) | {"status": "interrupted", part: rubbish}
        (folder / "record.json").write_text(json.dumps(record))
        found = plan("- {strategy: finetune, epochs: 1, seeds: 0-1}")
        assert [planned.action for planned in found.runs][1] == "run"
        assert show_plan(found, estimate(found, probe=False))


def test_runs_that_are_equal_in_full_are_run_once(plan: Planner) -> None:
    found = plan("- {strategy: replay}\n- {strategy: replay, memory_size: 200, seeds: 0-1}")
    assert [planned.job.label for planned in found.runs] == [
        "replay split-digits seed=0",
        "replay split-digits seed=1",
    ]
    assert found.notes == (
        "runs entry 2: replay split-digits seed=0 is, with all settings in full, the same run as one of "
        "runs entry 1; it will be run once",
    )


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("- {strategy: nmc, stream: text-shift, train_per_task: 1}", "neither strategy nmc nor stream text-shift"),
        ("- {strategy: nmc, tasks: 400}", "entry 1: tasks=400: more tasks than classes"),
        ("- {strategy: ewc, tune: ful}", "entry 1: tuning 'ful'"),
        ("- {strategy: ewc, device: cpu, resources: {gpus: 1}}", "gpus are asked for with device: cpu"),
        ("- {strategy: ewc, device: cuda, resources: {gpus: 0}}", "device: cuda needs resources"),
        ("- {strategy: ewc, stream: split-files, path: nowhere}", "no image set 'nowhere'"),
    ],
)
def test_what_does_not_fit_together_is_one_line_before_anything_starts(plan: Planner, entry: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        plan(entry)
    assert message in str(caught.value) and "runs entry 1" in str(caught.value) and "\n" not in str(caught.value)


def test_a_strategy_that_does_not_know_the_objective_is_refused(plan: Planner) -> None:
    with pytest.raises(UserError, match=r"entry 1: strategy NMC works with classification"):
        plan("- {strategy: nmc, stream: text-shift}", "tokens: 2000, eval_blocks: 4")


@pytest.mark.parametrize("stream", ["split-digits", "rotated-digits", "permuted-digits", "text-shift"])
def test_the_content_and_recommendations_of_a_stream_do_not_depend_on_its_order(stream: str) -> None:
    from clbench.resolve import build_stream, parts_of
    from clbench.spec import make_spec

    small = {"tokens": 6400, "eval_blocks": 8} if stream == "text-shift" else {}
    specs = [
        make_spec({"strategy": "finetune", "stream": stream, "order_seed": order, "stream_settings": small})
        for order in (0, 5)
    ]
    first, second = (build_stream(spec, parts_of(spec)) for spec in specs)
    assert first.order != second.order
    for part in ("content", "training", "default_model", "feature_model", "objective"):
        assert getattr(first, part) == getattr(second, part)


def test_the_table_groups_seeds_and_adds_up(plan: Planner) -> None:
    run_all(plan("- {strategy: finetune, epochs: 1}"))
    found = plan("- {strategy: finetune, epochs: 1, seeds: 0-2}\n- {strategy: replay, grid: {memory_size: [5, 6]}}")
    costs = {planned.job.number: Cost(10.0 * planned.job.number, 10**9, "probe") for planned in found.runs}
    lines = show_plan(found, Estimate(costs), jobs=2).splitlines()
    assert lines[2].split() == [
        "strategy",
        "stream",
        "settings",
        "seeds",
        "done",
        "run",
        "time",
        "each",
        "memory",
        "from",
    ]
    assert lines[3].split() == ["finetune", "split-digits", "0-2", "1", "2", "25", "s", "1.0", "GB", "probe"]
    assert lines[4].split()[:5] == ["replay", "split-digits", "memory_size=5", "0", "1"]
    assert "5 runs: 1 done, 0 to resume, 4 to run" in lines
    assert "about 1:20 min with 2 jobs at a time; 2:20 min of processor time; memory: 2.0 GB together" in lines
    whole = plan_as_dict(found, Estimate(costs), jobs=2)
    assert json.loads(json.dumps(whole, allow_nan=False)) == whole
    assert [run["action"] for run in whole["runs"]] == ["done", "run", "run", "run", "run"]
    assert whole["totals"]["wall_seconds"] == 80
    unknown = totals(found, Estimate({}), jobs=2)
    assert (unknown.unknown, unknown.memory) == (4, None)


def test_ranges_are_written_short() -> None:
    assert [ranges(numbers) for numbers in ([0], [2, 0, 1], [0, 2, 3, 9])] == ["0", "0-2", "0,2-3,9"]


def test_labels_name_what_differs(plan: Planner) -> None:
    found = plan("- {strategy: ewc, grid: {lr: [0.1, 0.2]}, order_seeds: [0, 3]}\n- {strategy: si}")
    assert [planned.job.label for planned in found.runs] == [
        "ewc split-digits lr=0.1 seed=0",
        "ewc split-digits lr=0.1 order_seed=3 seed=0",
        "ewc split-digits lr=0.2 seed=0",
        "ewc split-digits lr=0.2 order_seed=3 seed=0",
        "si split-digits seed=0",
    ]
    assert all(isinstance(job, Job) for job in found.jobs)
