"""Archives of records: what goes in comes out, and what a stranger put together is refused in one line."""

from __future__ import annotations

import dataclasses
import gzip
import io
import json
import random
import stat
import tarfile
import zipfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clbench.board_records import last_verdict
from clbench.errors import UserError
from clbench.metrics import compute
from clbench.record import read_record, write_record
from clbench.seal import broken_seal
from clbench.sharing.container import Limits, read_archive, write_archive
from clbench.sharing.export import export_runs
from clbench.sharing.hide import hide_folders, without_folders
from clbench.sharing.importing import import_archive
from clbench.sharing.manifest import MANIFEST, SOURCE, safe_name
from clbench.sharing.strict_json import shown, strict_json, unsafe_text
from clbench.sharing.unpack import examine, examined
from clbench.table import EvaluationTable
from clbench.verify import record_faults

Copy = Callable[[str, int], Path]
Runs = dict[tuple[str, int], Path]
Members = dict[str, bytes]


@pytest.fixture(scope="session")
def good(finished_runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of two runs."""
    archive = tmp_path_factory.mktemp("good") / "good.zip"
    export_runs([finished_runs["replay", 0], finished_runs["nmc", 0]], archive)
    return archive


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check archives in this process: quicker, and errors are seen."""
    monkeypatch.setattr("clbench.sharing.importing.examined", examine)


def members_of(archive: Path) -> Members:
    return dict(read_archive(archive))


def packed(members: Members | list[tuple[str, bytes]], path: Path) -> Path:
    suffix = ".zip" if path.suffix == ".zip" else ".tar.gz"
    with path.open("wb") as file:
        write_archive(file, suffix, members.items() if isinstance(members, dict) else members)
    return path


def changed(archive: Path, path: Path, name: str, content: bytes) -> Path:
    """The archive with another content for the first run's file, announced by its manifest."""
    members = members_of(archive)
    manifest = json.loads(members[MANIFEST])
    run = manifest["runs"][0]
    run["files"][name] = sha256(content).hexdigest()
    members[f"{run['path']}/{name}"] = content
    members[MANIFEST] = json.dumps(manifest).encode()
    return packed(members, path)


def forged(archive: Path, path: Path, change: Callable[[dict[str, Any]], object], reseal: bool = True) -> Path:
    """The archive with the first run's record changed and, by a careful forger, sealed anew."""
    from clbench.sharing.export import _sealed

    members = members_of(archive)
    place = json.loads(members[MANIFEST])["runs"][0]["path"]
    record = json.loads(members[f"{place}/record.json"])
    change(record)
    files: Any = {name: members[f"{place}/{name}"] for name in ("evaluations.parquet", "config.yaml")}
    content = _sealed(record, files) if reseal else json.dumps(record).encode()
    return changed(archive, path, "record.json", content)


def nothing_there(out: Path) -> bool:
    return not out.exists() and not list(out.parent.glob(".clbench-import-*"))


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
def test_what_goes_in_comes_out(finished_runs: Runs, tmp_path: Path, suffix: str) -> None:
    archive, again = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    folders = list(finished_runs.values())
    assert export_runs(folders, archive).runs == len(folders)
    export_runs(folders[::-1], again)
    assert archive.read_bytes() == again.read_bytes(), "equal runs, equal bytes"
    names = set(members_of(archive))
    assert len(names) == 1 + 3 * len(folders) and not any("log" in name or "checkpoint" in name for name in names)
    out = tmp_path / "out"
    done = import_archive(archive, out)
    assert len(done.added) == len(folders) and not done.refused
    for folder in done.added:
        record = read_record(folder)
        source = finished_runs[record["strategy"]["name"], record["spec"]["seed"]]
        original = read_record(source)
        assert record_faults(folder, record) == [] and record["origin"] and last_verdict(record) is None
        assert record["origin"]["archive"] == sha256(archive.read_bytes()).hexdigest()
        parts = ("metrics", "cost", "stream", "spec_hash", "state_hash", "environment", "run")
        assert all(record[part] == original[part] for part in parts)
        table = "evaluations.parquet"
        assert (folder / table).read_bytes() == (source / table).read_bytes()
        assert {path.name for path in folder.iterdir()} == {"record.json", "config.yaml", table}
    assert len(import_archive(archive, out).known) == len(folders)
    second = tmp_path / "second.zip"
    export_runs(done.added, second)
    third = import_archive(second, tmp_path / "third").added
    assert read_record(third[0])["origin"]["through"] == [sha256(archive.read_bytes()).hexdigest()]
    assert len(import_archive(second, out).known) == len(folders), "the same runs, whatever way they came"


def test_folders_of_this_machine_stay_here(run_copy: Copy, tmp_path: Path) -> None:
    folder = run_copy("replay", 0)
    record = read_record(folder)
    record["spec"]["stream_settings"]["path"] = "/home/somebody/private/cats"
    record["spec"]["data_root"] = "/home/somebody/data"
    record["warnings"] = ["no /home/somebody/private/labels.csv: made up (see https://example.org/a/b)"]
    write_record(folder, record)
    done = export_runs([folder], tmp_path / "a.zip")
    text = b"".join(members_of(tmp_path / "a.zip").values())
    assert b"somebody" not in text and str(tmp_path).encode() not in text and b"https://example.org/a/b" in text
    assert done.hidden == {"spec.stream_settings.path": 1, "spec.data_root": 1, "warnings[0]": 1}
    assert read_record(folder) == record, "the run itself is as it was"
    (taken,) = import_archive(tmp_path / "a.zip", tmp_path / "out").added
    imported = read_record(taken)
    assert imported["spec"]["stream_settings"]["path"] == "cats"
    assert imported["origin"]["hidden"] == list(done.hidden)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("/home/me/cats", "cats"),
        ("~/x/y.txt", "y.txt"),
        ("C:\\Users\\me\\x.csv", "x.csv"),
        ("hf:/data/models/tiny", "hf:tiny"),
        ("hf:EleutherAI/pythia-70m", "hf:EleutherAI/pythia-70m"),
        ("a/b or 1/2", "a/b or 1/2"),
        ("/home/me/two words/x", "x"),
        ("", ""),
        ("more in (/var/x/log.txt)", "more in (log.txt)"),
    ],
)
def test_folders_in_texts(text: str, plain: str) -> None:
    assert without_folders(text) == plain


