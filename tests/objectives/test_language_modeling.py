"""The language-modelling objective on known distributions."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from clbench.objectives.base import build_objective
from clbench.objectives.language_modeling import LanguageModeling
from clbench.samples import Batch, Pool, Samples
from clbench.stream import EvalSet, Stream

VOCABULARY = 11


def make_eval_set(blocks: torch.Tensor, bytes_per_target: float = 1.0) -> EvalSet:
    pool = Pool(blocks, torch.zeros(len(blocks), dtype=torch.int64))
    return EvalSet("set", Samples(pool), 0, bytes_per_target=bytes_per_target)


@pytest.fixture
def objective() -> LanguageModeling:
    stream = Stream("s", "language_modeling", (), (), "c", "o", (4,), scenario="domain", vocabulary=VOCABULARY)
    built = build_objective(stream)
    assert isinstance(built, LanguageModeling)
    return built


def random_case(seed: int = 0, rows: int = 5, length: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    outputs = torch.randn(rows, length, VOCABULARY, generator=generator) * 3
    return outputs, torch.randint(VOCABULARY, (rows, length), generator=generator)


def test_inputs_and_targets_are_shifted_by_one(objective: LanguageModeling) -> None:
    raw = torch.arange(10, dtype=torch.int16).view(2, 5)
    for view in ("train", "plain"):
        x, y = objective.inputs(raw, torch.zeros(2), view, None)  # type: ignore[arg-type]
        assert x.tolist() == [[0, 1, 2, 3], [5, 6, 7, 8]] and y.tolist() == [[1, 2, 3, 4], [6, 7, 8, 9]]
        assert x.dtype == y.dtype == torch.int64


def test_losses_are_the_mean_cross_entropy_of_each_block(objective: LanguageModeling) -> None:
    outputs, y = random_case()
    for row in range(len(y)):
        expected = -outputs[row].log_softmax(-1)[torch.arange(7), y[row]].mean()
        assert torch.allclose(objective.losses(outputs, y)[row], expected, atol=1e-6)
    assert torch.allclose(objective.losses(outputs, y).mean(), F.cross_entropy(outputs.flatten(0, 1), y.flatten()))


def test_the_loss_is_the_mean_of_the_losses(objective: LanguageModeling) -> None:
    outputs, y = random_case()

    class Fixed(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return outputs

    batch = Batch(x=y, y=y, raw=y, labels=y[:, 0], index=y[:, 0])
    assert torch.allclose(objective.loss(Fixed(), batch), objective.losses(outputs, y).mean(), atol=1e-6)


def test_a_uniform_model_costs_the_log_of_the_vocabulary(objective: LanguageModeling) -> None:
    scores = objective.scores(torch.zeros(2, 3, VOCABULARY), torch.zeros(2, 3, dtype=torch.int64), None)  # type: ignore[arg-type]
    assert scores.dtype == torch.float32
    assert torch.allclose(scores, torch.full((2,), math.log(VOCABULARY)))


def test_half_precision_logits_are_scored_in_single_precision(objective: LanguageModeling) -> None:
    outputs, y = random_case()
    half = outputs.bfloat16()
    scores = objective.scores(half, y, None)  # type: ignore[arg-type]
    assert scores.dtype == torch.float32
    assert torch.equal(scores, objective.losses(half.float(), y))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(objective.scores(half, y, None), scores)  # type: ignore[arg-type]


def test_large_logits_stay_finite(objective: LanguageModeling) -> None:
    outputs = torch.tensor([[[1e4, -1e4]]])
    assert objective.losses(outputs, torch.tensor([[1]])).item() == pytest.approx(2e4)


def test_per_sample_gradients_can_be_taken(objective: LanguageModeling) -> None:
    outputs, y = random_case()
    weight = torch.eye(VOCABULARY)

    def loss(weight: torch.Tensor, row: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return objective.losses((row @ weight)[None], target[None])[0]

    grads = torch.func.vmap(torch.func.grad(loss), (None, 0, 0))(weight, outputs, y)
    for i in range(len(y)):
        leaf = weight.clone().requires_grad_()
        objective.losses((outputs[i] @ leaf)[None], y[i : i + 1]).sum().backward()
        assert leaf.grad is not None and torch.allclose(grads[i], leaf.grad, atol=1e-6)


@pytest.mark.parametrize(("nats", "bytes_per_target", "bits"), [(2.0, 1.0, 2.8854), (3.2, 4.2, 1.0992)])
def test_bits_per_byte(objective: LanguageModeling, nats: float, bytes_per_target: float, bits: float) -> None:
    eval_set = make_eval_set(torch.zeros(1, 5, dtype=torch.int16), bytes_per_target)
    further = objective.further(nats, eval_set)
    assert further["bits_per_byte"] == pytest.approx(bits, abs=5e-5)
    assert further["perplexity"] == pytest.approx(math.exp(nats))


def test_perplexity_does_not_overflow(objective: LanguageModeling) -> None:
    value = objective.further(1e6, make_eval_set(torch.zeros(1, 5, dtype=torch.int16)))["perplexity"]
    assert math.isfinite(value) and value > 1e300


@given(st.lists(st.lists(st.integers(0, 10), min_size=4, max_size=4), min_size=1, max_size=6))
def test_base_is_the_entropy_of_the_targets(rows: list[list[int]]) -> None:
    objective = LanguageModeling(SimpleNamespace())  # type: ignore[arg-type]
    targets = [token for row in rows for token in row[1:]]
    expected = -sum(math.log(targets.count(token) / len(targets)) for token in targets) / len(targets)
    eval_set = make_eval_set(torch.tensor(rows, dtype=torch.int16))
    for _ in range(2):
        assert objective.base(eval_set, 0) == pytest.approx(expected, abs=1e-9)


def test_base_is_what_the_best_constant_model_scores(objective: LanguageModeling) -> None:
    blocks = torch.tensor([[9, 1, 1, 1, 2], [9, 1, 2, 3, 3]], dtype=torch.int16)
    eval_set = make_eval_set(blocks)
    counts = torch.bincount(blocks[:, 1:].long().flatten(), minlength=VOCABULARY)
    logits = (counts / counts.sum()).log().expand(2, 4, VOCABULARY)
    assert objective.losses(logits, blocks[:, 1:].long()).mean().item() == pytest.approx(objective.base(eval_set, 0))


def test_decide_takes_the_likeliest_token(objective: LanguageModeling) -> None:
    outputs, _ = random_case()
    tokens = objective.decide(outputs)
    assert tokens.shape == (5, 7)
    assert all(outputs[i, j, tokens[i, j]] == outputs[i, j].max() for i in range(5) for j in range(7))


def test_decide_draws_from_the_models_distribution(objective: LanguageModeling) -> None:
    outputs = torch.tensor([0.2, 0.5, 0.3]).log().expand(40, 250, 3)
    drawn = objective.decide(outputs, torch.Generator().manual_seed(0))
    again = objective.decide(outputs, torch.Generator().manual_seed(0))
    assert drawn.shape == (40, 250) and torch.equal(drawn, again)
    share = torch.bincount(drawn.flatten()) / drawn.numel()
    assert torch.allclose(share, torch.tensor([0.2, 0.5, 0.3]), atol=0.02)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_distillation_is_the_mean_divergence_of_a_block(objective: LanguageModeling, temperature: float) -> None:
    outputs, _ = random_case(0)
    teacher, _ = random_case(1)
    p, q = (teacher / temperature).softmax(-1), (outputs / temperature).softmax(-1)
    expected = (p * (p / q).log()).sum(-1).mean(-1) * temperature**2
    assert torch.allclose(objective.distillation(outputs, teacher, temperature), expected, rtol=1e-4, atol=1e-6)
    assert objective.distillation(outputs, outputs, temperature).abs().max() < 1e-5


def test_every_set_can_be_scored_and_lower_is_better(objective: LanguageModeling) -> None:
    assert objective.scorable(make_eval_set(torch.zeros(1, 5, dtype=torch.int16)), 0)
    assert (objective.primary, objective.direction) == ("nats", "lower")


@pytest.mark.parametrize(("context", "blocks"), [(16, 64), (64, 64), (128, 32), (2048, 2), (100_000, 1)])
def test_long_blocks_are_evaluated_a_few_at_once(context: int, blocks: int) -> None:
    stream = Stream("s", "language_modeling", (), (), "c", "o", (context,), scenario="domain", vocabulary=VOCABULARY)
    assert build_objective(stream).chunk == blocks
