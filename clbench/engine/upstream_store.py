"""Shared upstreams: the first task of a stream, learned once by plain training and kept for all runs that ask for it.

An entry is a folder in the cache, named by a hash of everything its numbers depend on: `upstream.safetensors` (weights,
optimiser state, losses of evaluated blocks), `upstream.json` (evaluations, cost, checksum; written last), while it is
trained `training/` (an ordinary run's checkpoint). One process trains, others wait. Where the cache cannot be written
the entry stands in the run's own folder.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from clbench.data.root import cache_dir, cache_place
from clbench.engine.optimizers import Slots
from clbench.engine.upstream_key import first_task, upstream_key
from clbench.engine.upstream_training import LEFT, LOSSES, MODEL, train
from clbench.errors import Interrupted, UserError
from clbench.files import checksum, sync_folder, write_atomically
from clbench.models.identity import tensors_sha256
from clbench.table import Row
from clbench.upstream import SHARED

if TYPE_CHECKING:
    from clbench.engine.session import Session

FORMAT = 2
TENSORS, FACTS = "upstream.safetensors", "upstream.json"
LOCAL = "upstream"
"""The folder in a run's own folder, where there is no cache."""
SECONDS_BETWEEN_LOOKS = 0.2
OPTIMIZER = "optimizer/"


@dataclass(frozen=True)
class Upstream:
    """A first task learned elsewhere. name: for messages. identity: for the record. tensors: the model's, by the names
    of the plain model. slots: of the optimiser. rows: continual evaluation of the first task's sets. values: of their
    blocks, one after another, float32; empty where they are not kept. left: where the task forked, the model's at the
    end of the line that training did not go on from. steps, cost: of its training."""

    name: str
    identity: dict[str, Any]
    tensors: dict[str, Tensor]
    slots: Slots
    rows: list[Row]
    steps: int
    cost: dict[str, Any]
    values: Tensor = field(default_factory=lambda: torch.empty(0))
    left: dict[str, Tensor] = field(default_factory=dict)


def shared(session: Session) -> Upstream:
    """The upstream that the session's specification asks for; trained where there is none. Raises Interrupted."""
    stream = first_task(session.stream)
    key = upstream_key(session, stream)
    stored = cache_place() / "upstream" / key
    found = _read(stored, session.warn if session.ranks.first else _say_nothing)
    if found is not None:
        return found
    folder = stored if cache_dir() is not None else session.folder / LOCAL / key
    if not session.ranks.first:
        return _awaited(folder, session)
    if folder is not stored:
        session.reporter.note("the cache cannot be written: the upstream is trained in the run's own folder")
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder, session, key):
        found = _read(folder, session.warn)  # another run may have been first
        if found is None:
            session.reporter.note(f"training the shared upstream {key[:8]} (once for all runs that start from it)")
            tensors, facts = train(session, stream, folder / "training")
            _write(folder, tensors, {"key": key, "settings": session.spec.upstream_settings, **facts})
            found = _read(folder, session.warn)
    if found is None:
        raise UserError(f"the upstream in {folder} cannot be read back: the disk is damaged, or it was removed")
    return found


def from_file(session: Session) -> Upstream:
    """The weights in the file that the specification names: of an entry of this store, of a whole model, or of its
    backbone alone. Raises UserError."""
    from clbench.models.weights import read_tensors

    file = Path(session.spec.upstream)
    entry = _read(file.parent, session.warn) if file.name == TENSORS else None
    identity: dict[str, Any] = {"kind": "file", "name": file.name}
    if entry is not None:
        identity |= {"weights_sha256": entry.identity["weights_sha256"], "steps": entry.steps}
        return Upstream(file.name, identity, entry.tensors, entry.slots, [], entry.steps, entry.cost)
    tensors = read_tensors(file)
    if not any(name.startswith("backbone.") for name in tensors):
        tensors = {f"backbone.{name}": tensor for name, tensor in tensors.items()}
    identity |= {"weights_sha256": tensors_sha256(tensors), "steps": 0}
    return Upstream(file.name, identity, tensors, {}, [], 0, {})


def _read(folder: Path, warn: Callable[[str], None]) -> Upstream | None:
    """A whole entry; None where there is none, or where it is damaged, which is told to `warn`."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        if facts["format"] != FORMAT:
            return None
        if checksum(folder / TENSORS) != facts["checksum"]:
            raise ValueError(f"{TENSORS} does not match its checksum")
        loaded = load_file(folder / TENSORS)
        rows = [Row.from_json(line) for line in facts["rows"]]
        model, slots = _parted(loaded)
        identity = {"kind": SHARED, "key": facts["key"], "weights_sha256": tensors_sha256(model)}
        identity |= {"steps": facts["steps"], "settings": facts["settings"]}
        name = f"{SHARED} {facts['key'][:8]}"
        left = _under(LEFT, loaded)
        return Upstream(name, identity, model, slots, rows, facts["steps"], facts["cost"], loaded[LOSSES], left)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, SafetensorError, UserError) as error:
        warn(f"the upstream in {folder} is damaged ({' '.join(str(error).split())}): it is not used")
        return None


def _parted(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], Slots]:
    """The model's tensors, and the optimiser's by parameter and slot."""
    model = _under(MODEL, tensors)
    slots: Slots = {}
    for key, value in tensors.items():
        if key.startswith(OPTIMIZER):
            name, _, slot = key.removeprefix(OPTIMIZER).rpartition("/")
            slots.setdefault(name, {})[slot] = value
    return model, slots


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def _write(folder: Path, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Whole or not at all: the facts, which say that there is an entry, come last."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    (folder / FACTS).unlink(missing_ok=True)
    partial = folder / f".{TENSORS}.partial"
    kept = (MODEL, OPTIMIZER, LOSSES, LEFT)
    try:
        save_file({name: t for name, t in tensors.items() if name.startswith(kept)}, partial)
    except SafetensorError as error:
        partial.unlink(missing_ok=True)
        raise OSError(None, str(error), str(partial)) from error
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    sum_of_bytes = checksum(partial)
    partial.replace(folder / TENSORS)
    sync_folder(folder)
    write_atomically(folder / FACTS, json.dumps({"format": FORMAT, "checksum": sum_of_bytes, **facts}, indent=1))
    shutil.rmtree(folder / "training", ignore_errors=True)


@contextmanager
def _alone(folder: Path, session: Session, key: str) -> Iterator[None]:
    """Hold the entry's lock; while another process does, wait, and stop if the run is asked to."""
    handle = os.open(folder / ".lock", os.O_CREAT | os.O_RDWR, 0o644)
    told = False
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told:
                    session.reporter.note(f"waiting for the shared upstream {key[:8]}, which another run trains")
                    told = True
                stop_if_asked(session)
                time.sleep(SECONDS_BETWEEN_LOOKS)
        yield
    finally:
        os.close(handle)


def stop_if_asked(session: Session) -> None:
    """Raise Interrupted where the run was asked to stop while it waits for its upstream."""
    if session.interrupted:
        raise Interrupted(f"interrupted before the upstream was there; continue with: clbench resume {session.folder}")


def _awaited(folder: Path, session: Session) -> Upstream:
    """What the run's first process trains; this one ends with it."""
    while True:
        found = _read(folder, _say_nothing)
        if found is not None:
            return found
        time.sleep(SECONDS_BETWEEN_LOOKS)


def _say_nothing(text: str) -> None:
    pass
