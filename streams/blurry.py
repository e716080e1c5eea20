"""Blurry task boundaries: some classes also turn up outside their own task."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clbench.errors import UserError

from .choosing import by_key, rank_in_class


def blurry_classes(n_classes: int, disjoint: float, seed: int) -> list[int]:
    """The classes that blur, drawn at random: all but the rounded share `disjoint`."""
    n = n_classes - int(disjoint * n_classes + 0.5)
    return sorted(int(c) for c in _random(seed, 0).permutation(n_classes)[:n])


def blurred(
    tasks: Sequence[np.ndarray], y: np.ndarray, keys: np.ndarray, classes: Sequence[int], share: float, seed: int
) -> list[np.ndarray]:
    """Move the rounded `share` of the rows of each of these classes to tasks drawn uniformly, its own included.

    tasks: rows of each task, every row in one. The answer holds the same rows, each in one task. After Si-Blurry
    (Moon et al., ICCV 2023), where both the classes and the rows that blur are drawn too; there the tasks share the
    two kinds of classes by a draw, here by the tasks' sizes and the draw of the classes.
    """
    rows = np.concatenate(tasks)
    task_of = np.repeat(np.arange(len(tasks)), [len(task) for task in tasks])
    ranks = rank_in_class(rows, y, keys, f"blur {seed}")
    random = _random(seed, 1)
    for label in classes:
        own = np.flatnonzero(y[rows] == label)
        moving = own[np.argsort(ranks[own])][: int(share * len(own) + 0.5)]
        task_of[moving] = random.randint(len(tasks), size=len(moving))
    result = [by_key(rows[task_of == task], keys) for task in range(len(tasks))]
    for task, found in enumerate(result):
        if not len(found):
            raise UserError(f"blur={share}: task {task} is left without samples; use a smaller blur or fewer tasks")
    return result


def _random(seed: int, draw: int) -> np.random.RandomState:
    return np.random.RandomState([seed, draw])