def test_hiding_nothing_changes_nothing(finished_runs: Runs) -> None:
    record = read_record(finished_runs["replay", 0])
    assert hide_folders(record) == (record, [])


def test_sources_go_on_request_and_are_never_run(finished_runs: Runs, tmp_path: Path) -> None:
    from clbench.launch import start_run
    from clbench.spec import make_spec

    method = tmp_path / "secret" / "mine.py"
    method.parent.mkdir()
    method.write_text("from strategies.finetune import Finetune\n".replace("strategies", "clbench.strategies")
                      + "class Mine(Finetune):\n    '''Mine.'''\n")  # fmt: skip
    spec = make_spec({"strategy": f"{method}:Mine", "stream": "split-digits", "threads": 1, "eval_grid": "none"})
    folder, _ = start_run(spec, tmp_path)
    export_runs([folder], tmp_path / "without.zip")
    assert not any(name.endswith(SOURCE) for name in members_of(tmp_path / "without.zip"))
    export_runs([folder], tmp_path / "with.zip", with_source=True)
    text = b"".join(members_of(tmp_path / "with.zip").values())
    assert b"secret" not in text and b"class Mine" in text
    (taken,) = import_archive(tmp_path / "with.zip", tmp_path / "out").added
    assert (taken / SOURCE).read_text() == method.read_text() and taken.parent.name == "Mine"
    assert "./" not in read_record(taken)["spec"]["strategy"]


