"""Herding: an ordered choice of samples whose running mean follows the mean of all."""

from __future__ import annotations

import torch
from torch import Tensor


def herd(features: Tensor, m: int) -> Tensor:
    """Positions of min(m, n) of n samples, best first: int64. The first k of them are the choice for m = k.

    Each next sample is the one, of those not chosen yet, that brings the mean of the chosen ones nearest to the mean of
    all (Welling 2009; as an exemplar rule: Rebuffi et al. 2017, arXiv 1611.07725, algorithm 4). features: [n, d],
    computed in float64; of equally good samples the first is taken.
    """
    x = features.double()
    mean = x.mean(0)
    half_norms = x.square().sum(1) / 2
    chosen = torch.empty(min(m, len(x)), dtype=torch.int64)
    total = torch.zeros_like(mean)
    left = torch.ones(len(x), dtype=torch.bool, device=x.device)
    for k in range(len(chosen)):
        # |(k + 1) mean - total - x|^2 / 2 up to a constant, with the sign turned
        gain = x @ ((k + 1) * mean - total) - half_norms
        best = int(gain.masked_fill(~left, float("-inf")).argmax())
        chosen[k] = best
        left[best] = False
        total += x[best]
    return chosen
