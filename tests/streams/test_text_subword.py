"""The text stream with a subword tokeniser, trained here: token budgets, bytes of targets, bits per byte."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from clbench.config import parse_config
from clbench.objectives.base import build_objective
from clbench.streams.generated import generate
from clbench.streams.text import TextShift


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=["<end>"], initial_alphabet=alphabet)
    inner.train_from_iterator(generate("prose", 20_000), trainer)
    path = tmp_path_factory.mktemp("subword")
    PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<end>").save_pretrained(path)
    return path


def test_a_subword_stream_keeps_its_budget_and_counts_bytes(folder: Path) -> None:
    settings = {"domains": "prose,code", "tokenizer": f"hf:{folder}", "tokens": 6_400, "eval_blocks": 12}
    stream = TextShift("text-shift", parse_config(TextShift.Config, settings, "stream text-shift")).build()
    assert stream.vocabulary == 500
    assert all(len(task.train) == 100 for task in stream.tasks)
    prose, code = stream.eval_sets
    assert prose.bytes_per_target > code.bytes_per_target > 0.9
    assert prose.bytes_per_target > 1.8

    objective = build_objective(stream)
    raw = prose.data.raw(torch.arange(len(prose.data)))
    _, y = objective.inputs(raw, prose.data.labels, "plain", None)
    uniform = objective.scores(torch.zeros(*y.shape, 500), y, prose).mean().item()
    bits = objective.further(uniform, prose)["bits_per_byte"]
    total_bits = y.numel() * torch.log2(torch.tensor(500.0)).item()
    assert bits == pytest.approx(total_bits / (prose.bytes_per_target * y.numel()), rel=1e-5)
