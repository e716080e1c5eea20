"""Classes of several sets, matched by their names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from clbench.errors import UserError

from .image_data import ImageData


def shared_classes(sets: Sequence[ImageData], rule: Literal["same", "shared"]) -> list[str]:
    """Class names of the stream, in the order of the first set.

    rule: "same" demands that all sets have the same names; "shared" keeps those that all of them have. Raises
    `UserError` naming the set and the class that do not fit.
    """
    first = sets[0]
    for other in sets[1:]:
        if rule == "same" and set(other.class_names) != set(first.class_names):
            here, there = (first, other) if set(first.class_names) - set(other.class_names) else (other, first)
            extra = next(name for name in here.class_names if name not in there.class_names)
            raise UserError(
                f"the classes of {first.name} and {other.name} differ: {there.name} has no {extra!r}; "
                "classes=shared keeps those that all sets have"
            )
    common = set(first.class_names).intersection(*(other.class_names for other in sets[1:]))
    names = [name for name in first.class_names if name in common]
    if len(names) < 2:
        listed = ", ".join(data.name for data in sets)
        raise UserError(
            f"the sets {listed} have {len(names)} classes in common, but 2 are needed; compare their info.json"
        )
    return names
