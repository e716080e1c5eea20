"""Metrics that need other runs, or the number of tokens of a step: pure functions of evaluation tables.

`references` are tables by role: `joint` (trained on all data at once), `scratch` (every task from the initial weights),
`frozen` (trained on the first task only), `control` (the same run without the shift), `baseline` (the same run without
what is judged, such as replay). As everywhere, R is oriented so that more is better.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from clbench.metrics.definitions import BETTER, COUNT, GAIN, WORSE, Definition
from clbench.metrics.gap import Gap, measure_gap, measure_gaps
from clbench.metrics.report import main_view, representable, value_of
from clbench.metrics.roles import accumulated
from clbench.metrics.trace import learning_curve
from clbench.metrics.view import Undefined, View, mean
from clbench.table import EvaluationTable

ROLES = ("joint", "scratch", "frozen", "control", "baseline")
UNRECOVERED = ("not_recovered", "diverged")


@dataclass(frozen=True)
class Inputs:
    """What the formulas read. tokens_per_step: None where it is unknown. target: a fixed score to reach, raw; None:
    that of training from scratch. horizons: switch -> steps after it that count (None: the whole task)."""

    view: View
    others: Mapping[str, View]
    tokens_per_step: float | None = None
    target: float | None = None
    horizons: Mapping[int, int] | None = None
    replayed_tokens: float | None = None

    def other(self, role: str) -> View:
        """The view of a reference. Raises Undefined where there is none."""
        if role not in self.others:
            raise Undefined(f"no {role} reference run is given")
        return self.others[role]

    @property
    def tokens(self) -> float:
        """Tokens of a step. Raises Undefined where it is unknown."""
        if self.tokens_per_step is None:
            raise Undefined("it is not known how many tokens a step has")
        return self.tokens_per_step

    @cached_property
    def gaps(self) -> list[Gap]:
        """Of the run, within the horizons, old sets only."""
        return gaps_within(self.view, self.horizons)


def final(view: View, j: int) -> float:
    """Last score on task j's sets."""
    return mean(view.at(view.tasks, name) for name in view.sets_of(j))


def gaps_within(view: View, horizons: Mapping[int, int] | None = None) -> list[Gap]:
    """The gaps of the sets of old tasks, each switch with its own horizon; a horizon never exceeds the task."""
    whole = [gap for gap in measure_gaps(view) if not gap["held_out"]]
    if horizons is None:
        return whole
    return [
        measure_gap(
            view, gap["switch"], gap["eval_set"], min(gap["horizon"], horizons.get(gap["switch"], gap["horizon"]))
        )
        for gap in whole
    ]


def common_horizons(*views: View) -> dict[int, int]:
    """For each switch that all views have, the longest time after it that all were watched for."""
    lengths = [{gap["switch"]: gap["horizon"] for gap in gaps_within(view)} for view in views]
    shared = set.intersection(*(set(of) for of in lengths)) if lengths else set()
    return {switch: min(of[switch] for of in lengths) for switch in sorted(shared)}


# -- formulas ----------------------------------------------------------------------------------------------------------


def union_gap(of: Inputs) -> float:
    """mean_j joint_j - R[T-1][j]."""
    joint, T = of.other("joint"), of.view.need_tasks(1)
    return mean(_by_name(of.view, joint, j) - of.view.R(T - 1, j) for j in range(T))


def task_learning_gap(of: Inputs, j: int) -> float:
    """scratch_j[j] - R[j][j]."""
    return _named(of.view, of.other("scratch"), j, j + 1) - of.view.R(j, j)


def learning_gap(of: Inputs) -> float:
    """Mean over the tasks after the first: in the first, both learn alike."""
    T = of.view.need_tasks(2)
    return mean(task_learning_gap(of, j) for j in range(1, T))


def forward_transfer_frozen(of: Inputs) -> float:
    """mean_{1<=j<T} R[j-1][j] - frozen_j."""
    frozen, T = of.other("frozen"), of.view.need_tasks(2)
    return mean(of.view.R(j - 1, j) - _by_name(of.view, frozen, j) for j in range(1, T))


def regret_in_distribution(of: Inputs) -> float:
    """mean_j joint_j - R[j][j]."""
    return _regret(of, lambda T: ((j, j) for j in range(T)), 1)


def regret_backward(of: Inputs) -> float:
    """Mean of joint_j - R[t][j] over all pairs t > j."""
    return _regret(of, lambda T: ((t, j) for t in range(T) for j in range(t)), 2)


