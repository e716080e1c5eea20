from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from clbench.errors import UserError
from clbench.models import model_info
from clbench.torchvision_schemas import prepare

Build = Callable[..., nn.Module]
prepare()
timm = pytest.importorskip("timm")


@pytest.fixture
def empty_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache and an endpoint where nobody listens: offline, whatever the machine."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")


def test_options_reach_timm(image_model: Build) -> None:
    model = image_model("timm:vit_tiny_patch16_224?img_size=32,patch_size=4,depth=2", size=28, classes=3)
    assert model.input.size == 32 and model.input.mean == (0.4, 0.4, 0.4)
    assert len(model.backbone.net.blocks) == 2 and model.feature_dim == 192
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 3)


def test_options_of_several_numbers(image_model: Build) -> None:
    model = image_model("timm:convnext_atto?depths=1x1x1x1,dims=8x16x24x32", size=32)
    assert model.feature_dim == 32 and sum(p.numel() for p in model.parameters()) < 100_000


def test_sizes(image_model: Build) -> None:
    assert image_model("timm:test_vit").input.size == 160
    assert image_model("timm:test_resnet", size=24).input.size is None
    assert image_model("timm:test_resnet?img_size=64").input.size == 64


def test_normalisation_can_be_chosen(image_model: Build) -> None:
    assert image_model("timm:test_resnet?norm=unit").input.std == (1.0, 1.0, 1.0)
    assert image_model("timm:test_vit?norm=checkpoint").input.mean == (0.5, 0.5, 0.5)
    with pytest.raises(UserError, match="norm must be one of"):
        image_model("timm:test_vit?norm=imagenet")


@pytest.mark.parametrize("classes", [0, 7])
@pytest.mark.parametrize("name", ["test_vit", "test_resnet", "mobilenetv3_small_050"])
def test_local_weights(image_model: Build, tmp_path: Path, name: str, classes: int) -> None:
    torch.manual_seed(3)
    trained = timm.create_model(name, num_classes=classes).eval()
    path = tmp_path / "my.weights.safetensors"
    save_file(trained.state_dict(), path)
    loaded = image_model(f"timm:{name}@{path}").eval()
    x = torch.randn(2, 3, 160, 160)
    trained.reset_classifier(0)
    assert torch.equal(loaded.features(x), trained(x))
    assert "state_dict" not in loaded.backbone.net.pretrained_cfg
    info = model_info(loaded)
    assert info["checkpoint"] == "file:my.weights.safetensors"
    config = timm.data.resolve_model_data_config(trained)
    assert tuple(info["input"]["mean"]) == config["mean"] and tuple(info["input"]["std"]) == config["std"]


def test_local_weights_of_another_size_and_channels(image_model: Build, tmp_path: Path) -> None:
    torch.manual_seed(3)
    trained = timm.create_model("test_vit", num_classes=5, img_size=32)
    path = tmp_path / "w.safetensors"
    save_file(trained.state_dict(), path)
    larger = image_model(f"timm:test_vit@{path}?img_size=64")
    assert larger.backbone.net.pos_embed.shape[1] == 17
    assert torch.equal(larger.backbone.net.blocks[0].attn.qkv.weight, trained.blocks[0].attn.qkv.weight)
    grey = image_model(f"timm:test_vit@{path}?img_size=32", channels=1)
    torch.testing.assert_close(
        grey.backbone.net.patch_embed.proj.weight, trained.patch_embed.proj.weight.sum(1, keepdim=True)
    )
    assert len(grey.input.mean) == 1
    one_channel = timm.create_model("test_vit", num_classes=5, img_size=32, in_chans=1)
    save_file(one_channel.state_dict(), path)
    again = image_model(f"timm:test_vit@{path}?img_size=32", channels=1)
    assert torch.equal(again.backbone.net.patch_embed.proj.weight, one_channel.patch_embed.proj.weight)


def test_other_weights_do_not_pass_unnoticed(image_model: Build, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    tensors = timm.create_model("test_vit", num_classes=5).state_dict()
    save_file({k: v for k, v in tensors.items() if k != "norm.weight"}, path)
    with pytest.raises(UserError, match=r"norm\.weight") as caught:
        image_model(f"timm:test_vit@{path}")
    assert "\n" not in str(caught.value)
    save_file(timm.create_model("test_resnet").state_dict(), path)
    with pytest.raises(UserError, match="do not fit"):
        image_model(f"timm:test_vit@{path}")


@pytest.mark.parametrize(
    ("spec", "part"),
    [
        ("timm:vit_tinny_patch16_224", "did you mean vit_tiny_patch16_224"),
        ("timm:zzzzqqq", "timm has no model"),
        ("timm:resnet18.nope", "it has .*a1_in1k"),
        ("timm:resnet18.a1_in1k@a2_in1k", "two tags"),
        ("timm:test_vit?nope=1", "unexpected keyword argument 'nope'"),
        ("timm:test_resnet?global_pool=", "not pooled"),
        ("timm:test_vit?img_size=a", "whole number"),
    ],
)
def test_bad_names_and_options(image_model: Build, spec: str, part: str) -> None:
    with pytest.raises(UserError, match=part) as caught:
        image_model(spec)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("empty_hub")
@pytest.mark.parametrize("spec", ["timm:test_vit.r160_in1k", "timm:test_vit@r160_in1k", "timm:test_vit@pretrained"])
def test_offline_is_one_line(image_model: Build, spec: str) -> None:
    with pytest.raises(UserError, match=r"cannot download 'timm/test_vit\.r160_in1k'") as caught:
        image_model(spec)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("empty_hub")
def test_cached_weights_are_used_offline(image_model: Build, tmp_path: Path) -> None:
    """A hub cache as the client lays it out, with weights of the published shape."""
    torch.manual_seed(1)
    trained = timm.create_model("test_resnet", num_classes=1000)
    repo = tmp_path / "cache" / "models--timm--test_resnet.r160_in1k"
    commit = "0123456789abcdef0123456789abcdef01234567"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(commit)
    (repo / "snapshots" / commit).mkdir(parents=True)
    save_file(trained.state_dict(), repo / "snapshots" / commit / "model.safetensors")
    model = image_model("timm:test_resnet.r160_in1k")
    assert model_info(model)["checkpoint"] == f"timm/test_resnet.r160_in1k@{commit}"
    assert torch.equal(model.backbone.net.conv1[0].weight, trained.conv1[0].weight)
