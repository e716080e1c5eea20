"""The processes of a run on several devices: started, joined, and ended with it.

The process that was asked for the run becomes rank 0; it starts the others (`clbench.engine.follower`), or finds them
where torchrun started all. What they are to do reaches them through a store. A follower ends when rank 0 ends, however
that was: rank 0 kills it on the way out, and its standard input closes when rank 0 is killed.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from clbench import machine
from clbench.engine.environment import Environment
from clbench.engine.parallel import PATIENCE, Group, Ranks
from clbench.engine.world import World, torchrun_world
from clbench.errors import RunFailed, UserError
from clbench.spec import RunSpec

PREPARATION = timedelta(days=1)  # rank 0 may have data to download before it says what is to be run
START = 120.0  # seconds a follower may take to import what it needs
PER_CORE = 2  # processes that a core can take: more only wait for each other
LAST_WORDS = 5.0  # seconds to wait for the reason why a process is gone
ENDING = 10.0  # seconds a follower may take to end by itself after a finished run


class Processes:
    """One process: nothing to start, nothing to join."""

    def join(self, spec: RunSpec, folder: Path) -> Ranks:
        """Tell the others what to run, and meet them."""
        return Ranks()

    def end(self, finished: bool) -> None:
        """The run is over. finished: the others are at its end, too."""


@contextmanager
def processes_for(spec: RunSpec) -> Iterator[Processes]:
    """The processes a specification asks for. Raises UserError where torchrun, or the GPUs there are, say otherwise."""
    world = torchrun_world()
    check_devices(spec, world)
    processes = Torchrun(world) if world else Started(spec.devices) if spec.devices > 1 else Processes()
    finished = False
    try:
        yield processes
        finished = True
    finally:
        processes.end(finished)


def within_torchrun(spec: RunSpec) -> RunSpec:
    """Under torchrun, a specification that names no number of devices takes the number of its processes."""
    world = torchrun_world()
    return spec.model_copy(update={"devices": world.size}) if world and spec.devices == 1 else spec


def check_devices(spec: RunSpec, world: World | None) -> None:
    """Raises UserError in one line for a number of devices that cannot be had."""
    if world is not None and spec.devices != world.size:
        raise UserError(
            f"torchrun started {world.size} processes, the run is for {spec.devices}: "
            f"use --nproc-per-node {spec.devices}, or --devices {world.size}"
        )
    if spec.devices == 1:
        return
    if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
        raise UserError(f"--devices {spec.devices}: this build of torch has no gloo; use --devices 1")
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    here = spec.devices if world is None else world.local_rank + 1
    if spec.device != "cpu" and gpus and here > gpus:
        raise UserError(
            f"--devices {spec.devices}: torch sees {gpus} GPU{'s' * (gpus > 1)} here; use fewer, or --device cpu"
        )
    cores = machine.cores()
    if world is None and (spec.device == "cpu" or not gpus) and spec.devices > PER_CORE * cores:
        raise UserError(
            f"--devices {spec.devices}: {cores} CPU core{'s' * (cores > 1)} here, for at most {PER_CORE * cores} "
            "processes; use fewer"
        )


class Started(Processes):
    """Followers on this machine, children of this process."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.folder = Path(tempfile.mkdtemp(prefix="clbench-devices-"))
        self.store = torch.distributed.FileStore(str(self.folder / "store"), size)
        self.group: Group | None = None
        self.children = [self._start(rank) for rank in range(1, size)]

    def _start(self, rank: int) -> subprocess.Popen[bytes]:
        command = [
            sys.executable,
            "-m",
            "clbench.engine.follower",
            str(self.folder / "store"),
            str(rank),
            str(self.size),
        ]
        with (self.folder / f"stderr-{rank}").open("wb") as stderr:
            return subprocess.Popen(
                command,
                stdin=subprocess.PIPE,  # closed by the system when this process ends
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,  # a Ctrl-C in the terminal is rank 0's to decide on
                env={**os.environ, "RANK": str(rank), "CLBENCH_TRACKING": "off"},
            )

    def join(self, spec: RunSpec, folder: Path) -> Ranks:
        self._wait_until_ready()
        self.store.set("job", job_text(spec, folder))
        with loopback():
            self.group = Group.join(self.store, 0, self.size, 0, Environment(spec).device, self._explain)
        return self.group

    def end(self, finished: bool) -> None:
        deadline = time.monotonic() + (ENDING if finished else 0.0)
        for child in self.children:
            with suppress(subprocess.TimeoutExpired):
                child.wait(max(0.0, deadline - time.monotonic()))
            if child.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            if child.stdin is not None:
                child.stdin.close()
        if self.group is not None:
            self.group.leave()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START
        waiting = set(range(1, self.size))
        while waiting:
            waiting -= {rank for rank in waiting if self.store.check([f"ready-{rank}"])}
            if any(self.children[rank - 1].poll() is not None for rank in waiting) or time.monotonic() > deadline:
                raise RunFailed(self._explain() or "the run's other processes did not start")
            if waiting:
                time.sleep(0.02)

    def _explain(self) -> str:
        """Why another process is gone: what it said, or how it ended."""
        deadline = time.monotonic() + LAST_WORDS
        while time.monotonic() < deadline:
            for rank, child in enumerate(self.children, 1):
                if self.store.check([f"error-{rank}"]):
                    return str(self.store.get(f"error-{rank}").decode())
                if child.poll() is not None:
                    return self._ended(rank, child.returncode)
            time.sleep(0.05)
        return ""

    def _ended(self, rank: int, code: int) -> str:
        where = f"process {rank} of this run (0 to {self.size - 1})"
        if code < 0:
            return f"{where} was killed by signal {-code}: continue with `clbench resume`"
        text = (self.folder / f"stderr-{rank}").read_text(encoding="utf-8", errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return f"{where} ended with code {code}{': ' + lines[-1][:300] if lines else ''}"


class Torchrun(Processes):
    """Processes that torchrun started and will end; this one is rank 0."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.store = torchrun_store()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # except during the run, which it stops: the record is kept
        self.group: Group | None = None

    def join(self, spec: RunSpec, folder: Path) -> Ranks:
        world, device = self.world, Environment(spec).device
        self.store.set("job", job_text(spec, folder))
        self.group = Group.join(self.store, 0, world.size, world.local_rank, device, self._explain)
        return self.group

    def end(self, finished: bool) -> None:
        with suppress(RuntimeError):
            self.store.set("ended", "1")
        if self.group is not None:
            self.group.leave()

    def _explain(self) -> str:
        deadline = time.monotonic() + LAST_WORDS
        while time.monotonic() < deadline:
            for rank in range(1, self.world.size):
                if self.store.check([f"error-{rank}"]):
                    return str(self.store.get(f"error-{rank}").decode())
            time.sleep(0.05)
        return "another process of this run is gone (torchrun says which): continue with `resume` in place of `run`"


def torchrun_store() -> Any:
    """The store that torchrun's processes share."""
    try:
        store, _, _ = next(iter(torch.distributed.rendezvous("env://", timeout=PATIENCE)))
    except (RuntimeError, ValueError) as error:
        raise UserError(f"cannot reach torchrun's store: {' '.join(str(error).split())[:200]}") from None
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return torch.distributed.PrefixStore(f"clbench-{attempt}", store)


def job_text(spec: RunSpec, folder: Path) -> str:
    """What a follower is told."""
    return json.dumps({"spec": spec.model_dump(mode="json"), "folder": str(folder.resolve())})


def wait_for(store: Any, key: str, limit: timedelta = PREPARATION) -> str:
    """A value of the store, once it is there."""
    store.wait([key], limit)
    return str(store.get(key).decode())


@contextmanager
def loopback() -> Iterator[None]:
    """Let gloo listen to this machine alone, unless the user names an interface."""
    name = "GLOO_SOCKET_IFNAME"
    if name in os.environ:
        yield
        return
    os.environ[name] = "lo0" if sys.platform == "darwin" else "lo"
    try:
        yield
    finally:
        del os.environ[name]
