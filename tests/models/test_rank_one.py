"""Rank-one components on linear layers: taken apart, attached and merged, the outputs stay what they were."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from clbench.errors import UserError
from clbench.models import build_model
from clbench.models.fused import weight_of
from clbench.models.language import CausalLM
from clbench.models.rank_one import RankOneSum, attach, components, merge, soft_threshold
from clbench.models.spec import InputSpec

VIT = "timm:vit_tiny_patch16_224?img_size=32,patch_size=8,embed_dim=48,depth=2,num_heads=3"


def vit() -> Any:
    torch.manual_seed(0)
    return build_model(VIT, channels=3, size=32, mean=(0.5,) * 3, std=(0.5,) * 3).eval()


def fill(model: Any) -> None:
    """Give every component values of its own."""
    with torch.no_grad():
        for part in components(model).values():
            for parameter in part.parameters():
                parameter.normal_(std=0.3)


@pytest.mark.parametrize("separate", [True, False])
def test_attaching_changes_no_output_and_merging_keeps_the_changed_one(separate: bool) -> None:
    model, x = vit(), torch.randn(3, 3, 32, 32)
    before = model.features(x)
    attach(model, 4, 0.5, separate, "it")
    torch.testing.assert_close(model.features(x), before)
    fill(model)
    changed = model.features(x)
    assert not torch.allclose(changed, before, atol=1e-2)
    merge(model)
    assert all(not p.any() for part in components(model).values() for p in part.parameters())
    torch.testing.assert_close(model.features(x), changed, atol=1e-5, rtol=1e-4)


def test_queries_keys_and_values_have_factors_of_their_own() -> None:
    model, joint = vit(), vit()
    attach(model, 4, 1.0, True, "it")
    attach(joint, 4, 1.0, False, "it")
    assert {name.rpartition(".")[2] for name in components(model)} == {"q", "k", "v", "proj", "fc1", "fc2"}
    assert {name.rpartition(".")[2] for name in components(joint)} == {"qkv", "proj", "fc1", "fc2"}
    layer, x = model.backbone.get_submodule("net.blocks.0.attn.qkv"), torch.randn(5, 48)
    before = layer(x)
    torch.nn.init.ones_(layer.k.rank_one.w)
    torch.nn.init.normal_(layer.k.rank_one.a)
    torch.nn.init.normal_(layer.k.rank_one.b)
    q, k, v = ((layer(x) - before).abs().amax(0)).split(48)
    assert not q.any() and not v.any() and k.all()


def test_gpt2_layers_are_taken_apart_and_merged_though_they_are_transposed() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(vocab_size=11, n_positions=8, n_embd=12, n_layer=1, n_head=2)
    model, tokens = CausalLM(GPT2LMHeadModel(config), InputSpec("tokens", 0, 8)).eval(), torch.arange(8)[None]
    before = model(tokens)
    attach(model, 2, 1.0, True, "it")
    torch.testing.assert_close(model(tokens), before)
    parts = components(model)
    assert {name.removeprefix("transformer.h.0.") for name in parts} == {
        *(f"attn.c_attn.{part}" for part in "qkv"),
        *("attn.c_proj", "mlp.c_fc", "mlp.c_proj"),
    }
    fill(model)
    changed = model(tokens)
    merge(model)
    torch.testing.assert_close(model(tokens), changed, atol=1e-5, rtol=1e-4)


def test_a_sum_is_its_change_times_the_input() -> None:
    part = RankOneSum(5, 3, 2, 0.5)
    part.start(torch.tensor([2.0, -1.0]))
    assert not part.b.any() and part.a.abs().max() <= 5**-0.5 and part.w.tolist() == [2, -1]
    torch.nn.init.normal_(part.b)
    by_hand = 0.5 * sum(w * torch.outer(part.b[:, i], part.a[i]) for i, w in enumerate((2.0, -1.0)))
    x = torch.randn(4, 5)
    torch.testing.assert_close(part.change(), by_hand)
    torch.testing.assert_close(part(x), x @ by_hand.T)


def test_a_backbone_without_linear_layers_is_refused() -> None:
    model = build_model("slim-resnet18?width=2", channels=3, size=32, mean=(0.5,) * 3, std=(0.5,) * 3)
    with pytest.raises(UserError, match="it changes linear layers, and this backbone has none: choose"):
        attach(model, 2, 1.0, True, "it")


def test_the_soft_threshold_by_hand() -> None:
    w = torch.tensor([-3.0, -2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0])
    assert soft_threshold(w, 1.0).tolist() == [-2, -1, -0.5, 0, 0, 0, 0, 0, 0.5, 1, 2]
    assert soft_threshold(w, 1.0, "released").tolist() == [-2, -1, 0, 0, 0, 0, 0, 0, 0, 1, 2]
    for operator in ("paper", "released"):
        assert torch.equal(soft_threshold(w, 0.0, operator), w)  # type: ignore[arg-type]


def test_weights_are_seen_as_outputs_by_inputs() -> None:
    from transformers.pytorch_utils import Conv1D

    assert weight_of(Conv1D(3, 5)).shape == weight_of(torch.nn.Linear(5, 3)).shape == (3, 5)
