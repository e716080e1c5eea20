from __future__ import annotations

import json
from pathlib import Path

import pytest

from clbench.cli.metrics import metrics_command
from clbench.errors import UserError
from clbench.metrics import compute
from clbench.table import EvaluationTable, Row

LOG = """step,tasks_seen,eval_set,value,kind
0,0,first,0.1,boundary
0,0,[second],0.2,boundary
100,1,first,0.95,boundary
100,1,[second],0.3,boundary
100,1,first,0.90,trace
101,1,first,0.70,trace
102,1,first,0.60,trace
150,1,first,0.895,trace
200,1,first,0.90,trace
200,2,first,0.88,boundary
200,2,[second],0.8,boundary
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log.csv"
    path.write_text(LOG)
    return path


def test_json_is_the_metrics_object_and_nothing_else(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metrics_command(log, "higher", as_json=True)
    out, err = capsys.readouterr()
    assert err == ""
    metrics = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
    assert metrics == compute(EvaluationTable.read(log))
    assert metrics["forgetting"] == pytest.approx(0.07)
    assert metrics["gap"][0]["depth"] == pytest.approx(0.30)


def test_tables_for_a_reader(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metrics_command(log, "higher", as_json=False)
    out = capsys.readouterr().out
    for words in ("[second]", "after task 1", "forgetting", "0.0700", "recovered", "no value: ", "is better"):
        assert words in out


def test_parquet_gives_the_same(log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metrics_command(log, "higher", as_json=True)
    first = capsys.readouterr().out
    EvaluationTable.read(log).write(tmp_path / "log.parquet")
    metrics_command(tmp_path / "log.parquet", "higher", as_json=True)
    assert capsys.readouterr().out == first


def test_direction(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metrics_command(log, "lower", as_json=True)
    assert json.loads(capsys.readouterr().out)["forgetting"] == pytest.approx(-0.07)
    with pytest.raises(UserError, match="--direction is 'up'"):
        metrics_command(log, "up", as_json=True)


def test_contradictory_log_is_named(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("step,tasks_seen,eval_set,value\n10,1,a,0.5\n30,3,a,0.5\n")
    with pytest.raises(UserError, match=r"log\.csv: no boundary rows with tasks_seen 2"):
        metrics_command(path, "higher", as_json=True)


def test_long_runs_stay_readable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = []
    for task in range(8):
        for step in range(30 * task + 1, 30 * task + 31):
            rows += [Row(step, task, f"set{j}", 0.5, belongs_to=j, kind="trace") for j in range(8)]
        for kind in ("trace", "boundary"):
            end = 30 * task + 30
            rows += [Row(end, task + 1, f"set{j}", 0.5, belongs_to=j, kind=kind) for j in range(8)]  # type: ignore[arg-type]
    EvaluationTable(rows).write(tmp_path / "log.parquet")
    metrics_command(tmp_path / "log.parquet", "higher", as_json=False)
    out = capsys.readouterr().out
    assert "the 20 deepest of 28; --json has them all" in out
    assert "evaluated 30 times in the 30 steps after step 30: 1, 2, 3" in out
    assert "after task 7" in out
    assert "…" not in out
