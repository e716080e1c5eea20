"""The engine against plain training of the same weights on the same batches: losses at every evaluation agree.

The blocks, their order and the first weights are taken from a run; all else is written anew here: the loss, the rates,
the optimiser, clipping, LoRA, evaluation.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clbench.engine.reporter import Reporter
from clbench.launch import Prepared
from clbench.run import run
from clbench.samples import Batch
from clbench.spec import make_spec

CONTEXT, BATCH, TOKENS, PEAK = 32, 8, 40_000, 1e-3
EVERY = 40
Key = tuple[int, str, str]


@dataclass
class Trained:
    """What a run began with, trained on and measured. batches: int64 [B, context + 1]; losses: by updates before the
    evaluation, set, and kind of row."""

    model: nn.Module
    batches: list[Tensor]
    sets: dict[str, Tensor]
    losses: dict[Key, float]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small Llama with weights of its own, in a folder."""
    from clbench.torchvision_schemas import prepare

    prepare()
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=257, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("models") / "llama"
    LlamaForCausalLM(config).save_pretrained(folder)
    return f"hf:{folder}"


def trained(
    folder: Path, backbone: str, tune: str = "full", tokens: int = TOKENS, every: int = EVERY, **settings: Any
) -> Trained:
    """A run of finetuning over generated prose, then the same enciphered."""
    session = Prepared(
        make_spec(
            {
                "strategy": "finetune",
                "stream": "tiny-strong",
                "stream_settings": {
                    "tokens": tokens, "upstream_tokens": tokens, "context": CONTEXT, "eval_blocks": 24,
                },
                "strategy_settings": {"batch_size": BATCH, "lr": PEAK, **settings},
                "backbone": backbone,
                "tune": tune,
                "eval_grid": str(every),
                "threads": 1,
            }
        )
    ).session(folder, Reporter(), None)  # fmt: skip
    sets = {each.name: each.data.raw(torch.arange(len(each.data))).long() for each in session.stream.eval_sets}
    found = Trained(copy.deepcopy(session.model), [], sets, {})
    loss = session.strategy.loss

    def recorded(batch: Batch) -> Tensor:
        found.batches.append(torch.cat([batch.x, batch.y[:, -1:]], 1))
        return loss(batch)

    session.strategy.loss = recorded  # type: ignore[method-assign]
    try:
        run(session)
    finally:
        session.close()
    for row in session.table.table:
        if row.metric == "nats" and row.value is not None:
            found.losses[row.step, row.eval_set, row.kind] = row.value
    return found


def plain(
    logits: Callable[[Tensor], Tensor], parameters: list[nn.Parameter], ours: Trained, rate: Callable[[int, int], float]
) -> dict[Key, float]:
    """A loop of PyTorch over the batches, evaluated wherever the run was. rate: of step s of n of a task."""
    evaluated = {step for step, _, _ in ours.losses}
    n = len(ours.batches) // 2
    found: dict[int, dict[str, float]] = {}
    for done, batch in enumerate([*ours.batches, None]):
        if done in evaluated:
            with torch.no_grad():
                found[done] = {name: cross_entropy(logits, blocks).item() for name, blocks in ours.sets.items()}
        if batch is None:
            break
        if done % n == 0:
            optimizer = torch.optim.AdamW(parameters, lr=PEAK, betas=(0.9, 0.999), weight_decay=0.1)
        optimizer.param_groups[0]["lr"] = rate(done % n, n)
        optimizer.zero_grad()
        cross_entropy(logits, batch).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
    return {key: found[key[0]][key[1]] for key in ours.losses}


def cross_entropy(logits: Callable[[Tensor], Tensor], blocks: Tensor) -> Tensor:
    """Mean nats of predicting each block's tokens from those before them."""
    return F.cross_entropy(logits(blocks[:, :-1]).flatten(0, 1), blocks[:, 1:].flatten())


def constant(step: int, steps: int) -> float:
    return PEAK


def warm_cosine(step: int, steps: int) -> float:
    """Ten steps up, then half a cosine to a tenth."""
    if step < 10:
        return PEAK * (step + 1) / 10
    return PEAK * (0.1 + 0.45 * (1 + math.cos(math.pi * (step - 10) / (steps - 10))))


def test_a_plain_loop(tmp_path: Path) -> None:
    ours = trained(tmp_path, "byte-gpt", tokens=9_600, every=15, schedule="rewarm-cosine:warmup=10")
    assert len(ours.batches) == 2 * 38 and len(ours.batches[37]) == 4
    assert sorted({step for step, _, _ in ours.losses}) == [0, 15, 30, 38, 53, 68, 76]
    theirs = plain(ours.model, list(ours.model.parameters()), ours, warm_cosine)
    assert theirs == pytest.approx(ours.losses, abs=1e-5)


