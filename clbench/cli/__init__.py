"""The command line. `main` is the console script: whatever goes wrong ends in one line and an exit code.

0 done, 1 the run failed, 2 wrong usage or bad input, 130 interrupted. CLBENCH_DEBUG=1 adds the traceback.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clbench.errors import ClbenchError, UserError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _dispatch(arguments)
        sys.stdout.flush()
        return code
    except ClbenchError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail("interrupted (`clbench runs list` shows runs that can be resumed)", 130)
    except BrokenPipeError:
        _abandon_stdout()
        return _fail("the reader of the output went away", 1)
    except OSError as error:
        _abandon_stdout()
        where = f" {error.filename}" if error.filename else ""
        return _fail(f"input or output failed:{where} {error.strerror or error}", 1)
    except Exception as error:
        return _fail(f"unexpected {type(error).__name__}{_place(error)}: {error}; CLBENCH_DEBUG=1 shows more", 1)


def _dispatch(arguments: list[str]) -> int:
    import typer

    from clbench.cli.app import command
    from clbench.engine.world import is_follower

    if is_follower() and os.environ.get("CLBENCH_DEBUG") != "1":
        _abandon_output()
    usage_error: Any = typer.BadParameter.__mro__[1]  # typer's own, or click's, by version
    root = command()
    try:
        with root.make_context("clbench", arguments or ["--help"]) as context:
            result = root.invoke(context)
    except typer.Exit as stop:
        return int(stop.exit_code)
    except typer.Abort:
        raise KeyboardInterrupt from None
    except usage_error as error:
        raise UserError(_usage(error)) from None
    return result if isinstance(result, int) else 0


def _usage(error: Any) -> str:
    """A usage error in one line, with the commands to choose from where it was one that is wrong or missing."""
    context = getattr(error, "ctx", None)
    message = " ".join(error.format_message().split()).rstrip(".")
    message = message[0].lower() + message[1:]
    commands = getattr(getattr(context, "command", None), "commands", {})
    if commands and "command" in message and "Did you mean" not in message:
        message += f"; one of: {', '.join(commands)}"
    return f"{message} (`{getattr(context, 'command_path', 'clbench')} --help`)"


def _fail(message: str, code: int) -> int:
    if os.environ.get("CLBENCH_DEBUG") == "1":
        traceback.print_exc()
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(f"clbench: {' '.join(message.split())}\n")
        sys.stderr.flush()
    return code


def _place(error: Exception) -> str:
    """The line that raised, for a report that helps."""
    frames = traceback.extract_tb(error.__traceback__)
    return f" in {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""


def _abandon_output() -> None:
    """Of a run's several processes under torchrun the first one speaks."""
    with contextlib.suppress(OSError, ValueError):
        for stream in (sys.stdout, sys.stderr):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _abandon_stdout() -> None:
    """Nothing more can be written: keep the interpreter from trying once more at exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
