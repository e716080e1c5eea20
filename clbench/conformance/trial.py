"""A small run of the strategy under test, in a child of its own: whole, altered, killed or resumed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

from clbench.conformance.child import ChildFailed, in_child
from clbench.engine.reporter import Reporter
from clbench.engine.saving import final_state_hash
from clbench.errors import ClbenchError, UserError
from clbench.launch import Prepared, resume_run, start_run
from clbench.registry import load_strategy
from clbench.run import run
from clbench.spec import RunSpec, make_spec
from clbench.strategy import Strategy
from clbench.stream import Stream
from clbench.table import EvaluationTable
from clbench.torchvision_schemas import prepare

if TYPE_CHECKING:
    from clbench.engine.session import Session

SAVE_EVERY = 3
EVALUATE_EVERY = "4"
SHORT = {"steps": 6, "batch_size": 16, "memory_size": 40, "observe_every": 2}


class Look(Reporter):
    """What is watched during a trial. `notes` (JSON) is what comes back from the child."""

    def __init__(self) -> None:
        self.notes: dict[str, Any] = {}

    def attach(self, session: Session) -> None:
        """Called before the run starts."""
        self.session = session


@dataclass(frozen=True)
class Outcome:
    """What two runs that should be equal are compared by. `error`: the line a run failed with, if it did.

    imported: the modules that the run had to import, in that order.
    """

    state: str | None = None
    rows: list[str] = field(default_factory=list)
    metrics: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    imported: list[str] = field(default_factory=list)

    def difference(self, other: Outcome) -> str:
        """Where the other one differs first, in words; empty if nowhere."""
        if self.error or other.error:
            return f"it fails: {self.error or other.error}"
        if self.rows != other.rows:
            pairs = enumerate(zip(self.rows, other.rows, strict=False), start=1)
            first = next((i for i, (a, b) in pairs if a != b), min(len(self.rows), len(other.rows)) + 1)
            return f"the tables differ from row {first} on"
        if self.state != other.state:
            return "the final states differ (weights, optimiser, memories or self.state)"
        return "" if self.metrics == other.metrics else "the metrics differ"


@dataclass(frozen=True)
class Trial:
    """A strategy on a small stream. Every method runs in a child; `folder` is for what they leave on disk.

    has_classes: the stream is one of classification. model: None for the stream's own.
    """

    strategy: str
    stream: str
    stream_settings: dict[str, Any]
    settings: dict[str, Any]
    folder: Path
    has_classes: bool = True
    model: str | None = None

    def spec(self, **fields: Any) -> RunSpec:
        return make_spec(
            {
                "strategy": self.strategy,
                "stream": self.stream,
                "stream_settings": self.stream_settings,
                "strategy_settings": self.settings,
                "backbone": self.model,
                "eval_grid": EVALUATE_EVERY,
                "threads": 1,
                "device": "cpu",
                **fields,
            },
            "check",
        )

    def run(
        self,
        look: Look | None = None,
        alter: Callable[[Stream], Stream] | None = None,
        **fields: Any,
    ) -> Outcome:
        """One whole run. alter: changes the stream first."""
        spec, folder = self.spec(**fields), self._own_folder()
        return _outcome(lambda: _whole(spec, look or Look(), alter, folder))

    def killed(self, fault: str) -> Path | None:
        """The folder of a run that was killed at a fault point; None where it ended before."""
        out = self._own_folder()
        ended = in_child(lambda: _start(self.spec(), out), fault)
        return None if ended else next(out.glob("runs/*/*/*"))

    def resumed(self, run_folder: Path, look: Look) -> Outcome:
        """A killed run, continued to its end."""
        return _outcome(lambda: _resume(run_folder, look))

    def _own_folder(self) -> Path:
        return Path(mkdtemp(dir=self.folder))


def short_settings(strategy: str, **changes: Any) -> dict[str, Any]:
    """Settings that make a run short, of those the strategy has."""
    from clbench.config import parse_config

    kind = load_strategy(strategy).Config
    wanted: dict[str, Any] = {**SHORT, **changes}
    if "steps" not in kind.model_fields:
        wanted["epochs"] = 1
    settings: dict[str, Any] = {}
    for key, value in wanted.items():
        try:
            parse_config(kind, {**settings, key: value}, strategy)
        except UserError:
            continue
        settings[key] = value
    return settings


def first_run(trial: Trial, look: Look) -> Outcome:
    """A whole run, and what it had to import is imported in this process too; later children need not do it again."""
    _warm_up(trial)
    outcome = trial.run(look)
    if any(name.startswith("torchvision.") for name in outcome.imported):
        prepare()
    for name in outcome.imported:
        with suppress(Exception):
            import_module(name)
    return outcome


def _warm_up(trial: Trial) -> None:
    """Import what every run imports, by running the empty strategy."""
    built = Prepared(trial.spec(eval_grid="none"))
    built.strategy = Strategy
    built.config = Strategy.Config(**{**asdict(built.stream.training), "steps": 2})
    built.spec = built.spec.model_copy(update={"backbone": trial.model or built.stream.default_model})
    session = built.session(trial._own_folder(), Reporter(), None)
    run(session)
    session.close()


def _outcome(work: Callable[[], dict[str, Any]]) -> Outcome:
    try:
        return Outcome(**in_child(work))
    except ChildFailed as failure:
        return Outcome(error=str(failure))


def _whole(
    spec: RunSpec,
    look: Look,
    alter: Callable[[Stream], Stream] | None,
    folder: Path,
) -> dict[str, Any]:
    before = set(sys.modules)
    from clbench.metrics import compute

    os.environ["CLBENCH_CACHE"] = str(folder / "cache")
    built = Prepared(spec)
    if alter is not None:
        built.stream = alter(built.stream)
    session = built.session(folder, look, None)
    look.attach(session)
    result: dict[str, Any] = {}
    try:
        run(session)
        result["state"] = final_state_hash(session)
        result["metrics"] = compute(
            session.table.table,
            session.objective.direction,
            predicts_between_boundaries=session.strategy.needs.predicts_between_boundaries,
        )
    except ClbenchError as error:
        result["error"] = str(error)
    finally:
        session.close()
    imported = [name for name in sys.modules if name not in before]
    rows = [row.to_json() for row in session.table.table]
    return {**result, "rows": rows, "notes": look.notes, "imported": imported}


def _start(spec: RunSpec, out: Path) -> bool:
    os.environ["CLBENCH_CACHE"] = str(out / "cache")
    start_run(spec, out, checkpoint_every=SAVE_EVERY)
    return True


def _resume(folder: Path, look: Look) -> dict[str, Any]:
    os.environ["CLBENCH_CACHE"] = str(folder / "cache")
    try:
        record = resume_run(folder, look, checkpoint_every=SAVE_EVERY)
    except ClbenchError as error:
        return {"error": str(error), "notes": look.notes}
    table = EvaluationTable.read(folder / "evaluations.parquet")
    return {
        "state": record["state_hash"],
        "rows": [row.to_json() for row in table],
        "metrics": record["metrics"],
        "notes": look.notes,
    }
