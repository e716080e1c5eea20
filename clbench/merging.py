"""Merging weights: rules on tensors by name, for checkpoints of one model whose head may have grown in between.

A tensor grows in its first dimension. A row has no value in a checkpoint taken before the row existed: averages leave
that checkpoint out for it, and the difference of two checkpoints is zero there. All rules return new tensors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from clbench.growing import known_part, padded

Weights = dict[str, Tensor]
Shapes = Mapping[str, Sequence[int]]


def cut(weights: Weights, shapes: Shapes) -> Weights:
    """The leading blocks of these shapes."""
    return {name: weights[name][tuple(slice(n) for n in shape)].clone() for name, shape in shapes.items()}


def extended(earlier: Weights, current: Weights) -> Weights:
    """`earlier` where it has a value, `current` in the rows that came later; the names are those of `current`."""
    out = {name: value.clone() for name, value in current.items()}
    for name, value in earlier.items():
        known_part(out[name], value).copy_(value)
    return out


def interpolated(new: Weights, old: Weights, weight: float) -> Weights:
    """(1 - weight) new + weight old; rows that `old` lacks are those of `new`. Exact at weights 0 and 1."""
    out = {name: value.clone() for name, value in new.items()}
    for name, value in old.items():
        block = known_part(out[name], value)
        block.copy_(torch.lerp(block, value, weight))
    return out


def averaged(mean: Weights, counts: Weights, new: Weights) -> tuple[Weights, Weights]:
    """One more member of a running mean: mean + (new - mean) / counts, and the counts with it.

    counts[name], int64 [rows, 1, ...]: the members that have each row. Either may have more rows than the other; an
    empty mean gives `new`. Equal members keep their bits.
    """
    out, after = {}, {}
    for name, value in new.items():
        earlier, one = mean.get(name, value), _one_a_row(value)
        larger, smaller = (earlier, value) if earlier.numel() > value.numel() else (value, earlier)
        count = _one_a_row(larger) * 0
        known_part(count, one).add_(one)
        if name in mean:
            known_part(count, counts[name]).add_(counts[name])
        out[name], after[name] = larger.clone(), count
        shared = known_part(earlier, smaller)
        step = (known_part(value, smaller) - shared) / known_part(count, _one_a_row(smaller))
        known_part(out[name], smaller).copy_(shared + step)
    return out, after


def difference(weights: Weights, origin: Weights) -> Weights:
    """The task vector: weights - origin. Both have the same rows."""
    return {name: value - origin[name] for name, value in weights.items()}


def added(origin: Weights, vector: Weights, scale: float) -> Weights:
    """origin + scale * vector."""
    return {name: origin[name] + scale * value for name, value in vector.items()}


def summed(vectors: Sequence[Weights]) -> Weights:
    """The sum of task vectors; the last of them has all rows."""
    total = {name: value.clone() for name, value in vectors[-1].items()}
    for vector in vectors[:-1]:
        for name, value in vector.items():
            known_part(total[name], value).add_(value)
    return total


def trimmed(vector: Weights, density: float) -> Weights:
    """The `density` share of entries that are largest in magnitude, counted over all tensors together; the rest is
    zero.

    Yadav et al. 2023 (arXiv 2306.01708), step 1. At least one entry stays; entries equal to the smallest kept stay too.
    """
    magnitudes = torch.cat([value.abs().flatten() for value in vector.values()])
    n = len(magnitudes)
    kept = min(n, max(1, round(density * n)))
    smallest = magnitudes.kthvalue(n - kept + 1).values
    return {name: value * (value.abs() >= smallest) for name, value in vector.items()}


def elected_mean(vectors: Sequence[Weights]) -> Weights:
    """Per entry: the sign of the sum over vectors, and the mean of the values that have it.

    Yadav et al. 2023 (arXiv 2306.01708), steps 2 and 3. Where the sum is zero, the sign that most entries of the whole
    vector were given. Entries that are zero are in no mean. The last vector has all rows.
    """
    latest = vectors[-1]
    signs = {name: _stacked(vectors, name).sum(0).sign() for name in latest}
    majority = torch.stack([sign.sum() for sign in signs.values()]).sum().sign()
    merged = {}
    for name, sign in signs.items():
        values = _stacked(vectors, name)
        agree = (values != 0) & (values.sign() == torch.where(sign == 0, majority, sign))
        merged[name] = (values * agree).sum(0) / agree.sum(0).clamp(min=1)
    return merged


def dropped(vector: Weights, p: float, generator: torch.Generator, exact: bool = False) -> Weights:
    """Entries set to zero with probability `p`, the others divided by 1 - p: the expectation is the vector.

    Yu et al. 2024 (arXiv 2311.03099). exact: of each tensor's n entries exactly round(p n) are dropped instead.
    """
    out = {}
    for name, value in vector.items():
        if exact:
            order = torch.randperm(value.numel(), generator=generator)
            kept = (order >= round(p * value.numel())).view(value.shape)
        else:
            kept = torch.rand(value.shape, generator=generator) >= p
        out[name] = value * kept / (1 - p)
    return out


def _stacked(vectors: Sequence[Weights], name: str) -> Tensor:
    """One tensor of all vectors, [vectors, ...], zeros in rows that a vector lacks."""
    return torch.stack([padded(vector[name], vectors[-1][name]) for vector in vectors])


def _one_a_row(value: Tensor) -> Tensor:
    """int64 ones [rows, 1, ...]."""
    return torch.ones(value.shape[:1] + (1,) * (value.dim() - 1), dtype=torch.int64)
