"""What a checkpoint holds, and how a session is put back to it."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from clbench.engine.cursor import Cursor, Line
from clbench.engine.snapshots import Snapshots
from clbench.errors import UserError
from clbench.state import pack, unpack

if TYPE_CHECKING:
    from clbench.engine.session import Session


@dataclass
class Aside:
    """The state at a fork, on the CPU: tensors and JSON as a checkpoint has them, the snapshots' models, and what the
    strategy holds besides its state (caches: they must not outlive the line that filled them)."""

    tensors: dict[str, Tensor]
    state: dict[str, Any]
    snapshots: Snapshots
    attributes: dict[str, Any]


def saved_state(session: Session) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors by prefixed name, and the rest as JSON: the run's state at its cursor."""
    tensors, state = training_state(session)
    tensors |= _apart({f"switch/{name}": t for name, t in session.evaluator.at_switch.items()})
    aside = session.aside
    if aside is not None:
        tensors |= {f"aside/{name}": t for name, t in aside.tensors.items()}
    rows, length = session.table.mark
    return tensors, state | {
        "cursor": session.cursor.as_json(),
        "line": session.line.as_json(),
        "aside": None if aside is None else aside.state,
        "built": session.services.built,
        "meters": session.meters.state(),
        "table": [rows, length],
        "losses": session.losses.mark,
        "stopped_at_step": session.stopped_at_step,
        "warnings": session.warnings,
        "diagnostics": session.diagnostics,
        "geometry": session.geometry,
        "trained": sorted(session.trained),
        "adopted": session.adopted,
    }


def training_state(session: Session) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The part of it that training reads, and a fork sets aside: not the table, the meters, or where the run stands."""
    tensors: dict[str, Tensor] = {}
    if session.keeps_model:
        tensors |= {f"model/{name}": t for name, t in session.model.state_dict().items()}
    slots = session.active.slots() if session.active else session.carried
    tensors |= {f"optimizer/{name}/{slot}": t for name, s in slots.items() for slot, t in s.items()}
    tensors |= {f"snapshot/{name}": t for name, t in session.services.snapshots.tensors().items()}
    kept: dict[str, Tensor] = {}
    packed = {name: pack(value, name, kept) for name, value in vars(session.strategy.state).items()}
    tensors |= {f"state/{name}": t for name, t in kept.items()}
    return _apart(tensors), {
        "snapshots": session.services.snapshots.state(),
        "state": packed,
        "mixing": session.services.mixing.state_dict(),
        "frozen": session.services.features is not None,
        "updates": session.updates,
    }


def restore_state(session: Session, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Replay the builds, then put every value back. Raises UserError where names or shapes no longer match."""
    aside = state.get("aside")
    set_aside = _replay_builds(session, state, aside)
    put_back_training(session, tensors, state)
    if aside is not None:
        session.aside = Aside(_under("aside/", tensors), aside, set_aside, dict(vars(session.strategy)))
    session.evaluator.at_switch = _under("switch/", tensors)
    session.meters.load(state["meters"])
    session.table.rewind(*state["table"])
    session.losses.rewind(state.get("losses", 0))
    session.stopped_at_step = state["stopped_at_step"]
    session.warnings += [w for w in state["warnings"] if w not in session.warnings]
    session.diagnostics = state.get("diagnostics", [])
    session.geometry = state.get("geometry", [])
    session.trained = set(state.get("trained", []))
    session.adopted = state.get("adopted", {})
    session.cursor = session.resumed_at = Cursor.from_json(state["cursor"])
    if "line" in state:
        session.line = Line(**state["line"])


def _replay_builds(session: Session, state: dict[str, Any], aside: dict[str, Any] | None) -> Snapshots:
    """Bring the model to its structure, and snapshots to theirs when it had it; the ones that were set aside."""
    services, other = session.services, Snapshots()
    holders = [(services.snapshots, state["snapshots"]), (other, aside["snapshots"] if aside else {})]

    def rebuild() -> None:
        for snapshots, saved in holders:
            if saved:
                snapshots.rebuild(saved, services.model, services.built)

    rebuild()
    for task in session.stream.tasks[: state["built"]]:
        session.build(task)
        rebuild()
    return other


def put_back_training(session: Session, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Put the values of `training_state` back into a session of the same structure."""
    services = session.services
    model = _under("model/", tensors)
    if model:
        try:
            services.model.load_state_dict(model)
        except RuntimeError as error:
            message = " ".join(str(error).split())
            raise UserError(f"{session.folder}: the checkpoint does not fit the model: {message}") from None
    services.snapshots.load(_under("snapshot/", tensors))
    kept = _under("state/", tensors)
    holder = session.strategy.state
    for name, packed in state["state"].items():
        setattr(holder, name, unpack(packed, kept, getattr(holder, name, None) if name in holder else None))
    slots: dict[str, dict[str, Tensor]] = {}
    for key, value in _under("optimizer/", tensors).items():
        name, _, slot = key.rpartition("/")
        slots.setdefault(name, {})[slot] = value
    session.carried = slots
    if state.get("frozen"):
        session.read_inputs("features", "resumed")
    session.updates = state.get("updates", 0)
    if "mixing" in state:
        services.mixing.load_state_dict(state["mixing"])


def final_state_hash(session: Session) -> str:
    """sha256 (hex) over all tensors of the run's state, by name: model, optimiser, memories, strategy state.

    Not what evaluation keeps for itself: it must not matter whether and when there was one.
    """
    tensors, _ = training_state(session)
    digest = sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU, contiguous, no two sharing memory (safetensors refuses tied tensors)."""
    seen: set[int] = set()
    out = {}
    for name, tensor in tensors.items():
        value = tensor.detach().to("cpu").contiguous()
        if value.untyped_storage().data_ptr() in seen or value.untyped_storage().nbytes() != value.nbytes:
            value = torch.clone(value)
        seen.add(value.untyped_storage().data_ptr())
        out[name] = value
    return out
