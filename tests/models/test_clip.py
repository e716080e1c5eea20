"""Models of images and texts: what open_clip makes, exactly, with attention taken apart."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from clbench.errors import UserError
from clbench.models import build_model, describe, model_info
from clbench.models.clip.attention import split_qkv
from clbench.models.clip.model import CLIP, LARGEST_SCALE
from clbench.models.tune import apply_tuning
from clbench.pairs import Pairs
from clbench.torchvision_schemas import prepare

TEXTS = ["a red square", "blue paint", "it is green"]


def build(spec: str, seed: int = 0) -> CLIP:
    torch.manual_seed(seed)
    model = build_model(spec, channels=3, size=8, mean=(0.5,) * 3, std=(0.2,) * 3, pairs=True)
    assert isinstance(model, CLIP)
    return model


def theirs(config: dict[str, Any], seed: int = 0) -> Any:
    prepare()
    import open_clip

    torch.manual_seed(seed)
    return open_clip.CLIP(**config)


@pytest.fixture
def tiny(pairs_stream: Any, tmp_path: Path) -> Callable[..., CLIP]:
    """The small model, by the options of its string."""
    spec = pairs_stream.tiny_clip(tmp_path)
    return lambda options="", seed=0: build(spec + options, seed)


def example(model: CLIP, n: int = 3) -> Pairs:
    return Pairs(torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(1)), model.tokenize(TEXTS[:n]))


@pytest.mark.parametrize("training", [False, True])
def test_embeddings_are_those_of_open_clip(tiny: Callable[..., CLIP], pairs_stream: Any, training: bool) -> None:
    model, other = tiny().train(training), theirs(pairs_stream.TINY).train(training)
    x = example(model)
    with torch.no_grad():
        out, (image, text, scale) = model(x), other(x.images, x.tokens)
    torch.testing.assert_close(out.image, image, atol=1e-6, rtol=0)
    torch.testing.assert_close(out.text, text, atol=1e-6, rtol=0)
    torch.testing.assert_close(out.scale, scale)


@pytest.mark.parametrize("kind", ["torch", "sequence first", "booleans", "other widths", "open_clip", "norms"])
def test_attention_taken_apart_is_the_same(kind: str) -> None:
    prepare()
    from open_clip.transformer import Attention

    torch.manual_seed(0)
    mask = torch.full((5, 5), float("-inf")).triu(1)
    x: Tensor = torch.randn(4, 5, 16)
    if kind in ("open_clip", "norms"):
        options = {"qk_norm": True, "scale_heads": True, "inner_norm": True} if kind == "norms" else {}
        holder = nn.ModuleDict({"attn": Attention(16, 2, **options)})
        before = holder["attn"](x, attn_mask=mask)
        assert split_qkv(holder) == ["attn"]
        after = holder["attn"](x, attn_mask=mask)
    else:
        widths = {"kdim": 6, "vdim": 6} if kind == "other widths" else {}
        holder = nn.ModuleDict({"attn": nn.MultiheadAttention(16, 2, batch_first=kind != "sequence first", **widths)})
        nn.init.normal_(holder["attn"].in_proj_bias)
        mask = mask < 0 if kind == "booleans" else mask  # type: ignore[assignment]
        keys = torch.randn(4, 5, 6) if widths else x
        if kind == "sequence first":
            mask = torch.full((4, 4), float("-inf")).triu(1)
        before = holder["attn"](x, keys, keys, need_weights=False, attn_mask=mask)[0]
        split_qkv(holder)
        after = holder["attn"](x, keys, keys, need_weights=False, attn_mask=mask)[0]
    torch.testing.assert_close(after, before, atol=1e-6, rtol=0)
    assert {type(holder["attn"].get_submodule(f"{part}_proj")) for part in ("q", "k", "v", "out")} == {nn.Linear}


def test_scaled_cosines_are_refused() -> None:
    prepare()
    from open_clip.transformer import Attention

    with pytest.raises(UserError, match="cosines"):
        split_qkv(nn.ModuleDict({"attn": Attention(16, 2, scaled_cosine=True)}))


@pytest.mark.parametrize("kind", ["LoraConfig", "dora", "VeraConfig"])
def test_every_adapter_gets_a_gradient(tiny: Callable[..., CLIP], kind: str) -> None:
    """Of all linear layers of both towers; with the fused modules those on the output layer would get none."""
    prepare()
    import peft

    model = tiny()
    targets = [f"{part}_proj" for part in ("q", "k", "v", "out")] + ["c_fc", "c_proj"]
    settings: dict[str, Any] = {"r": 2, "target_modules": targets}
    if kind == "VeraConfig":  # its factors are shared, and kept by a wrapper of the model
        peft.get_peft_model(model.backbone, peft.VeraConfig(**settings))  # type: ignore[arg-type]
    else:
        peft.inject_adapter_in_model(peft.LoraConfig(**settings, use_dora=kind == "dora"), model)
    adapters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    for name, p in adapters.items():
        if "_B" in name or "lambda_b" in name:  # they start at zero, which hides half of the gradients
            nn.init.normal_(p)
    out = model(example(model))
    nn.functional.cross_entropy(out.logits(), torch.arange(3)).backward()
    towers = {side: [n for n in adapters if n in model.tower(side)] for side in ("image", "text")}  # type: ignore[arg-type]
    assert len(towers["image"]) == len(towers["text"]) >= 12
    assert [name for name, p in adapters.items() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("mode", ["full", "head", "norm", "bias", "lora:2", "locked-image", "locked-text"])
def test_what_is_trained_is_what_moves(tiny: Callable[..., CLIP], mode: str) -> None:
    model = tiny()
    apply_tuning(model, mode)
    for name, p in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(p)
    nn.functional.cross_entropy(model(example(model)).logits(), torch.arange(3)).backward()
    moved = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert moved == {name for name, p in model.named_parameters() if p.requires_grad} != set()
    assert ("backbone.logit_scale" in moved) == (mode in ("full", "head", "locked-image", "locked-text"))
    assert bool(moved & model.tower("image")) == (mode != "locked-image")
    assert bool(moved & model.tower("text")) == (mode != "locked-text")


def test_locking_needs_two_towers() -> None:
    classifier = build_model("mlp:8x1", channels=3, size=4, mean=(0.5,) * 3, std=(0.2,) * 3)
    with pytest.raises(UserError, match="two towers"):
        apply_tuning(classifier, "locked-text")


def test_the_scale_is_held_in_bounds_unless_told_otherwise(tiny: Callable[..., CLIP]) -> None:
    for options, expected in (("", LARGEST_SCALE), ("?clamp=false", 9.0)):
        model = tiny(options)
        nn.init.constant_(model.backbone.logit_scale, 9.0)  # type: ignore[arg-type]
        model.constrain()
        assert model.scale.log().item() == pytest.approx(expected)


def test_local_weights_of_every_form_are_read(pairs_stream: Any, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    other = theirs(pairs_stream.TINY, seed=5)
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": pairs_stream.TINY}))
    torch.save({"state_dict": other.state_dict()}, tmp_path / "w.pt")
    save_file(other.state_dict(), tmp_path / "open_clip_model.safetensors")
    specs = [
        f"open_clip:{tmp_path}",
        f"open_clip:{tmp_path}/w.pt",
        f"{pairs_stream.tiny_clip(tmp_path)}@{tmp_path}/w.pt",
    ]
    infos = [model_info(build(spec)) for spec in specs]
    assert len({info["weights_sha256"] for info in infos}) == 1
    assert infos[0]["weights_sha256"] != model_info(build(pairs_stream.tiny_clip(tmp_path)))["weights_sha256"]
    assert [info["checkpoint"] for info in infos] == [f"folder:{tmp_path.name}", "file:w.pt", "file:w.pt"]
    assert [describe(spec).pretrained for spec in specs] == [True, True, True]


def test_other_sizes_resample_positions(pairs_stream: Any, tmp_path: Path) -> None:
    torch.save(theirs(pairs_stream.TINY).state_dict(), tmp_path / "w.bin")
    model = build(f"{pairs_stream.tiny_clip(tmp_path)}@{tmp_path}/w.bin?img_size=16")
    assert model.input.size == 16
    assert model.encode_image(torch.zeros(1, 3, 16, 16)).shape == (1, 8)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("open_clip:", "a name must follow"),
        ("open_clip:ViT-B-33", "did you mean ViT-B-32"),
        ("open_clip:ViT-B-32/laion", "it has openai"),
        ("open_clip:ViT-B-32@/nowhere/w.pt", "no weights"),
        ("open_clip:/nowhere", "there is no"),
        ("open_clip:coca_ViT-B-32", "two towers"),
        ("open_clip:ViT-B-32?size=3", "unknown option"),
        ("open_clip:ViT-B-32?clamp=3", "true or false"),
        ("mlp:8x1", "takes images, but the stream gives images with captions"),
    ],
)
def test_mistakes_are_one_line(spec: str, says: str) -> None:
    with pytest.raises(UserError, match=says) as error:
        build(spec)
    assert "\n" not in str(error.value)


def test_weights_of_another_model_are_refused(pairs_stream: Any, tmp_path: Path) -> None:
    torch.save({"logit_scale": torch.zeros(())}, tmp_path / "w.pt")
    with pytest.raises(UserError, match="do not fit"):
        build(f"{pairs_stream.tiny_clip(tmp_path)}@{tmp_path}/w.pt")


def test_the_key_of_texts_follows_everything_but_the_image_tower(tiny: Callable[..., CLIP]) -> None:
    model = tiny()
    before = model.text_key()
    nn.init.normal_(model.backbone.visual.proj)  # type: ignore[arg-type, union-attr]
    assert model.text_key() == before is not None
    model.backbone.token_embedding.weight.data[3, 0] += 1e-3  # type: ignore[index, union-attr]
    assert model.text_key() != before
    apply_tuning(model, "lora:2")
    assert model.text_key() is None
