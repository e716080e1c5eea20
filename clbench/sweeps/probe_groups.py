"""Which runs of a plan are probed in the time there is, and what the probes say of those that are not."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from clbench import machine
from clbench.record import strategy_label
from clbench.spec import RunSpec
from clbench.sweeps.cost import Cost, length_ratio
from clbench.sweeps.plan import Planned
from clbench.sweeps.probe import ProbeProcess, next_ended

FEWEST_SECONDS = 4.0
"""A shorter probe would be over before it has read its data."""
MOST_AT_ONCE = 8


@dataclass
class Group:
    """Runs that differ in seeds alone. cost: of each, None until there is a figure. problem: of its probe.

    failed: its probe found that it cannot be run, or be probed.
    """

    runs: Sequence[Planned]
    cost: Cost | None = None
    tried: bool = False
    failed: bool = False
    problem: str | None = None

    @property
    def spec(self) -> RunSpec:
        return self.runs[0].job.spec

    @property
    def stream(self) -> str:
        """The stream and its settings."""
        return json.dumps([self.spec.stream, self.spec.stream_settings], sort_keys=True)

    @property
    def seconds(self) -> float | None:
        return self.cost.seconds if self.cost is not None else None


def probe_groups(
    groups: Sequence[Group], say: Callable[[str], None], probe_seconds: float, all_probes_seconds: float
) -> list[str]:
    """Set the costs of the groups; why some have none, a line each.

    One group of every stream is probed first, then one of every strategy, then one of each strategy on each stream,
    then the rest; side by side, as runs of a sweep are. What there is no time for is derived from these.
    """
    for group in groups:
        if group.spec.devices > 1:
            group.tried, group.failed, group.problem = True, True, "a run on several devices is not probed"
    end = time.monotonic() + all_probes_seconds
    for choose, share in ((_of_each_stream, 0.5), (_of_each_strategy, 0.5), (_of_each_pair, 1.0), (_rest, 1.0)):
        _probe(choose(groups), groups, say, probe_seconds, end, share)
    probed = [group for group in groups if group.seconds is not None]
    for group in groups:
        if group.cost is None and not group.failed:
            group.cost = _derived(group, probed)
    without = (group for group in groups if group.cost is None and group.problem is not None)
    return [f"probe of {group.runs[0].job.label}: {group.problem}" for group in without]


def _probe(
    chosen: list[Group],
    groups: Sequence[Group],
    say: Callable[[str], None],
    one: float,
    end: float,
    share: float,
) -> None:
    """Probe these groups in a `share` of the time until `end`, each `one` second at most, but never too short."""
    waiting, lanes = list(chosen), _lanes(chosen)
    running: dict[ProbeProcess, Group] = {}
    try:
        while waiting or running:
            left = end - time.monotonic()
            if waiting and len(running) < lanes and left >= min(one, FEWEST_SECONDS):
                cap = min(one, left, max(FEWEST_SECONDS, share * left * lanes / len(waiting)))
                group = waiting.pop(0)
                group.tried = True
                number = sum(group.tried for group in groups)
                say(f"probing {group.runs[0].job.label} ({number} of {len(groups)}, {cap:.0f} s at most)")
                running[ProbeProcess(group.spec, cap)] = group
            elif running:
                ended = next_ended(list(running))
                _take(running.pop(ended), ended)
            else:
                return
    finally:
        for process in running:
            process.kill()


def _take(group: Group, process: ProbeProcess) -> None:
    found = process.result()
    if found.seconds is not None:
        group.cost = Cost(found.seconds, found.memory, "probe")
    group.failed = found.seconds is None and not found.late
    group.problem = found.problem


def _lanes(groups: Sequence[Group]) -> int:
    """How many to probe at a time: runs on a GPU one by one."""
    if any(group.spec.device == "cuda" for group in groups):
        return 1
    threads = max((group.spec.threads or 1 for group in groups), default=1)
    return max(1, min(MOST_AT_ONCE, machine.cores() // threads))


# -- in which order --------------------------------------------------------------------------------------------------


def _of_each_stream(groups: Sequence[Group]) -> list[Group]:
    """With the strategy that most streams have, so that others can be compared with it."""
    streams: dict[str, set[str]] = {}
    for group in groups:
        streams.setdefault(group.spec.strategy, set()).add(group.stream)
    chosen: dict[str, Group] = {}
    for group in _rest(groups):
        before = chosen.setdefault(group.stream, group)
        if len(streams[group.spec.strategy]) > len(streams[before.spec.strategy]):
            chosen[group.stream] = group
    return list(chosen.values())


def _of_each_strategy(groups: Sequence[Group]) -> list[Group]:
    """Of those not met yet, on the stream that has turned out the fastest."""
    speeds: Mapping[str, float] = {group.stream: group.seconds for group in groups if group.seconds is not None}
    met = {group.spec.strategy for group in groups if group.tried}
    chosen: dict[str, Group] = {}
    for group in sorted(_rest(groups), key=lambda group: speeds.get(group.stream, float("inf"))):
        if group.spec.strategy not in met:
            chosen.setdefault(group.spec.strategy, group)
    return list(chosen.values())


def _of_each_pair(groups: Sequence[Group]) -> list[Group]:
    met = {(group.spec.strategy, group.stream) for group in groups if group.tried}
    chosen: dict[tuple[str, str], Group] = {}
    for group in _rest(groups):
        if (group.spec.strategy, group.stream) not in met:
            chosen.setdefault((group.spec.strategy, group.stream), group)
    return list(chosen.values())


def _rest(groups: Sequence[Group]) -> list[Group]:
    return [group for group in groups if not group.tried]


# -- without a probe -------------------------------------------------------------------------------------------------


def _derived(group: Group, probed: Sequence[Group]) -> Cost | None:
    """From a probe of the same strategy on the stream, scaled by their lengths; else of another strategy, scaled by how
    the two compare on other streams (no ratio where nothing is known); None where the stream was not probed."""
    same_stream = [other for other in probed if other.stream == group.stream]
    for other in same_stream:
        if other.spec.strategy == group.spec.strategy:
            return _scaled(other, length_ratio(group.spec, other.spec) or 1.0, "a similar run")
    for other in same_stream:
        ratio = _compared(group, other, probed)
        if ratio is not None:
            return _scaled(other, ratio, strategy_label(other.spec.strategy))
    return _scaled(same_stream[0], 1.0, strategy_label(same_stream[0].spec.strategy)) if same_stream else None


def _compared(group: Group, other: Group, probed: Sequence[Group]) -> float | None:
    """How much longer the strategy of `group` takes than that of `other`: the geometric mean over streams that have
    both, at the lengths they have here."""
    ratios = []
    for ours in (each for each in probed if each.spec.strategy == group.spec.strategy):
        for theirs in (each for each in probed if each.spec.strategy == other.spec.strategy):
            if ours.stream == theirs.stream and ours.seconds and theirs.seconds:
                longer = length_ratio(group.spec, ours.spec) or 1.0
                ratios.append(ours.seconds * longer / (theirs.seconds * (length_ratio(other.spec, theirs.spec) or 1.0)))
    return prod(ratios) ** (1 / len(ratios)) if ratios else None


def _scaled(other: Group, ratio: float, name: str) -> Cost:
    assert other.cost is not None and other.cost.seconds is not None
    return Cost(other.cost.seconds * ratio, other.cost.memory, f"scaled from probe of {name}")
