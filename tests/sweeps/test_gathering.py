"""Run folders packed, placed whole, and put at URLs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clbench.errors import UserError
from clbench.launch import start_run
from clbench.record import read_record
from clbench.seal import broken_seal
from clbench.sweeps.gathering import PENDING, Gathering
from clbench.sweeps.shipping import pack, place, unpack

from .small_jobs import small_spec

RUN = "stream/strategy/20260101-000000-abcdef01"
NAMES = st.text("abcdefghij", min_size=1, max_size=8)


def make_run(out: Path, run: str = RUN) -> Path:
    folder = out / "runs" / run
    unpack({"record.json": b"{}", "config.yaml": b"seed: 1\n", "evaluations.parquet": b"\x00\x01"}, folder)
    return folder


@settings(max_examples=25, deadline=None)
@given(files=st.dictionaries(st.tuples(NAMES, NAMES).map("/".join), st.binary(max_size=300), min_size=1, max_size=6))
def test_what_is_packed_is_placed(files: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> None:
    out = tmp_path_factory.mktemp("out")
    folder = place(files, out, RUN)
    assert pack(folder, unfinished=True) == files
    assert [path.name for path in out.iterdir()] == ["runs"]


def test_a_finished_run_travels_without_its_checkpoint_and_locks(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    unpack({"checkpoint/000001/state.json": b"{}", "checkpoint/.partial-000002/x": b"", ".lock": b""}, folder)
    unpack({"evaluations.jsonl": b"{}\n", "block_losses.raw": b"1234", "beginnings/0.raw": b"1234"}, folder)
    assert set(pack(folder, unfinished=False)) == {"record.json", "config.yaml", "evaluations.parquet"}
    assert set(pack(folder, unfinished=True)) == {
        "record.json", "config.yaml", "evaluations.parquet", "evaluations.jsonl", "checkpoint/000001/state.json",
        "block_losses.raw", "beginnings/0.raw",
    }  # fmt: skip


def test_a_taken_name_gets_a_number_and_nothing_is_overwritten(tmp_path: Path) -> None:
    first = place({"record.json": b"1"}, tmp_path, RUN)
    second = place({"record.json": b"2"}, tmp_path, RUN)
    assert (first.name + "-1", b"1", b"2") == (
        second.name,
        (first / "record.json").read_bytes(),
        (second / "record.json").read_bytes(),
    )


def test_a_resumed_run_replaces_what_it_left(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    unpack({"checkpoint/000001/state.json": b"{}", "evaluations.jsonl": b"{}\n"}, folder)
    assert place({"record.json": b"[]", "evaluations.parquet": b"\x02"}, tmp_path, RUN, again=True) == folder
    assert pack(folder, unfinished=True) == {
        "record.json": b"[]",
        "evaluations.parquet": b"\x02",
        "config.yaml": b"seed: 1\n",
    }


def test_a_full_disk_leaves_no_part_of_a_run(tmp_path: Path) -> None:
    files = {"a": b"x", "a/b": b"y"}  # a file that would have to be a folder, too
    with pytest.raises(OSError):
        place(files, tmp_path, RUN)
    assert not (tmp_path / "runs" / RUN).exists()
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_runs_are_put_at_a_url_whole(tmp_path: Path) -> None:
    run, _ = start_run(small_spec(), tmp_path / "results")
    gathering = Gathering((tmp_path / "there").as_uri(), tmp_path / "out")
    gathering.put(run)
    assert list(gathering.notes(wait=True)) == []
    gathering.close()
    there = tmp_path / "there" / "runs" / Path(*run.parts[-3:])
    assert pack(there, unfinished=True) == pack(run, unfinished=False)
    assert broken_seal(there, read_record(there)) is None


def test_memory_urls_work_in_one_process(tmp_path: Path) -> None:
    import fsspec

    gathering = Gathering("memory://board", tmp_path)
    gathering.put(make_run(tmp_path))
    assert list(gathering.notes(wait=True)) == []
    assert fsspec.filesystem("memory").cat_file(f"/board/runs/{RUN}/config.yaml") == b"seed: 1\n"


def test_what_could_not_be_put_is_kept_told_and_tried_again(tmp_path: Path) -> None:
    there, out = tmp_path / "there", tmp_path / "out"
    folder = make_run(out)
    gathering = Gathering(there.as_uri(), out)
    (there / "runs").write_text("in the way")
    gathering.put(folder)
    [note] = gathering.notes(wait=True)
    gathering.close()
    assert str(folder) in note and "tries again" in note and "\n" not in note
    assert json.loads((out / PENDING).read_text()) == {there.as_uri(): [RUN]}
    assert (folder / "record.json").exists()

    (there / "runs").unlink()
    again = Gathering(there.as_uri(), out)
    assert list(again.notes(wait=True)) == []
    again.close()
    assert pack(there / "runs" / RUN, unfinished=True) == pack(folder, unfinished=True)
    assert not (out / PENDING).exists()


def test_a_run_removed_since_is_not_tried_again(tmp_path: Path) -> None:
    there, out = tmp_path / "there", tmp_path / "out"
    out.mkdir()
    (out / PENDING).write_text(json.dumps({there.as_uri(): [RUN]}))
    gathering = Gathering(there.as_uri(), out)
    assert list(gathering.notes(wait=True)) == []


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("results", "use a URL"),
        ("file://", "use a URL"),
        ("s4://bucket/x", "unknown protocol 's4'; did you mean s3"),
        ("file:///proc/nothing/here", "cannot be written"),
    ],
)
def test_urls_that_cannot_be_used_are_one_line(url: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=says) as caught:
        Gathering(url, tmp_path)
    assert "\n" not in str(caught.value)


def test_a_missing_driver_package_is_one_line(tmp_path: Path) -> None:
    try:
        import s3fs  # noqa: F401
    except ImportError:
        with pytest.raises(UserError, match="s3fs") as caught:
            Gathering("s3://bucket/x", tmp_path)
        assert "\n" not in str(caught.value)
    else:
        pytest.skip("s3fs is installed")


def test_an_unreachable_place_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="/x cannot be") as caught:
        Gathering("ftp://someone:secret@127.0.0.1:1/x", tmp_path)
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)


def test_a_damaged_list_of_the_pending_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / PENDING).write_text("{")
    shutil.rmtree(tmp_path / "there", ignore_errors=True)
    gathering = Gathering((tmp_path / "there").as_uri(), tmp_path)
    gathering.put(make_run(tmp_path))
    assert list(gathering.notes(wait=True)) == []
