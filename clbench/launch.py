"""From a specification, or a run's folder, to a finished record."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from clbench.budgets import Allowance
from clbench.compact import compacted
from clbench.engine import geometry
from clbench.engine.loss_log import kept_of
from clbench.engine.parallel import Ranks
from clbench.engine.processes import processes_for, within_torchrun
from clbench.engine.reporter import Reporter
from clbench.engine.saver import RESTART
from clbench.engine.saving import final_state_hash
from clbench.engine.session import Diverged, Session
from clbench.engine.upstream_store import LOCAL
from clbench.engine.world import ALONE
from clbench.errors import ClbenchError, Interrupted, RunFailed, UserError
from clbench.files import disk_error
from clbench.record import Record, now, opening_record, read_record, strategy_label, write_record
from clbench.registry import source_hash
from clbench.resolve import build_stream, in_full, parts_of
from clbench.run import run
from clbench.seal import broken_seal
from clbench.spec import RunSpec, make_spec, read_spec_file


def start_run(
    spec: RunSpec, out: Path, reporter: Reporter | None = None, checkpoint_every: int | None = None
) -> tuple[Path, Record]:
    """Run a specification in a new folder under `out`/runs; the folder and the record.

    Raises UserError for what is wrong with the specification or the output folder, RunFailed or Interrupted with the
    record already written.
    """
    spec = within_torchrun(spec)
    with processes_for(spec) as processes:
        built = Prepared(spec)
        folder = _new_folder(out / "runs" / _safe(built.stream.name) / _safe(strategy_label(spec.strategy)), built.spec)
        with _locked(folder):
            try:
                ranks = processes.join(built.spec, folder)
                session = built.session(folder, reporter or Reporter(), checkpoint_every, ranks)
                session.spec.write(folder / "config.yaml")
                record = opening_record(session, folder.name, built.sources)
                write_record(folder, record)
            except BaseException:  # nothing has been run: leave nothing behind
                shutil.rmtree(folder, ignore_errors=True)
                raise
            return folder, _drive(session, record)


def resume_run(folder: Path, reporter: Reporter | None = None, checkpoint_every: int | None = None) -> Record:
    """Continue an interrupted run from its folder alone. Raises UserError where its conditions no longer hold."""
    record = read_record(folder)
    if record["status"] == "completed":
        raise UserError(f"{folder} is complete: nothing to resume (`clbench runs show {folder}`)")
    if broken := broken_seal(folder, record):
        raise UserError(f"cannot resume: {broken}")
    spec = make_spec(read_spec_file(folder / "config.yaml"), f"{folder / 'config.yaml'}")
    if spec.hash() != record["spec_hash"]:
        was, found = record["spec"], spec.shareable()
        changes = [f"{key} was {was.get(key)}, is {value}" for key, value in found.items() if value != was.get(key)]
        raise UserError(
            f"cannot resume: {folder / 'config.yaml'} is not the specification that the run began with: "
            f"{_short('; '.join(changes))}"
        )
    with _locked(folder), processes_for(spec) as processes:
        built = Prepared(spec)
        session = built.session(folder, reporter or Reporter(), checkpoint_every, processes.join(built.spec, folder))
        _same_conditions(record, opening_record(session, folder.name, built.sources), folder)
        session.continued = True
        record |= {"status": "running", "error": None}
        write_record(folder, record)
        return _drive(session, record)


class Prepared:
    """Stream, strategy class and settings of a specification, checked; `spec` holds every setting in full."""

    def __init__(self, spec: RunSpec) -> None:
        parts = parts_of(spec)
        self.strategy, self.config = parts.strategy, parts.strategy_config
        self.stream = compacted(build_stream(spec, parts))
        self.spec = in_full(spec, parts, self.stream)
        self.strategy.check_stream(self.config, self.stream)
        self.sources = {"strategy": source_hash(parts.strategy), "stream": source_hash(parts.recipe)}
        if spec.devices > 1 and self.strategy.needs.gradient_free:
            raise UserError(f"{strategy_label(spec.strategy)} has no gradients to share: it runs on one device")

    @cached_property
    def allowance(self) -> Allowance | None:
        """How long each task trains, where the budget decides it: found by a rehearsal. Raises UserError."""
        from clbench.engine.allowance import allowance_of

        return allowance_of(self.spec, self.stream, self.strategy, self.config)

    def session(
        self,
        folder: Path,
        reporter: Reporter,
        checkpoint_every: int | None,
        ranks: Ranks | None = None,
        kind: type[Session] = Session,
    ) -> Session:
        from clbench.engine.assembly import assemble

        allowance = self.allowance
        session = assemble(
            self.spec, folder, self.stream, self.strategy, self.config, reporter, checkpoint_every, kind, ranks
        )
        if allowance is not None:
            session.keep_to(allowance)
        return session


def _drive(session: Session, record: Record) -> Record:
    """Run, and write the record whatever happens."""
    status = "completed"
    error: ClbenchError | None = None
    try:
        with _interruptible(session):
            run(session)
        record["state_hash"] = final_state_hash(session)
    except Interrupted as stopped:
        status, error = "interrupted", stopped
    except KeyboardInterrupt:
        status = "interrupted"
        way = RESTART if session.strategy.needs.resume == "none" else "continue from the last checkpoint"
        error = Interrupted(f"interrupted at once; {way} with: clbench resume {session.folder}")
    except Diverged as failure:
        status, error = "diverged", failure
    except ClbenchError as failure:
        status, error = "failed", failure
    except OSError as failure:
        status, error = "failed", disk_error(failure, session.folder)
    except Exception as failure:
        status, error = "failed", _unexpected(failure, session)
    finally:
        session.close()
    try:
        _finish(session, record, status, str(error) if error else None)
    except OSError as failure:
        error = error or disk_error(failure, session.folder)
    if error is not None:
        error.folder = session.folder
        raise error
    return record


def _finish(session: Session, record: Record, status: str, error: str | None) -> None:
    from clbench.metrics import compute

    record |= {"status": status, "error": error, "finished": now(), "warnings": session.warnings}
    if session.diagnostics:
        record["diagnostics"] = session.diagnostics
    if session.geometry:
        record["update_geometry"] = session.geometry
    record["cost"] = session.cost()
    record["upstream"] = session.adopted.get("identity")
    record["model"] = session.builder.described() if status in ("completed", "diverged") else None
    if status != "interrupted" and len(session.table.table):
        session.table.table.write(session.folder / "evaluations.parquet")
        _write_losses(session)
        record["metrics"] = _metrics(session, compute)
        if found := session.invalid_base():
            record["evaluation"] |= {"invalid_base": found}
    write_record(session.folder, record)
    if status == "completed":
        session.saver.checkpoints.remove()
        shutil.rmtree(session.folder / LOCAL, ignore_errors=True)
        session.table.path.unlink(missing_ok=True)
        session.losses.remove()
        shutil.rmtree(session.folder / geometry.FOLDER, ignore_errors=True)


def _write_losses(session: Session) -> None:
    """`block_losses.npz`, where the objective has them kept."""
    if not session.losses.kept:
        return
    from clbench.block_losses import write_block_losses

    rows, values = kept_of(session.table.table.rows, session.objective.primary), session.losses.values()
    if sum(row.n or 0 for row in rows) == len(values):
        write_block_losses(session.folder, rows, values)
    else:  # what was evaluated before a checkpoint of an older version
        session.warn("the losses of single blocks are incomplete: they are not kept")


def _metrics(session: Session, compute: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    try:
        return compute(
            session.table.table,
            session.objective.direction,
            predicts_between_boundaries=session.strategy.needs.predicts_between_boundaries,
        )
    except UserError as error:
        session.log(f"metrics: {error}")
        return {"undefined": {"all": str(error)}}


@contextmanager
def _interruptible(session: Session) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM stops the run at its next position, saved; the second at once.

    A run that was asked to stop in another way (a sweep's worker) takes a first signal for the same request.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []

    def stop(number: int, frame: Any) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)
        session.interrupted = True
        with suppress(RuntimeError):  # in the middle of another write to the terminal
            session.reporter.note("stopping at the next step (Ctrl-C again: at once)")

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process per run folder."""
    try:
        handle = os.open(folder / ".lock", os.O_CREAT | os.O_RDWR, 0o644)
    except OSError as error:
        raise disk_error(error, folder) from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"{folder} is in use by another process: wait for it, or stop it") from None
        try:
            yield
        except OSError as error:
            raise disk_error(error, folder) from None
    finally:
        os.close(handle)


