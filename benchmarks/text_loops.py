"""The limit and the usual tool: a language model trained on the blocks of clbench by a bare PyTorch loop, or by
`transformers.Trainer`, with the same optimiser and no evaluation. Prints one JSON line.

python benchmarks/text_loops.py bare|trainer BLOCKS.npz --model SPEC --batch 16 --lr 1e-3 [--bf16] [--threads 2]
python benchmarks/text_loops.py blocks BLOCKS.npz --stream text-strong --tokens 400k      (writes them)
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

START = time.perf_counter()

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


def write_blocks(options: argparse.Namespace) -> None:
    from clbench.registry import load_recipe

    recipe = load_recipe(options.stream)
    settings = recipe.Config(tokens=options.tokens, upstream_tokens=options.tokens, eval_blocks=16)
    train = recipe(options.stream, settings).build().tasks[0].train
    np.savez(options.blocks, train=train.pool.inputs[train.index].numpy())


def order(blocks: Tensor, batch: int) -> Iterator[Tensor]:
    for rows in torch.randperm(len(blocks)).split(batch):
        if len(rows) == batch:
            yield blocks[rows].long()


def bare(model: nn.Module, blocks: Tensor, options: argparse.Namespace) -> list[float]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr, weight_decay=0.1)
    losses = []
    for tokens in order(blocks, options.batch):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16) if options.bf16 else nullcontext():
            logits = model(tokens[:, :-1])
            loss = F.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        if not torch.isfinite(loss):
            raise SystemExit("diverged")
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


class WithLoss(nn.Module):
    """The model as `transformers.Trainer` wants one: the loss comes from the forward pass."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.model(input_ids)
        return {"loss": F.cross_entropy(logits.float().flatten(0, 1), labels.flatten())}


def trainer(model: nn.Module, blocks: Tensor, options: argparse.Namespace) -> list[float]:
    from transformers import Trainer, TrainingArguments

    items: Any = [{"input_ids": block[:-1].long(), "labels": block[1:].long()} for block in blocks]
    steps = len(blocks) // options.batch
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            per_device_train_batch_size=options.batch,
            max_steps=steps,
            learning_rate=options.lr,
            lr_scheduler_type="constant",
            weight_decay=0.1,
            max_grad_norm=1.0,
            bf16=options.bf16,
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            logging_steps=steps,
            dataloader_pin_memory=False,
        )
        tool = Trainer(WithLoss(model), arguments, train_dataset=items)
        tool.train()
        return [row["loss"] for row in tool.state.log_history if "loss" in row]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("job", choices=["blocks", "bare", "trainer"])
    parser.add_argument("blocks")
    parser.add_argument("--stream", default="text-strong")
    parser.add_argument("--tokens", default="400k")
    parser.add_argument("--model", default="byte-gpt?ctx=128,d=128,layers=4,heads=4")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bf16", action="store_true")
    options = parser.parse_args()
    if options.job == "blocks":
        write_blocks(options)
        return
    from clbench.models import build_model

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    blocks = torch.from_numpy(np.load(options.blocks)["train"])
    model = build_model(options.model, channels=0, size=blocks.shape[1] - 1, mean=(), std=(), vocab_size=257)
    start = time.perf_counter()
    losses = (bare if options.job == "bare" else trainer)(model.train(), blocks, options)
    end = time.perf_counter()
    print(json.dumps({"wall": end - START, "loop": end - start, "loss": losses[-1]}))


if __name__ == "__main__":
    main()
