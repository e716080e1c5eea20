"""Merging weights: rules on tensors by name, for checkpoints of one model whose head may have grown in between.

A tensor grows in its first dimension. A row has no value in a checkpoint taken before the row existed: averages leave
that checkpoint out for it. `votes` leave out more: for each name in them, int64 [rows, 1, ...], 1 in the rows that the
new checkpoint has learned something of, 0 in the others; names that are not in them vote in all rows. All rules return
new tensors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor

from clbench.growing import known_part

Weights = dict[str, Tensor]
Shapes = Mapping[str, Sequence[int]]
NONE: Mapping[str, Tensor] = MappingProxyType({})


def cut(weights: Weights, shapes: Shapes) -> Weights:
    """The leading blocks of these shapes."""
    return {name: weights[name][tuple(slice(n) for n in shape)].clone() for name, shape in shapes.items()}


def extended(earlier: Weights, current: Weights) -> Weights:
    """`earlier` where it has a value, `current` in the rows that came later; the names are those of `current`."""
    out = {name: value.clone() for name, value in current.items()}
    for name, value in earlier.items():
        known_part(out[name], value).copy_(value)
    return out


def chosen_rows(value: Tensor, rows: Sequence[int]) -> Tensor:
    """Votes for these rows of a tensor: int64 [len(value), 1, ...]."""
    vote = torch.zeros_like(_one_a_row(value))
    vote[list(rows)] = 1
    return vote


def interpolated(new: Weights, old: Weights, weight: float, votes: Mapping[str, Tensor] = NONE) -> Weights:
    """(1 - weight) new + weight old. Exact at weights 0 and 1.

    Rows that `old` lacks are those of `new`; rows in which `new` has no vote, those of `old`.
    """
    out = {name: value.clone() for name, value in new.items()}
    for name, value in old.items():
        block, one = known_part(out[name], value), _one_a_row(value)
        vote = known_part(votes.get(name, one), one)
        block.copy_(torch.where(vote > 0, torch.lerp(block, value, weight), value))
    return out


def averaged(
    mean: Weights, counts: Weights, new: Weights, votes: Mapping[str, Tensor] = NONE
) -> tuple[Weights, Weights]:
    """One more member of a running mean: mean + (new - mean) / counts where `new` has a vote, and the counts with it.

    counts[name], int64 [rows, 1, ...]: the votes so far. `new` has all rows of the mean, or more; an empty mean gives
    `new`. Rows that nobody has voted for keep the first value they had. Equal members keep their bits.
    """
    out, after = {}, {}
    for name, value in new.items():
        one = _one_a_row(value)
        earlier, before, vote = value.clone(), torch.zeros_like(one), votes.get(name, one)
        if name in mean:
            known_part(earlier, mean[name]).copy_(mean[name])
            known_part(before, counts[name]).copy_(counts[name])
        after[name] = before + vote
        step = (value - earlier) / after[name].clamp(min=1)
        out[name] = torch.where(vote == 0, earlier, torch.where(before == 0, value, earlier + step))
    return out, after


def difference(weights: Weights, origin: Weights, votes: Mapping[str, Tensor] = NONE) -> Weights:
    """The task vector: weights - origin, zero in rows without a vote. Both have the same rows."""
    ones = {name: _one_a_row(value) for name, value in weights.items()}
    return {n: (value - origin[n]) * known_part(votes.get(n, ones[n]), ones[n]) for n, value in weights.items()}


def added(origin: Weights, vector: Weights, scale: float) -> Weights:
    """origin + scale * vector."""
    return {name: origin[name] + scale * value for name, value in vector.items()}


def summed(vectors: Sequence[Weights]) -> Weights:
    """The sum of task vectors, all of the same shapes."""
    return {name: _stacked(vectors, name).sum(0) for name in vectors[0]}


def trimmed(vector: Weights, density: float) -> Weights:
    """The `density` share of entries that are largest in magnitude, counted over all tensors together; the rest is
    zero.

    Yadav et al. 2023 (arXiv 2306.01708), step 1. At least one entry stays; entries equal to the smallest kept stay too.
    """
    magnitudes = torch.cat([value.abs().flatten() for value in vector.values()])
    n = len(magnitudes)
    if not n:
        return dict(vector)
    kept = min(n, max(1, round(density * n)))
    smallest = magnitudes.kthvalue(n - kept + 1).values
    return {name: value * (value.abs() >= smallest) for name, value in vector.items()}


def elected_mean(vectors: Sequence[Weights]) -> Weights:
    """Per entry: the sign of the sum over vectors, and the mean of the values that have it.

    Yadav et al. 2023 (arXiv 2306.01708), steps 2 and 3. Where the sum is zero, the sign that most entries of the whole
    vector were given. Entries that are zero are in no mean. All vectors have the same shapes.
    """
    signs = {name: _stacked(vectors, name).sum(0).sign() for name in vectors[0]}
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
    """One tensor of all vectors, [vectors, ...]."""
    return torch.stack([vector[name] for vector in vectors])


def _one_a_row(value: Tensor) -> Tensor:
    """int64 ones [rows, 1, ...]."""
    return torch.ones(value.shape[:1] + (1,) * (value.dim() - 1), dtype=torch.int64)