def regret_forward(of: Inputs) -> float:
    """Mean of joint_j - R[t][j] over all pairs t < j."""
    return _regret(of, lambda T: ((t, j) for j in range(T) for t in range(j)), 2)


def tokens_to_target(of: Inputs) -> float:
    """Mean over the tasks after the first; undefined where one never gets there."""
    T = of.view.need_tasks(2)
    return mean(task_tokens_to_target(of, j) for j in range(1, T))


def task_tokens_to_target(of: Inputs, j: int) -> float:
    """Tokens from the beginning of task j to the first evaluation that is as good as the target, mean over its sets."""
    return mean(_tokens_to(of, j, name) for name in of.view.sets_of(j))


def tokens_to_recover(of: Inputs) -> float:
    """Mean over all (switch, old set) of min(tokens to recovery, horizon): of what did not recover, the latter."""
    measured = [gap for gap in of.gaps if gap["depth"] is not None or gap["status"] == "diverged"]
    if not measured:
        raise Undefined(of.gaps[0]["reason"] if of.gaps else "no old set was evaluated after a switch")
    return mean(of.tokens * _waited(gap) for gap in measured)


def depth_shift(of: Inputs) -> float:
    """Gap depth minus that of the control, over the (switch, set) pairs both have."""
    return _shift(of, "depth")


def mean_gap_shift(of: Inputs) -> float:
    """The same of `mean_gap`, at equal horizons."""
    return _shift(of, "mean_gap")


def transient_shift(of: Inputs) -> float:
    """The same of `transient`."""
    return _shift(of, "transient")


def forgetting_saved(of: Inputs) -> float:
    """Signed forgetting of the baseline minus that of the run."""
    from clbench.metrics.boundary import forgetting_signed

    return forgetting_signed(of.other("baseline")) - forgetting_signed(of.view)


def new_domain_cost(of: Inputs) -> float:
    """mean_{1<=j<T} baseline's R[j][j] - R[j][j]."""
    baseline, T = of.other("baseline"), of.view.need_tasks(2)
    return mean(_named(of.view, baseline, j, j + 1) - of.view.R(j, j) for j in range(1, T))


def replay_efficiency(of: Inputs) -> float:
    """`forgetting_saved` for a million replayed tokens."""
    saved = forgetting_saved(of)
    if not of.replayed_tokens:
        raise Undefined("it is not known how many tokens were replayed, or none were")
    return saved / (of.replayed_tokens / 1e6)


def knowledge_accumulation_norm(of: Inputs) -> float:
    """(KA(T) - KA(0)) / (KA of the joint reference - KA(0))."""
    joint, T = of.other("joint"), of.view.need_tasks(1)
    before = accumulated(of.view, 0)
    names = of.view.structure.in_role("adaptation")
    gained = mean(_at(joint, joint.tasks, name) for name in names) - before
    if gained <= 0:
        raise Undefined(f"joint training gains nothing over the model before training ({of.view.sign * gained:+.4g})")
    return (accumulated(of.view, T) - before) / gained


