"""Losses over some of the head's classes: the current task's, as in most methods that train a pretrained model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def among(outputs: Tensor, y: Tensor, classes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The columns of `classes` [B, len(classes)] of outputs [B, C], and the targets [B] as positions in them.

    No classes (text), or outputs without columns (embeddings): both as they are. A target that is not among them is an
    IndexError at the latest in the loss (its position is len(classes)).
    """
    if not classes or not outputs.shape[-1]:
        return outputs, y
    chosen = torch.as_tensor(list(classes), dtype=torch.int64, device=outputs.device)
    position = torch.full((outputs.shape[1],), len(chosen), dtype=torch.int64, device=outputs.device)
    position[chosen] = torch.arange(len(chosen), device=outputs.device)
    return outputs.index_select(1, chosen), position[y]


def class_rows(model: nn.Module) -> dict[str, nn.Parameter]:
    """The head's parameters with a row for each class, by their name in the model; none where it has no such head."""
    head, n = getattr(model, "head", None), getattr(model, "n_classes", 0)
    if not isinstance(head, nn.Module) or not n:
        return {}
    return {f"head.{name}": p for name, p in head.named_parameters() if p.dim() and len(p) == n}
