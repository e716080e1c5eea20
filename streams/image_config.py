"""Settings that all image streams share."""

from __future__ import annotations

from typing import Literal

from clbench.config import Config, setting
from clbench.stream import Augmentation


class ImageConfig(Config):
    """Which images are used, and in what form. The choice of rows never depends on a seed or on their order on disk."""

    online: bool = setting(False, "each task's data may be seen once only", source="clbench: off")
    validation: float = setting(
        0.0,
        "share of each class's training images held out for validation, at least one each",
        source="clbench: none held out",
        ge=0,
        lt=1,
    )
    train_per_class: int | None = setting(None, "at most so many training images of a class", source="all", ge=1)
    test_per_class: int | None = setting(None, "at most so many test images of a class", source="all", ge=1)
    train_per_task: int | None = setting(
        None, "at most so many training images in a task, evenly from its classes", source="all", ge=1
    )
    test_per_task: int | None = setting(
        None, "at most so many test images in a task, evenly from its classes", source="all", ge=1
    )
    size: int | None = setting(
        None, "side of the square images in pixels; none: as the data are", source="the data", ge=1
    )
    resize: int | None = setting(
        None, "short side the images are resized to before the centre is cropped to `size`; none: `size`", source="none"
    )
    channels: Literal[1, 3] | None = setting(
        None, "1 for greyscale, 3 for colour; none: the stream's own", source="the data"
    )
    pad: int | None = setting(
        None, "training images: zero padding before a random crop; none: the stream's own", source="the stream", ge=0
    )
    flip: bool | None = setting(
        None, "training images: random horizontal flip; none: the stream's own", source="the stream"
    )

    crop: float | None = setting(
        None,
        "training images: random crop of at least this share of the area, resized to the whole; 0: none; "
        "none: the stream's own",
        source="the stream",
        ge=0,
        le=1,
    )

    def augmentation(self, own: Augmentation) -> Augmentation:
        """The stream's own augmentation, with what `pad`, `flip` and `crop` say instead."""
        return Augmentation(
            own.pad if self.pad is None else self.pad,
            own.flip if self.flip is None else self.flip,
            own.crop if self.crop is None else self.crop,
        )
