"""Lets torchvision be imported beside a torch build that its compiled operators do not fit.

torchvision gives shape rules to its operators `nms` and `qnms` while it is imported, and fails there
("operator torchvision::nms does not exist") when its compiled library could not be loaded, for example a
CUDA wheel of torchvision beside a CPU wheel of torch. timm, open_clip, peft and the vision part of
transformers import torchvision and fail with it, although none of what clbench uses needs a compiled
operator.

`prepare` declares the two missing schemas, and only those that are missing. Call it before importing any of
these packages. Transforms and data sets then work; box operators such as `nms` still do not.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_libraries: list[object] = []  # a schema is withdrawn when its Library object is collected


def prepare() -> None:
    """Declare `torchvision::nms` and `torchvision::qnms` if torchvision's own library cannot be loaded.

    Does nothing where torchvision is absent or already imported. May be called any number of times.
    """
    if "torchvision" in sys.modules or _libraries:
        return
    package = importlib.util.find_spec("torchvision")
    if package is None or not package.submodule_search_locations:
        return
    if _load_compiled(Path(package.submodule_search_locations[0])):
        return

    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    _libraries.append(library)
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            library.define(name + _SIGNATURE)


def _load_compiled(package: Path) -> bool:
    """Whether torchvision's operator library loads; torchvision's own later load of it is then harmless."""
    import torch

    for pattern in ("_C*.so", "_C*.pyd", "_C*.dylib"):
        for path in sorted(package.glob(pattern)):
            try:
                torch.ops.load_library(str(path))
            except (OSError, ImportError):
                continue
            # Releases before qnms existed declare nms alone, and need nothing more.
            return hasattr(torch.ops.torchvision, "nms")
    return False
