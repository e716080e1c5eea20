"""micro-vit as a backbone: with the weights that come with the package, others, or none."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from ...errors import UserError
from ..catalogue import SHIPPED
from ..spec import InputSpec, ModelSpec
from ..timm_backbone import TimmBackbone, normalisation
from ..weights import mismatch, read_tensors
from .architecture import SIZE, WIDTH, micro_vit

WEIGHTS = SHIPPED
MEAN, STD = (0.48, 0.448, 0.397), (0.277, 0.269, 0.282)  # of Tiny-ImageNet's training pixels
FIRST_CONVOLUTION = "patch_embed.layers.0.weight"


def build_micro_vit(spec: ModelSpec, stream: InputSpec) -> tuple[TimmBackbone, InputSpec, str | None]:
    """Backbone, the input it takes, and the id of the checkpoint (None: untrained).

    Options: `pretrained=false` (PyTorch's and timm's initialisation) and `norm`, as for `timm:` models. Images are
    brought to 32 px; grey ones go through the summed weights of the three colour channels.
    """
    spec.only_options("pretrained", "norm")
    pretrained = spec.options.get("pretrained", True)
    if not isinstance(pretrained, bool):
        raise UserError(f"model {spec.text!r}: pretrained is true or false, not {pretrained!r}")
    if spec.weights_file and not pretrained:
        raise UserError(f"model {spec.text!r}: pretrained=false and a file of weights exclude each other; drop one")
    mean, std = normalisation(spec, stream, MEAN, STD, pretrained)
    net = micro_vit(stream.channels)
    checkpoint = None
    if pretrained:
        path = spec.weights_file or WEIGHTS
        _load(net, read_tensors(path), stream.channels, path)
        checkpoint = f"file:{path.name}" if spec.weights_file else "clbench:micro-vit"
    return TimmBackbone(net, WIDTH), InputSpec("image", stream.channels, SIZE, mean, std), checkpoint


def _load(net: nn.Module, tensors: dict[str, Tensor], channels: int, path: Path) -> None:
    first = tensors.get(FIRST_CONVOLUTION)
    if first is not None and first.ndim == 4 and first.shape[1] == 3 != channels:
        grey = first.float().sum(dim=1, keepdim=True)
        tensors = {**tensors, FIRST_CONVOLUTION: (grey / channels).expand(-1, channels, -1, -1)}
    try:
        net.load_state_dict(tensors)
    except RuntimeError as error:
        raise UserError(f"weights {path} do not fit micro-vit: {mismatch(error)}") from error
