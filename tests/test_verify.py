"""Verifying runs: the same again, records edited by hand, and other conditions."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from clbench.cli.verify import report, verify_command
from clbench.errors import RunFailed, UserError
from clbench.metrics import compute
from clbench.record import read_record, write_record
from clbench.table import EvaluationTable
from clbench.verify import changed_conditions, compare_runs, record_faults, verify

Copy = Callable[[str, int], Path]
Runs = dict[tuple[str, int], Path]


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CLBENCH_CACHE", str(tmp_path / "cache"))


def rewrite_value(folder: Path, change: float, metrics: bool = True) -> int:
    """Change the last boundary value of the table, and the metrics with it; the row's number, from 1 on."""
    record = read_record(folder)
    rows = EvaluationTable.read(folder / "evaluations.parquet").rows
    last = max(i for i, row in enumerate(rows) if row.kind == "boundary" and row.value is not None)
    value = rows[last].value
    assert value is not None
    rows[last] = dataclasses.replace(rows[last], value=value + change)
    table = EvaluationTable(rows)
    table.write(folder / "evaluations.parquet")
    if metrics:
        record["metrics"] = compute(table, record["stream"]["direction"])
        write_record(folder, record)
    return last + 1


@pytest.mark.parametrize("strategy", ["replay", "nmc"])
def test_repeated_runs_are_identical(finished_runs: Runs, strategy: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = finished_runs[strategy, 0]
    before = {path: path.read_bytes() for path in folder.iterdir()}
    verify_command([str(folder)], False, None, False, True, folder)
    found = json.loads(capsys.readouterr().out)
    assert found["verdict"] == "identical"
    assert found["rows"] == len(EvaluationTable.read(folder / "evaluations.parquet"))
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_another_run_of_the_table_differs_and_says_where(run_copy: Copy, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run_copy("finetune", 0)
    number = rewrite_value(folder, -2e-16)
    row = EvaluationTable.read(folder / "evaluations.parquet").rows[number - 1]
    with pytest.raises(RunFailed, match=f"row {number} ") as raised:
        verify_command([str(folder)], False, None, True, False, folder)
    assert raised.value.exit_code == 1
    assert f"step {row.step}" in str(raised.value)
    assert capsys.readouterr().out.startswith("differs")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda r: r["metrics"].update(average=0.99), "metrics.average is 0.99; evaluations.parquet gives"),
        (lambda r: r["metrics"]["matrix"]["rows"][0].__setitem__(0, 1.5), "metrics.matrix.rows[0][0] is 1.5"),
        (lambda r: r["metrics"].pop("forgetting"), "metrics.forgetting is 'missing'"),
        (lambda r: r["spec"].update(seed=7), "spec_hash is not the hash of spec"),
        (lambda r: r.update(spec_hash="0" * 64), "spec_hash is not the hash of spec"),
        (lambda r: r.update(status="diverged"), "error: None is not of type 'string'"),
        (lambda r: r.pop("cost"), "'cost' is a required property"),
        (lambda r: r.pop("status"), "'status' is a required property"),
        (lambda r: r.update(status="fine"), "status: 'fine' is not one of"),
    ],
)
@pytest.mark.parametrize("forged", [False, True])
def test_records_edited_by_hand_are_detected_without_a_run(
    run_copy: Copy, change: object, fault: str, forged: bool
) -> None:
    folder = run_copy("nmc", 0)
    record = read_record(folder)
    assert record_faults(folder, record) == []
    change(record)  # type: ignore[operator]
    if forged:
        write_record(folder, record)
    else:
        (folder / "record.json").write_text(json.dumps(record))
        assert "record.json was edited after the run" in record_faults(folder, record)[0]
    found = verify(folder)
    assert found.verdict == "differs"
    assert any(fault in line for line in found.faults)
    assert found.rows == 0


def test_a_changed_configuration_is_detected(run_copy: Copy) -> None:
    folder = run_copy("nmc", 0)
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("order_seed: 0", "order_seed: 3"))
    assert "config.yaml and record.json differ in order_seed" in verify(folder).faults


def test_a_changed_table_is_detected(run_copy: Copy) -> None:
    folder = run_copy("nmc", 0)
    rewrite_value(folder, -0.1, metrics=False)
    assert any("metrics.average" in fault for fault in verify(folder).faults)


