"""The reference runs of a run: what they are, which of them a results folder has, and what they say of the run.

A reference is a run of equal data, model, seed and training settings, of another strategy or of the same one on the
stream without its shift. Nothing here names one: the caller says which strategy stands for which role.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from clbench import catalogue
from clbench.errors import UserError
from clbench.record import Record, read_record, strategy_label
from clbench.runs import iter_records, status_of
from clbench.seal import broken_seal
from clbench.spec import RunSpec, make_spec, read_spec_file

FILE = "references.json"
EQUAL = ("seed", "order_seed", "backbone", "head", "tune", "precision", "budget", "upstream", "upstream_settings")
DATA = ("content", "order")
REPLAYED = ("samples_remembered", "samples_of_other_sources")  # on top of samples_train, and a part of it
USABLE = ("completed", "diverged")
RESUMABLE = ("interrupted", "killed")
State = Literal["found", "resumable", "at work", "missing", "impossible"]


@dataclass(frozen=True)
class Role:
    """What a reference is. strategy: which one it takes; None: the run's own. stream_settings: those that differ from
    the run's. own_upstream: it learns the first task by itself, wherever the run has it from."""

    name: str
    strategy: str | None = None
    stream_settings: Mapping[str, Any] = field(default_factory=dict)
    own_upstream: bool = False


@dataclass
class Reference:
    """A role's run: `folder` where it is found or can be resumed, `reason` where there cannot be one."""

    role: Role
    state: State
    spec: RunSpec | None = None
    folder: Path | None = None
    reason: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        run = None if self.folder is None else self.folder.name
        path = None if self.folder is None else str(self.folder)
        return {"state": self.state, "run": run, "path": path, "reason": self.reason}


def spec_of(folder: Path) -> RunSpec:
    """The specification a run began with, with this machine's places. Raises UserError."""
    return make_spec(read_spec_file(folder / "config.yaml"), f"{folder / 'config.yaml'}")


def reference_spec(spec: RunSpec, role: Role, settings: Mapping[str, Any] | None = None) -> RunSpec:
    """The specification of a reference. settings: of its strategy, instead of the run's.

    A strategy of the role has the run's settings as far as it knows them, which are those of training; its own are at
    their defaults. Raises UserError where the run has no such reference.
    """
    changes: dict[str, Any] = {}
    stream = catalogue.find("stream", spec.stream)
    for key, value in role.stream_settings.items():
        if key not in stream.settings:
            raise UserError(f"stream {strategy_label(spec.stream)} has no setting {key}")
        if spec.stream_settings.get(key, stream.settings[key].default) == value:
            raise UserError("the run is its own control")
    if role.stream_settings:
        changes["stream_settings"] = {**spec.stream_settings, **role.stream_settings}
    if role.strategy is not None:
        known = catalogue.find("strategy", role.strategy).settings
        if role.strategy == strategy_label(spec.strategy):
            raise UserError("the run is this reference itself")
        kept = {key: value for key, value in spec.strategy_settings.items() if key in known}
        unknown = next((key for key in settings or {} if key not in known), None)
        if unknown is not None:
            raise UserError(f"strategy {role.strategy} has no setting {unknown!r}")
        changes |= {"strategy": role.strategy, "strategy_settings": {**kept, **(settings or {})}}
    if role.own_upstream:
        changes |= {"upstream": "own", "upstream_settings": {}}
    return spec.model_copy(update=changes)


def find_references(
    folder: Path, roles: Sequence[Role], results: Path, settings: Mapping[str, Any] | None = None
) -> list[Reference]:
    """For each role the run that is there, newest first, completed ones before those that can be resumed.

    Raises UserError where the run's own record cannot be read.
    """
    record, spec = read_record(folder), spec_of(folder)
    known = list(iter_records(results, lambda text: None))
    return [_find(record, spec, role, known, settings) for role in roles]


def replayed_tokens(record: Record) -> float | None:
    """Tokens (or samples) that came from memories, or from other sources than the current one; None where the record
    does not say."""
    clock, cost = record.get("clock"), record["cost"]
    if clock is None or not set(REPLAYED) <= set(cost):
        return None
    return float(sum(cost[key] for key in REPLAYED) * clock["per_sample"])


def tokens_per_step(record: Record) -> float | None:
    """Tokens (or samples) read in a step, replayed ones included, on average over the run and the branches it left;
    None where the record does not say."""
    clock, cost = record.get("clock"), record["cost"]
    if clock is None or not cost.get("steps"):
        return None
    samples = cost["samples_train"] + cost.get(REPLAYED[0], 0)
    return float(samples * clock["per_sample"] / (cost["steps"] + cost.get("steps_branch", 0)))


def _find(
    record: Record, spec: RunSpec, role: Role, known: Iterable[tuple[Path, Record]], settings: Mapping[str, Any] | None
) -> Reference:
    try:
        wanted = reference_spec(spec, role, settings)
    except UserError as error:
        return Reference(role, "impossible", reason=str(error))
    found = [(folder, other) for folder, other in known if fits(other, wanted, record, role)]
    for folder, other in reversed(found):
        if other["status"] in USABLE and broken_seal(folder, other) is None:
            return Reference(role, "found", wanted, folder)
    for folder, other in reversed(found):
        status = status_of(folder, other)
        if status == "running":
            return Reference(role, "at work", wanted, folder, f"{folder} is at work")
        if status in RESUMABLE and (folder / "checkpoint").exists():
            return Reference(role, "resumable", wanted, folder)
    return Reference(role, "missing", wanted)


def fits(other: Record, wanted: RunSpec, record: Record, role: Role) -> bool:
    """Whether a run is what `wanted` asks for: settings that are not asked for are the run's business.

    Where the stream is the same, so must its data be.
    """
    spec = other["spec"]
    shared = wanted.shareable()
    if spec["strategy"] != shared["strategy"] or spec["stream"] != shared["stream"]:
        return False
    if any(spec.get(key, RunSpec.model_fields[key].default) != shared[key] for key in EQUAL):
        return False
    parts = ("strategy_settings", "stream_settings")
    if not all(_same(spec[part].get(key), value) for part in parts for key, value in shared[part].items()):
        return False
    if role.stream_settings:
        return True
    return all(other["stream"].get(key) == record["stream"][key] for key in DATA)


def _same(there: Any, wanted: Any) -> bool:
    """Whether a setting in full is what was asked for; YAML reads 1e-3 as text."""
    if isinstance(wanted, str) and isinstance(there, (int, float)) and not isinstance(there, bool):
        try:
            return float(wanted) == there
        except ValueError:
            return False
    return bool(there == wanted)
