"""Tensors that belong to parameters which may have grown since: new rows of a head, say.

What was known of a parameter lies in its leading block; what came later has no history.
"""

from __future__ import annotations

from torch import Tensor


def known_part(current: Tensor, earlier: Tensor) -> Tensor:
    """The block of `current` that `earlier` covers: a view, shaped like `earlier`."""
    return current[tuple(slice(n) for n in earlier.shape)]


def padded(earlier: Tensor, current: Tensor) -> Tensor:
    """`earlier` in the shape, type and place of `current`, zeros where it had nothing; a new tensor."""
    out = current.new_zeros(current.shape)
    known_part(out, earlier).copy_(earlier)
    return out
