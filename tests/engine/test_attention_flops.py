"""FLOPs of attention: those of torch's counter with the math backend, whichever kernel computes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from clbench.engine.cost import FlopCount
from clbench.torchvision_schemas import prepare


def ours(work: Callable[[], object]) -> int:
    with FlopCount() as count:
        work()
    return count.flops


def with_the_math_backend(work: Callable[[], object]) -> int:
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            work()
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return int(counter.get_total_flops())


def heads(length: int, width: int = 32) -> Tensor:
    return torch.randn(2, 2, length, width, requires_grad=True)


def test_attention_forward_and_backward_by_hand() -> None:
    q = heads(16)
    forward = 2 * (2 * 2) * 16 * 16 * 32 * 2  # two products of 16 x 16 x 32, in 2 x 2 heads, a product and a sum each
    assert ours(lambda: F.scaled_dot_product_attention(q, q, q)) == forward == 131_072
    assert ours(lambda: F.scaled_dot_product_attention(q, q, q).sum().backward()) == 3 * forward


@pytest.mark.parametrize("causal", [False, True])
def test_lengths_and_widths_may_differ(causal: bool) -> None:
    q, k, v = heads(7), heads(7 if causal else 12), heads(7 if causal else 12, 16)

    def work() -> None:
        F.scaled_dot_product_attention(q, k, v, is_causal=causal).sum().backward()

    assert ours(work) == with_the_math_backend(work) > 0


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_torchs_attention_module_on_its_fast_path_too(mode: str) -> None:
    module = nn.MultiheadAttention(32, 4, batch_first=True).train(mode == "train")
    x = torch.randn(3, 9, 32)

    def work() -> None:
        with torch.no_grad():
            module(x, x, x, need_weights=False)

    by_hand = 4 * 2 * 3 * 9 * 32 * 32 + 2 * 2 * 3 * 9 * 9 * 32
    assert ours(work) == with_the_math_backend(work) == by_hand


def test_torchs_encoder_layer_on_its_fast_path_too() -> None:
    layer = nn.TransformerEncoderLayer(32, 4, dim_feedforward=48, batch_first=True).eval()
    x = torch.randn(3, 9, 32)

    def work() -> None:
        with torch.no_grad():
            layer(x)

    assert ours(work) == with_the_math_backend(work) > 2 * 2 * 3 * 9 * 32 * 48


def test_the_kernels_are_those_of_a_run_that_is_not_counted() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(32, 4, dim_feedforward=48, batch_first=True, dropout=0.0)
    x = torch.randn(3, 9, 32)
    plain = layer(x)
    with FlopCount():
        counted = layer(x)
    assert torch.equal(plain, counted)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "test_vit"])
def test_vision_transformers_of_timm(name: str) -> None:
    prepare()  # before timm imports torchvision
    import timm

    sizes: dict[str, Any] = {"img_size": 32, "patch_size": 8, "depth": 2} if name != "test_vit" else {}
    model: Any = timm.create_model(name, num_classes=3, **sizes)
    x = torch.randn(2, 3, *model.patch_embed.img_size)

    def work() -> None:
        model.zero_grad()
        model(x).sum().backward()

    assert ours(work) == with_the_math_backend(work)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_language_models_of_transformers(attention: str) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes: dict[str, Any] = {"n_layer": 2, "n_head": 2, "n_embd": 16, "vocab_size": 20, "n_positions": 12}
    model: Any = GPT2LMHeadModel(GPT2Config(**sizes, attn_implementation=attention))
    tokens = torch.zeros(2, 12, dtype=torch.int64)

    def work() -> None:
        model(tokens).logits.sum().backward()

    block = 12 * 16 * 16 * 2 * 2 * 12 + 2 * 2 * 2 * 12 * 12 * 16  # projections and MLP; the two products
    assert ours(work) == with_the_math_backend(work) == 3 * (2 * block + 2 * 2 * 12 * 16 * 20)
