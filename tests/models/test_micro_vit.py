"""micro-vit: what ships with the package, and what may be asked of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from clbench.errors import UserError
from clbench.models import describe, model_info
from clbench.models.micro_vit.architecture import ConvStem, micro_vit
from clbench.models.micro_vit.augment import jitter_colours, mix, random_resized_crops
from clbench.models.micro_vit.backbone import WEIGHTS

Build = Callable[..., nn.Module]


def test_what_ships_is_small_and_needs_no_network() -> None:
    assert WEIGHTS.stat().st_size <= 6_000_000
    tensors = load_file(WEIGHTS)
    assert {t.dtype for t in tensors.values()} == {torch.float16}
    assert sum(t.numel() for t in tensors.values()) <= 3_000_000
    assert not any(name.startswith("head.") or "running" in name for name in tensors)
    assert describe("micro-vit").pretrained and describe("micro-vit").local_weights == str(WEIGHTS)


def test_the_model_is_a_timm_vision_transformer_with_the_shipped_weights(image_model: Build) -> None:
    model = image_model("micro-vit", size=64)
    from timm.models.vision_transformer import VisionTransformer

    assert isinstance(model.backbone.net, VisionTransformer)
    assert model.input.size == 32 and model.feature_dim == 192
    assert model_info(model)["checkpoint"] == "clbench:micro-vit"
    shipped = load_file(WEIGHTS)
    assert all(torch.equal(t, shipped[name].float()) for name, t in model.backbone.net.state_dict().items())
    assert model.features(torch.zeros(2, 3, 32, 32)).shape == (2, 192)


def test_untrained_on_request(image_model: Build) -> None:
    model = image_model("micro-vit?pretrained=false", size=32)
    assert model_info(model)["checkpoint"] is None and model.input.mean == (0.4, 0.4, 0.4)
    assert not describe("micro-vit?pretrained=false").pretrained
    shipped = load_file(WEIGHTS)["blocks.0.attn.qkv.weight"].float()
    assert not torch.equal(model.backbone.net.blocks[0].attn.qkv.weight, shipped)


def test_grey_images_give_the_features_of_the_same_images_in_colour(image_model: Build) -> None:
    grey, colour = image_model("micro-vit?norm=unit", channels=1).eval(), image_model("micro-vit?norm=unit").eval()
    x = torch.rand(2, 1, 32, 32)
    torch.testing.assert_close(grey.features(x), colour.features(x.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-4)


def test_own_weights_and_wrong_ones(image_model: Build, tmp_path: Path) -> None:
    tensors = load_file(WEIGHTS)
    save_file({name: t.float() + 1 for name, t in tensors.items()}, tmp_path / "own.safetensors")
    with pytest.raises(UserError, match="exclude each other"):
        image_model(f"micro-vit@{tmp_path / 'own.safetensors'}?pretrained=false")
    model = image_model(f"micro-vit@{tmp_path / 'own.safetensors'}")
    torch.testing.assert_close(model.backbone.net.fc_norm.weight, tensors["fc_norm.weight"].float() + 1)
    tensors.pop("fc_norm.weight")
    save_file(tensors, tmp_path / "short.safetensors")
    with pytest.raises(UserError, match="do not fit micro-vit"):
        image_model(f"micro-vit@{tmp_path / 'short.safetensors'}")


@pytest.mark.parametrize("option", ["pretrained=2", "norm=imagenet", "depth=3"])
def test_options_that_it_does_not_have(image_model: Build, option: str) -> None:
    with pytest.raises(UserError, match=f"micro-vit\\?{option}"):
        image_model(f"micro-vit?{option}")


def test_folding_the_normalisations_keeps_the_function() -> None:
    torch.manual_seed(0)
    net = micro_vit(normalise=True)
    for _ in range(3):
        net(torch.randn(16, 3, 32, 32))
    x = torch.randn(4, 3, 32, 32)
    before = net.eval()(x)
    stem = net.patch_embed
    assert isinstance(stem, ConvStem)
    stem.fold()
    torch.testing.assert_close(net(x), before, rtol=1e-4, atol=1e-5)
    assert net.state_dict().keys() == micro_vit().state_dict().keys()


def test_augmentations() -> None:
    draw = torch.Generator().manual_seed(0)
    images = torch.rand(8, 3, 64, 64)
    crops = random_resized_crops(images, 32, 0.25, draw)
    assert crops.shape == (8, 3, 32, 32) and crops.min() >= 0 and crops.max() <= 1
    whole = random_resized_crops(torch.full((4, 3, 8, 8), 0.25), 4, 1.0, draw)
    torch.testing.assert_close(whole, torch.full((4, 3, 4, 4), 0.25))
    ramp = torch.linspace(0, 1, 8).expand(4, 3, 8, 8)
    flips = torch.tensor([0.0, 1.0, 0.0, 1.0])
    turned = random_resized_crops(ramp, 8, 1.0, draw, flips)
    assert ((turned[..., -1] > turned[..., 0]).all(dim=-1).all(dim=-1) == (flips == 0)).all()
    jittered = jitter_colours(crops, 0.3, 1.0, draw)
    torch.testing.assert_close(jittered[:, 0], jittered[:, 1])
    targets = torch.eye(8)
    for _ in range(6):
        mixed, soft = mix(torch.ones(8, 3, 16, 16), targets, draw)
        torch.testing.assert_close(mixed, torch.ones(8, 3, 16, 16))
        torch.testing.assert_close(soft.sum(1), torch.ones(8))


def test_streams_of_images_start_from_it() -> None:
    from clbench.streams.domains import DomainSets
    from clbench.streams.split import SplitCifar10, SplitCifar100, SplitFiles, SplitTinyImagenet

    for recipe in (SplitCifar10, SplitCifar100, SplitTinyImagenet, SplitFiles, DomainSets):
        assert (recipe.default_model, recipe.feature_model) == ("micro-vit", "micro-vit")


@pytest.mark.slow
def test_the_embedded_images_start_from_it(tmp_path: Path) -> None:
    import json
    import subprocess
    import sys

    command = [sys.executable, "-m", "clbench", "run", "nmc", "split-digits", "--out", str(tmp_path), "--no-tracking"]
    subprocess.run(command, check=True, capture_output=True)
    record = json.loads(next(tmp_path.glob("runs/*/*/*/record.json")).read_text())
    assert record["model"]["checkpoint"] == "clbench:micro-vit"
    assert record["metrics"]["average"] > 0.5
