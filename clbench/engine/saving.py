"""What a checkpoint holds, and how a session is put back to it."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from clbench.engine.cursor import Cursor, Stage
from clbench.errors import UserError
from clbench.state import pack, unpack

if TYPE_CHECKING:
    from clbench.engine.session import Session


def saved_state(session: Session) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors by prefixed name, and the rest as JSON: the run's state at its cursor."""
    tensors: dict[str, Tensor] = {}
    if session.keeps_model:
        tensors |= {f"model/{name}": t for name, t in session.model.state_dict().items()}
    slots = session.active.slots() if session.active else session.carried
    tensors |= {f"optimizer/{name}/{slot}": t for name, s in slots.items() for slot, t in s.items()}
    tensors |= {f"snapshot/{name}": t for name, t in session.services.snapshots.tensors().items()}
    tensors |= {f"switch/{name}": t for name, t in session.evaluator.at_switch.items()}
    kept: dict[str, Tensor] = {}
    packed = {name: pack(value, name, kept) for name, value in vars(session.strategy.state).items()}
    tensors |= {f"state/{name}": t for name, t in kept.items()}
    rows, length = session.table.mark
    state = {
        "cursor": [session.cursor.task, int(session.cursor.stage), session.cursor.phase, session.cursor.step],
        "built": session.services.built,
        "snapshots": session.services.snapshots.state(),
        "state": packed,
        "mixing": session.services.mixing.state_dict(),
        "meters": session.meters.state(),
        "table": [rows, length],
        "stopped_at_step": session.stopped_at_step,
        "frozen": session.services.features is not None,
        "warnings": session.warnings,
        "diagnostics": session.diagnostics,
        "trained": sorted(session.trained),
        "adopted": session.adopted,
    }
    return _apart(tensors), state


def restore_state(session: Session, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Replay the builds, then put every value back. Raises UserError where names or shapes no longer match."""
    cursor = Cursor(state["cursor"][0], Stage(state["cursor"][1]), *state["cursor"][2:])
    services = session.services
    services.snapshots.rebuild(state["snapshots"], services.model, 0) if state["snapshots"] else None
    for task in session.stream.tasks[: state["built"]]:
        session.build(task)
        if state["snapshots"]:
            services.snapshots.rebuild(state["snapshots"], services.model, services.built)
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
    session.evaluator.at_switch = _under("switch/", tensors)
    if "mixing" in state:
        services.mixing.load_state_dict(state["mixing"])
    session.meters.load(state["meters"])
    session.table.rewind(*state["table"])
    session.stopped_at_step = state["stopped_at_step"]
    session.warnings += [w for w in state["warnings"] if w not in session.warnings]
    session.diagnostics = state.get("diagnostics", [])
    session.trained = set(state.get("trained", []))
    session.adopted = state.get("adopted", {})
    session.cursor = session.resumed_at = cursor


def final_state_hash(session: Session) -> str:
    """sha256 (hex) over all tensors of the run's state, by name: model, optimiser, memories, strategy state.

    Not what evaluation keeps for itself: it must not matter whether and when there was one.
    """
    tensors = {name: t for name, t in saved_state(session)[0].items() if not name.startswith("switch/")}
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
