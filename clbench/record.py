"""The record of a run: `record.json`, one object with everything a row of a leaderboard needs."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clbench.errors import UserError
from clbench.files import write_atomically
from clbench.seal import seal

if TYPE_CHECKING:
    from clbench.engine.session import Session
    from clbench.stream import EvalSet

SCHEMA = 2
Record = dict[str, Any]


def opening_record(session: Session, run_id: str, source: dict[str, str]) -> Record:
    """The record of a run that has just begun: everything but results.

    source: hashes of the strategy's and the stream's files.
    """
    stream, strategy, spec = session.stream, session.strategy, session.spec
    return {
        "schema": SCHEMA,
        "run": run_id,
        "status": "running",
        "error": None,
        "started": now(),
        "finished": None,
        "spec": spec.shareable(),
        "spec_hash": spec.hash(),
        "strategy": {
            "name": strategy_label(spec.strategy),
            "summary": (type(strategy).__doc__ or "").strip().split("\n")[0],
            "version": strategy.version,
            "source_hash": source["strategy"],
            "needs": strategy.needs_with(strategy.config).as_dict(),
        },
        "stream": {
            "name": stream.name,
            "objective": stream.objective,
            "scenario": stream.scenario,
            "content": stream.content,
            "order": stream.order,
            "source_hash": source["stream"],
            "notes": stream.notes,
            "pretraining_overlap": stream.pretraining_overlap,
            "direction": session.objective.direction,
            "primary": session.objective.primary,
            "tasks": [
                {
                    "name": t.name,
                    "samples": len(t.train),
                    "classes": len(t.classes),
                    "new_classes": len(t.new_classes),
                }
                for t in stream.tasks
            ],
            "eval_sets": [_eval_set(s) for s in stream.eval_sets],
            "classes": list(stream.classes.names) if stream.classes else None,
        },
        "model": None,
        "upstream": None,
        "evaluation": {
            "grid": spec.eval_grid,
            "points": session.evaluator.plan.points,
            "interval": session.evaluator.plan.interval,
            "subset": session.evaluator.plan.subset,
        },
        "environment": _environment(session),
        "clock": _clock(session),
        **({} if session.allowance is None else {"budget": session.allowance.as_record()}),
        "state_hash": None,
        "metrics": {},
        "cost": {},
        "warnings": [],
    }


def _eval_set(s: EvalSet) -> dict[str, Any]:
    """Kind and role only where they are not those of any set."""
    found = {"name": s.name, "samples": len(s.data), "belongs_to": s.belongs_to}
    if s.kind != "classification":
        found["kind"] = s.kind
    return found | ({"role": s.role} if s.role else {})


def _environment(session: Session) -> dict[str, Any]:
    from clbench.engine.environment import package_versions

    found = session.environment.describe()
    return found | {"versions": found["versions"] | package_versions(session.strategy.packages)}


def _clock(session: Session) -> dict[str, Any]:
    """What a sample counts for where steps are turned into what was read: tokens of text, else samples."""
    text = session.stream.vocabulary is not None
    return {"unit": "tokens" if text else "samples", "per_sample": session.stream.input_shape[0] if text else 1}


def strategy_label(name: str) -> str:
    """The name a strategy or a stream goes by: its own, or the class of a file."""
    path, _, attribute = name.partition(":")
    return (attribute or Path(path).stem) if path.endswith(".py") else name


def now() -> str:
    """UTC, to the second."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def write_record(folder: Path, record: Record) -> None:
    """Atomically and sealed, unless it is running; NaN and infinities are refused. `record` gets the seal, too."""
    sealed = seal(folder, record)
    write_atomically(folder / "record.json", json.dumps(sealed, indent=1, allow_nan=False) + "\n")
    record.pop("seal", None)
    record.update(sealed)


def read_record(folder: Path) -> Record:
    """The record in a run's folder. Raises UserError where it is missing, damaged or of another schema."""
    path = folder / "record.json"
    try:
        record: Record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"no run in {folder}: record.json is missing (`clbench runs list`)") from None
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        found = record.get("schema") if isinstance(record, dict) else None
        raise UserError(f"{path} has schema {found}; this version reads schema {SCHEMA}")
    return record
