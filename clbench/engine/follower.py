"""Another process of a run on several devices: it runs the same loop, and shows, decides and writes nothing.

`python -m clbench.engine.follower STORE RANK SIZE`; under torchrun the command line calls `follow_torchrun`.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

from clbench.engine.world import torchrun_world
from clbench.errors import ClbenchError, Interrupted

GRACE = 1.0  # seconds for rank 0 to meet the same error by itself
REST = 9.0  # seconds for rank 0 to write its record, before torchrun sees that a process has ended


def follow(store: Any, rank: int, size: int, local_rank: int, alone: bool) -> int:
    """Wait for a job, run it with the others; the exit code. alone: on this machine, reached by loopback."""
    import torch

    from clbench.engine.environment import Environment
    from clbench.engine.parallel import Group
    from clbench.engine.processes import loopback, wait_for
    from clbench.engine.reporter import Reporter
    from clbench.launch import Prepared
    from clbench.run import run
    from clbench.spec import make_spec

    store.set(f"ready-{rank}", "1")
    try:
        job = json.loads(wait_for(store, "job"))
        spec = make_spec(job["spec"])
        device = Environment(spec).device
        if alone:
            with loopback():
                ranks = Group.join(store, rank, size, local_rank, device, str)
        else:
            ranks = Group.join(store, rank, size, local_rank, device, str)
        run(Prepared(spec).session(Path(job["folder"]), Reporter(), None, ranks))
        return 0
    except BaseException as error:
        traceback.print_exc()
        text = str(error) if isinstance(error, ClbenchError) else f"{type(error).__name__}: {error}"
        with suppress(Exception):
            store.set(f"error-{rank}", f"process {rank} of this run: {' '.join(text.split())}")
        time.sleep(GRACE)
        if torch.distributed.is_initialized():
            with suppress(RuntimeError):
                torch.distributed.destroy_process_group()  # rank 0, if it waits for this one, learns that it is gone
        if not isinstance(error, Interrupted):
            with suppress(RuntimeError):
                wait_for(store, "ended", timedelta(seconds=REST))
        return error.exit_code if isinstance(error, ClbenchError) else 1


def follow_torchrun() -> NoReturn:
    """The whole life of a process that torchrun started as another than the first."""
    from clbench.engine.processes import torchrun_store

    world = torchrun_world()
    assert world is not None
    _ignore_interrupts()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun sends it to all: rank 0 stops, saved, and then this one
    _end(follow(torchrun_store(), world.rank, world.size, world.local_rank, alone=False))


def main() -> NoReturn:
    """A child of rank 0."""
    path, rank, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    _ignore_interrupts()
    _wake_with_parent()
    threading.Thread(target=_end_with_parent, args=(Path(path).parent,), daemon=True).start()
    import torch

    _end(follow(torch.distributed.FileStore(path, size), rank, size, rank, alone=True))


def _ignore_interrupts() -> None:
    """Rank 0 decides when to stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _wake_with_parent() -> None:
    """Continue when the parent ends, if stopped (SIGSTOP) then, and so notice it: Linux's PR_SET_PDEATHSIG."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGCONT)


def _end_with_parent(folder: Path) -> None:
    """The parent holds the other end of standard input: it closes when the parent ends, also when it is killed."""
    with suppress(OSError):
        while os.read(0, 1024):
            pass
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def _end(code: int) -> NoReturn:
    """Without destructors: those of a group wait for processes that may be gone."""
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