def test_other_runs_of_the_same_name_get_new_names(good: Path, tmp_path: Path, in_process: None) -> None:
    out = tmp_path / "out"
    first = import_archive(good, out).added
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    other = forged(good, tmp_path / "b.zip", lambda record: record.update(warnings=["another"]))
    done = import_archive(other, out)
    assert len(done.added) == len(done.known) == 1
    assert done.added[0].name == f"{first[0].name}-1" and read_record(done.added[0])["warnings"] == ["another"]
    assert all(path.read_bytes() == content for path, content in before.items()), "nothing was overwritten"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda r: r["metrics"].update(average=0.999), "metrics.average is 0.999"),
        (lambda r: r["metrics"]["matrix"]["rows"][0].__setitem__(0, 0.125), "metrics.matrix.rows"),
        (lambda r: r["spec"].update(seed=9), "spec_hash is not the hash"),
        (lambda r: r["spec"].update(data_root="/data"), "config.yaml and record.json differ|data_root"),
        (lambda r: r["cost"].update(seconds_train=1e9), "more than the total"),
        (lambda r: r["cost"].update(steps=3), "the run had 3 steps|ends at step"),
        (lambda r: r["cost"].update(steps=10**6), "the run at step 1000000"),
        (lambda r: r["cost"].update(seconds_total=-1), "cost.seconds_total"),
        (lambda r: r.update(started="2099-01-01T00:00:00Z"), "finished before it started"),
        (lambda r: r.update(started="2098-01-01T00:00:00Z", finished="2099-01-01T00:00:00Z"), "in the future"),
        (lambda r: r.update(started="1999-01-01T00:00:00Z"), "before clbench"),
        (lambda r: r.update(started="2026-99-99T00:00:00Z"), "no date"),
        (lambda r: r.update(status="running"), "no record of a finished run"),
        (lambda r: r.update(schema=99), "schema: 2 was expected"),
        (lambda r: r["strategy"].update(name="../../evil"), "folder of another"),
        (lambda r: r["strategy"].update(name=""), "strategy.name"),
        (lambda r: r["stream"].update(name="other"), "folder of another"),
        (lambda r: r["stream"]["eval_sets"].pop(), "a set that the stream does not have"),
        (lambda r: r["stream"]["eval_sets"][0].update(belongs_to=3), "another task"),
        (lambda r: r["stream"]["eval_sets"][0].update(samples=1), "more samples than the set has"),
        (lambda r: r.update(warnings=["\x1b]0;owned\x07"]), "control characters"),
        (lambda r: r.update(warnings=["\u202egnp.exe"]), "control characters"),
        (lambda r: r.update(warnings=["two\u2028lines"]), "control characters"),
        (lambda r: r.update(run="../../x"), "its name makes no folder"),
        (lambda r: r.update(warnings=["x" * 30_000]), "too long"),
        (lambda r: r.update(warnings=[[[]] * 3]), "warnings"),
        (lambda r: r.pop("stream"), "stream"),
    ],
)
def test_forged_records_are_refused(
    good: Path, tmp_path: Path, in_process: None, change: Callable[[dict[str, Any]], object], reason: str
) -> None:
    archive = forged(good, tmp_path / "b.zip", change)
    with pytest.raises(UserError) as raised:
        import_archive(archive, tmp_path / "out")
    message = str(raised.value)
    assert any(part in message for part in reason.split("|")), message
    assert message.isprintable() and "--partial" in message and nothing_there(tmp_path / "out")


@pytest.mark.parametrize(
    ("line", "instead", "reason"),
    [
        ("strategy: ", "strategy: /home/me/downloads/", "another strategy"),
        ("stream: ", "stream: ../", "another stream"),
        ("data_root: null", "data_root: /etc", "another data_root"),
        ("devices: 1", "devices: 1000", "another devices"),
        ("threads: 1", "threads: null", "another threads"),
    ],
)
def test_a_configuration_cannot_choose_what_verify_runs_here(
    good: Path, tmp_path: Path, in_process: None, line: str, instead: str, reason: str
) -> None:
    """The hash of a specification leaves folders out, so that one line of config.yaml could name a file of ours."""
    from clbench.sharing.export import _sealed

    members = members_of(good)
    place = json.loads(members[MANIFEST])["runs"][0]["path"]
    config = members[f"{place}/config.yaml"].decode()
    assert config.count(f"\n{line}") + config.startswith(line) == 1, config
    other = f"\n{config}".replace(f"\n{line}", f"\n{instead}").removeprefix("\n").encode()
    files: Any = {"evaluations.parquet": members[f"{place}/evaluations.parquet"], "config.yaml": other}
    archive = changed(good, tmp_path / "b.zip", "config.yaml", other)
    archive = changed(
        archive, tmp_path / "c.zip", "record.json", _sealed(json.loads(members[f"{place}/record.json"]), files)
    )
    with pytest.raises(UserError, match=rf"config\.yaml has {reason} than the record"):
        import_archive(archive, tmp_path / "out")
    assert nothing_there(tmp_path / "out")


