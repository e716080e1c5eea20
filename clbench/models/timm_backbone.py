"""timm image models as backbones: untrained, with a published tag's weights, or with a local file's."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..torchvision_schemas import prepare
from .spec import InputSpec, ModelSpec
from .weights import hub_folder, mismatch, read_tensors

NORMALISATIONS = ("stream", "checkpoint", "unit")
OWN_OPTIONS = ("img_size", "norm")


class TimmBackbone(nn.Module):
    """A timm model without classifier: float [B, C, H, W] to pooled features [B, feature_dim]."""

    def __init__(self, net: nn.Module, feature_dim: int) -> None:
        super().__init__()
        self.net = net
        self.feature_dim = feature_dim

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def build_timm(spec: ModelSpec, stream: InputSpec) -> tuple[TimmBackbone, InputSpec, str | None]:
    """Build the model of a `timm:` string for the stream's images.

    Returns the backbone, the input it takes, and the id of the checkpoint (None: untrained). Options are
    timm's own keyword arguments, and two of clbench's: `img_size` (the side length the images are brought to,
    for any model) and `norm`: `checkpoint` (timm's resolved data config; default with weights), `stream` (the
    data's mean and standard deviation; default without), `unit` (pixels stay in [0, 1]).
    """
    prepare()
    import timm

    architecture, tag = _names(spec)
    name = f"{architecture}.{tag}" if tag else architecture
    config: Any = timm.models.get_pretrained_cfg(name)
    size = _size(spec, config)
    arguments: dict[str, Any] = {key: v for key, v in spec.options.items() if key not in OWN_OPTIONS}
    if spec.options.get("img_size") is not None and _is_fixed(config):
        arguments["img_size"] = size
    arguments |= {"in_chans": stream.channels, "num_classes": 0}

    checkpoint = None
    if spec.weights_file is not None:
        tensors = read_tensors(spec.weights_file)
        checkpoint = f"file:{spec.weights_file.name}"
        overlay = {"state_dict": tensors, "num_classes": _classes_in(tensors, config), "label_offset": 0}
        overlay["input_size"] = (_channels_in(tensors, config), *config.input_size[1:])
        net = _create(spec, name, arguments, overlay)
    elif tag is not None:
        tensors, checkpoint = _published(spec, config)
        net = _create(spec, name, arguments, {"state_dict": tensors})
    else:
        net = _create(spec, name, arguments, None)

    resolved = timm.data.resolve_model_data_config(net)
    mean, std = normalisation(spec, stream, resolved["mean"], resolved["std"], pretrained=checkpoint is not None)
    feature_dim = _feature_dim(spec, net, stream.channels, size or stream.size or 224)
    return TimmBackbone(net, feature_dim), InputSpec("image", stream.channels, size, mean, std), checkpoint


def _names(spec: ModelSpec) -> tuple[str, str | None]:
    """Architecture and tag (None: no published weights) after checking that timm has both."""
    import timm

    architecture, _, tag = spec.name.partition(".")
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(near)}?" if near else "see timm.list_models()"
        raise UserError(f"model {spec.text!r}: timm has no model {architecture!r}; {hint}")
    if spec.weights is not None and spec.weights_file is None:
        if tag:
            raise UserError(f"model {spec.text!r}: two tags, {tag!r} and {spec.weights!r}; give one")
        tag = spec.weights
    tags = [name.partition(".")[2] for name in timm.list_models(architecture + ".*", pretrained=True)]
    if tag == "pretrained":
        default = timm.models.get_pretrained_cfg(architecture)
        if default is None or default.tag not in tags:
            raise UserError(f"model {spec.text!r}: timm publishes no weights for {architecture!r}")
        tag = default.tag
    if tag and tag not in tags:
        hint = f"it has {', '.join(tags)}" if tags else "it publishes none"
        raise UserError(f"model {spec.text!r}: timm has no weights {tag!r} of {architecture!r}; {hint}")
    return architecture, tag or None


def _is_fixed(config: Any) -> bool:
    return bool(config is not None and config.fixed_input_size)


def _size(spec: ModelSpec, config: Any) -> int | None:
    """The side length that the images must have: asked for, or the model's where it takes just one."""
    if spec.options.get("img_size") is not None:
        return spec.integer("img_size", 0)
    return int(config.input_size[-1]) if _is_fixed(config) else None


def _create(spec: ModelSpec, name: str, arguments: dict[str, Any], overlay: dict[str, Any] | None) -> nn.Module:
    """Call timm. With weights, the model is made with their classifier and loaded strictly, then loses it:
    timm loads leniently when the class counts differ, and a file of other weights would pass unnoticed."""
    import timm

    try:
        if overlay is None:
            return timm.create_model(name, pretrained=False, **arguments)
        config: Any = timm.models.get_pretrained_cfg(name)
        arguments = arguments | {"num_classes": overlay.get("num_classes", config.num_classes)}
        net: Any = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **arguments)
    except (TypeError, AssertionError, ValueError, KeyError, AttributeError) as error:
        options = ", ".join(f"{key}={value}" for key, value in spec.options.items()) or "no options"
        reason = mismatch(error) or type(error).__name__
        raise UserError(f"model {spec.text!r}: timm cannot build it with {options}: {reason}") from error
    except RuntimeError as error:
        raise UserError(f"model {spec.text!r}: the weights do not fit: {mismatch(error)}") from error
    net.pretrained_cfg.pop("state_dict", None)  # else a second copy of the weights lives with the model
    if net.num_classes:
        net.reset_classifier(0)
    return net


