"""How many classes each task brings."""

from __future__ import annotations

from collections.abc import Sequence

from clbench.errors import UserError


def task_sizes(n_classes: int, tasks: int, base: int = 0, sizes: Sequence[int] | None = None) -> list[int]:
    """The number of classes of each task, in order; they add up to `n_classes`.

    sizes: given, they are the answer. Otherwise a first task of `base` classes (0: none), then `tasks` tasks that
    share the remaining classes as evenly as possible, the larger ones first. Raises `UserError`.
    """
    if n_classes < 2:
        raise UserError(f"the data have {n_classes} class; a stream of classes needs 2 or more")
    if sizes is not None:
        if min(sizes, default=0) < 1:
            raise UserError(f"sizes={list(sizes)}: name the classes of each task, 1 or more, as in sizes=[3,5,2]")
        if sum(sizes) != n_classes:
            raise UserError(f"sizes={list(sizes)} add up to {sum(sizes)}, but the data have {n_classes} classes")
        return list(sizes)
    rest = n_classes - base
    if rest < 1:
        raise UserError(f"base={base}: the data have {n_classes} classes, none is left for the tasks after the first")
    if tasks > rest:
        left = f"{rest} left after the first {base}" if base else f"{rest}"
        raise UserError(f"tasks={tasks}: more tasks than classes, the data have {left}; use tasks={rest} or fewer")
    size, larger = divmod(rest, tasks)
    return ([base] if base else []) + [size + 1] * larger + [size] * (tasks - larger)


def cut(order: Sequence[int], sizes: Sequence[int]) -> list[list[int]]:
    """Consecutive pieces of `order` of these sizes."""
    groups, start = [], 0
    for size in sizes:
        groups.append(list(order[start : start + size]))
        start += size
    return groups