def test_an_unsealed_edit_is_refused_and_the_others_can_be_taken(good: Path, tmp_path: Path, in_process: None) -> None:
    archive = forged(good, tmp_path / "b.zip", lambda r: r.update(warnings=["x"]), reseal=False)
    with pytest.raises(UserError, match="was edited after the run"):
        import_archive(archive, tmp_path / "out")
    assert nothing_there(tmp_path / "out")
    done = import_archive(archive, tmp_path / "out", partial=True)
    assert len(done.added) == len(done.refused) == 1 and "was edited" in done.refused[0]
    assert broken_seal(done.added[0], read_record(done.added[0])) is None


def test_a_table_with_accuracies_above_one_is_refused(run_copy: Copy, tmp_path: Path, in_process: None) -> None:
    folder = run_copy("replay", 0)
    record = read_record(folder)
    rows = EvaluationTable.read(folder / "evaluations.parquet").rows
    rows[-1] = dataclasses.replace(rows[-1], value=1.5)
    EvaluationTable(rows).write(folder / "evaluations.parquet")
    record["metrics"] = compute(EvaluationTable(rows), "higher")
    write_record(folder, record)
    export_runs([folder], tmp_path / "a.zip")
    with pytest.raises(UserError, match=r"holds an accuracy of 1\.5"):
        import_archive(tmp_path / "a.zip", tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("record.json", b"", "is not JSON"),
        ("record.json", b"\xff\xfe", "UTF-8"),
        ("record.json", b"[" * 100_000, "nested|not JSON"),
        ("record.json", b'{"a": ' + b"9" * 5000 + b"}", "digits"),
        ("record.json", b'{"a": NaN}', "no number"),
        ("record.json", b'{"a": 1e999}', "too large"),
        ("record.json", b'{"a": 1, "a": 2}', "twice"),
        ("record.json", b'{"a": "\\u0000"}', "control"),
        ("record.json", b"[]", "holds no record"),
        ("config.yaml", b"a: &x [1]\nb: *x\n", "anchors"),
        ("config.yaml", b"a: !!python/object/apply:os.system [ls]\n", "tags"),
        ("config.yaml", b"[" * 5000, "config.yaml"),
        ("evaluations.parquet", b"PAR1PAR1", "evaluations.parquet"),
        ("evaluations.parquet", b"", "evaluations.parquet"),
        ("evaluations.parquet", b"PAR1" + b"\x00" * 50 + b"\x30\x00\x00\x00PAR1", "evaluations.parquet"),
    ],
)
def test_malformed_files_are_refused(
    good: Path, tmp_path: Path, in_process: None, name: str, content: bytes, reason: str
) -> None:
    with pytest.raises(UserError) as raised:
        import_archive(changed(good, tmp_path / "b.tar.gz", name, content), tmp_path / "out")
    assert any(part in str(raised.value) for part in reason.split("|")), raised.value
    assert "\n" not in str(raised.value) and nothing_there(tmp_path / "out")


@pytest.mark.parametrize(
    "path",
    [
        "../evil", "/etc/runs/a/b", "runs/../../b", "runs/a/b/..", "runs/a/b", "runs/a/b/c/d", "runs//b/c",
        "runs/a/b/.c",
        "runs/a/b/c\x00", "runs/a/b/c\n", "runs/a/b/" + "c" * 200, "runs/a/b/c ", "runs/a/b\\..\\c/d", "runs/a/-b/c",
    ],
)  # fmt: skip
def test_places_outside_are_refused(good: Path, tmp_path: Path, in_process: None, path: str) -> None:
    members = members_of(good)
    manifest = json.loads(members[MANIFEST])
    manifest["runs"][0]["path"] = path
    members[MANIFEST] = json.dumps(manifest).encode()
    with pytest.raises(UserError) as raised:
        import_archive(packed(members, tmp_path / "b.tar.gz"), tmp_path / "out")
    assert str(raised.value).isprintable() and nothing_there(tmp_path / "out")


