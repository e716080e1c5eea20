"""Rank-selective LoRA against plain loops written after the official codes: same draws and batches, same weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from clbench.engine.session import Session

RECORDED = f"{Path(__file__).with_name('rank_recorders.py')}:Recorded"
JOB = {
    "stream": "split-digits",
    "backbone": "timm:vit_tiny_patch16_224?img_size=16,patch_size=8,embed_dim=12,depth=1,num_heads=3",
    "stream_settings": {"train_per_class": 10, "sizes": [3, 5, 2]},
}
Drive = Callable[..., Session]
Deltas = dict[str, Tensor]


class Reference:
    """A frozen backbone, updates of its layers, and for each task a classifier of its own.

    The classifiers' outputs stand side by side; weights are kept as plain tensors by name.
    """

    def __init__(self, strategy: Any) -> None:
        self.backbone = strategy.original
        self.weights = {name: p.detach().clone() for name, p in self.backbone.named_parameters()}
        self.heads: list[list[Tensor]] = []
        self.losses: list[list[float]] = []
        self.ranks: list[dict[str, int]] = []

    def begin(self, task: dict[str, Any]) -> list[Tensor]:
        self.heads.append([rows.clone().requires_grad_() for rows in task["rows"]])
        self.losses.append([])
        return self.heads[-1]

    def loss(self, x: Tensor, y: Tensor, classes: list[int], deltas: Deltas) -> Tensor:
        """Cross-entropy of the current task's classifier on W + delta."""
        features = functional_call(self.backbone, self.changed(deltas), (x,))
        weight, bias = self.heads[-1]
        loss = F.cross_entropy(F.linear(features, weight, bias), torch.tensor([classes.index(int(k)) for k in y]))
        return loss

    def changed(self, deltas: Deltas) -> dict[str, Tensor]:
        """The backbone's weights with a delta added to each layer; q, k and v are rows of one matrix."""
        out = dict(self.weights)
        for name, delta in deltas.items():
            layer, _, part = name.rpartition(".")
            if part in ("q", "k", "v"):
                whole = [torch.zeros_like(delta)] * 3
                whole["qkv".index(part)] = delta
                out[f"{layer}.weight"] = out[f"{layer}.weight"] + torch.cat(whole)
            else:
                out[f"{name}.weight"] = out[f"{name}.weight"] + delta
        return out

    def end(self, deltas: Deltas, ranks: dict[str, int]) -> None:
        self.weights = {name: w.detach() for name, w in self.changed(deltas).items()}
        self.ranks.append(ranks)

    def compare(self, session: Session) -> None:
        """With what the strategy ended with."""
        recorded = session.strategy.tasks
        assert [told["values"]["effective_rank"] for told in session.diagnostics] == self.ranks
        for mine, theirs in zip(self.losses, recorded, strict=True):
            assert mine == pytest.approx(theirs["losses"], abs=2e-4)
        assert len(recorded) == 3 and all(len(set(mine)) > 5 for mine in self.losses)
        found, start = merged(session.model.backbone), session.strategy.original.state_dict()
        assert found.keys() == self.weights.keys()
        changes = {name: (found[name] - start[name], w - start[name]) for name, w in self.weights.items()}
        moved = [name for name, (_, expected) in changes.items() if expected.any()]
        assert len(moved) == 4, moved  # qkv, proj, fc1, fc2
        for name, (change, expected) in changes.items():
            assert float((change - expected).norm()) <= 5e-3 * float(expected.norm()), name
        head = session.model.head
        for got, rows in ((head.weight, 0), (head.bias, 1)):
            expected = torch.cat([classifier[rows] for classifier in self.heads])
            torch.testing.assert_close(got.detach(), expected.detach(), atol=5e-4, rtol=1e-3)


def merged(backbone: Any) -> dict[str, Tensor]:
    """The weights by the names of the original backbone: without wrappers, q, k and v joined."""
    found: dict[str, Tensor] = {}
    for name, value in backbone.state_dict().items():
        if ".rank_one." in name or ".lora_" in name or ".ranknum." in name:
            continue
        name = name.replace("base_layer.", "")
        parent, _, kind = name.rpartition(".")
        layer, _, part = parent.rpartition(".")
        joined = f"{layer}.{kind}" if part in ("q", "k", "v") else name
        found[joined] = torch.cat([found[joined], value]) if joined in found else value
    return found


def recorded(drive: Drive, name: str, **settings: Any) -> Session:
    return drive(f"{RECORDED}{name}", settings, job=JOB)


# -- CoDyRA ----------------------------------------------------------------------------------------------------------


