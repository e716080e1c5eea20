"""Pairs of images and texts, and what a model makes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

Index = slice | Tensor | Sequence[int] | None
Rows = TypeVar("Rows", bound="_Rows")


class _Rows:
    """A row for each sample in every column; selected, moved and concatenated as tensors are."""

    def _columns(self, change: Callable[[Tensor], Tensor]) -> Any:
        """The same with every column changed."""
        raise NotImplementedError

    def _row_count(self) -> int:
        raise NotImplementedError

    def __len__(self) -> int:
        return self._row_count()

    def __getitem__(self: Rows, rows: Index) -> Rows:
        changed: Rows = self._columns(lambda column: column[rows])
        return changed

    def split(self: Rows, size: int) -> list[Rows]:
        """Consecutive parts of `size` rows, the last perhaps smaller."""
        return [self[start : start + size] for start in range(0, len(self), size)]

    def to(self: Rows, *where: Any, **how: Any) -> Rows:
        """The columns elsewhere, as `Tensor.to`."""
        moved: Rows = self._columns(lambda column: column.to(*where, **how))
        return moved

    def float(self: Rows) -> Rows:
        """In single precision; tokens stay whole numbers."""
        single: Rows = self._columns(lambda column: column.float() if column.is_floating_point() else column)
        return single

    def detach(self: Rows) -> Rows:
        """Without gradients."""
        alone: Rows = self._columns(Tensor.detach)
        return alone

    @classmethod
    def _cat(cls: type[Rows], parts: Sequence[Rows]) -> Rows:
        raise NotImplementedError

    @classmethod
    def __torch_function__(
        cls, function: Callable[..., Any], types: Iterable[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        """`torch.cat` of several, along the rows."""
        if function is torch.cat and not kwargs and (len(args) == 1 or args[1:] == (0,)):
            return cls._cat(args[0])
        return NotImplemented


@dataclass(eq=False)
class Pairs(_Rows):
    """What a model of images and texts takes; one side may be missing.

    images: float [B, C, H, W], normalised. tokens: int64 [B, context].
    """

    images: Tensor | None
    tokens: Tensor | None = None

    def _row_count(self) -> int:
        column = self.tokens if self.images is None else self.images
        return 0 if column is None else len(column)

    def _columns(self, change: Callable[[Tensor], Tensor]) -> Pairs:
        return Pairs(
            None if self.images is None else change(self.images), None if self.tokens is None else change(self.tokens)
        )

    @property
    def device(self) -> torch.device:
        column = self.tokens if self.images is None else self.images
        return torch.device("cpu") if column is None else column.device

    def only_images(self) -> Pairs:
        return Pairs(self.images, None)

    @classmethod
    def _cat(cls, parts: Sequence[Pairs]) -> Pairs:
        return Pairs(_joined([p.images for p in parts]), _joined([p.tokens for p in parts]))


@dataclass(eq=False)
class Embeddings(_Rows):
    """What a model of images and texts gives; a side that was missing is None.

    image, text: float [B, d] of unit length. scale: what similarities are multiplied by, a scalar (1 / temperature);
    bias: what is added to them then, a scalar or None.
    """

    image: Tensor | None
    text: Tensor | None
    scale: Tensor
    bias: Tensor | None = None

    def _row_count(self) -> int:
        column = self.text if self.image is None else self.image
        return 0 if column is None else len(column)

    def _columns(self, change: Callable[[Tensor], Tensor]) -> Embeddings:
        image = None if self.image is None else change(self.image)
        text = None if self.text is None else change(self.text)
        return Embeddings(image, text, self.scale, self.bias)

    @property
    def device(self) -> torch.device:
        return self.scale.device

    @property
    def shape(self) -> torch.Size:
        """(B, 0): of the columns that a classifier's outputs have, one for each class known, there are none."""
        return torch.Size((len(self), 0))

    def masked_fill(self, mask: Tensor, value: float) -> Embeddings:
        """Itself: there are no columns to fill. Raises ValueError for a mask of any."""
        if mask.numel():
            raise ValueError("embeddings have no columns of classes to leave out")
        return self

    def logits(self) -> Tensor:
        """Similarities of every image (rows) to every text (columns), scaled, with the bias: float32 [B, B]."""
        if self.image is None or self.text is None:
            raise ValueError("similarities need images and texts")
        with torch.autocast(self.image.device.type, enabled=False):
            similar = self.scale.float() * self.image.float() @ self.text.float().T
            return similar if self.bias is None else similar + self.bias.float()

    @classmethod
    def _cat(cls, parts: Sequence[Embeddings]) -> Embeddings:
        first = parts[0]
        return Embeddings(_joined([p.image for p in parts]), _joined([p.text for p in parts]), first.scale, first.bias)


def _joined(columns: Sequence[Tensor | None]) -> Tensor | None:
    present = [column for column in columns if column is not None]
    if present and len(present) < len(columns):
        raise ValueError("some of the parts lack a side that others have")
    return torch.cat(present) if present else None