def test_equality_is_promised_for_equal_conditions_only(finished_runs: Runs, run_copy: Copy) -> None:
    folder, again = finished_runs["replay", 0], run_copy("replay", 0)
    rewrite_value(again, -0.01)
    old, new = read_record(folder), read_record(again)
    assert compare_runs(folder, old, again, new).verdict == "differs"
    new["environment"]["versions"]["torch"] = "99.0"
    found = compare_runs(folder, old, again, new)
    assert found.verdict == "within tolerance"
    assert found.largest_difference == pytest.approx(0.01)
    assert any(line.startswith("torch: was") and line.endswith("is 99.0") for line in found.changed)
    assert "not bit for bit" in report(found)[0]
    rewrite_value(again, -0.5)
    assert compare_runs(folder, old, again, new).verdict == "differs"


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda r: r["cost"].update(steps=1), "cost.steps: was 1, is "),
        (lambda r: r["cost"].update(stored_bytes=0), "cost.stored_bytes: was 0, is "),
        (lambda r: r["strategy"]["needs"].update(stores_samples=False), "strategy.needs.stores_samples: was False"),
        (lambda r: r["strategy"].update(version=9), "strategy.version: was 9"),
        (lambda r: r["stream"]["tasks"][0].update(samples=9), "stream.tasks[0].samples: was 9"),
        (lambda r: r["model"].update(weights_sha256="0" * 64), "model.weights_sha256: was '0000"),
        (lambda r: r["evaluation"].update(interval=9), "evaluation.interval: was 9"),
        (lambda r: r.update(state_hash="0" * 64), "the final state"),
    ],
)
def test_a_forger_who_seals_anew_is_found_by_the_repetition(run_copy: Copy, change: object, fault: str) -> None:
    folder = run_copy("replay", 0)
    record = read_record(folder)
    change(record)  # type: ignore[operator]
    write_record(folder, record)
    assert record_faults(folder, record) == []
    found = verify(folder)
    assert found.verdict == "differs" and any(fault in line for line in found.faults), found.faults


def shifted(folder: Path, amount: float) -> None:
    """Change every value of the table."""
    rows = EvaluationTable.read(folder / "evaluations.parquet").rows
    moved = [row if row.value is None else dataclasses.replace(row, value=row.value + amount) for row in rows]
    EvaluationTable(moved).write(folder / "evaluations.parquet")


def twins(folder: Path, n: int) -> tuple[Path, Path]:
    """A run as if every set had n samples, twice."""
    rows = EvaluationTable.read(folder / "evaluations.parquet").rows
    EvaluationTable([dataclasses.replace(row, n=n) for row in rows]).write(folder / "evaluations.parquet")
    return folder, Path(shutil.copytree(folder, folder.with_name("again")))


def test_tolerances_go_by_device_class_and_a_shift_of_all_values_is_none(run_copy: Copy) -> None:
    folder, again = twins(run_copy("replay", 0), 10**9)
    old, new = read_record(folder), read_record(again)
    rewrite_value(again, -0.04)
    new["environment"]["threads"] = 2
    assert compare_runs(folder, old, again, new).verdict == "differs", "one device class: 0.02"
    new["environment"]["device"] = "cuda"
    assert compare_runs(folder, old, again, new).verdict == "within tolerance", "another one: 0.05"
    shifted(again, -0.025)
    assert compare_runs(folder, old, again, new).verdict == "differs", "all values lower by 0.025"


@pytest.mark.parametrize(("n", "verdict"), [(80, "within tolerance"), (8000, "differs")])
def test_small_sets_may_differ_by_their_sampling_noise_and_large_ones_not(run_copy: Copy, n: int, verdict: str) -> None:
    folder, again = twins(run_copy("replay", 0), n)
    old, new = read_record(folder), read_record(again)
    new["environment"]["threads"] = 2
    rewrite_value(again, -0.1)
    assert compare_runs(folder, old, again, new).verdict == verdict
    shifted(again, -0.2)
    assert compare_runs(folder, old, again, new).verdict == "differs", "a shift of all values"


def test_other_conditions_excuse_no_other_counts_and_no_other_model(finished_runs: Runs, run_copy: Copy) -> None:
    folder, again = finished_runs["replay", 0], run_copy("replay", 0)
    old, new = read_record(folder), read_record(again)
    new["environment"]["processor"] = "another"
    new["state_hash"] = "0" * 64
    new["model"]["weights_sha256"] = "0" * 64
    new["cost"]["flops_train"] = int(old["cost"]["flops_train"] * 1.01)
    assert compare_runs(folder, old, again, new).verdict == "within tolerance"
    for part, key, value in (("cost", "stored_bytes", 0), ("cost", "flops_train", 1), ("model", "parameters", 9)):
        changed = copy.deepcopy(new)
        changed[part][key] = value
        assert compare_runs(folder, old, again, changed).verdict == "differs", key
    for column, change in (("se", 0.5), ("base", 0.03)):
        rows = [
            row if getattr(row, column) is None else dataclasses.replace(row, **{column: getattr(row, column) + change})
            for row in EvaluationTable.read(folder / "evaluations.parquet").rows
        ]
        EvaluationTable(rows).write(again / "evaluations.parquet")
        assert compare_runs(folder, old, again, new).verdict == "differs", column


