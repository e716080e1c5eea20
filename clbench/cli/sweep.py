"""`clbench sweep`: plan, run, sum up."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from clbench.cli.display import duration
from clbench.cli.text import columns, print_json, width
from clbench.errors import Interrupted, UserError, did_you_mean
from clbench.runs import RESULTS

if TYPE_CHECKING:
    from clbench.sweeps.estimate import Estimate
    from clbench.sweeps.job import Engine
    from clbench.sweeps.journal import Journal
    from clbench.sweeps.plan import Plan
    from clbench.sweeps.run_sweep import Outcome, SweepResult, Tracking
    from clbench.sweeps.suite import Suite

ENGINES = ("local", "ray")
MOST_ERRORS = 20


@dataclass(frozen=True)
class SweepOptions:
    """What the command line says. jobs: None for as many as fit; address and gather: of the Ray engine."""

    file: str
    engine: str = "local"
    jobs: int | None = None
    out: Path = RESULTS
    dry_run: bool = False
    probe: bool = True
    as_json: bool = False
    quiet: bool = False
    address: str | None = None
    gather: str | None = None
    tracking: bool = True
    data_root: str | None = None


def sweep_command(options: SweepOptions) -> int:
    """Run a suite, or show what it would do; the exit code. Raises UserError, and Interrupted with the line how to
    continue."""
    from clbench.sweeps.suite import read_suite

    _check(options)
    suite = read_suite(options.file)
    if options.dry_run:
        return _show(suite, options)
    from clbench.sweeps.journal import only_sweep

    with only_sweep(options.out, suite.name):
        result = _run(suite, options)
    if result.failure is not None and not any(outcome.attempts for outcome in result.outcomes):
        raise result.failure
    if options.as_json:
        print_json({"path": str(result.folder), **result.as_dict()})
    else:
        sys.stdout.write(sweep_summary(result, options))
    sys.stdout.flush()
    if result.failure is not None:
        raise result.failure
    if result.exit_code == 130:
        done = result.count("completed")
        raise Interrupted(
            f"interrupted with {done} of {len(result.outcomes)} runs done; continue with: {command_of(options)}"
        )
    return result.exit_code


def _check(options: SweepOptions) -> None:
    if options.engine not in ENGINES:
        raise UserError(f"unknown engine {options.engine!r}{did_you_mean(options.engine, ENGINES)}")
    for name in ("address", "gather"):
        if options.engine != "ray" and getattr(options, name) is not None:
            raise UserError(f"--{name} belongs to --engine ray")


def _show(suite: Suite, options: SweepOptions) -> int:
    """--dry-run."""
    from clbench import machine
    from clbench.sweeps.estimate import estimate
    from clbench.sweeps.plan import make_plan
    from clbench.sweeps.show import plan_as_dict, show_plan

    with _own_stdout():
        with _leaving_at_once():
            plan = make_plan(suite, options.out, _path(options.data_root))
        estimates = estimate(plan, options.probe, (lambda text: None) if options.quiet else _say)
    jobs = _at_once(plan, options, machine.cores())
    if options.as_json:
        print_json(plan_as_dict(plan, estimates, jobs))
    else:
        sys.stdout.write(show_plan(plan, estimates, jobs))
    return 0


def _run(suite: Suite, options: SweepOptions) -> SweepResult:
    from clbench.sweeps.journal import Journal

    if options.engine == "local":
        from clbench.sweeps.processes import start_server

        start_server([run.spec for run in suite.runs])  # it imports torch while the plan is made
    journal = Journal(options.out, suite.name, _say)
    try:
        with _own_stdout():
            return _run_plan(suite, options, journal)
    finally:
        journal.close()


def _run_plan(suite: Suite, options: SweepOptions, journal: Journal) -> SweepResult:
    from clbench import machine
    from clbench.cli.sweep_display import make_sweep_display
    from clbench.sweeps.estimate import estimate
    from clbench.sweeps.plan import make_plan
    from clbench.sweeps.run_sweep import run_sweep
    from clbench.sweeps.show import plan_as_dict
    from clbench.sweeps.time_left import TimeLeft

    with _leaving_at_once():
        plan = make_plan(suite, options.out, _path(options.data_root))
        estimates = estimate(plan, probe=False)
    lanes = _at_once(plan, options, machine.cores())
    journal.keep("suite.yaml", suite.path.read_text(encoding="utf-8"))
    journal.keep("plan.json", plan_as_dict(plan, estimates, lanes))
    for note in plan.notes:
        _say(f"note: {note}")
    if options.engine == "local":
        plan = _with_memory(plan, estimates)
    engine = _engine(options, journal)
    found = ((job.number, estimates.seconds(job.number)) for job in plan.jobs)
    seconds = {number: value for number, value in found if value is not None}
    display = make_sweep_display(
        plan.jobs, len(plan.runs) - len(plan.jobs), options.quiet, TimeLeft(plan.jobs, lanes, seconds)
    )
    with display:
        return run_sweep(plan, engine, options.engine, journal, display, _tracking(suite, options, journal), seconds)


def _engine(options: SweepOptions, journal: Journal) -> Engine:
    if options.engine == "local":
        from clbench.sweeps.local import LocalEngine

        return LocalEngine(options.jobs, output=journal.output)
    from clbench.sweeps.ray_engine import RayEngine

    return RayEngine(address=options.address, jobs=options.jobs, gather=options.gather)


def _tracking(suite: Suite, options: SweepOptions, journal: Journal) -> Tracking | None:
    if not options.tracking:
        return None
    from clbench.tracking import SweepTracking

    return SweepTracking(suite.name, options.out, _say, journal.folder)


def _with_memory(plan: Plan, estimates: Estimate) -> Plan:
    """The plan with the memory that earlier runs took, where the suite does not say."""
    runs = []
    for planned in plan.runs:
        cost, needs = estimates.costs.get(planned.job.number), planned.job.resources
        if cost is not None and cost.memory is not None and needs.memory is None:
            planned = replace(planned, job=replace(planned.job, resources=replace(needs, memory=cost.memory)))
        runs.append(planned)
    return replace(plan, runs=tuple(runs))


def _at_once(plan: Plan, options: SweepOptions, cores: int) -> int:
    """How many jobs will run side by side."""
    threads = [min(cores, planned.job.resources.cpus) for planned in plan.runs]
    mean = sum(threads) / len(threads) if threads else 1
    fitting = max(1, int(cores / mean))
    return min(options.jobs, fitting) if options.jobs and options.engine == "local" else options.jobs or fitting


# -- what is printed -------------------------------------------------------------------------------------------------


def sweep_summary(result: SweepResult, options: SweepOptions) -> str:
    """A table of strategies and streams, the errors, where things are, what to do next; ends in a newline."""
    outcomes = result.outcomes
    lines = [f"sweep {result.name}: {_counts(result)}, {duration(result.seconds)}", "", *_table(outcomes), ""]
    failed = [outcome for outcome in outcomes if outcome.status in ("failed", "diverged")]
    for outcome in failed[:MOST_ERRORS]:
        lines.append(f"{outcome.status:8} {outcome.planned.job.label}: {outcome.error or 'no reason is known'}")
    if len(failed) > MOST_ERRORS:
        lines.append(f"{'':8} and {len(failed) - MOST_ERRORS} more in report.json")
    lines.append(f"folder   {result.folder} (report.json, journal.jsonl), runs in {options.out / 'runs'}")
    return "\n".join(lines + _next(result, options)) + "\n"


def _counts(result: SweepResult) -> str:
    before = sum(outcome.before for outcome in result.outcomes)
    parts = [f"{len(result.outcomes)} runs, {result.count('completed')} completed"]
    parts[0] += f" ({before} before)" if before else ""
    for status in ("failed", "diverged", "interrupted"):
        count = result.count(status)
        parts += [f"{count} {'not done' if status == 'interrupted' else status}"] if count else []
    return ", ".join(parts)


def _table(outcomes: Sequence[Outcome]) -> list[str]:
    """Strategies down, streams across, `3/3` or `2/3, 1 failed` in the cells; a line for each pair where that is wider
    than the terminal."""
    cells: dict[tuple[str, str], list[str]] = {}
    for outcome in outcomes:
        values = outcome.as_dict()
        cells.setdefault((values["strategy"], values["stream"]), []).append(outcome.status)
    strategies = list(dict.fromkeys(strategy for strategy, _ in cells))
    streams = list(dict.fromkeys(stream for _, stream in cells))
    rows = [["", *streams]]
    rows += [[name, *(_cell(cells.get((name, stream), [])) for stream in streams)] for name in strategies]
    table = columns(rows, right=False)
    if max(map(len, table)) <= width():
        return table
    return columns([[strategy, stream, _cell(found)] for (strategy, stream), found in cells.items()], right=False)


def _cell(statuses: Sequence[str]) -> str:
    if not statuses:
        return "-"
    parts = [f"{statuses.count('completed')}/{len(statuses)}"]
    parts += [f"{statuses.count(kind)} {kind}" for kind in ("failed", "diverged") if kind in statuses]
    return ", ".join(parts)


def _next(result: SweepResult, options: SweepOptions) -> list[str]:
    if result.exit_code == 130:
        return [f"next     {command_of(options)}"]
    lines = []
    if result.count("completed"):
        streams = list(dict.fromkeys(outcome.as_dict()["stream"] for outcome in result.outcomes))
        place = "" if options.out == RESULTS else f" --results {shlex.quote(str(options.out))}"
        lines.append(f"clbench leaderboard{f' {streams[0]}' if len(streams) == 1 else ''}{place}")
    if result.count("failed", "interrupted"):
        lines.append(f"{command_of(options)}   (tries the failed ones again)")
    return [f"{'' if i else 'next':8} {line}" for i, line in enumerate(lines)]


def command_of(options: SweepOptions) -> str:
    """The command line that continues this sweep: the same."""
    words = ["clbench", "sweep", options.file]
    words += ["--engine", options.engine] if options.engine != "local" else []
    words += ["--jobs", str(options.jobs)] if options.jobs else []
    words += ["--out", str(options.out)] if options.out != RESULTS else []
    for name, value in (("address", options.address), ("gather", options.gather), ("data-root", options.data_root)):
        words += [f"--{name}", value] if value else []
    return shlex.join(words)


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None


@contextlib.contextmanager
def _own_stdout() -> Iterator[None]:
    """What is imported for a plan may print; stdout is for the result."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


@contextlib.contextmanager
def _leaving_at_once() -> Iterator[None]:
    """While nothing is run yet, Ctrl-C and SIGTERM end the process: an exception in the middle of an import of torch
    would abort it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: object) -> None:
        os.write(2, b"clbench: interrupted before anything was run\n")
        os._exit(130)

    before = {number: signal.signal(number, leave) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(text: str) -> None:
    sys.stderr.write(f"clbench: {text}\n")
    sys.stderr.flush()
