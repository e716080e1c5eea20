from __future__ import annotations

import subprocess
import sys

PROGRAM = """
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


def test_torchvision_can_be_imported_after_prepare() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.stdout == "fine\n", done.stderr
