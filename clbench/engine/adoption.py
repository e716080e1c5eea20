"""Starting a run from a first task that was learned elsewhere: the weights go into the model, and the run takes over.

Everything that a run takes from an upstream is in its own checkpoints from then on.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from clbench.engine.cursor import Line
from clbench.engine.fork import set_aside
from clbench.engine.hooks import hook
from clbench.engine.upstream_store import Upstream, from_file, shared
from clbench.errors import UserError
from clbench.models.identity import tensors_sha256
from clbench.upstream import GIVEN, OWN, SHARED

if TYPE_CHECKING:
    from clbench.engine.session import Session
    from clbench.stream import Task


def adopts(session: Session, task: Task) -> bool:
    """Whether this task was learned elsewhere."""
    return task.index == 0 and session.spec.upstream != OWN


def adopt(session: Session, task: Task) -> None:
    """Put the upstream's weights into the model, its evaluations into the table, and let the strategy catch up."""
    with session.meters.paused():
        found = _obtain(session)
    session.random.enter(task.index, "adopt")
    names = _load(session, found)
    session.carried = {names[name]: slots for name, slots in found.slots.items() if name in names}
    if found.tensors and not found.slots and getattr(session.strategy.config, "optimizer_state", "reset") != "reset":
        session.warn(f"the upstream {found.name} has no optimiser state to keep: it begins anew")
    session.adopted = {"identity": found.identity, "steps": found.steps, "cost": found.cost}
    if session.evaluator.plan.points != 0:
        session.take_over(found.rows, [found.values])
    with hook(session.strategy, "adopt", task.index, session.log), session.meters.counted("flops_train"):
        session.strategy.adopt(session.services.view(task))
    if found.left and session.strategy.needs.resume == "step":
        _fork(session, task, found)


def _fork(session: Session, task: Task, found: Upstream) -> None:
    """The upstream forked: so does the task here, and the line that is left is evaluated with the model at its end."""
    session.line = Line(task.index)
    set_aside(session, session.spec.upstream_settings["resume_from"])
    _load(session, replace(found, tensors=found.left))


def _obtain(session: Session) -> Upstream:
    if session.spec.upstream == SHARED:
        return shared(session)
    if session.spec.upstream != GIVEN:
        return from_file(session)
    weights = {name: t for name, t in session.model.state_dict().items() if name.startswith("backbone.")}
    identity = {"kind": GIVEN, "weights_sha256": tensors_sha256(weights), "steps": 0}
    return Upstream(session.spec.backbone or "", identity, {}, {}, [], 0, {})


def _load(session: Session, found: Upstream) -> dict[str, str]:
    """Copy the upstream's tensors to where the model has them now; the model's names by the upstream's.

    A method may have wrapped the layers by then (LoRA): what was a parameter of the plain model is found by being the
    same object. Raises UserError where it is not there any more, or has another shape.
    """
    model, name = session.model, type(session.strategy).__name__
    here: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
    here |= dict(model.named_buffers(remove_duplicate=False))
    by_object = {id(tensor): key for key, tensor in reversed(here.items())}
    moved = {key: by_object[id(t)] for key, t in session.builder.plain.items() if id(t) in by_object}
    names: dict[str, str] = {}
    for key, value in found.tensors.items():
        place = moved.get(key, key if key in here else None)
        if place is None:
            raise UserError(f"upstream {found.name}: with strategy {name} the model has no {key} to put weights in")
        if here[place].shape != value.shape:
            shapes = f"{tuple(value.shape)}, not {tuple(here[place].shape)}"
            raise UserError(f"upstream {found.name} does not fit the model: {key} is {shapes}")
        names[key] = place
    if found.tensors and (missing := _uncovered(session.builder.plain, names)):
        raise UserError(f"upstream {found.name} does not fit the model: it has no {missing}")
    with torch.no_grad():
        for key, value in found.tensors.items():
            here[names[key]].copy_(value)
    return names


def _uncovered(plain: dict[str, nn.Parameter], names: dict[str, str]) -> str | None:
    """A parameter of the plain backbone that the upstream says nothing about, neither under a tied name."""
    covered = {id(plain[name]) for name in names if name in plain}
    return next((n for n, p in plain.items() if n.startswith("backbone.") and id(p) not in covered), None)