def _classifier(config: Any) -> str:
    names = config.classifier or ""
    return names if isinstance(names, str) else names[0]


def _classes_in(tensors: dict[str, Tensor], config: Any) -> int:
    """How many classes the classifier in the file has; 0 where it was left out."""
    weight = tensors.get(f"{_classifier(config)}.weight")
    return 0 if weight is None else weight.shape[0]


def _channels_in(tensors: dict[str, Tensor], config: Any) -> int:
    """How many image channels the file's first convolution takes."""
    names = config.first_conv or ()
    first = names if isinstance(names, str) else next(iter(names), "")
    weight = tensors.get(f"{first}.weight")
    return weight.shape[1] if weight is not None and weight.ndim == 4 else config.input_size[0]


def _published(spec: ModelSpec, config: Any) -> tuple[dict[str, Tensor], str]:
    """The tensors of a tag's safetensors file on the hub, and the id of that checkpoint."""
    if not config.hf_hub_id:
        raise UserError(f"model {spec.text!r}: these weights are not on the hub; fetch them and use @FILE.safetensors")
    name = Path(config.hf_hub_filename or "model.safetensors").name
    if not name.endswith(".safetensors"):
        name = {"open_clip_pytorch_model.bin": "open_clip_model.safetensors"}.get(name, "model.safetensors")
    folder = hub_folder(config.hf_hub_id, [name], model=spec.text)
    return read_tensors(folder / name), f"{config.hf_hub_id}@{folder.name}"


def normalisation(
    spec: ModelSpec, stream: InputSpec, mean: tuple[float, ...], std: tuple[float, ...], pretrained: bool
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation, one a channel, that the option `norm` asks for; `checkpoint` is `mean` and `std`."""
    choice = spec.options.get("norm", "checkpoint" if pretrained else "stream")
    if choice not in NORMALISATIONS:
        raise UserError(f"model {spec.text!r}: norm must be one of {', '.join(NORMALISATIONS)}, not {choice!r}")
    if choice == "stream":
        return stream.mean, stream.std
    if choice == "unit":
        return (0.0,) * stream.channels, (1.0,) * stream.channels
    return _per_channel(mean, stream.channels), _per_channel(std, stream.channels)


def _per_channel(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """As given, or their average in each channel where the weights were adapted to other channels."""
    if len(values) == channels:
        return tuple(float(v) for v in values)
    return (sum(values) / len(values),) * channels


def _feature_dim(spec: ModelSpec, net: nn.Module, channels: int, size: int) -> int:
    """Width of the pooled features, seen on one blank image; UserError where the model does not take it."""
    training = net.training
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            out = net.eval()(torch.zeros(1, channels, size, size))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise UserError(f"model {spec.text!r} does not take images of {size} px: {mismatch(error)}") from error
    finally:
        net.train(training)
    if not isinstance(out, Tensor) or out.ndim != 2:
        raise UserError(f"model {spec.text!r}: its features are not pooled to [B, d]; drop the option that does so")
    return out.shape[1]
