"""Which of a run's processes this one is, where it was started as one of several (torchrun, or clbench itself)."""

from __future__ import annotations

import os
from dataclasses import dataclass

from clbench.errors import UserError

ALONE = {"devices": 1, "sync_bn": False}  # what records say of one device, also those that do not mention it
VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class World:
    """rank: this process, 0 to size - 1. local_rank: among those of this machine: its GPU."""

    rank: int
    size: int
    local_rank: int


def torchrun_world() -> World | None:
    """What torchrun says in the environment; None where it says nothing, or that there is one process."""
    values = [os.environ.get(name) for name in VARIABLES]
    if not all(values):
        return None
    try:
        rank, size = int(values[0] or 0), int(values[1] or 1)
        local = int(os.environ.get("LOCAL_RANK", rank))
    except ValueError:
        raise UserError("RANK, WORLD_SIZE and LOCAL_RANK are set, but not to numbers: unset them") from None
    return World(rank, size, local) if size > 1 else None


def is_follower() -> bool:
    """Whether torchrun started this process as another one than the first: it computes and shows nothing."""
    world = torchrun_world()
    return world is not None and world.rank > 0
