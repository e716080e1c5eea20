"""What the whole run did to the held-out sets: forgetting at task ends, and the gap from before training on."""

from __future__ import annotations

from clbench.metrics.gap import Gap, measure_gap
from clbench.metrics.view import Undefined, View, mean
from clbench.table import Row


def heldout_forgetting(view: View) -> float:
    """mean_d ( max_{-1<=t<T-1} M_d(t) - M_d(T-1) ): held-out sets were learned before training, at t = -1."""
    T = view.need_tasks(1)
    names = view.structure.held_out
    if not names:
        raise Undefined("no evaluation set is held out")
    return mean(max(view.at(t, name) for t in range(T)) - view.at(T, name) for name in names)


def measure_stream_gaps(view: View) -> list[Gap]:
    """A gap of every held-out set over all tasks, as if the start of training were the only switch; empty without
    trace rows. Of several evaluations at one step the last counts: after `end_task`."""
    if not view.trace:
        return []
    start, end = view.structure.start, view.structure.last_step
    return [measure_gap(view, 0, name, end - start, _after(view, name, start)) for name in view.structure.held_out]


def _after(view: View, name: str, start: int) -> list[Row]:
    by_step = {row.step: row for row in view.trace.get(name, ()) if row.step > start}
    return list(by_step.values())
