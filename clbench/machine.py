"""What this machine has for runs: cores, memory, GPUs; limits of a container count."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
PROC = Path("/proc")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
GPU_DRIVERS = ("/dev/nvidiactl", "/dev/kfd")


def cores(cgroup: Path = CGROUP) -> int:
    """Cores this process may use: its affinity, or the container's quota where that is less."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(cgroup)
    return allowed if quota is None else max(1, min(allowed, int(quota)))


def threads(devices: int = 1) -> int:
    """Of each process of a run that was not told: `OMP_NUM_THREADS` where it is set, else its share of the cores."""
    told = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if told.isdecimal() and int(told):
        return int(told)
    return max(1, cores() // devices)


def thread_environment(threads: int) -> dict[str, str]:
    """The variables that hold numerical libraries at so many threads, if set before they are imported."""
    return dict.fromkeys(THREAD_VARIABLES, str(threads))


def available_memory(cgroup: Path = CGROUP, proc: Path = PROC) -> int | None:
    """Bytes that programs can still take without swapping; None where the system does not say."""
    found = [_available_in_proc(proc), _left(cgroup, "memory.max", "memory.current")]
    found.append(_left(cgroup / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"))
    known = [bytes_ for bytes_ in found if bytes_ is not None]
    return min(known) if known else None


def gpu_names() -> list[str]:
    """What CUDA_VISIBLE_DEVICES calls each GPU that torch finds. torch is asked in a process of its own."""
    if not any(Path(driver).exists() for driver in GPU_DRIVERS):
        return []
    question = "import torch; print(torch.cuda.device_count())"
    try:
        answer = subprocess.run([sys.executable, "-c", question], capture_output=True, text=True, timeout=120)
        count = int(answer.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return []
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return visible[:count] if visible else [str(number) for number in range(count)]


def _quota(cgroup: Path) -> float | None:
    """Cores' worth of time a container gets (cgroup v2, else v1)."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        limit = _number(cgroup / "cpu" / "cpu.cfs_quota_us")
        length = _number(cgroup / "cpu" / "cpu.cfs_period_us")
        return limit / length if limit and length and limit > 0 else None


def _available_in_proc(proc: Path) -> int | None:
    try:
        lines = (proc / "meminfo").read_text().splitlines()
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)
    except (OSError, ValueError, IndexError):
        return None


def _left(folder: Path, limit_name: str, used_name: str) -> int | None:
    """Of a container's memory; file cache that can be dropped counts as free."""
    limit, used = _number(folder / limit_name), _number(folder / used_name)
    return max(0, min(limit, limit - used + _droppable(folder))) if limit is not None and used is not None else None


def _droppable(folder: Path) -> int:
    try:
        pairs = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return int(pairs.get("total_inactive_file", pairs.get("inactive_file", 0)))
    except (OSError, ValueError):
        return 0


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
