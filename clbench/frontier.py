"""Adaptation against forgetting: which runs no other beats in both, and how much of the plane they cover."""

from __future__ import annotations

from collections.abc import Sequence

Point = tuple[float, float]
"""(adaptation, forgetting): more of the first and less of the second is better."""


def frontier(points: Sequence[Point]) -> list[int]:
    """Positions of the points that no other one beats (as good in both, better in one), by adaptation.

    Of equal points all stay.
    """
    kept = [i for i, point in enumerate(points) if not any(_beats(other, point) for other in points)]
    return sorted(kept, key=lambda i: (points[i], i))


def hypervolume(points: Sequence[Point], reference: Point) -> float:
    """The area between the frontier and a reference point that is worse in both; what is not better than it counts 0.

    The usual reference is (0, the largest forgetting of all runs compared): values with different ones do not compare.
    """
    inside = [(a, f) for a, f in points if a > reference[0] and f < reference[1]]
    area, lowest = 0.0, reference[1]
    for a, f in sorted(inside, key=lambda point: (-point[0], point[1])):
        if f < lowest:
            area += (a - reference[0]) * (lowest - f)
            lowest = f
    return area


def _beats(one: Point, other: Point) -> bool:
    return one != other and one[0] >= other[0] and one[1] <= other[1]
