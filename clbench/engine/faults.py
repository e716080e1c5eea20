"""Fault points for tests: `CLBENCH_FAULT=NAME:N` kills the process (SIGKILL) the N-th time NAME is passed.

`CLBENCH_FAULT=NAME:N:interrupt` sends SIGINT instead. Unset, a fault point costs a dictionary look-up.
"""

from __future__ import annotations

import os
import signal

_passed: dict[str, int] = {}


def fault_point(name: str) -> None:
    """Mark a place where a test may end the process."""
    wanted = os.environ.get("CLBENCH_FAULT")
    if wanted is None:
        return
    target, _, rest = wanted.partition(":")
    if target != name:
        return
    count, _, how = rest.partition(":")
    _passed[name] = _passed.get(name, 0) + 1
    if _passed[name] == int(count or 1):
        os.kill(os.getpid(), signal.SIGINT if how == "interrupt" else signal.SIGKILL)