def _new_folder(parent: Path, spec: RunSpec) -> Path:
    """A folder of its own: the time and the specification's hash, numbered where two runs start in one second."""
    stamp = f"{time.strftime('%Y%m%d-%H%M%S')}-{spec.hash()[:8]}"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        for number in range(1000):
            folder = parent / (stamp if number == 0 else f"{stamp}-{number}")
            try:
                folder.mkdir()
                return folder
            except FileExistsError:
                continue
    except OSError as error:
        raise disk_error(error, parent) from None
    raise UserError(f"cannot make a run folder in {parent}: too many of this second")


def _unexpected(error: Exception, session: Session) -> RunFailed:
    """An error that no part of the engine foresaw, in one line; its traceback goes to the log."""
    session.log("".join(traceback.format_exception(error)))
    message = " ".join(str(error).split()) or "no message"
    return RunFailed(f"the run failed with {type(error).__name__}: {message} (more in {session.folder / 'log.txt'})")


def _same_conditions(before: Record, after: Record, folder: Path) -> None:
    """Refuse to continue a run whose bytes would no longer be those of the uninterrupted one."""
    pairs = {
        "the strategy's source": (before["strategy"]["source_hash"], after["strategy"]["source_hash"]),
        "the stream's source": (before["stream"]["source_hash"], after["stream"]["source_hash"]),
        "the stream's data": (before["stream"]["content"], after["stream"]["content"]),
        "the stream's order": (before["stream"]["order"], after["stream"]["order"]),
    }
    old, new = before["environment"], after["environment"]
    pairs |= {key: (old[key], new[key]) for key in ("device", "precision", "threads", "channels_last", "compile")}
    pairs |= {key: (old.get(key, alone), new[key]) for key, alone in ALONE.items()}
    names = sorted(old["versions"].keys() | new["versions"].keys())
    pairs |= {f"package {n}": (old["versions"].get(n), new["versions"].get(n)) for n in names}
    for what, (was, is_now) in pairs.items():
        if was != is_now:
            change = "changed" if len(str(was)) > 40 else f"was {was}, is {is_now}"
            raise UserError(
                f"cannot resume {folder}: {what} {change}; start afresh with "
                f"`clbench run --config {folder / 'config.yaml'}`"
            )


def _short(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:197]}..."


def _safe(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_.+" else "-" for c in name)
