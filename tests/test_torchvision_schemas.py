from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy
import pytest

REAL = """
import sys
from clbench.torchvision_schemas import _libraries, prepare
assert not {"torch", "torchvision"} & set(sys.modules)
prepare(); prepare()
assert "torchvision" not in sys.modules
import torch, torchvision
from torchvision import transforms
compiled = torchvision.extension._has_ops()
assert bool(_libraries) != compiled, (_libraries, compiled)
prepare()
if compiled:
    boxes, scores = torch.tensor([[0.0, 0, 1, 1], [0, 0, 1, 1]]), torch.tensor([0.5, 0.9])
    assert torchvision.ops.nms(boxes, scores, 0.5).tolist() == [1]
import timm
print("fine")
"""

# argv: a folder with a made-up torchvision package, and the operators that its library is to have declared.
STAGED = """
import sys, torch
sys.path.insert(0, sys.argv[1])
from clbench.torchvision_schemas import _libraries, prepare
compiled = torch.library.Library("torchvision", "FRAGMENT")
for name in sys.argv[2:]:
    compiled.define(name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
prepare(); prepare()
print(len(_libraries), *(name for name in ("nms", "qnms") if hasattr(torch.ops.torchvision, name)))
"""


def _run(program: str, *arguments: str) -> str:
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def _package(folder: Path, loadable: bool) -> str:
    """A torchvision package whose `_C.so` is some loadable extension module, or no library at all."""
    library = folder / "torchvision" / "_C.so"
    library.parent.mkdir()
    (library.parent / "__init__.py").touch()
    if not loadable:
        library.write_bytes(b"not a library")
        return str(folder)
    extension = next(Path(numpy.__file__).parent.glob("random/_common*.so"), None)
    if extension is None:
        pytest.skip("no extension module in ELF or Mach-O form to stage")
    shutil.copy(extension, library)
    return str(folder)


def test_torchvision_can_be_imported_after_prepare() -> None:
    assert _run(REAL) == "fine"


def test_nothing_is_declared_where_the_library_loads(tmp_path: Path) -> None:
    assert _run(STAGED, _package(tmp_path, loadable=True), "nms", "qnms") == "0 nms qnms"


def test_an_older_library_with_nms_alone_is_enough(tmp_path: Path) -> None:
    assert _run(STAGED, _package(tmp_path, loadable=True), "nms") == "0 nms"


@pytest.mark.slow
@pytest.mark.parametrize("declared", [(), ("nms",)])
def test_only_what_is_missing_is_declared(tmp_path: Path, declared: tuple[str, ...]) -> None:
    assert _run(STAGED, _package(tmp_path, loadable=False), *declared) == "1 nms qnms"
