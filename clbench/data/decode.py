"""One encoded image to one uint8 array."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

GREY_MODES = ("1", "L", "LA", "La")


def short_side(data: bytes) -> int:
    """The shorter side in pixels, from the header alone. Raises `ValueError` where it is no image."""
    return min(_open(data).size)


def decode(data: bytes, size: int | None = None, channels: int = 3, resize: int | None = None) -> np.ndarray:
    """uint8 [channels, H, W]. With `size`: short side resized to `resize` (none: to `size`) by bicubic interpolation,
    then the centre cropped.

    Greyscale is repeated over three channels; with `channels=1` an image must be grey (equal channels).
    16-bit grey keeps its high byte, palettes are resolved, transparency is dropped.
    Raises `ValueError` with the reason where the bytes cannot be decoded.
    """
    image = _open(data)
    try:
        image.load()
        image = _eight_bit(image, channels)
        if size is not None:
            image = _fit(image, size, resize or size)
    except ValueError:
        raise
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, EOFError, ...
        raise ValueError(_reason(error)) from None
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _open(data: bytes) -> Any:
    from PIL import Image

    try:
        return Image.open(io.BytesIO(data))
    except Exception as error:
        raise ValueError(_reason(error)) from None


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return "not an image" if "cannot identify" in text else text[:120] or type(error).__name__


def _eight_bit(image: Any, channels: int) -> Any:
    from PIL import Image

    if image.mode.startswith("I"):
        wide = np.asarray(image).astype(np.int64)
        image = Image.fromarray(np.clip(wide >> 8, 0, 255).astype(np.uint8))
    if channels == 3:
        return image if image.mode == "RGB" else image.convert("RGB")
    if image.mode not in GREY_MODES:
        pixels = np.asarray(image.convert("RGB"))
        if (pixels != pixels[..., :1]).any():
            raise ValueError("in colour, but channels=1 was asked for")
        return Image.fromarray(np.ascontiguousarray(pixels[..., 0]))
    return image.convert("L")


def _fit(image: Any, size: int, resize: int) -> Any:
    from PIL import Image

    width, height = image.size
    short = min(width, height)
    if short != resize:
        width = max(resize, round(width * resize / short))
        height = max(resize, round(height * resize / short))
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    if (width, height) == (size, size):
        return image
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))