@pytest.fixture
def adapted(llama: str) -> Callable[[nn.Module], Any]:
    """The Llama as peft's users adapt it, with the first factors of another model."""

    def build(model: nn.Module) -> Any:
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForCausalLM

        base = AutoModelForCausalLM.from_pretrained(llama.removeprefix("hf:"))
        found = get_peft_model(base, LoraConfig(r=4, lora_alpha=4, target_modules="all-linear"))
        first = {name: value for name, value in model.named_parameters() if "lora_A" in name}
        with torch.no_grad():
            for name, value in found.named_parameters():
                if "lora_A" in name:
                    value.copy_(first.pop(name.replace("base_model.model.", "backbone.")))
        assert not first
        return found

    return build


def by_trainer(model: nn.Module, ours: Trained, folder: Path) -> dict[Key, float]:
    """`transformers.Trainer` over the same batches with its own loss, loop and evaluation: one for each task.

    The optimiser is given, since Trainer's own leaves norms and biases out of the weight decay.
    """
    from torch.utils.data import DataLoader
    from transformers import Trainer, TrainingArguments

    class InOrder(Trainer):
        def get_train_dataloader(self) -> DataLoader[Any]:
            rows: Any = self.train_dataset
            return DataLoader(rows, self.args.per_device_train_batch_size, collate_fn=self.data_collator)

    found: dict[Key, float] = {}
    n = len(ours.batches) // 2
    for task in (0, 1):
        arguments = TrainingArguments(
            str(folder), per_device_train_batch_size=BATCH, per_device_eval_batch_size=BATCH, num_train_epochs=1,
            lr_scheduler_type="constant", max_grad_norm=1.0, use_cpu=True,
            report_to=[], save_strategy="no", disable_tqdm=True, eval_strategy="steps", eval_steps=EVERY,
            dataloader_pin_memory=False, logging_strategy="no",
        )  # fmt: skip
        rows = torch.cat(ours.batches[task * n : (task + 1) * n])
        sets = {name: items(blocks) for name, blocks in ours.sets.items()}
        parameters = [p for p in model.parameters() if p.requires_grad]
        decayed = torch.optim.AdamW(parameters, lr=PEAK, weight_decay=0.1)
        tool = InOrder(model, arguments, train_dataset=items(rows), eval_dataset=sets, optimizers=(decayed, None))
        tool.train()
        last = [{"step": n, **tool.evaluate(sets[name], metric_key_prefix=f"eval_{name}")} for name in sets]
        for row in [*tool.state.log_history, *last]:
            for name in ours.sets:
                if f"eval_{name}_loss" in row:
                    step = task * n + int(row["step"])
                    found |= {key: row[f"eval_{name}_loss"] for key in ours.losses if key[:2] == (step, name)}
    return found


def items(blocks: Tensor) -> Any:
    """As Trainer wants them: it shifts the labels itself."""
    return [{"input_ids": block, "labels": block} for block in blocks]


@pytest.mark.slow
def test_a_model_of_a_folder(tmp_path: Path, llama: str) -> None:
    from transformers import AutoModelForCausalLM

    def model() -> Any:
        return AutoModelForCausalLM.from_pretrained(llama.removeprefix("hf:"))

    ours = trained(tmp_path, llama)
    alone = model()
    assert plain(lambda x: alone(x).logits, list(alone.parameters()), ours, constant) == close_to(ours, 1e-5)
    assert by_trainer(model(), ours, tmp_path / "trainer") == close_to(ours, 1e-4, first=1)


@pytest.mark.slow
def test_a_model_with_lora(tmp_path: Path, llama: str, adapted: Callable[[nn.Module], Any]) -> None:
    ours = trained(tmp_path, llama, "lora:4")
    alone = adapted(ours.model)
    factors = [p for p in alone.parameters() if p.requires_grad]
    assert plain(lambda x: alone(x).logits, factors, ours, constant) == close_to(ours, 1e-5)
    assert by_trainer(adapted(ours.model), ours, tmp_path / "trainer") == close_to(ours, 1e-4, first=1)


def close_to(ours: Trained, by: float, first: int = 0) -> Any:
    """The run's losses from step `first` on."""
    losses = {key: value for key, value in ours.losses.items() if key[0] >= first}
    assert len(losses) >= 16
    return pytest.approx(losses, abs=by)