_NO_JOINT, _NO_SCRATCH, _NO_FROZEN = (f"no {role} reference run is given" for role in ("joint", "scratch", "frozen"))
_NO_BASELINE = "no baseline run is given (--baseline)"
_NO_CONTROL = "no control run is given, or no pair of switch and set was measured in both"
_REGRET = "how far from an oracle trained on all data"
FORMULAS: tuple[tuple[Callable[[Inputs], float], Definition], ...] = tuple(
    (formula, Definition(formula.__name__, meaning, text, sign, null))
    for formula, meaning, text, sign, null in (
        (
            union_gap,
            "how much worse the final model is than one trained on all data at once: the negative of accumulation",
            "mean_j ( joint_j - R[T-1][j] ); of losses: mean of M[K,d] minus mean of M_joint[d]",
            WORSE,
            _NO_JOINT,
        ),
        (
            learning_gap,
            "how much worse later tasks are learned than from the initial weights",
            "mean_{1<=j<T} ( scratch_j[j] - R[j][j] )",
            WORSE + "; negative = what was learned before helps",
            _NO_SCRATCH,
        ),
        (
            forward_transfer_frozen,
            "what earlier tasks did to the score on a task before it is trained, against the frozen upstream model",
            "mean_{1<=j<T} ( R[j-1][j] - frozen_j )",
            GAIN,
            _NO_FROZEN,
        ),
        (
            regret_in_distribution,
            f"{_REGRET}, each task just after it (TiC-LM: ID); intransigence is the same",
            "mean_j ( joint_j - R[j][j] )",
            WORSE,
            _NO_JOINT,
        ),
        (
            regret_backward,
            f"{_REGRET}, on earlier tasks (TiC-LM: Backward)",
            "mean over t > j of joint_j - R[t][j]",
            WORSE,
            _NO_JOINT,
        ),
        (
            regret_forward,
            f"{_REGRET}, on later tasks (TiC-LM: Forward)",
            "mean over t < j of joint_j - R[t][j]",
            WORSE,
            _NO_JOINT + ", or unseen sets were not scored",
        ),
        (
            tokens_to_target,
            "tokens of a later task until it scores as training from scratch on it does at its end (or --target)",
            "mean_{1<=j<T} of the tokens from the end of task j-1 to the first a_n(E_j) >= target_j",
            COUNT,
            f"{_NO_SCRATCH} and no target, or a task never gets there (by_task says which)",
        ),
        (
            tokens_to_recover,
            "tokens after a switch until an old set is back within the tolerance, at most those it was watched for",
            "mean over (switch, old set) of min(recovery, horizon) in tokens: the restricted mean",
            COUNT,
            "no pair was measured, or the tokens of a step are unknown",
        ),
        *(
            (
                formula,
                f"the part of {name} that the shift causes, not the new schedule: {name} minus the control's",
                f"mean over the (switch, set) pairs of both runs of {name} - {name} of the control, at equal horizons",
                WORSE + " than without a shift",
                _NO_CONTROL,
            )
            for name, formula in (
                ("depth", depth_shift),
                ("mean_gap", mean_gap_shift),
                ("transient", transient_shift),
            )
        ),
        (
            forgetting_saved,
            "forgetting of the baseline minus that of the run",
            "forgetting_signed of the baseline - forgetting_signed",
            GAIN,
            _NO_BASELINE,
        ),
        (
            new_domain_cost,
            "how much worse later tasks are learned than in the baseline",
            "mean_{1<=j<T} ( baseline's R[j][j] - R[j][j] )",
            WORSE,
            _NO_BASELINE,
        ),
        (
            replay_efficiency,
            "forgetting saved by a million replayed tokens",
            "forgetting_saved / (tokens replayed in the run / 1e6)",
            GAIN,
            _NO_BASELINE + ", or the number of replayed tokens is unknown",
        ),
        (
            knowledge_accumulation_norm,
            "share of what joint training accumulates that the run did, 1 = as much: an addition of clbench's",
            "(KA(T) - KA(0)) / (KA_joint - KA(0)), KA the mean over adaptation sets, KA(0) before training",
            BETTER,
            _NO_JOINT + " or it gains nothing, no set has the role adaptation, or no row before training",
        ),
    )
)
BY_TASK: dict[str, Callable[[Inputs, int], float]] = {
    "learning_gap": task_learning_gap,
    "union_gap": lambda of, j: _by_name(of.view, of.other("joint"), j) - of.view.R(of.view.tasks - 1, j),
    "tokens_to_target": task_tokens_to_target,
}


def compute_with_references(
    table: EvaluationTable,
    direction: str,
    references: Mapping[str, EvaluationTable],
    *,
    tokens_per_step: float | None = None,
    target: float | None = None,
    horizons: Mapping[int, int] | None = None,
    replayed_tokens: float | None = None,
) -> dict[str, Any]:
    """Every metric that needs other runs, ready for JSON.

    references: tables by role (`ROLES`). horizons: steps after each switch that count; default: as long as both the run
    and its control were watched. Keys: the metrics (number or None), `versions`, `undefined`, `horizons`, `by_task`
    (more being better; null where undefined) and `gap` (in steps and tokens).
    """
    view = main_view(table, direction)
    others = {role: main_view(other, direction) for role, other in references.items()}
    if horizons is None:
        horizons = common_horizons(*(v for v in (view, others.get("control")) if v is not None))
    inputs = Inputs(view, others, tokens_per_step, target, horizons, replayed_tokens)
    values = {d.key: representable(value_of(_bound(formula, inputs))) for formula, d in FORMULAS}
    return {
        **{key: None if isinstance(value, str) else value for key, value in values.items()},
        "versions": {definition.key: definition.version for _, definition in FORMULAS},
        "undefined": {key: value for key, value in values.items() if isinstance(value, str)},
        "horizons": {str(switch): steps for switch, steps in horizons.items()},
        "by_task": [_task(inputs, j) for j in range(view.tasks)],
        "gap": [_in_tokens(gap, inputs) for gap in inputs.gaps],
    }


