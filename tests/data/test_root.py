from __future__ import annotations

import os
from pathlib import Path

import pytest

from clbench.data.cache import file_sha256
from clbench.data.root import cache_dir, data_root


def test_data_root_is_argument_then_environment_then_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLBENCH_DATA", "/somewhere/else")
    assert data_root("here") == Path("here")
    assert data_root() == Path("/somewhere/else")
    monkeypatch.delenv("CLBENCH_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert data_root().parts[-2:] == ("clbench", "data")


def test_cache_folder_is_made_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLBENCH_CACHE", str(tmp_path / "a" / "b"))
    assert cache_dir() == tmp_path / "a" / "b" and (tmp_path / "a" / "b").is_dir()
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert cache_dir() is None


def test_hashes_follow_the_file(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"one")
    first = file_sha256(path)
    assert first == file_sha256(path) == "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"
    path.write_bytes(b"two!")
    assert file_sha256(path) != first


def test_hashes_survive_a_damaged_index(tmp_path: Path, own_cache: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"one")
    first = file_sha256(path)
    (own_cache / "sha256.json").write_text("[")
    assert file_sha256(path) == first