@pytest.mark.oracle("codyra", "repeats a plain loop after the released code: same ranks, losses and merged weights")
@pytest.mark.parametrize(("operator", "steps"), [("released", 100), ("paper", 110)])
def test_codyra_repeats_the_released_loop(drive: Drive, operator: str, steps: int) -> None:
    """With 110 steps thresholds do not begin where the sparse phase does: 55 is odd, and each has one step."""
    kappa_max, count, dense, lr = 0.02, 20, 0.5, 2e-3
    settings = {"steps": steps, "kappa_max": kappa_max, "kappas": count, "rank": 6, "lr": lr, "batch_size": 16}
    session = recorded(drive, "CoDyRA", operator=operator, **settings)
    reference = Reference(session.strategy)
    for task in session.strategy.tasks:
        head = reference.begin(task)
        a = {n: t[0].clone().requires_grad_() for n, t in task["drawn"].items()}
        gates = {n: t[1].clone().requires_grad_() for n, t in task["drawn"].items()}
        b = {n: torch.zeros(rows_of(session, n), 6, requires_grad=True) for n in a}
        optimizer = torch.optim.AdamW(
            [*a.values(), *gates.values(), *b.values(), *head], lr=lr, betas=(0.9, 0.9999), weight_decay=0.0
        )
        kappas = [kappa_max * i / (count - 1) for i in range(count)]
        kappa_id, dense_steps = 0, dense * steps
        for step, (x, y) in enumerate(task["batches"]):
            if step >= dense_steps and step % ((steps - dense_steps) // count) == 0:
                kappa_id += 1
            kappa = kappas[min(kappa_id, count - 1)]
            optimizer.param_groups[0]["lr"] = lr * 0.5 * (1 + math.cos(math.pi * step / steps))
            loss = reference.loss(x, y, task["classes"], {n: (b[n] * gates[n]) @ a[n] for n in a})
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            reference.losses[-1].append(float(loss.detach()))
            for gate in gates.values() if step > dense_steps else ():
                with torch.no_grad():
                    if operator == "released":
                        gate[gate > kappa] -= kappa
                        gate[gate < -kappa] += kappa
                        gate[gate.abs() < kappa] = 0
                    else:
                        gate.copy_(torch.where(gate.abs() > kappa, gate - gate.sign() * kappa, torch.zeros(())))
        deltas = {n: (b[n] * gates[n]) @ a[n] for n in a}
        reference.end(deltas, {n: int((gate != 0).sum()) for n, gate in gates.items()})
    reference.compare(session)
    kept = [rank for told in reference.ranks for rank in told.values()]
    assert 0 < sum(kept) < 6 * len(kept), "all or nothing was silenced"


def rows_of(session: Session, name: str) -> int:
    """Outputs of a layer."""
    layer = session.model.backbone.get_submodule(name)
    return int(getattr(layer, "base_layer", layer).weight.shape[0])


# -- SoRA ------------------------------------------------------------------------------------------------------------


@pytest.mark.oracle("sora", "repeats a plain loop with a classifier and two optimisers for each task")
@pytest.mark.parametrize("operator", ["paper", "released"])
def test_sora_repeats_a_loop_with_two_optimisers(drive: Drive, operator: str) -> None:
    steps, lr, xi, l1 = 40, 3e-3, 0.03, (10.0 if operator == "released" else 0.0)
    settings = {"steps": steps, "xi": xi, "lr": lr, "rank": 4, "alpha": 8.0, "l1": l1, "batch_size": 16}
    session = recorded(drive, "SoRA", operator=operator, **settings)
    reference = Reference(session.strategy)
    for task in session.strategy.tasks:
        head = reference.begin(task)
        a = {n: t[0].clone().requires_grad_() for n, t in task["drawn"].items()}
        gates = {n: t[1].clone().requires_grad_() for n, t in task["drawn"].items()}
        b = {n: torch.zeros(rows_of(session, n), 4, requires_grad=True) for n in a}
        decayed = {"params": [*a.values(), *b.values(), head[0]], "weight_decay": 0.1}
        others = torch.optim.AdamW([decayed, {"params": [head[1]], "weight_decay": 0.0}], lr=lr)
        sparse = torch.optim.AdamW(list(gates.values()), lr=lr, weight_decay=0.0)
        rates = [torch.optim.lr_scheduler.LambdaLR(o, lambda s: 1 - s / steps) for o in (others, sparse)]
        for x, y in task["batches"]:
            loss = reference.loss(x, y, task["classes"], {n: 2.0 * (b[n] * gates[n]) @ a[n] for n in a})
            loss = loss + l1 * sum(g.abs().sum() for g in gates.values()) / sum(g.numel() for g in gates.values())
            others.zero_grad()
            sparse.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_([*a.values(), *b.values(), *head, *gates.values()], 0.1)
            others.step()
            sparse.step()
            reference.losses[-1].append(float(loss.detach()))
            least = xi * sparse.param_groups[0]["lr"] / lr if operator == "paper" else xi
            with torch.no_grad():
                for gate in gates.values():
                    above, below = gate > least, gate < -least
                    gate.sub_(least * above.float()).add_(least * below.float())
                    gate[gate.abs() < least if operator == "released" else ~(above | below)] = 0
            for rate in rates:
                rate.step()
        deltas = {n: 2.0 * (b[n] * gates[n]) @ a[n] for n in a}
        reference.end(deltas, {n: int((gate != 0).sum()) for n, gate in gates.items()})
    reference.compare(session)
    kept = [rank for told in reference.ranks for rank in told.values()]
    assert 0 < sum(kept) < 4 * len(kept), "all or nothing was closed"


# -- AdaLoRA ---------------------------------------------------------------------------------------------------------


@pytest.mark.oracle("adalora", "repeats a plain loop after the official RankAllocator: same ranks, losses and weights")
@pytest.mark.parametrize("interval", [1, 3])
def test_adalora_repeats_the_official_allocator(drive: Drive, interval: int) -> None:
    steps, lr, rank, target, beta1, beta2 = 30, 5e-3, 6, 3, 0.8, 0.7
    settings = {"steps": steps, "lr": lr, "rank": rank, "target_rank": target, "beta1": beta1, "beta2": beta2}
    session = recorded(
        drive, "AdaLoRA", interval=interval, warmup=0.2, final=0.4, alpha=12.0, batch_size=16, **settings
    )
    reference = Reference(session.strategy)
    start, end = 6, 30 - 12
    for task in session.strategy.tasks:
        head = reference.begin(task)
        q = {n: t[0].clone().requires_grad_() for n, t in task["drawn"].items()}
        p = {n: t[1].clone().requires_grad_() for n, t in task["drawn"].items()}
        e = {n: torch.zeros(rank, 1, requires_grad=True) for n in q}
        factors = {(n, k): t for k, kind in (("P", p), ("E", e), ("Q", q)) for n, t in kind.items()}
        smoothed = {key: torch.zeros_like(t) for key, t in factors.items()}
        unsure = {key: torch.zeros_like(t) for key, t in factors.items()}
        optimizer = torch.optim.AdamW([*factors.values(), *head], lr=lr, weight_decay=0.0)
        for step, (x, y) in enumerate(task["batches"], start=1):
            optimizer.param_groups[0]["lr"] = lr * (1 - (step - 1) / steps)
            loss = reference.loss(x, y, task["classes"], update(p, e, q, 12.0 / (rank + 1e-5)))
            grams = [t.T @ t if kind == "P" else t @ t.T for (_, kind), t in factors.items() if kind != "E"]
            loss = loss + 0.1 * sum((g - torch.eye(rank)).norm() for g in grams) / len(grams)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            reference.losses[-1].append(float(loss.detach()))
            with torch.no_grad():
                for key, t in factors.items() if step < end else ():
                    now = (t * t.grad).abs()
                    smoothed[key] = beta1 * smoothed[key] + (1 - beta1) * now
                    unsure[key] = beta2 * unsure[key] + (1 - beta2) * (now - smoothed[key]).abs()
                whole, least = rank * len(e), target * len(e)
                left = 1 - (step - start) / (end - start)
                budget = least if step > end else int(least + (whole - least) * left**3)
                if step > end or (step > start and (step % interval == 0 or step == end)):
                    score = {key: smoothed[key] * unsure[key] for key in factors}
                    triplet = {n: score[n, "E"][:, 0] + score[n, "P"].mean(0) + score[n, "Q"].mean(1) for n in e}
                    bar = torch.cat(list(triplet.values())).kthvalue(whole - budget).values
                    for n, gate in e.items():
                        gate[triplet[n] <= bar] = 0
        reference.end(update(p, e, q, 12.0 / (rank + 1e-5)), {n: int((gate != 0).sum()) for n, gate in e.items()})
    reference.compare(session)
    assert all(sum(told.values()) == target * len(told) for told in reference.ranks)


def update(p: dict[str, Tensor], e: dict[str, Tensor], q: dict[str, Tensor], scale: float) -> Deltas:
    return {n: scale * p[n] @ (e[n] * q[n]) for n in p}
