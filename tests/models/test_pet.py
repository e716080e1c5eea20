"""PET modules: where they sit, what they compute, and that they leave the model alone where they should."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clbench.errors import UserError
from clbench.models import build_model
from clbench.models.pet import (
    attach_attention_adapters,
    attach_lora,
    attach_mlp_adapters,
    attach_prefix,
    attach_ssf,
    is_pet,
    pet_parameters,
    untouched,
)
from clbench.models.pet.prefix import compensate
from clbench.models.vit import blocks, first_blocks, vision_transformer

CLASS_TOKEN = "timm:vit_tiny_patch16_224?img_size=32,patch_size=8,embed_dim=24,depth=3,num_heads=2"
MEAN_POOLED = CLASS_TOKEN + ",class_token=False,global_pool=avg,qk_norm=True,init_values=0.5"
KINDS: dict[str, Callable[[nn.Module], None]] = {
    "attention": lambda m: attach_attention_adapters(m, [0, 2], 5, "it"),
    "mlp": lambda m: attach_mlp_adapters(m, [0, 2], 8, "it"),
    "lora": lambda m: attach_lora(m, [0, 2], 5, "it"),
    "prefix": lambda m: attach_prefix(m, [0, 2], 4, "it"),
    "ssf": lambda m: attach_ssf(m, "it"),
}


def built(spec: str = CLASS_TOKEN) -> Any:
    torch.manual_seed(0)
    model = build_model(spec, channels=3, size=32, mean=[0.5] * 3, std=[0.5] * 3)
    model.grow(3)  # type: ignore[operator]
    return model.eval()


def moved(model: nn.Module) -> None:
    """Every PET parameter somewhere else."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in pet_parameters(model).values():
            p.add_(torch.randn(p.shape, generator=generator), alpha=0.3)


@pytest.fixture
def images() -> Tensor:
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("spec", [CLASS_TOKEN, MEAN_POOLED])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_attached_can_be_trained_switched_off_and_told_apart(kind: str, spec: str, images: Tensor) -> None:
    plain, model = built(spec), built(spec)
    before = {name for name, _ in model.named_parameters()}
    KINDS[kind](model)
    model.eval()
    assert len(before) == len([name for name, _ in model.named_parameters() if not is_pet(name)])
    assert torch.equal(model(images), plain(images)) == (kind in ("attention", "mlp", "lora"))
    moved(model)
    assert not torch.allclose(model(images), plain(images), atol=1e-3)
    model(images).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in pet_parameters(model).values())
    with untouched(model):
        assert torch.equal(model(images), plain(images))
    assert not torch.equal(model(images), plain(images))


def test_lora_adds_to_keys_and_values_alone() -> None:
    model = built()
    attach_lora(model, [1], 5, "it")
    moved(model)
    qkv: Any = blocks(model, "it")[1].attn.qkv
    weight = qkv.inner.weight.clone()
    for i, lora in ((1, qkv.pet.k), (2, qkv.pet.v)):
        weight[24 * i : 24 * (i + 1)] += lora.scaler.scale * lora.b @ lora.a
    u = torch.randn(2, 17, 24)
    torch.testing.assert_close(qkv(u), F.linear(u, weight, qkv.inner.bias))


def test_laes_adapter_reads_what_the_attention_reads() -> None:
    model = built()
    attach_attention_adapters(model, [0], 5, "it")
    moved(model)
    block: Any = blocks(model, "it")[0]
    x = torch.randn(2, 17, 24)
    u, pet = block.norm1(x), block.attn.pet
    adapter = pet.scaler.scale * F.linear(
        F.gelu(F.linear(u, pet.down.weight, pet.down.bias)), pet.up.weight, pet.up.bias
    )
    y = x + block.attn.inner(u) + adapter
    torch.testing.assert_close(block(x), y + block.mlp(block.norm2(y)))


def test_the_adapter_beside_the_mlp_reads_the_tokens_before_the_norm() -> None:
    model = built(MEAN_POOLED)
    attach_mlp_adapters(model, [0], 8, "it", scale=0.1)
    moved(model)
    block: Any = blocks(model.eval(), "it")[0]
    b, pet = block.inner, block.pet
    x = torch.randn(2, 16, 24)
    y = x + b.ls1(b.attn(b.norm1(x)))
    adapter = 0.1 * pet.up(F.relu(pet.down(y)))
    torch.testing.assert_close(block(x), y + b.ls2(b.mlp(b.norm2(y))) + adapter)