def _bound(formula: Callable[[Inputs], float], inputs: Inputs) -> Callable[[], float]:
    return lambda: formula(inputs)


def _task(inputs: Inputs, j: int) -> dict[str, Any]:
    found: dict[str, Any] = {"task": j, "eval_sets": inputs.view.structure.by_task.get(j, [])}
    reasons = {}
    for key, formula in BY_TASK.items():
        value = representable(value_of(lambda formula=formula: formula(inputs, j)))  # type: ignore[misc]
        found[key] = None if isinstance(value, str) else value
        if isinstance(value, str):
            reasons[key] = value
    return found | {"undefined": reasons}


def _in_tokens(gap: Gap, inputs: Inputs) -> Gap:
    """The gap's main fields, its clock in tokens beside steps."""
    kept = ("switch", "eval_set", "horizon", "status", "depth", "final", "transient", "mean_gap", "tolerance", "reason")
    clocked = ("trough_steps", "recovery_steps", "recovery_interval", "censored_at", "area")
    found = {key: gap[key] for key in (*kept, *clocked)}
    rate = inputs.tokens_per_step
    if rate is not None:
        for key in clocked:
            name = key.replace("steps", "tokens") if "steps" in key else f"{key}_tokens"
            value = gap[key]
            scaled = [rate * v for v in value] if isinstance(value, list) else None if value is None else rate * value
            found[name] = scaled
    return found


def _by_name(view: View, other: View, j: int) -> float:
    """Last score of another run on the sets of task j, matched by name."""
    return _named(view, other, j, other.tasks)


def _named(view: View, other: View, j: int, tasks_seen: int) -> float:
    return mean(_at(other, tasks_seen, name) for name in view.sets_of(j))


def _at(other: View, tasks_seen: int, name: str) -> float:
    """A set's score in another run."""
    try:
        return other.at(tasks_seen, name)
    except Undefined as reason:
        raise Undefined(f"in the reference: {reason}") from None


def _regret(of: Inputs, pairs: Callable[[int], Iterator[tuple[int, int]]], least: int) -> float:
    joint, T = of.other("joint"), of.view.need_tasks(least)
    return mean(_by_name(of.view, joint, j) - of.view.R(t, j) for t, j in pairs(T))


def _tokens_to(of: Inputs, j: int, name: str) -> float:
    target = of.view.sign * of.target if of.target is not None else _scratch_target(of, j, name)
    start = of.view.structure.end(j - 1)
    points = learning_curve(of.view, j, name, of.view.structure.end(j))
    for step, score in points:
        if score >= target:
            return of.tokens * (step - start)
    watched = of.tokens * (points[-1][0] - start) if points else 0
    raw = of.view.sign * target
    raise Undefined(f"set {name!r} does not reach {raw:.6g} within the {watched:.0f} tokens of its task")


def _scratch_target(of: Inputs, j: int, name: str) -> float:
    """What training from scratch scores at the end of task j, on the fixed subset where it was traced."""
    scratch = of.other("scratch")
    row = scratch.at_switch.get((j + 1, name))
    if row is None:
        raise Undefined(f"in the reference: set {name!r} was not measured after task {j}")
    return scratch.score(row)


def _waited(gap: Gap) -> float:
    """Steps to recovery, or those it was watched for."""
    if gap["status"] in UNRECOVERED or gap["recovery_steps"] is None:
        return float(gap["horizon"])
    return float(gap["recovery_steps"])


def _shift(of: Inputs, field: str) -> float:
    control = of.other("control")
    theirs = {(gap["switch"], gap["eval_set"]): gap for gap in gaps_within(control, of.horizons)}
    by_switch: dict[int, list[float]] = {}
    for gap in of.gaps:
        other = theirs.get((gap["switch"], gap["eval_set"]))
        if other is None or gap["horizon"] != other["horizon"]:
            continue
        if "diverged" in (gap["status"], other["status"]):
            raise Undefined(f"set {gap['eval_set']!r} diverged after switch {gap['switch']} in one of the runs")
        if gap[field] is not None and other[field] is not None:
            by_switch.setdefault(gap["switch"], []).append(gap[field] - other[field])
    if not by_switch:
        raise Undefined("no pair of switch and set was measured in the run and in its control")
    found = mean(mean(differences) for differences in by_switch.values())
    return found if math.isfinite(found) else math.inf


REFERENCE_DEFINITIONS: dict[str, Definition] = {definition.key: definition for _, definition in FORMULAS}
