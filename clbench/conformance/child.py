"""Work in a forked child: nothing it changes, leaks or breaks reaches the next piece of work."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clbench.errors import ClbenchError

LONGEST = 300


class ChildFailed(Exception):
    """The work raised, or the child ended without an answer; the message is one line."""


def in_child(work: Callable[[], Any], fault: str = "", seconds: int = LONGEST) -> Any:
    """What `work` returns (anything JSON can hold), computed in a child with one thread and silent output.

    fault: a `CLBENCH_FAULT` for the child. Raises ChildFailed; where the fault kills the child, returns None.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _work(work, fault, seconds, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if fault and status == -signal.SIGKILL:
        return None
    if status == -signal.SIGALRM:
        raise ChildFailed(f"still at work after {seconds} s")
    if status != 0 or not answer:
        raise ChildFailed(f"the process ended with status {status}")
    result = json.loads(answer)
    if "error" in result:
        raise ChildFailed(result["error"])
    return result["value"]


def _work(work: Callable[[], Any], fault: str, seconds: int, writing: int) -> None:
    """The child's whole life."""
    code = 1
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(seconds)
        sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115
        os.dup2(sys.stdout.fileno(), 1)
        os.dup2(sys.stdout.fileno(), 2)
        if fault:
            os.environ["CLBENCH_FAULT"] = fault
        _answer(writing, work)
        code = 0
    finally:
        os._exit(code)


def _answer(writing: int, work: Callable[[], Any]) -> None:
    import torch

    torch.set_num_threads(1)
    result: dict[str, Any]
    try:
        result = {"value": work()}
    except ClbenchError as error:
        result = {"error": str(error)}
    except Exception as error:
        result = {"error": " ".join(f"{type(error).__name__}: {error}".split())}
    with os.fdopen(writing, "wb") as pipe:
        pipe.write(json.dumps(result).encode())
