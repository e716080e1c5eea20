"""From a model string and the stream's input to a model."""

from __future__ import annotations

import re

from torch import nn

from ..errors import UserError, did_you_mean
from .catalogue import known
from .classifier import Classifier
from .heads import HEADS
from .identity import identify
from .spec import InputSpec, ModelSpec, parse
from .weights import load_backbone


def build(text: str, stream: InputSpec, head: str) -> nn.Module:
    """Build the model `text` for input like `stream`; see `build_model`."""
    spec = parse(text)
    info = known(spec)
    if info.kind != stream.kind:
        takes = {"image": "images", "tokens": "text", "pairs": "images with captions"}
        raise UserError(f"model {text!r} takes {takes[info.kind]}, but the stream gives {takes[stream.kind]}")
    model: nn.Module
    if info.kind == "pairs":
        model, checkpoint = _of_pairs(spec)
    elif info.kind == "tokens":
        model, checkpoint = _language_model(spec, stream)
    else:
        model, checkpoint = _classifier(spec, stream, head)
    backbone = model.backbone
    assert isinstance(backbone, nn.Module)
    identify(model, backbone, text, spec.family, checkpoint)
    return model


def _of_pairs(spec: ModelSpec) -> tuple[nn.Module, str | None]:
    if spec.family == "micro-clip":
        from .micro_clip.build import build_micro_clip

        return build_micro_clip(spec)
    from .clip.loading import build_open_clip

    return build_open_clip(spec)


def _language_model(spec: ModelSpec, stream: InputSpec) -> tuple[nn.Module, str | None]:
    from .language import build_byte_gpt, build_hf

    if spec.family == "hf":
        return build_hf(spec, stream.size or 0, stream.vocab_size)
    return build_byte_gpt(spec, stream.size or 0, stream.vocab_size), _file_id(spec)


def _classifier(spec: ModelSpec, stream: InputSpec, head: str) -> tuple[nn.Module, str | None]:
    if head not in HEADS:
        raise UserError(f"unknown head {head!r}{did_you_mean(head, HEADS)}")
    if not len(stream.mean) == len(stream.std) == stream.channels:
        given = f"{len(stream.mean)} means and {len(stream.std)} standard deviations"
        raise UserError(f"model {spec.text!r}: images of {stream.channels} channels come with {given}")
    if spec.family == "timm":
        from .timm_backbone import build_timm

        backbone, takes, checkpoint = build_timm(spec, stream)
        return Classifier(backbone, HEADS[head](backbone.feature_dim), takes), checkpoint
    if spec.family == "micro-vit":
        from .micro_vit.backbone import build_micro_vit

        backbone, takes, checkpoint = build_micro_vit(spec, stream)
        return Classifier(backbone, HEADS[head](backbone.feature_dim), takes), checkpoint
    small, takes = _small(spec, stream)
    if spec.weights_file is not None:
        load_backbone(small, spec.weights_file)
    return Classifier(small, HEADS[head](small.feature_dim), takes), _file_id(spec)  # type: ignore[arg-type]


def _small(spec: ModelSpec, stream: InputSpec) -> tuple[nn.Module, InputSpec]:
    """The torch-only backbones. The convolutional one takes images of any size."""
    from .small import MLP, Pixels, SlimResNet18

    if spec.family == "slim-resnet18":
        spec.only_options("width")
        takes = InputSpec("image", stream.channels, None, stream.mean, stream.std)
        return SlimResNet18(stream.channels, spec.integer("width", 20)), takes
    spec.only_options()
    inputs = stream.channels * (stream.size or 0) ** 2
    if spec.family == "pixels":
        return Pixels(inputs), stream
    shape = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", spec.name or "400x2")
    if shape is None:
        raise UserError(f"model {spec.text!r}: write mlp:HIDDENxDEPTH, as in mlp:400x2")
    return MLP(inputs, int(shape[1]), int(shape[2])), stream


def _file_id(spec: ModelSpec) -> str | None:
    return None if spec.weights_file is None else f"file:{spec.weights_file.name}"
