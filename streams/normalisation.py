"""Mean and standard deviation of pixels, constants of a source: never computed from data that arrive later."""

from __future__ import annotations

from typing import Any

from clbench.data.root import canonical
from clbench.errors import UserError

Statistics = tuple[tuple[float, ...], tuple[float, ...]]

# Per channel, pixels in [0, 1], over the official training splits, as they circulate in the field.
# digits: over all 1,797 images in the uint8 form that `load_digits` gives; the test suite computes it again.
KNOWN: dict[str, Statistics] = {
    "digits": ((0.3053,), (0.3759,)),
    "mnist": ((0.1307,), (0.3081,)),
    "fashion_mnist": ((0.2860,), (0.3530,)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    # ImageNet's, which SLCA and others take for these photos.
    "imagenet_r": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cub200": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cars196": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "core50": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "tiny_imagenet": ((0.4802, 0.4481, 0.3975), (0.2770, 0.2691, 0.2821)),
}
UNKNOWN: Statistics = ((0.5,), (0.25,))


def statistics(name: str, info: dict[str, Any], channels: int) -> Statistics:
    """(mean, std), one number a channel: the known constants of a set, else `mean` and `std` of its info.json, else
    0.5 and 0.25. Colour statistics are averaged for grey images, grey ones repeated for colour."""
    known = {canonical(each): constants for each, constants in KNOWN.items()}
    key = canonical(name.partition(":")[0])
    if key in known:
        mean, std = known[key]
    elif "mean" in info and "std" in info:
        mean, std = _stated(name, info["mean"], "mean"), _stated(name, info["std"], "std")
        if min(std) <= 0:
            raise UserError(f"{name}: std in info.json must be above 0")
    else:
        mean, std = UNKNOWN
    return _fitted(mean, channels), _fitted(std, channels)


def _stated(name: str, value: Any, key: str) -> tuple[float, ...]:
    values = value if isinstance(value, list) else [value]
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) and 0 <= v <= 1 for v in values)
    if len(values) not in (1, 3) or not numbers:
        raise UserError(f"{name}: {key} in info.json must be 1 or 3 numbers between 0 and 1, one a channel")
    return tuple(float(v) for v in values)


def _fitted(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    if len(values) == channels:
        return values
    return (sum(values) / len(values),) * channels
