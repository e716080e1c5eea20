"""The limit: the same jobs as bare PyTorch loops, nothing else done. Prints one JSON line.

python benchmarks/bare.py J1|J2|J3|J4|J5 DATA.npz [--threads 2]
"""

from __future__ import annotations

import argparse
import json
import time

START = time.perf_counter()

import numpy as np
import torch
import torch.nn.functional as F

from clbench.models import build_model

BATCH, LR, CHUNK, MEMORY = 32, 0.03, 64, 500


class Data:
    def __init__(self, path: str) -> None:
        arrays = np.load(path)
        self.train = [
            (torch.from_numpy(arrays[f"train{t}_x"]), torch.from_numpy(arrays[f"train{t}_y"])) for t in range(5)
        ]
        self.test = [(torch.from_numpy(arrays[f"test{t}_x"]), torch.from_numpy(arrays[f"test{t}_y"])) for t in range(5)]
        mean, std = torch.from_numpy(arrays["mean"]).float(), torch.from_numpy(arrays["std"]).float()
        self.scale, self.shift = (1 / (255 * std)).view(-1, 1, 1), (-mean / std).view(-1, 1, 1)
        self.mean, self.std = tuple(mean.tolist()), tuple(std.tolist())

    def inputs(self, raw: torch.Tensor) -> torch.Tensor:
        return torch.addcmul(self.shift, raw.float(), self.scale)


def accuracy(model, data: Data, sets: list, rows: int | None = None) -> list[float]:
    model.eval()
    out = []
    with torch.no_grad():
        for x, y in sets:
            x, y = x[:rows], y[:rows]
            right = sum(
                (model(data.inputs(a)).argmax(1) == b).sum().item()
                for a, b in zip(x.split(CHUNK), y.split(CHUNK), strict=True)
            )
            out.append(right / len(y))
    model.train()
    return out


def train(job: str, data: Data) -> dict:
    model = build_model("slim-resnet18", channels=3, size=32, mean=data.mean, std=data.std)
    model.grow(10)
    memory_x = torch.empty(MEMORY, 3, 32, 32, dtype=torch.uint8)
    memory_y = torch.empty(MEMORY, dtype=torch.int64)
    seen, evaluated, first = 0, 0, None
    fisher: dict[str, torch.Tensor] = {}
    anchor: dict[str, torch.Tensor] = {}
    for t, (x, y) in enumerate(data.train):
        optimizer = torch.optim.SGD(model.parameters(), lr=LR)
        for rows in torch.randperm(len(y)).split(BATCH):
            raw, labels = x[rows], y[rows]
            inputs, targets = data.inputs(raw), labels
            if job == "J2" and seen:
                held = torch.randperm(min(seen, MEMORY))[:BATCH]
                inputs = torch.cat([inputs, data.inputs(memory_x[held])])
                targets = torch.cat([targets, memory_y[held]])
            optimizer.zero_grad()
            loss = F.cross_entropy(model(inputs), targets)
            loss.backward()
            if job == "J5" and anchor:
                for name, p in model.named_parameters():
                    p.grad.add_(fisher[name] * (p.detach() - anchor[name]), alpha=10.0)
            optimizer.step()
            if not torch.isfinite(loss):
                raise SystemExit("diverged")
            first = first or time.perf_counter() - START
            if job == "J2":
                for one, label in zip(raw, labels, strict=True):
                    place = seen if seen < MEMORY else int(torch.randint(seen + 1, ()))
                    if place < MEMORY:
                        memory_x[place], memory_y[place] = one, label
                    seen += 1
            if job == "J3":
                accuracy(model, data, data.test[: t + 1], 250)
                evaluated += 250 * (t + 1)
        if job == "J5":
            model.eval()
            sums = {n: torch.zeros_like(p) for n, p in model.named_parameters()}
            for rows in torch.arange(len(y)).split(BATCH):
                model.zero_grad()
                F.cross_entropy(model(data.inputs(x[rows])), y[rows]).backward()
                for n, p in model.named_parameters():
                    sums[n] += p.grad.square() * len(rows) / len(y)
            model.train()
            fisher = {n: s + fisher.get(n, 0) for n, s in sums.items()}
            anchor = {n: p.detach().clone() for n, p in model.named_parameters()}
        final = accuracy(model, data, data.test[: t + 1])
        evaluated += sum(len(y) for _, y in data.test[: t + 1])
    return {"final": final, "first_step": first, "evaluated": evaluated}


def nearest_mean(data: Data) -> dict:
    spec = "timm:vit_tiny_patch16_224?img_size=32,patch_size=4"
    model = build_model(spec, channels=3, size=32, mean=data.mean, std=data.std).eval()
    sums, counts = torch.zeros(10, model.feature_dim, dtype=torch.float64), torch.zeros(10)
    first, evaluated = None, 0
    with torch.no_grad():
        for t, (x, y) in enumerate(data.train):
            for rows in torch.arange(len(y)).split(BATCH):
                f = F.normalize(model.features(data.inputs(x[rows])))
                sums.index_add_(0, y[rows], f.double())
                counts.index_add_(0, y[rows], torch.ones(len(rows)))
                first = first or time.perf_counter() - START
            means = sums / counts.clamp(min=1)[:, None]
            final = []
            for vx, vy in data.test[: t + 1]:
                right = 0
                for a, b in zip(vx.split(CHUNK), vy.split(CHUNK), strict=True):
                    f = F.normalize(model.features(data.inputs(a))).double()
                    score = (2 * f @ means.T - means.square().sum(1)).masked_fill(counts == 0, -1e9)
                    right += (score.argmax(1) == b).sum().item()
                evaluated += len(vy)
                final.append(right / len(vy))
    return {"final": final, "first_step": first, "evaluated": evaluated}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("job", choices=["J1", "J2", "J3", "J4", "J5"])
    parser.add_argument("data")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bf16", action="store_true")
    options = parser.parse_args()
    if options.bf16:
        torch.autocast("cpu", dtype=torch.bfloat16).__enter__()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    data = Data(options.data)
    loop = time.perf_counter()
    result = nearest_mean(data) if options.job == "J4" else train(options.job, data)
    result |= {"seconds": time.perf_counter() - START, "loop": time.perf_counter() - loop}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
