"""Memory of a step, counted in tensors: by hand for a perceptron, a convolution and an attention block."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import grad, vmap

from clbench.engine.step_memory import Activations, step_bytes

FLOAT = 4
INT = 8


def saved(model: nn.Module, work: Any) -> int:
    """Bytes saved for the backward pass of what `work` returns."""
    found = Activations([model])
    with found.measured():
        work().backward()
    assert found._bytes == 0  # all is released again
    return found.peak


def loss_saves(samples: int, classes: int) -> int:
    """Cross-entropy: log-probabilities, targets, and the sum of weights."""
    return FLOAT * samples * classes + INT * samples + FLOAT


def test_a_perceptron_by_hand() -> None:
    model = nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 5))
    x, y = torch.randn(8, 10), torch.zeros(8, dtype=torch.int64)
    inputs, hidden = 8 * 10, 8 * 20  # relu's output is also the second layer's input: one storage
    assert saved(model, lambda: F.cross_entropy(model(x), y)) == FLOAT * (inputs + hidden) + loss_saves(8, 5)
    model[0].requires_grad_(False)  # a frozen layer saves nothing, nor does what follows it without weights
    assert saved(model, lambda: F.cross_entropy(model(x), y)) == FLOAT * hidden + loss_saves(8, 5)


def test_a_convolution_by_hand() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 6, 5))
    x, y = torch.randn(2, 3, 8, 8), torch.zeros(2, dtype=torch.int64)
    by_hand = FLOAT * (2 * 3 * 8 * 8 + 2 * 4 * 6 * 6) + loss_saves(2, 5)
    assert saved(model, lambda: F.cross_entropy(model(x), y)) == by_hand


def test_an_attention_block_by_hand() -> None:
    model = nn.Linear(16, 48, bias=False)
    x = torch.randn(2, 9, 16)

    def work() -> torch.Tensor:
        q, k, v = model(x).view(2, 9, 3, 2, 8).permute(2, 0, 3, 1, 4)
        return F.scaled_dot_product_attention(q, k, v).sum()

    inputs, joint, out, sums = 2 * 9 * 16, 2 * 9 * 48, 2 * 9 * 16, 2 * 2 * 9
    assert saved(model, work) == FLOAT * (inputs + joint + out + sums)  # queries, keys, values: one storage


def test_what_is_alive_at_a_time_counts() -> None:
    weight = torch.randn(100, requires_grad=True)
    found = Activations([])
    with found.measured():
        for _ in range(3):
            (weight * 2).exp().sum().backward()
    assert found.peak == FLOAT * 100


def test_transforms_work_under_it() -> None:
    found = Activations([])
    weight = torch.randn(3)

    def loss(w: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return (w * x).sum() ** 2

    x = torch.randn(4, 3)
    plain = vmap(grad(loss), in_dims=(None, 0))(weight, x)
    with found.measured():
        assert torch.equal(vmap(grad(loss), in_dims=(None, 0))(weight, x), plain)
        trained = weight.clone().requires_grad_()
        trained.exp().sum().backward()
    assert found.peak == FLOAT * 3


def test_meta_tensors_count_as_others() -> None:
    by_device = []
    for device in ("cpu", "meta"):
        model = nn.Sequential(nn.Linear(10, 20), nn.GELU(), nn.Linear(20, 5)).to(device)
        x = torch.zeros(8, 10, device=device)
        by_device.append(saved(model, lambda model=model, x=x: model(x).square().sum()))
    assert by_device[0] == by_device[1] > 0


def test_parts_of_a_step() -> None:
    model, teacher = nn.Linear(10, 5), nn.Linear(10, 5)
    model.bias.requires_grad_(False)
    teacher.requires_grad_(False)
    optimizer = torch.optim.AdamW([model.weight])
    model(torch.ones(2, 10)).sum().backward()
    optimizer.step()
    found = step_bytes([model, teacher], optimizer.state, 7)
    assert (found.parameters, found.gradients, found.optimizer) == (2 * 55 * FLOAT, 50 * FLOAT, 2 * 50 * FLOAT)
    assert found.total == 2 * 55 * FLOAT + 150 * FLOAT + 7


@pytest.mark.parametrize("strategy", ["finetune", "lwf"])
def test_a_run_records_its_memory(runs: Any, strategy: str) -> None:
    settings = {"steps": 2, "batch_size": 16, "optimizer": "sgd", "momentum": 0.9}
    spec = runs.spec(strategy, backbone="mlp:32x1", strategy_settings=settings, eval_grid="none")
    cost = json.loads((runs.finish("run", spec, every=None) / "record.json").read_text())["cost"]
    weights = FLOAT * (64 * 32 + 32 + 32 * 10 + 10)
    teacher = FLOAT * (64 * 32 + 32 + 32 * 8 + 8) if strategy == "lwf" else 0
    assert cost["memory_parameters_bytes"] == weights + teacher
    assert cost["memory_gradients_bytes"] == cost["memory_optimizer_bytes"] == weights
    parts = ("parameters", "gradients", "optimizer", "activations")
    assert cost["memory_deterministic_bytes"] == sum(cost[f"memory_{part}_bytes"] for part in parts)
    if strategy == "finetune":
        assert cost["memory_activations_bytes"] == FLOAT * 16 * (64 + 32) + loss_saves(16, 10)
