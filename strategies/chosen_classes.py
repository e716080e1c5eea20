"""Losses over some of the head's classes: the current task's, as in most methods that train a pretrained model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def among(outputs: Tensor, y: Tensor, classes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The columns of `classes` [B, len(classes)] of outputs [B, C], and the targets [B] as positions in them.

    A target that is not among them is an IndexError at the latest in the loss (its position is len(classes)).
    """
    chosen = torch.as_tensor(list(classes), dtype=torch.int64, device=outputs.device)
    position = torch.full((outputs.shape[1],), len(chosen), dtype=torch.int64, device=outputs.device)
    position[chosen] = torch.arange(len(chosen), device=outputs.device)
    return outputs.index_select(1, chosen), position[y]
