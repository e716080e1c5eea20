"""The model families: names, one-line summaries, and what a model string stands for. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import UserError, did_you_mean
from .spec import ModelSpec, parse

SHIPPED = Path(__file__).with_name("micro_vit") / "weights.safetensors"
SHIPPED_CLIP = Path(__file__).with_name("micro_clip") / "weights.safetensors"


@dataclass(frozen=True)
class ModelInfo:
    """What is known of a model before it is built.

    name: the string that selects it (a pattern in `list_models`); family: the part before the colon.
    kind: "image", "tokens" or "pairs"; pretrained: whether it starts from trained weights.
    local_weights: the file, or the folder of an `hf:` or `open_clip:` model, that holds them, where the string names
    one or the package has one.
    """

    name: str
    summary: str
    family: str
    kind: str
    pretrained: bool = False
    local_weights: str | None = None


FAMILIES: dict[str, ModelInfo] = {
    info.family: info
    for info in (
        ModelInfo("micro-vit", "small vision transformer, pretrained on Tiny-ImageNet at 32 px", "micro-vit", "image"),
        ModelInfo("slim-resnet18", "reduced ResNet-18 of GEM, 3x3 stem, 20 base channels", "slim-resnet18", "image"),
        ModelInfo("mlp[:HIDDENxDEPTH]", "fully connected ReLU network, 400x2 by default", "mlp", "image"),
        ModelInfo("pixels", "standardised pixels as features, nothing to train but the head", "pixels", "image"),
        ModelInfo("timm:NAME[.TAG|@FILE]", "any timm image model, untrained or pretrained", "timm", "image"),
        ModelInfo("byte-gpt", "small causal transformer over bytes, untrained", "byte-gpt", "tokens"),
        ModelInfo("hf:NAME|FOLDER", "any transformers causal language model, pretrained", "hf", "tokens"),
        ModelInfo("micro-clip", "small model of images and texts, pretrained at 32 px", "micro-clip", "pairs"),
        ModelInfo("open_clip:NAME[/TAG|@FILE]|PATH", "any open_clip model of images and texts", "open_clip", "pairs"),
    )
}


_SHIPPED = {"micro-vit": SHIPPED, "micro-clip": SHIPPED_CLIP}

NAMED = ("timm", "hf", "open_clip")
"""Families whose names are those of another library."""


def list_models() -> list[ModelInfo]:
    """All families, in the order in which they are shown."""
    return list(FAMILIES.values())


def known(spec: ModelSpec) -> ModelInfo:
    """The family of a parsed string; UserError naming the nearest where there is none."""
    info = FAMILIES.get(spec.family)
    if info is None:
        raise UserError(f"unknown model {spec.text!r}{did_you_mean(spec.family, FAMILIES)}")
    if spec.family in NAMED and not spec.name:
        raise UserError(f"model {spec.text!r}: a name must follow the colon, as in {info.name}")
    if spec.family not in (*NAMED, "mlp") and spec.name:
        raise UserError(f"model {spec.text!r}: {spec.family} takes no name after a colon; options follow a '?'")
    if spec.family not in NAMED and spec.weights and spec.weights_file is None:
        raise UserError(f"model {spec.text!r}: {spec.family} has no published weights; give a .safetensors file")
    if spec.family == "hf" and spec.weights:
        raise UserError(f"model {spec.text!r}: hf takes no '@'; name a folder, or ?revision=NAME")
    return info


def describe(spec: str) -> ModelInfo:
    """What `spec` stands for, from the string alone; UserError for a family or form that does not exist."""
    parsed = parse(spec)
    info = known(parsed)
    tagged = parsed.family == "timm" and "." in parsed.name
    shipped = _SHIPPED.get(parsed.family) if parsed.options.get("pretrained", True) is True else None
    tagged = tagged or (parsed.family == "open_clip" and not parsed.name.endswith(".json") and "/" in parsed.name)
    pretrained = parsed.family == "hf" or tagged or bool(shipped) or parsed.weights is not None
    local = parsed.weights_file or _local(parsed) or shipped
    return replace(info, name=spec, pretrained=pretrained, local_weights=None if local is None else str(local))


def _local(spec: ModelSpec) -> Path | None:
    path = Path(spec.name).expanduser()
    if spec.family == "open_clip" and path.suffix != ".json" and path.exists():
        return path
    return path if spec.family == "hf" and path.is_dir() else None
