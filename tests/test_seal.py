"""Seals: an edit of anything in a record or of its files is found; what clbench writes is whole."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clbench.errors import UserError
from clbench.launch import resume_run
from clbench.record import read_record, write_record
from clbench.seal import broken_seal, record_fingerprint, seal

Copy = Callable[[str, int], Path]
Runs = dict[tuple[str, int], Path]


def edited(folder: Path, *place: str | int, value: Any) -> None:
    """Edit one place of a record.json, as an editor would."""
    record = json.loads((folder / "record.json").read_text())
    inner = record
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    (folder / "record.json").write_text(json.dumps(record))


def leaves(value: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = False
    for key, inner in items:
        found = True
        yield from leaves(inner, (*place, key))
    if not found:
        yield place


def test_what_a_run_wrote_is_whole(finished_runs: Runs) -> None:
    for folder in finished_runs.values():
        record = read_record(folder)
        assert broken_seal(folder, record) is None
        assert set(record["seal"]["files"]) == {"evaluations.parquet", "config.yaml"}


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("metrics", "average"), 0.999),
        (("metrics", "forgetting"), None),
        (("metrics", "matrix", "rows", 0, 0), 0.125),
        (("spec", "seed"), 7),
        (("spec", "strategy_settings", "lr"), 0.5),
        (("spec", "stream_settings", "tasks"), 2),
        (("spec", "chosen_on"), "validation"),
        (("cost", "seconds_train"), 0.001),
        (("cost", "steps"), 1),
        (("state_hash",), "0" * 64),
        (("environment", "device"), "cuda"),
        (("environment", "versions", "torch"), "9.9"),
        (("strategy", "needs", "stores_samples"), True),
        (("stream", "content"), "other"),
        (("verification",), [{"verdict": "identical"}]),
        (("origin",), {}),
        (("warnings",), ["made up"]),
        (("started",), "2020-01-01T00:00:00Z"),
        (("status",), "diverged"),
        (("status",), "running"),
        (("run",), "another"),
        (("note",), "a new key"),
        (("seal", "record"), "0" * 64),
        (("seal", "files"), {}),
        (("seal",), None),
        (("seal",), {"record": []}),
    ],
)
def test_an_edit_of_any_part_is_found(run_copy: Copy, place: tuple[str | int, ...], value: Any) -> None:
    folder = run_copy("nmc", 0)
    edited(folder, *place, value=value)
    found = broken_seal(folder, read_record(folder))
    assert found is not None and "\n" not in found and str(folder) in found


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_an_edit_of_any_leaf_changes_the_fingerprint(finished_runs: Runs, data: st.DataObject) -> None:
    record = read_record(finished_runs["replay", 0])
    before = record_fingerprint(record)
    changed = copy.deepcopy(record)
    place = data.draw(st.sampled_from([place for place in leaves(record) if place[0] != "seal"]))
    value = data.draw(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(0, 1), st.text(max_size=5)))
    inner = changed
    for key in place[:-1]:
        inner = inner[key]
    old = inner[place[-1]]
    inner[place[-1]] = value
    same = json.dumps(old) == json.dumps(value)
    assert (record_fingerprint(changed) == before) == same


def test_edited_missing_and_added_files_are_found(run_copy: Copy) -> None:
    folder = run_copy("nmc", 0)
    record = read_record(folder)
    for name in ("evaluations.parquet", "config.yaml"):
        path = folder / name
        before = path.read_bytes()
        path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
        assert f"{name} was edited" in str(broken_seal(folder, record))
        path.unlink()
        assert f"{name} is missing" in str(broken_seal(folder, record))
        path.mkdir()
        assert "cannot be read" in str(broken_seal(folder, record))
        path.rmdir()
        path.write_bytes(before)
    assert broken_seal(folder, record) is None
    (folder / "config.yaml").unlink()
    write_record(folder, record)
    assert broken_seal(folder, read_record(folder)) is None
    (folder / "config.yaml").write_text("seed: 1\n")
    assert "config.yaml was edited" in str(broken_seal(folder, record))


def test_layout_and_order_of_keys_do_not_matter_but_types_do(run_copy: Copy) -> None:
    folder = run_copy("nmc", 0)
    record = read_record(folder)
    text = json.dumps(dict(reversed(record.items())), indent=7)
    (folder / "record.json").write_text(text)
    assert broken_seal(folder, read_record(folder)) is None
    edited(folder, "spec", "seed", value=0.0)
    assert broken_seal(folder, read_record(folder)) is not None


def test_whoever_writes_later_reseals_and_keys_that_are_no_text_hold(tmp_path: Path) -> None:
    record: dict[str, Any] = {"schema": 2, "status": "completed", "metrics": {10: 1.0, 9: (1, 2)}}
    write_record(tmp_path, record)
    assert broken_seal(tmp_path, read_record(tmp_path)) is None
    before = record["seal"]
    record["warnings"] = ["later"]
    write_record(tmp_path, record)
    assert broken_seal(tmp_path, read_record(tmp_path)) is None and record["seal"] != before


def test_a_running_record_has_no_seal(tmp_path: Path) -> None:
    record = seal(tmp_path, {"schema": 2, "status": "completed"})
    running = seal(tmp_path, record | {"status": "running"})
    assert "seal" not in running and broken_seal(tmp_path, running) is None
    assert broken_seal(tmp_path, {"schema": 2, "status": "completed"}) is not None


def test_an_interrupted_run_that_was_edited_is_not_resumed(run_copy: Copy) -> None:
    folder = run_copy("nmc", 0)
    write_record(folder, read_record(folder) | {"status": "interrupted"})
    config = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(config.replace("seed: 0", "seed: 1"))
    with pytest.raises(UserError, match=r"cannot resume: .*config\.yaml was edited"):
        resume_run(folder)
    (folder / "config.yaml").write_text(config)
    edited(folder, "started", value="2020-01-01T00:00:00Z")
    with pytest.raises(UserError, match=r"cannot resume: .*record\.json was edited"):
        resume_run(folder)
    (folder / "config.yaml").write_text(config.replace("seed: 0", "seed: 1"))
    write_record(folder, read_record(folder) | {"status": "running"})
    with pytest.raises(UserError, match="is not the specification that the run began with"):
        resume_run(folder)