def test_many_more_threads_than_cores_are_not_started(run_copy: Copy) -> None:
    folder = run_copy("finetune", 0)
    record = read_record(folder)
    record["environment"]["threads"] = 10**9
    write_record(folder, record)
    found = verify(folder)
    assert found.verdict in ("identical", "within tolerance")
    assert f"threads: was 1000000000, is {os.cpu_count()}" in found.changed


def test_a_clock_budget_is_repeated_up_to_its_stop(tmp_path: Path) -> None:
    from clbench.launch import start_run
    from clbench.spec import make_spec

    values = {"strategy": "finetune", "stream": "split-digits", "threads": 1, "budget": {"seconds": 0.4}}
    long = {"strategy_settings": {"epochs": 1000}, "eval_grid": "20"}
    folder, record = start_run(make_spec(values | long), tmp_path)
    steps = record["cost"]["steps"]
    assert any(f"training stopped at step {steps}" in line for line in record["warnings"]), "the clock ran out"
    found = verify(folder)
    assert found.verdict == "identical" and "clock budget" in found.changed[0]
    record["cost"]["steps"] += 1
    write_record(folder, record)
    assert verify(folder).verdict == "differs"


def test_a_clock_that_ran_out_before_the_first_step(tmp_path: Path) -> None:
    from clbench.launch import start_run
    from clbench.spec import make_spec

    values = {"strategy": "finetune", "stream": "split-digits", "threads": 1, "budget": {"seconds": 1e-6}}
    folder, record = start_run(make_spec(values), tmp_path)
    assert record["cost"]["steps"] == 0
    assert verify(folder).verdict == "identical"


def test_a_changed_source_excuses_nothing(finished_runs: Runs, run_copy: Copy) -> None:
    folder, again = finished_runs["replay", 0], run_copy("replay", 0)
    old, new = read_record(folder), read_record(again)
    new["strategy"]["source_hash"] = "e" * 64
    found = compare_runs(folder, old, again, new)
    assert (found.verdict, found.changed) == ("identical", ["the strategy's source has changed since the run"])
    rewrite_value(again, -0.001)
    assert compare_runs(folder, old, again, new).verdict == "differs"


def test_data_that_changed_and_missing_rows_differ(finished_runs: Runs, run_copy: Copy) -> None:
    folder, again = finished_runs["replay", 0], run_copy("replay", 0)
    old, new = read_record(folder), read_record(again)
    new["stream"]["content"] = "another"
    assert "content hash differs" in compare_runs(folder, old, again, new).faults[0]
    rows = EvaluationTable.read(again / "evaluations.parquet").rows
    EvaluationTable(rows[:-1]).write(again / "evaluations.parquet")
    new["environment"]["versions"]["torch"] = "99.0"
    new["stream"]["content"] = old["stream"]["content"]
    found = compare_runs(folder, old, again, new)
    assert found.verdict == "differs" and math.isinf(found.largest_difference)
    assert any(f"had {len(rows)} rows" in fault for fault in found.faults)


def test_a_run_with_another_state_differs_though_its_numbers_agree(finished_runs: Runs) -> None:
    folder = finished_runs["replay", 0]
    old, new = read_record(folder), read_record(folder)
    new["state_hash"] = "e" * 64
    assert compare_runs(folder, old, folder, new).faults == [
        "the final state (weights, memory, optimiser) has another hash"
    ]


def test_conditions_are_named(finished_runs: Runs) -> None:
    old, new = (read_record(finished_runs["replay", 0]) for _ in range(2))
    assert changed_conditions(old, new) == []
    new["environment"] |= {"threads": 8, "device": "cuda"}
    assert changed_conditions(old, new) == ["device: was cpu, is cuda", "threads: was 1, is 8"]


def test_unfinished_runs_and_missing_files_are_one_line(run_copy: Copy) -> None:
    folder = run_copy("nmc", 0)
    (folder / "evaluations.parquet").unlink()
    assert verify(folder).faults == [f"{folder / 'evaluations.parquet'} is missing: the table is not the sealed one"]
    record = read_record(folder)
    write_record(folder, record)
    with pytest.raises(UserError, match=r"evaluations\.parquet.*no such file"):
        verify(folder)
    write_record(folder, {**record, "status": "interrupted"})
    with pytest.raises(UserError, match="is interrupted"):
        verify(folder)
    (folder / "record.json").unlink()
    with pytest.raises(UserError, match="no run in"):
        verify(folder)


def test_a_diverged_run_can_be_verified(tmp_path: Path) -> None:
    from clbench.launch import start_run
    from clbench.spec import make_spec

    settings = {"lr": 1e30, "steps": 20}
    values = {"strategy": "finetune", "stream": "split-digits", "threads": 1, "strategy_settings": settings}
    with pytest.raises(RunFailed, match="not finite"):
        start_run(make_spec(values), tmp_path)
    assert verify(next(tmp_path.glob("runs/*/*/*"))).verdict == "identical"
