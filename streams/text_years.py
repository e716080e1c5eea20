"""Cutting a dated text set into consecutive slices of years."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from clbench.errors import UserError

if TYPE_CHECKING:
    from clbench.data.text import Document


def year_slices(place: str, documents: Sequence[Document], slices: int) -> list[str]:
    """`SET[2014-2016]`, `SET[2017]`, ...: whole years, oldest first, the slices of about equal text.

    Raises `UserError` where the set has no years, or fewer than slices.
    """
    size: Counter[int] = Counter()
    for document in documents:
        if document.year is not None:
            size[document.year] += len(document.text)
    if not size:
        raise UserError(f"text set {place} has no years: slices need a column `year`; name another set (source=SET)")
    years = sorted(size)
    if len(years) < slices:
        raise UserError(f"text set {place} has documents of {len(years)} years; set slices={len(years)} or fewer")
    groups = equal_groups([size[year] for year in years], slices)
    return [f"{place}[{years[a]}-{years[b - 1]}]" if b > a + 1 else f"{place}[{years[a]}]" for a, b in groups]


def equal_groups(sizes: Sequence[int], groups: int) -> list[tuple[int, int]]:
    """Cut a list into so many consecutive parts [a, b), none empty: the k-th ends where the sum so far is nearest to k
    equal shares of the whole."""
    total, done, start = sum(sizes), 0, 0
    cuts = []
    for number in range(1, groups):
        share = total * number / groups
        end = start + 1
        done += sizes[start]
        last = len(sizes) - (groups - number)  # leaves one for each part to come
        while end < last and abs(done + sizes[end] - share) <= abs(done - share):
            done += sizes[end]
            end += 1
        cuts.append((start, end))
        start = end
    return [*cuts, (start, len(sizes))]
