"""Which rows are used: limits and validation, decided by what a row shows and by nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clbench.errors import UserError

from .row_keys import reordered


def by_key(rows: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """The rows in the order of their keys: the same on every disk."""
    return rows[np.argsort(keys[rows], kind="stable")]


def rank_in_class(rows: np.ndarray, y: np.ndarray, keys: np.ndarray, purpose: str) -> np.ndarray:
    """int64 [len(rows)]: each row's place, from 0, in a fixed shuffle of its class."""
    labels = y[rows]
    order = np.lexsort((reordered(keys[rows], purpose), labels))
    counts = np.bincount(labels)
    starts = np.cumsum(counts) - counts
    ranks = np.empty(len(rows), np.int64)
    ranks[order] = np.arange(len(rows)) - starts[labels[order]]
    return ranks


def limited(
    rows: np.ndarray, y: np.ndarray, keys: np.ndarray, per_class: int | None, per_task: int | None
) -> np.ndarray:
    """At most `per_class` rows of each class, then at most `per_task` in all, taken evenly from the classes.

    A smaller limit keeps a subset of what a larger one keeps.
    """
    ranks = rank_in_class(rows, y, keys, "limit")
    if per_class is not None:
        rows, ranks = rows[ranks < per_class], ranks[ranks < per_class]
    if per_task is not None:
        rows = rows[np.lexsort((reordered(keys[rows], "limit"), ranks))[:per_task]]
    return by_key(rows, keys)


def hold_out(
    rows: np.ndarray, y: np.ndarray, keys: np.ndarray, share: float, class_names: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """(training rows, validation rows): the rounded share of every class, at least one row, is held out.

    Raises `UserError` where a class would keep no row to train on.
    """
    if share == 0:
        return rows, rows[:0]
    counts = np.bincount(y[rows])
    held = np.maximum((share * counts + 0.5).astype(np.int64), 1)
    for label in np.flatnonzero((held >= counts) & (counts > 0)).tolist():
        raise UserError(
            f"validation={share}: class {class_names[label]!r} has {counts[label]} training rows, holding out "
            f"{held[label]} leaves none; use a smaller share"
        )
    out = rank_in_class(rows, y, keys, "validation") < held[y[rows]]
    return rows[~out], rows[out]