def test_manifests_that_do_not_fit_are_refused(good: Path, tmp_path: Path, in_process: None) -> None:
    members = members_of(good)
    manifest = json.loads(members[MANIFEST])
    first, second = manifest["runs"]

    def refused(why: str, edited: dict[str, Any] | None = None, more: Members | None = None) -> None:
        found = {**members, **({MANIFEST: json.dumps(edited).encode()} if edited else {}), **(more or {})}
        with pytest.raises(UserError, match=why):
            import_archive(packed(found, tmp_path / "b.zip"), tmp_path / "out")
        assert nothing_there(tmp_path / "out")

    refused("two runs have one place", {**manifest, "runs": [first, {**second, "path": first["path"].upper()
                                                                    .replace("RUNS", "runs", 1)}, first]})  # fmt: skip
    refused("format 2", {**manifest, "version": 2})
    refused("record schema 1", {**manifest, "record_schema": 1})
    refused("no archive of", {**manifest, "format": "other"})
    refused("runs", {**manifest, "runs": []})
    refused("extra", {**manifest, "extra": 1})
    refused("does not name", None, {"runs/extra": b"x"})
    refused("does not name", None, {"../../evil": b"x"})
    refused("lacks a file", {**manifest, "runs": [{**first, "files": {}}]})
    refused("not what the manifest says", None, {f"{first['path']}/config.yaml": b"seed: 1"})
    missing = {name: content for name, content in members.items() if not name.endswith("config.yaml")}
    with pytest.raises(UserError, match="lacks"):
        import_archive(packed(missing, tmp_path / "b.zip"), tmp_path / "out")
    late = packed([*list(members.items())[1:], (MANIFEST, members[MANIFEST])], tmp_path / "b.zip")
    with pytest.raises(UserError, match="first member"):
        import_archive(late, tmp_path / "out")
    with pytest.raises(UserError, match="names once"):
        twice = [*members.items(), list(members.items())[1]]
        import_archive(packed(twice, tmp_path / "b.tar.gz"), tmp_path / "out")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_folders_and_devices_in_a_tar_are_refused(tmp_path: Path, kind: bytes) -> None:
    path = tmp_path / "a.tar.gz"
    with tarfile.open(path, "w:gz") as tarred:
        info = tarfile.TarInfo(MANIFEST)
        info.type, info.linkname = kind, "/etc/passwd"
        tarred.addfile(info)
    with pytest.raises(UserError, match="a folder, a link or a device"):
        list(read_archive(path))


def test_links_passwords_and_other_packings_in_a_zip_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    for attribute, message in ((stat.S_IFLNK, "a link"), (stat.S_IFDIR, "a link"), (stat.S_IFIFO, "a link")):
        with zipfile.ZipFile(path, "w") as zipped:
            info = zipfile.ZipInfo(MANIFEST)
            info.external_attr = (attribute | 0o777) << 16
            zipped.writestr(info, "/etc/passwd")
        with pytest.raises(UserError, match=message):
            list(read_archive(path))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as zipped:
        zipped.writestr(MANIFEST, "x")
    with pytest.raises(UserError, match="not read here"):
        list(read_archive(path))
    with zipfile.ZipFile(path, "w") as zipped:
        zipped.writestr(MANIFEST, "x")
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="encrypted"):
        list(read_archive(path))


def test_bombs_are_refused(tmp_path: Path) -> None:
    limits = Limits(archive_bytes=1 << 24, members=50, member_bytes=1 << 22, total_bytes=1 << 25, ratio=100)
    zeros = bytes(1 << 22)
    for suffix in (".zip", ".tar.gz"):
        path = tmp_path / f"a{suffix}"
        packed([(f"{i}", zeros) for i in range(6)], path)
        with pytest.raises(UserError, match="far too much"):
            list(read_archive(path, limits))
        packed([("big", zeros + b"x")], path)
        with pytest.raises(UserError, match=r"larger than 4 MiB|announces too much"):
            list(read_archive(path, limits))
        packed([(f"{i}", b"") for i in range(60)], path)
        with pytest.raises(UserError, match="too m"):
            list(read_archive(path, limits))
    path.write_bytes(gzip.compress(bytes(1 << 26)))
    with pytest.raises(UserError, match="far too much"):
        list(read_archive(path, limits))
    path.write_bytes(random.Random(0).randbytes((1 << 24) + 1))
    with pytest.raises(UserError, match="larger than 16 MiB"):
        list(read_archive(path, limits))


