"""Running specifications: one or several seeds, shown while they last, tracked and summed up afterwards."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clbench.cli.text import print_json
from clbench.engine.world import torchrun_world
from clbench.errors import ClbenchError, Interrupted, UserError
from clbench.record import Record, read_record
from clbench.runs import find_run, never_began

if TYPE_CHECKING:
    from clbench.cli.display import Display
    from clbench.cli.run_options import Handling
    from clbench.spec import RunSpec


@dataclass
class Outcome:
    """A run that has a folder, finished or not; `error` says why not."""

    folder: Path
    record: Record
    error: ClbenchError | None = None

    def as_json(self) -> dict[str, Any]:
        return {"path": str(self.folder), **self.record}


def run_command(specs: list[RunSpec], several: bool, handling: Handling) -> int:
    """Run each specification, print summary or JSON; the exit code. The errors of a single run are raised."""
    _follow_torchrun(several)
    if not several:
        return _report(run_one(specs[0], handling), handling)
    outcomes: list[Outcome] = []
    for number, spec in enumerate(specs, 1):
        say(f"seed {spec.seed} ({number} of {len(specs)})")
        outcome = run_one(spec, handling)
        outcomes.append(outcome)
        if isinstance(outcome.error, Interrupted):
            break
        if outcome.error is not None:
            say(str(outcome.error))
    from clbench.cli.seeds import seed_summary, summarise

    if handling.as_json:
        totals = {key: estimate.as_dict() for key, estimate in summarise(outcomes).items()}
        print_json({"runs": [outcome.as_json() for outcome in outcomes], "summary": totals})
    else:
        sys.stdout.write(seed_summary(outcomes))
    errors = [outcome.error for outcome in outcomes if outcome.error is not None]
    if errors and isinstance(errors[-1], Interrupted):
        raise errors[-1]
    return max((error.exit_code for error in errors), default=0)


def resume_command(run: str, handling: Handling) -> int:
    """Continue a run; the exit code. Its errors are raised."""
    _follow_torchrun(several=False)
    return _report(resume_one(find_run(run, handling.out), handling), handling)


def resume_one(folder: Path, handling: Handling) -> Outcome:
    """Continue a run, shown while it lasts. Raises UserError before it goes on; later errors are in the outcome."""
    record = read_record(folder)  # damaged or complete: said before torch is imported

    def go(display: Display) -> tuple[Path, Record]:
        from clbench.launch import resume_run

        return folder, resume_run(folder, display, handling.checkpoint_every)

    return _watched(go, handling, record["strategy"]["name"], record["stream"]["name"])


def _follow_torchrun(several: bool) -> None:
    """Where torchrun started this process as another than the first of a run, that is all it does."""
    world = torchrun_world()
    if world is None:
        return
    if several:
        raise UserError(f"torchrun runs one seed at a time: use --seed N, or --seeds with --devices {world.size}")
    if world.rank > 0:
        from clbench.engine.follower import follow_torchrun

        follow_torchrun()


def run_one(spec: RunSpec, handling: Handling) -> Outcome:
    """Run a specification, shown while it lasts. Raises UserError before there is a run; later errors are in the
    outcome."""

    def go(display: Display) -> tuple[Path, Record]:
        from clbench.launch import start_run

        return start_run(spec, handling.out, display, handling.checkpoint_every)

    return _watched(go, handling, spec.strategy, spec.stream)


def _watched(go: Callable[[Display], tuple[Path, Record]], handling: Handling, strategy: str, stream: str) -> Outcome:
    """Run with a display. Errors from before there is a run are raised; later ones come with the record."""
    from clbench.cli.display import make_display

    display = make_display(f"{strategy} on {stream}", handling.quiet)
    try:
        with display, _stdout_to_stderr(handling.as_json):
            done, record = go(display)
        outcome = Outcome(done, record)
    except ClbenchError as error:
        where = error.folder or display.folder
        if where is None:
            raise
        if isinstance(error, UserError) and never_began(where):
            shutil.rmtree(where, ignore_errors=True)  # a mistake in the specification: there is no run to keep
            raise
        outcome = Outcome(where, read_record(where), error)
    if handling.tracking and not isinstance(outcome.error, Interrupted):
        with _stdout_to_stderr(True):
            _track(outcome.folder)
    return outcome


def _report(outcome: Outcome, handling: Handling) -> int:
    if handling.as_json:
        print_json(outcome.as_json())
    else:
        from clbench.cli.summary import summary

        sys.stdout.write(summary(outcome.folder, outcome.record))
    sys.stdout.flush()
    if outcome.error is not None:
        raise outcome.error
    return 0


def _track(folder: Path) -> None:
    """Log to MLflow; a run is complete without it."""
    try:
        from clbench.tracking import log_run

        log_run(folder)
    except Exception as error:
        say(f"not logged to MLflow: {type(error).__name__}: {' '.join(str(error).split())}")


@contextlib.contextmanager
def _stdout_to_stderr(active: bool) -> Iterator[None]:
    """What strategies and libraries print must not mix with JSON."""
    with contextlib.redirect_stdout(sys.stderr) if active else contextlib.nullcontext():
        yield


def say(text: str) -> None:
    """A line on stderr."""
    sys.stderr.write(f"clbench: {text}\n")
    sys.stderr.flush()
