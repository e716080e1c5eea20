"""The schema of record.json: real records fit it, changed ones do not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clbench.record import read_record
from clbench.record_schema import schema, schema_faults


def test_the_schema_is_a_schema() -> None:
    from jsonschema import Draft202012Validator

    Draft202012Validator.check_schema(schema())


def test_real_records_fit(finished_runs: dict[tuple[str, int], Path]) -> None:
    assert len(finished_runs) == 5
    for folder in finished_runs.values():
        assert schema_faults(read_record(folder)) == []


def test_a_diverged_run_fits(tmp_path: Path) -> None:
    from clbench.errors import RunFailed
    from clbench.launch import start_run
    from clbench.spec import make_spec

    settings = {"lr": 1e30, "steps": 20}
    spec = make_spec({"strategy": "finetune", "stream": "split-digits", "threads": 1, "strategy_settings": settings})
    with pytest.raises(RunFailed, match="not finite"):
        start_run(spec, tmp_path)
    record = read_record(next(tmp_path.glob("runs/*/*/*")))
    assert record["status"] == "diverged"
    assert schema_faults(record) == []


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("status", "done"),
        ("schema", 1),
        ("seal.record", "abc"),
        ("seal.files", {"log.txt": "0" * 64}),
        ("verification", [{"verdict": "fine"}]),
        ("origin", {}),
        ("spec_hash", "abc"),
        ("spec.seed", -1),
        ("spec.seed", "0"),
        ("spec.chosen_on", "luck"),
        ("spec.budget", {"hours": 3}),
        ("strategy.needs", {}),
        ("stream.direction", "up"),
        ("stream.tasks", []),
        ("environment.threads", 0),
        ("metrics.average", "0.9"),
        ("metrics.versions", {"average": "1"}),
        ("cost", {}),
        ("cost.seconds_total", -1),
        ("finished", None),
        ("started", "yesterday"),
        ("error", "it went wrong"),
        ("warnings", "none"),
    ],
)
def test_changed_records_do_not(make_record: Callable[..., dict[str, Any]], place: str, value: Any) -> None:
    faults = schema_faults(make_record(**{place: value}))
    assert faults
    assert any(fault.startswith(place.split(".")[0]) for fault in faults)
    assert all("\n" not in fault for fault in faults)


LATER = {"clock", "upstream"}  # records made before there were any are complete without


def test_every_part_is_required(make_record: Callable[..., dict[str, Any]]) -> None:
    for part in set(make_record()) - LATER:
        record = make_record()
        del record[part]
        assert schema_faults(record), f"{part} can be left out"


def test_the_schema_travels_with_the_package() -> None:
    from importlib.resources import files

    text = files("clbench").joinpath("record.schema.json").read_text(encoding="utf-8")
    assert json.loads(text) == schema()


def test_the_model_is_described_whether_or_not_its_features_were_cached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clbench.launch import start_run
    from clbench.spec import make_spec

    monkeypatch.setenv("CLBENCH_CACHE", str(tmp_path / "cache"))
    spec = make_spec({"strategy": "nmc", "stream": "split-digits", "threads": 1})
    first, second = (start_run(spec, tmp_path)[1] for _ in range(2))
    for path in (tmp_path / "cache").rglob("*.json"):
        path.write_text("{")
    third = start_run(spec, tmp_path)[1]
    assert first["cost"]["features_computed"] > 0 == second["cost"]["features_computed"]
    assert first["model"] == second["model"] == third["model"] and schema_faults(second) == []


def test_streams_and_strategies_in_files_go_by_their_classes(tmp_path: Path) -> None:
    from clbench.launch import start_run
    from clbench.spec import make_spec

    source = "from clbench.streams.split import SplitDigits\n\nclass MyStream(SplitDigits):\n    '''Digits.'''\n"
    (tmp_path / "mine.py").write_text(source)
    stream = f"{tmp_path / 'mine.py'}:MyStream"
    spec = make_spec({"strategy": "nmc", "stream": stream, "threads": 1, "eval_grid": "none"})
    folder, record = start_run(spec, tmp_path)
    assert (record["stream"]["name"], record["spec"]["stream"]) == ("MyStream", "mine.py:MyStream")
    assert folder.parts[-3] == "MyStream" and str(tmp_path) not in (folder / "record.json").read_text()
    assert str(tmp_path) in (folder / "config.yaml").read_text(), "where to find it again, on this machine"