def test_headers_that_announce_gigabytes_are_refused(tmp_path: Path) -> None:
    for kind in (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.REGTYPE):
        info = tarfile.TarInfo("x")
        info.type, info.size = kind, 1 << 33
        path = tmp_path / "a.tar.gz"
        path.write_bytes(gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(2048)))
        with pytest.raises(UserError):
            list(read_archive(path))


def test_a_table_that_would_not_fit_in_memory_is_refused_from_its_footer(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from clbench.sharing.plausible import check_table_size

    path = tmp_path / "evaluations.parquet"
    pq.write_table(pa.table({"step": pa.array([0]).take(pa.array([0] * 1_200_000))}), path)
    assert path.stat().st_size < 100_000
    with pytest.raises(UserError, match="too large"):
        check_table_size(path)


def test_the_process_that_looks_is_another_one(good: Path, tmp_path: Path) -> None:
    found = examined(good, tmp_path)
    assert [run.faults for run in found] == [[], []]
    (tmp_path / "text.zip").write_text("hello")
    with pytest.raises(UserError, match="no archive of"):
        examined(tmp_path / "text.zip", tmp_path)
    with pytest.raises(FileNotFoundError):  # what the disk says is not blamed on the archive
        examined(good, tmp_path / "no such folder")


@settings(deadline=None, max_examples=150)
@given(data=st.data(), suffix=st.sampled_from([".zip", ".tar.gz"]))
def test_flipped_and_missing_bytes_never_give_a_wrong_import(
    good: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, suffix: str
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    members = members_of(good)
    content = bytearray(packed(members, folder / f"a{suffix}").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))]
    broken = folder / f"b{suffix}"
    broken.write_bytes(content)
    try:
        found = dict(read_archive(broken))
    except UserError as error:
        assert "\n" not in str(error)
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("clbench.sharing.importing.examined", examine)
        try:
            done = import_archive(broken, folder / "out")
        except UserError as error:
            assert str(error).isprintable() and not (folder / "out").exists()
            return
    assert found == members and len(done.added) == 2, "only what was not hurt is taken"


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=300), st.sampled_from([b"", b"PK\x03\x04", b"\x1f\x8b\x08"]))
def test_noise_is_refused(tmp_path_factory: pytest.TempPathFactory, noise: bytes, start: bytes) -> None:
    path = tmp_path_factory.mktemp("noise") / "a.zip"
    path.write_bytes(start + noise)
    with pytest.raises(UserError):
        list(read_archive(path))


@given(st.text(max_size=40))
def test_shown_text_is_harmless(text: str) -> None:
    assert shown(text).isprintable() and not any(c in shown(text) for c in "\u202e\u2066")
    if unsafe_text(text):
        with pytest.raises(ValueError, match=r"control characters|UTF-8"):
            strict_json(json.dumps([text]).encode())
    else:
        assert strict_json(json.dumps([text]).encode()) == [text]


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "a\\b", "-rf", ".hidden", "a.", "a b", "a\n", "é" * 151, "e\u0301"]
)
def test_names_that_make_no_folder(name: str) -> None:
    assert not safe_name(name) and safe_name("split-digits_1.0+x")


def test_an_import_that_fails_half_way_leaves_nothing(
    good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_process: None
) -> None:
    out = tmp_path / "out"
    (tmp_path / "blocked").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        import_archive(good, tmp_path / "blocked")
    real, calls = Path.rename, []

    def failing(self: Path, target: Path) -> Path:
        calls.append(self)
        if len(calls) == 2:
            raise OSError(28, "No space left on device", str(target))
        return real(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(Exception, match="the disk is full"):
        import_archive(good, out)
    assert nothing_there(out)


def test_large_archives_are_streamed(tmp_path: Path) -> None:
    blocks = [(f"{i}", random.Random(i).randbytes(1 << 16)) for i in range(20)]
    for suffix in (".zip", ".tar.gz"):
        assert list(read_archive(packed(blocks, tmp_path / f"a{suffix}"))) == blocks
        file = io.BytesIO()
        write_archive(file, suffix, blocks)
        assert file.getvalue() == (tmp_path / f"a{suffix}").read_bytes()
