"""How far a task moves the weights: the norm of its update, relative to the weights that it began with.

These are written to a file of the run's folder at a task's start and read back at its end, one tensor after another:
neither memory nor checkpoints hold a copy of the model for it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from clbench.files import sync_folder

if TYPE_CHECKING:
    from clbench.engine.session import Session
    from clbench.stream import Task

FOLDER = "beginnings"
"""In the run's folder: the weights that tasks began with, back to that of the oldest checkpoint."""


def measures(session: Session, task: Task) -> bool:
    """Whether the update of this task is measured: of language modelling, by the process that writes the record."""
    from clbench.engine.adoption import adopts

    wanted = session.ranks.first and session.keeps_model and session.objective.keeps_values
    return wanted and not adopts(session, task)


def keep_beginning(session: Session, task: Task) -> None:
    """Write the weights as they are, float32, in the order of the model's parameters.

    Files of earlier tasks stay for as long as a checkpoint lies in them, or before: a run may go back to it.
    """
    with session.meters.seconds("seconds_checkpoints"):
        path = _file(session.folder, task.index)
        path.parent.mkdir(exist_ok=True)
        oldest = min([task.index, *session.saver.checkpoints.tasks()])
        for earlier in range(oldest):
            _file(session.folder, earlier).unlink(missing_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        with partial.open("wb") as file:
            for parameter in session.model.parameters():
                file.write(_plain(parameter).numpy().tobytes())
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        sync_folder(path.parent)


def update_geometry(session: Session, task: Task) -> list[dict[str, Any]]:
    """`[{"task", "total", "layers": {group: number}}]`: norm of what the task has changed over the norm of what it
    began with, of all parameters and of each group (`group_of`); None where that was zero. Empty where the file of the
    beginning is gone."""
    path = _file(session.folder, task.index)
    named = dict(session.model.named_parameters())
    if not path.is_file() or path.stat().st_size != 4 * sum(p.numel() for p in named.values()):
        return []
    with session.meters.seconds("seconds_checkpoints"):
        squares: dict[str, list[float]] = {}
        for (name, parameter), began in zip(named.items(), _read(path, named.values()), strict=True):
            of_group = squares.setdefault(group_of(name), [0.0, 0.0])
            for place, tensor in enumerate((_plain(parameter) - began, began)):
                of_group[place] += float(torch.linalg.vector_norm(tensor, dtype=torch.float64)) ** 2
    total = [sum(pair[place] for pair in squares.values()) for place in (0, 1)]
    layers = {group: _ratio(*pair) for group, pair in squares.items()}
    return [{"task": task.index, "total": _ratio(*total), "layers": layers}]


def group_of(name: str) -> str:
    """The block that a parameter is of: its name up to the first number (`backbone.blocks.0`), else without its last
    part (`backbone.embedding`)."""
    parts = name.split(".")
    number = next((i for i, part in enumerate(parts) if part.isdecimal()), None)
    return ".".join(parts[:-1] or parts) if number is None else ".".join(parts[: number + 1])


def _file(folder: Path, task: int) -> Path:
    return folder / FOLDER / f"{task}.raw"


def _plain(parameter: Tensor) -> Tensor:
    return parameter.detach().to("cpu", torch.float32)


def _read(path: Path, like: Any) -> Iterator[Tensor]:
    with path.open("rb") as file:
        for parameter in like:
            values = np.fromfile(file, np.float32, parameter.numel())
            yield torch.from_numpy(values).view(parameter.shape)


def _ratio(changed: float, began: float) -> float | None:
    ratio = math.sqrt(changed / began) if began else math.nan
    return ratio if math.isfinite(ratio) else None
