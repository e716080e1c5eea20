"""L2M beside a loop written anew: every sample by itself, through a transformer with its modulator's weights merged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from clbench.engine.session import Session
from clbench.strategies.l2m import L2M

Drive = Callable[..., Session]
D, HIDDEN, RANK, POOL = 24, 96, 2, 5
VIT = f"timm:vit_tiny_patch16_224?img_size=16,patch_size=8,embed_dim={D},depth=1,num_heads=2"
JOB = {"stream": "split-digits", "backbone": VIT, "stream_settings": {"train_per_class": 8, "sizes": [3, 1, 6]}}
SETTINGS = {"epochs": 1, "batch_size": 12, "pool_size": POOL, "rank": RANK, "lr": 0.01, "key_lr_scale": 3.0}
SIZES = [D * RANK, RANK * D, D * RANK, RANK * D, HIDDEN * RANK, RANK * HIDDEN]


class Modulator:
    """A key, and A and B of q, v and the hidden layer of the only block."""

    def __init__(self, key: Tensor, factors: Tensor) -> None:
        self.key = nn.Parameter(key.clone())
        shapes = [(D, RANK), (RANK, D), (D, RANK), (RANK, D), (HIDDEN, RANK), (RANK, HIDDEN)]
        parts = zip(factors.split(SIZES), shapes, strict=True)
        self.factors = [nn.Parameter(part.clone().view(shape)) for part, shape in parts]

    def merged(self, vit: nn.Module) -> dict[str, Tensor]:
        """q and v read x (W + 2 A B); h = x W + b becomes h + 2 (h A) B, before the activation."""
        weights = dict(vit.named_parameters())
        q, v, h = (2 * a @ b for a, b in zip(self.factors[::2], self.factors[1::2], strict=True))
        qkv = "blocks.0.attn.qkv.weight"
        change = torch.cat([q.T, torch.zeros(D, D), v.T])
        fc1 = {
            name: weights[name] + h.T @ weights[name] for name in ("blocks.0.mlp.fc1.weight", "blocks.0.mlp.fc1.bias")
        }
        return {qkv: weights[qkv] + change, **fc1}


def chosen(query: Tensor, pool: list[Modulator], used: Tensor) -> int:
    """The most similar key; once some were used, rarely used ones count for more."""
    cosines = torch.stack([F.cosine_similarity(query, m.key.detach(), dim=0) for m in pool])
    if used.sum() > 0:
        inverse = 1 / (used / used.sum() + 1e-6)
        cosines = (cosines + 1) / 2 * inverse / inverse.sum()
    return int(cosines.argmax())


@pytest.mark.oracle("l2m", "scores after every task equal those of a loop over single samples with merged weights")
def test_l2m_sample_by_sample(drive: Drive, monkeypatch: pytest.MonkeyPatch) -> None:
    start: dict[str, Tensor] = {}
    heads: list[nn.Linear] = []
    batches: list[list[tuple[Tensor, Tensor]]] = []
    scores: list[Tensor] = []
    begin_task, loss, end_task = L2M.begin_task, L2M.loss, L2M.end_task

    def begin(self: Any, task: Any) -> None:
        begin_task(self, task)
        if not task.index:
            start.update({name: value.clone() for name, value in self.model.backbone.net.state_dict().items()})
        rows, new = self.model.head, list(task.new_classes)
        head = nn.Linear(D, len(new))
        head.load_state_dict({"weight": rows.weight.detach()[new], "bias": rows.bias.detach()[new]})
        heads.append(head)
        batches.append([])

    def training(self: Any, batch: Any) -> Tensor:
        batches[-1].append((batch.x.clone(), batch.y.clone()))
        return loss(self, batch)

    def end(self: Any, task: Any) -> None:
        end_task(self, task)
        self.model.eval()
        with torch.no_grad():
            scores.append(self.predict(batches[0][0][0]))

    for name, hook in {"begin_task": begin, "loss": training, "end_task": end}.items():
        monkeypatch.setattr(L2M, name, hook)
    drive("l2m", SETTINGS, job=JOB)

    import timm

    shape: dict[str, Any] = {"img_size": 16, "patch_size": 8, "embed_dim": D, "depth": 1, "num_heads": 2}
    vit = timm.create_model("vit_tiny_patch16_224", in_chans=1, num_classes=0, **shape).eval().requires_grad_(False)
    vit.load_state_dict({n.replace(".inner.", "."): v for n, v in start.items() if not n.startswith("pet.")})
    pool = [Modulator(start[f"pet.{i}.key"], start[f"pet.{i}.factors"]) for i in range(POOL)]
    counts = torch.zeros(POOL)
    for t, seen in enumerate(batches):
        used, offset = counts.clone(), sum(head.out_features for head in heads[:t])
        factors = [p for m in pool for p in m.factors]
        keys = [m.key for m in pool]
        groups = [
            {"params": [heads[t].weight], "weight_decay": 0.01},
            {"params": [*factors, heads[t].bias]},
            {"params": keys, "lr": 0.03},
        ]
        optimizer = torch.optim.AdamW(groups, lr=0.01, weight_decay=0.0)
        for x, y in seen:
            optimizer.zero_grad()
            losses = []
            for image, label in zip(x, y, strict=True):
                query = vit(image[None])[0]
                i = chosen(query, pool, used)
                counts[i] += 1
                z = heads[t](functional_call(vit, pool[i].merged(vit), (image[None],)))
                pull = F.cosine_similarity(query, pool[i].key, dim=0)
                losses.append(F.cross_entropy(z, label[None] - offset) - 0.5 * pull)
            torch.stack(losses).mean().backward()
            torch.nn.utils.clip_grad_norm_([p for group in groups for p in group["params"]], 0.25)
            optimizer.step()
        with torch.no_grad():
            for image, expected in zip(batches[0][0][0], scores[t], strict=True):
                i = chosen(vit(image[None])[0], pool, torch.zeros(POOL))
                features = functional_call(vit, pool[i].merged(vit), (image[None],))
                found = torch.cat([head(features)[0] for head in heads[: t + 1]])
                torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    assert (counts > 0).sum() >= 3
