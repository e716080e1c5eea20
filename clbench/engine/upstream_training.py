"""Training a shared upstream: plain training of the first task, an ordinary session inside of a run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from clbench.engine.checkpoint import AllDamaged
from clbench.engine.loss_log import kept_of
from clbench.engine.reporter import Reporter
from clbench.engine.saving import saved_state, training_state
from clbench.errors import Interrupted
from clbench.files import write_atomically
from clbench.upstream import OWN

if TYPE_CHECKING:
    from clbench.engine.session import Session
    from clbench.stream import Stream
    from clbench.table import Row

MODEL, LOSSES, LEFT = "model/", "losses", "left/"
LEFT_FILE = "left.safetensors"
COSTS = ("steps", "samples_train", "flops_train", "seconds_train")


def train(outer: Session, stream: Stream, folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Train (or go on training) in `folder`: the tensors of the session's state, and `steps`, `rows` and `cost`.

    Raises Interrupted where the outer run is asked to stop, with a checkpoint left in `folder`.
    """
    from clbench.run import run

    folder.mkdir(parents=True, exist_ok=True)
    inner = _session(outer, stream, folder)
    try:
        run(inner)
        tensors, _ = saved_state(inner)
        cost = inner.cost()
    except AllDamaged as damage:
        outer.warn(f"{damage}: the upstream is trained from the beginning")
        shutil.rmtree(folder)
        return train(outer, stream, folder)
    except Interrupted:
        raise Interrupted(
            f"interrupted while the upstream was trained; continue with: clbench resume {outer.folder}"
        ) from None
    finally:
        inner.close()
    rows = [row.to_json() for row in inner.table.table.rows if _during(row, inner.step)]
    tensors |= {LOSSES: _losses(inner), **_left(folder)}
    kept = {f"upstream_{key}": cost[key] for key in COSTS}
    return tensors, {"steps": inner.step, "rows": rows, "cost": kept}


def _losses(inner: Session) -> Tensor:
    """float32: of the rows that are handed on, the values of their blocks, where those are kept."""
    values = torch.from_numpy(inner.losses.values())
    if not len(values):
        return values
    rows = kept_of(inner.table.table.rows, inner.objective.primary)
    parts = values.split([row.n or 0 for row in rows])
    mine = [part for row, part in zip(rows, parts, strict=True) if _during(row, inner.step)]
    return torch.cat([values[:0], *mine])


def _during(row: Row, steps: int) -> bool:
    """Continual evaluation inside the task: what stands before and after it the run evaluates itself."""
    return row.kind == "trace" and 0 < row.step < steps


def _session(outer: Session, stream: Stream, folder: Path) -> Session:
    from clbench.engine.assembly import assemble
    from clbench.strategy import Strategy

    changes: dict[str, Any] = {"upstream": OWN, "upstream_settings": {}, "tune": "full", "eval_grid": "default"}
    changes |= {"devices": 1, "sync_bn": False, "budget": {}}
    config = Strategy.Config(**outer.spec.upstream_settings)
    spec = outer.spec.model_copy(update=changes)
    inner = assemble(spec, folder, stream, Strategy, config, Relay(outer), outer.saver.every)
    inner.interrupted = outer.interrupted
    inner.leaving_line = lambda: _keep_left(inner)
    return inner


def _keep_left(inner: Session) -> None:
    """Where the task forks: the model at the end of the line that is left, for who adopts the upstream to evaluate."""
    from safetensors.torch import save

    tensors, _ = training_state(inner)
    write_atomically(
        inner.folder / LEFT_FILE,
        save({LEFT + name.removeprefix(MODEL): t for name, t in tensors.items() if name.startswith(MODEL)}),
    )


def _left(folder: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / LEFT_FILE) if (folder / LEFT_FILE).exists() else {}


class Relay(Reporter):
    """Tells the outer run's reporter how far the upstream is, and hands a request to stop on to it."""

    def __init__(self, outer: Session) -> None:
        self.outer = outer
        self._inner: Session | None = None

    def started(self, session: Session) -> None:
        self._inner = session
        self._hand_on()

    def stage(self, task: int, name: str) -> None:
        self._hand_on()
        self.outer.reporter.stage(task, f"upstream {name}")

    def stepped(self, task: int, step: int, length: int, loss: Tensor | None) -> None:
        self._hand_on()
        self.outer.reporter.stepped(task, step, length, loss)

    def note(self, text: str) -> None:
        self.outer.reporter.note(f"upstream: {text}")

    def _hand_on(self) -> None:
        if self._inner is not None and self.outer.interrupted:
            self._inner.interrupted = True
