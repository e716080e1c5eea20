"""Which parameters are trained: all, the head, norms, biases, one of two towers, or adapters added by peft."""

from __future__ import annotations

import re
import warnings
from typing import Any, TypeAlias

import torch
from torch import nn

from ..errors import UserError
from ..pairs import Pairs
from ..torchvision_schemas import prepare

Model: TypeAlias = Any  # a Classifier, a CausalLM or a CLIP, perhaps compiled or wrapped
RANKS = {"lora": 8, "dora": 8, "vera": 256}
"""Adapters, and their ranks where none is given: peft's defaults."""
PLAIN = ("full", "head", "norm", "bias", "locked-image", "locked-text")
SCALE = "+scale"


def parse_tuning(mode: str) -> tuple[str, int]:
    """("lora", r) from `lora` or `lora:r`, likewise dora and vera, (mode, 0) from the others; `+scale` may follow.
    UserError for anything else."""
    match = re.fullmatch(rf"({'|'.join(PLAIN)})|({'|'.join(RANKS)})(?::([1-9]\d*))?", mode.removesuffix(SCALE))
    if match is None:
        known = "full, head, norm, bias, lora, lora:RANK (dora, vera), locked-image or locked-text, and +scale after it"
        raise UserError(f"tuning {mode!r}: use {known}")
    if match[1]:
        return match[1], 0
    return match[2], int(match[3] or RANKS[match[2]])


def apply_tuning(model: Model, mode: str) -> None:
    """Set `requires_grad` for a mode; adapters are added first (in place, parameter names change).

    full: everything. head: the classifier's head, the language model's output layer, or the projections of a
    model of images and texts. norm: weights and biases of normalisation layers. bias: every bias (BitFit,
    Ben Zaken et al., ACL 2022). lora[:r]: rank r factors (default 8, alpha = r so that the scale is 1, no
    dropout; Hu et al., ICLR 2022) on every linear layer of the backbone that the forward pass calls, output
    layer excepted. dora[:r]: the same with weights taken apart into directions and lengths (Liu et al., ICML
    2024). vera[:r]: factors drawn once and shared by all layers, of which two vectors train for each layer
    (default 256, begun at 0.1 and 0; Kopiczko et al., ICLR 2024). locked-image, locked-text: all but one tower
    of a model of images and texts (LiT, Zhai et al., CVPR 2022). A classifier's head trains in every mode, since
    it starts untrained; a language model's output layer only in `full` and `head`, the scale of similarities
    only in these, with a tower locked, and where the mode ends in `+scale`.
    """
    kind, rank = parse_tuning(mode)
    if kind in RANKS:
        _add_adapters(model, kind, rank)
    chosen = trainable_names(model, mode)
    if not chosen and not hasattr(model, "head"):
        raise UserError(f"tuning {mode!r}: this model has no such parameters")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in chosen)


def trainable_names(model: Model, mode: str) -> set[str]:
    """Names of the parameters that a mode trains; a pure function of the model's structure."""
    kind, _ = parse_tuning(mode)
    if not mode.endswith(SCALE):
        return _names_of(model, kind, mode)
    if not hasattr(model, "tower"):
        raise UserError(f"tuning {mode!r}: this model has no scale of similarities; leave out {SCALE}")
    names = {name for name, _ in model.named_parameters()}
    return _names_of(model, kind, mode) | (names - model.tower("image") - model.tower("text"))


def _names_of(model: Model, kind: str, mode: str) -> set[str]:
    names = {name for name, _ in model.named_parameters()}
    head = {name for name in names if name.startswith("head.")}
    if kind == "full":
        return names
    if kind == "head":
        return head or _last_layer(model)
    if kind.startswith("locked-"):
        if not hasattr(model, "tower"):
            raise UserError(f"tuning {mode!r}: this model has no two towers; it is for models of images and texts")
        locked: set[str] = model.tower("image" if kind == "locked-image" else "text")
        return names - locked
    if kind == "norm":
        return head | (_norm_parameters(model) & names)
    if kind == "bias":
        return head | {name for name in names if name.rpartition(".")[2] == "bias"}
    return head | {name for name in names if ".lora_" in name or ".vera_lambda_" in name}


def _last_layer(model: Model) -> set[str]:
    """Names of the parameters that make the output of a model without a head."""
    named: set[str] = model.last_layers() if hasattr(model, "last_layers") else set()
    return named or _same_tensors(model, model.output_layer)


def _same_tensors(model: nn.Module, part: nn.Module) -> set[str]:
    """Names, in the model, of the parameters of one of its parts (a tied parameter has one name)."""
    wanted = {id(p) for p in part.parameters()}
    return {name for name, p in model.named_parameters() if id(p) in wanted}


def _norm_parameters(model: nn.Module) -> set[str]:
    """Parameters directly in a normalisation layer: any class named so (LayerNorm, LlamaRMSNorm)."""
    return {
        f"{path}.{name}" if path else name
        for path, module in model.named_modules()
        if re.search(r"norm", type(module).__name__, re.IGNORECASE)
        for name, _ in module.named_parameters(recurse=False)
    }


def _add_adapters(model: Model, kind: str, rank: int) -> None:
    prepare()
    from peft import LoraConfig, VeraConfig, inject_adapter_in_model
    from peft.tuners.vera import VeraModel

    backbone: nn.Module = model.backbone
    targets = called_linear_layers(model, backbone)
    if not targets:
        raise UserError(f"tuning {kind!r}: this model's backbone has no linear layers to adapt; use full, norm or head")
    training = model.training
    if kind == "vera":  # the shared factors are drawn from a fixed seed, so they need not be saved
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Specified to not save vera_A")
            VeraModel(backbone, VeraConfig(r=rank, target_modules=targets, save_projection=False), "default")
    else:
        dora = kind == "dora"
        plain = LoraConfig(r=rank, lora_alpha=rank, lora_dropout=0.0, target_modules=targets, use_dora=dora)
        inject_adapter_in_model(plain, backbone)
    model.train(training)


def called_linear_layers(model: Model, backbone: nn.Module) -> list[str]:
    """Names of the backbone's linear layers that one forward pass calls, output layer excepted.

    A layer whose weight is used without calling the layer (the output projection of nn.MultiheadAttention,
    the joint projection of BEiT) would carry factors that never receive a gradient.
    """
    from transformers.pytorch_utils import Conv1D

    output = getattr(model, "output_layer", None)
    called: list[str] = []
    hooks = [
        layer.register_forward_hook(lambda *_, name=name: called.append(name))
        for name, layer in backbone.named_modules()
        if isinstance(layer, nn.Linear | Conv1D) and layer is not output
    ]
    training = model.training
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            model.eval()
            model.features(_example(model))
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return sorted(set(called))


def _example(model: Model) -> torch.Tensor | Pairs:
    """The smallest input the model takes: one blank image, a block of two tokens, or an image and an empty text."""
    spec = model.input
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    if spec.kind == "tokens":
        return torch.zeros(1, 2, dtype=torch.long, device=device)
    side = spec.size or 32
    images = torch.zeros(1, spec.channels, side, side, device=device)
    return Pairs(images, model.tokenize([""]).to(device)) if spec.kind == "pairs" else images
