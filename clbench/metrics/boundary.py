"""Metrics of the boundary matrix R[t][j]: score on task j's sets after task t of T, higher is better."""

from __future__ import annotations

import math
from collections.abc import Callable

from clbench.metrics.view import Undefined, View, mean


def average(view: View) -> float:
    """mean_j R[T-1][j]: last accuracy, every task counting the same."""
    T = view.need_tasks(1)
    return mean(view.R(T - 1, j) for j in range(T))


def average_micro(view: View) -> float:
    """The same sets as `average`, every sample counting the same."""
    T = view.need_tasks(1)
    names = [name for j in range(T) for name in view.sets_of(j)]
    scores = [view.at(T, name) for name in names]
    sizes = [view.boundary[(T, name)].n for name in names]
    if any(size is None for size in sizes):
        raise Undefined("n (samples) is unknown for a set at the last boundary")
    weights = [size or 0 for size in sizes]
    if not sum(weights):
        raise Undefined("n is 0 for every set at the last boundary")
    total = sum(weights)
    return math.fsum(w / total * a for w, a in zip(weights, scores, strict=True))


def average_incremental(view: View) -> float:
    """mean_t mean_{j<=t} R[t][j]."""
    T = view.need_tasks(1)
    return mean(mean(view.R(t, j) for j in range(t + 1)) for t in range(T))


def learning(view: View) -> float:
    """mean_j R[j][j]: how well each task was learned at first."""
    T = view.need_tasks(1)
    return mean(view.R(j, j) for j in range(T))


def forgetting(view: View) -> float:
    """Best earlier score minus the last one; the last row is not in the max (Chaudhry et al. 2018, eq. 3)."""
    T = view.need_tasks(2)
    return mean(max(view.R(t, j) for t in range(j, T - 1)) - view.R(T - 1, j) for j in range(T - 1))


def backward_transfer(view: View) -> float:
    """mean_{j<T-1} R[T-1][j] - R[j][j] (Lopez-Paz & Ranzato 2017)."""
    T = view.need_tasks(2)
    return mean(view.R(T - 1, j) - view.R(j, j) for j in range(T - 1))


def forgetting_signed(view: View) -> float:
    """mean_{j<T-1} R[j][j] - R[T-1][j]: the negative of `backward_transfer`."""
    T = view.need_tasks(2)
    return mean(task_forgetting(view, j) for j in range(T - 1))


def forgetting_max(view: View) -> float:
    """Best score since the task was learned, the last one included, minus the last one: never negative."""
    T = view.need_tasks(2)
    return mean(task_forgetting_max(view, j) for j in range(T - 1))


def adaptation(view: View) -> float:
    """mean_{1<=j<T} R[j][j] - R[j-1][j]: what its own task did to the score on each later domain."""
    T = view.need_tasks(2)
    return mean(task_adaptation(view, j) for j in range(1, T))


def average_backward(view: View) -> float:
    """Mean of R[t][j] over all pairs t > j."""
    T = view.need_tasks(2)
    return mean(view.R(t, j) for t in range(T) for j in range(t))


def average_forward(view: View) -> float:
    """Mean of R[t][j] over all pairs t < j."""
    T = view.need_tasks(2)
    return mean(view.R(t, j) for j in range(T) for t in range(j))


def task_forgetting(view: View, j: int) -> float:
    """R[j][j] - R[T-1][j]."""
    return view.R(j, j) - view.R(view.need_tasks(j + 1) - 1, j)


def task_forgetting_max(view: View, j: int) -> float:
    """max_{j<=t<=T-1} R[t][j] - R[T-1][j]."""
    T = view.need_tasks(j + 1)
    return max(view.R(t, j) for t in range(j, T)) - view.R(T - 1, j)


def task_adaptation(view: View, j: int) -> float:
    """R[j][j] - R[j-1][j]; of the first task, against the state before training."""
    return view.R(j, j) - view.R(j - 1, j)


def forward_transfer(view: View) -> float:
    """mean_{1<=j<T} R[j-1][j] - R[-1][j]: gain on a task before it is trained, over the untrained model."""
    T = view.need_tasks(2)
    return mean(view.R(j - 1, j) - view.R(-1, j) for j in range(1, T))


def transfer(view: View) -> float:
    """mean_{1<=j<T} mean_{t<j} R[t][j] (MTIL "Transfer")."""
    T = view.need_tasks(2)
    return mean(mean(view.R(t, j) for t in range(j)) for j in range(1, T))


def average_over_time(view: View) -> float:
    """Mean of the whole T x T matrix (MTIL "Average")."""
    T = view.need_tasks(1)
    return mean(view.R(t, j) for t in range(T) for j in range(T))


def retention(view: View) -> float:
    """Mean final score of the held-out sets."""
    T = view.need_tasks(1)
    return mean(view.at(T, name) for name in _held_out(view))


def retention_change(view: View) -> float:
    """Final minus initial score, mean over the held-out sets."""
    T = view.need_tasks(1)
    return mean(view.at(T, name) - view.at(0, name) for name in _held_out(view))


def accumulation(view: View, joint: View | None) -> float:
    """mean_j R[T-1][j] - joint_j: distance of the final model from the joint reference (0 = equal)."""
    T = view.need_tasks(1)
    return mean(view.R(T - 1, j) - _joint(view, joint, j) for j in range(T))


def intransigence(view: View, joint: View | None) -> float:
    """mean_j joint_j - R[j][j] (Chaudhry et al. 2018)."""
    T = view.need_tasks(1)
    return mean(_joint(view, joint, j) - view.R(j, j) for j in range(T))


FORMULAS: dict[str, Callable[[View], float]] = {
    formula.__name__: formula
    for formula in (
        average,
        average_micro,
        average_incremental,
        learning,
        forgetting,
        backward_transfer,
        forward_transfer,
        transfer,
        average_over_time,
        retention,
        retention_change,
        forgetting_signed,
        forgetting_max,
        adaptation,
        average_backward,
        average_forward,
    )
}
REFERENCE_FORMULAS: dict[str, Callable[[View, View | None], float]] = {
    formula.__name__: formula for formula in (accumulation, intransigence)
}


def _held_out(view: View) -> list[str]:
    names = view.structure.held_out
    if not names:
        raise Undefined("no evaluation set is held out")
    return names


def _joint(view: View, joint: View | None, j: int) -> float:
    """Final score of the joint reference on the sets of task j, matched by name."""
    if joint is None:
        raise Undefined("no joint reference run was given")
    try:
        return mean(joint.at(joint.tasks, name) for name in view.sets_of(j))
    except Undefined as reason:
        raise Undefined(f"in the joint reference: {reason}") from None
