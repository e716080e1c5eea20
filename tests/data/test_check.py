from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clbench.cli.data import check_command, get_command, list_command
from clbench.data.check import check, list_sets
from clbench.data.layout import write_image_set, write_text_set
from clbench.data.text import Document
from clbench.errors import UserError


def test_a_sound_set(tiny: Path, root: Path) -> None:
    report = check("tiny", root)
    assert report.ok and not report.remarks and report.classes == 3
    train = report.splits["train"]
    assert (train.rows, train.unreadable, train.smallest_class, train.largest_class) == (12, 0, 4, 4)
    assert train.sizes == {"8x8": 12}


def test_every_fault_is_reported(tiny: Path, root: Path) -> None:
    table = pq.read_table(tiny / "train.parquet").to_pylist()
    for row in (2, 5):
        table[row]["image"]["bytes"] = b"damaged"
    table[7]["label"] = 9
    pq.write_table(pa.Table.from_pylist(table), tiny / "train.parquet")
    report = check("tiny", root)
    assert not report.ok and report.splits["train"].unreadable == 2
    told = "\n".join(report.problems)
    assert "row 2: unusable" in told and "row 5: unusable" in told and "row 7: label 9" in told
    assert report.splits["test"].rows == 6


def test_repeated_rows_and_rows_in_both_splits(tiny: Path, root: Path) -> None:
    x = np.random.default_rng(7).integers(0, 256, (6, 3, 8, 8), dtype=np.uint8)
    write_image_set(tiny, "train", np.concatenate([x, x[:1]]), [0, 1, 2, 0, 1, 2, 0], ["ant", "bee", "cat"])
    write_image_set(tiny, "test", x[:3], [0, 1, 2], ["ant", "bee", "cat"])
    report = check("tiny", root)
    assert report.ok and report.splits["train"].repeated == 1 and report.shared == 3
    assert len(report.remarks) == 2


def test_text_sets(root: Path) -> None:
    folder = root / "text" / "prose"
    write_text_set(folder, "train", [Document("a", "1"), Document("b", "2"), Document("b", "3")])
    write_text_set(folder, "val", [Document("b", "4")])
    report = check("prose", root)
    assert report.kind == "text" and report.ok and report.shared == 1 and report.splits["train"].repeated == 1
    (folder / "val.parquet").write_bytes(b"no")
    assert "not a readable Parquet" in check("prose", root).problems[0]


def test_list(tiny: Path, root: Path) -> None:
    write_text_set(root / "text" / "prose", "train", [Document("a", "1")])
    (root / "text" / "book.txt").write_text("words")
    write_image_set(root / "loose", "train", [], [], ["a"])
    (root / "images" / "bad").mkdir()
    (root / "images" / "bad" / "info.json").write_text("{")
    found = {entry.name: entry for entry in list_sets(root)}
    assert list(found) == ["bad", "tiny", "book", "prose", "loose"]
    assert found["tiny"].splits == {"train": 12, "test": 6} and found["tiny"].classes == 3
    assert found["prose"].splits == {"train": 1} and found["loose"].kind == "images"
    assert list_sets(root / "nowhere") == []


def test_commands_print_one_json_object(tiny: Path, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    list_command(str(root), True)
    listed = json.loads(capsys.readouterr().out)
    assert listed[0]["name"] == "tiny" and listed[0]["summary"] == "tiny"
    check_command("tiny", str(root), True)
    assert json.loads(capsys.readouterr().out)["ok"] is True
    (tiny / "train.parquet").write_bytes(b"no")
    with pytest.raises(UserError, match=r"1 problem; the first: .*train\.parquet"):
        check_command("tiny", str(root), True)
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is False and report["splits"]["test"]["rows"] == 6


def test_commands_for_people(tiny: Path, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    list_command(str(root), False)
    shown = capsys.readouterr().out
    assert "tiny" in shown and "cifar100" in shown
    list_command(str(root / "nowhere"), False)
    assert "No data sets" in capsys.readouterr().out
    check_command("tiny", str(root), False)
    assert "Every row can be read" in capsys.readouterr().out
    with pytest.raises(UserError, match="no source is known"):
        get_command("tiny", str(root))


def test_check_of_nothing(tiny: Path, root: Path) -> None:
    with pytest.raises(UserError, match="did you mean tiny"):
        check("tinny", root)


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("CLBENCH_DATA"), reason="CLBENCH_DATA names no folder of real sets")
def test_every_real_set_is_sound() -> None:
    entries = list_sets()
    assert entries
    for entry in entries:
        report = check(entry.name)
        assert report.ok, report.problems
        assert {split: found.rows for split, found in report.splits.items()} == entry.splits