@pytest.mark.oracle("lae", "a prefix has a total attention of 1, beside that of the tokens")
@pytest.mark.parametrize("compensation", ["divided", "added", "none"])
def test_compensation_of_attention_weights(compensation: Any) -> None:
    scores = torch.randn(2, 3, 5, 4 + 6, generator=torch.Generator().manual_seed(0))
    joint = scores.softmax(-1)
    prefix, tokens = compensate(joint, 4, compensation).split([4, 6], dim=-1)
    if compensation == "none":
        assert torch.equal(torch.cat([prefix, tokens], -1), joint)
        return
    torch.testing.assert_close(prefix, scores[..., :4].softmax(-1))
    torch.testing.assert_close(tokens, scores[..., 4:].softmax(-1) if compensation == "added" else joint[..., 4:])


@pytest.mark.parametrize("spec", [CLASS_TOKEN, MEAN_POOLED])
def test_an_added_prefix_is_attention_to_it_alone_on_top_of_the_old_attention(spec: str) -> None:
    model = built(spec)
    attach_prefix(model, [0], 4, "it", "added")
    moved(model)
    attention: Any = blocks(model, "it")[0].attn
    u = torch.randn(2, 16, 24)
    q = attention.inner.q_norm(attention.inner.qkv(u)[..., :24].unflatten(2, (2, 12)).transpose(1, 2))
    pet = attention.pet
    key, value = (
        (s.scale * p).unflatten(1, (2, 12)) for s, p in ((pet.key_scaler, pet.key), (pet.value_scaler, pet.value))
    )
    to_prefix = torch.einsum("bhnc,lhc->bhnl", q, key) / 12**0.5
    out = torch.einsum("bhnl,lhc->bnhc", to_prefix.softmax(-1), value).flatten(2)
    expected = attention.inner(u) + F.linear(out, attention.inner.proj.weight)
    torch.testing.assert_close(attention(u), expected)


def test_an_uncompensated_prefix_is_a_longer_sequence_of_keys_and_values() -> None:
    model = built()
    attach_prefix(model, [0], 4, "it", "none")
    moved(model)
    attention: Any = blocks(model, "it")[0].attn
    u = torch.randn(2, 16, 24)
    q, k, v = attention.inner.qkv(u).unflatten(2, (3, 2, 12)).permute(2, 0, 3, 1, 4)
    key, value = (t.expand(2, -1, -1, -1) for t in attention.pet.keys_and_values(2))
    out = F.scaled_dot_product_attention(q, torch.cat([k, key], 2), torch.cat([v, value], 2))
    torch.testing.assert_close(attention(u), attention.inner.proj(out.transpose(1, 2).flatten(2)))


def test_initial_values_are_the_papers() -> None:
    model = built()
    attach_lora(model, [0], 5, "it")
    attach_attention_adapters(model, [1], 5, "it")
    attach_prefix(model, [2], 10, "it")
    attach_ssf(built(), "it")
    stack: Any = blocks(model, "it")
    bound = (1 / 24) ** 0.5
    for drawn in (stack[0].attn.qkv.pet.k.a, stack[1].attn.pet.down.weight):
        assert 0.8 * bound < drawn.abs().max() <= bound
    prefix = stack[2].attn.pet
    assert prefix.key.min() >= 0 and 0.009 < prefix.key.max() <= 0.01
    scales = [m.scale for m in model.modules() if type(m).__name__ == "Scaler"]
    assert len(scales) == 5 and all(torch.equal(s, torch.ones(1)) for s in scales)


def test_shallow_transformers_are_tuned_throughout() -> None:
    model = built()
    assert first_blocks(model, 5, "it") == first_blocks(model, None, "it") == [0, 1, 2]
    assert first_blocks(model, 2, "it") == [0, 1]
    assert vision_transformer(model, "it").num_prefix_tokens == 1


def test_other_backbones_are_refused_in_one_line() -> None:
    with pytest.raises(UserError, match=r"^LAE needs .* slim-resnet18.width=2 is not: choose one with --backbone.*$"):
        attach_lora(built("slim-resnet18?width=2"), [0], 5, "LAE")
    twice = built()
    attach_lora(twice, [0], 5, "it")
    with pytest.raises(UserError, match="fused qkv layer, not AdaptedQKV"):
        attach_lora(twice, [0], 5, "it")
