from __future__ import annotations

from pathlib import Path

import pytest
import torch

from clbench.engine.checkpoint import KEPT, Checkpoints
from clbench.errors import RunFailed


def saved(folder: Path, n: int) -> Checkpoints:
    checkpoints = Checkpoints(folder / "checkpoint")
    for i in range(n):
        checkpoints.save({"a": torch.full((4,), float(i))}, {"number": i})
    return checkpoints


def test_the_newest_is_loaded_and_two_are_kept(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 5)
    tensors, state = checkpoints.load(pytest.fail) or ({}, {})
    assert state["number"] == 4
    assert torch.equal(tensors["a"], torch.full((4,), 4.0))
    assert len(list((tmp_path / "checkpoint").iterdir())) == KEPT


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json", "checksums.json"])
@pytest.mark.parametrize("harm", ["truncate", "alter", "delete"])
def test_damage_falls_back_to_the_one_before_and_says_so(tmp_path: Path, name: str, harm: str) -> None:
    checkpoints = saved(tmp_path, 3)
    file = tmp_path / "checkpoint" / "000002" / name
    content = file.read_bytes()
    if harm == "truncate":
        file.write_bytes(content[: len(content) // 2])
    elif harm == "alter":
        file.write_bytes(content[:-6] + bytes(b ^ 1 for b in content[-6:]))
    else:
        file.unlink()
    said: list[str] = []
    _, state = checkpoints.load(said.append) or ({}, {})
    assert state["number"] == 1
    assert len(said) == 1 and "000002 is damaged" in said[0]


def test_all_damaged_is_one_line(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 2)
    for place in (tmp_path / "checkpoint").iterdir():
        (place / "state.json").write_text("{}")
    with pytest.raises(RunFailed, match="start afresh"):
        checkpoints.load(lambda text: None)


def test_nothing_saved(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "checkpoint").load(pytest.fail) is None


def test_a_full_disk_leaves_the_earlier_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = saved(tmp_path, 1)

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("clbench.engine.checkpoint._sync", full)
    with pytest.raises(OSError, match="No space"):
        checkpoints.save({"a": torch.ones(4)}, {"number": 9})
    _, state = checkpoints.load(pytest.fail) or ({}, {})
    assert state["number"] == 0
    assert [p.name for p in (tmp_path / "checkpoint").iterdir()] == ["000000"]
