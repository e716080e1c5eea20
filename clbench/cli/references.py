"""`clbench references`: find or make the reference runs of runs, and say what those are worth against them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clbench.cli.text import columns, number, print_json, wrapped
from clbench.errors import Interrupted, UserError
from clbench.files import write_atomically
from clbench.leaderboard import pair
from clbench.record import read_record
from clbench.references import USABLE, Reference, Role, find_references
from clbench.seal import broken_seal
from clbench.selection import select_runs
from clbench.settings import parse_value

if TYPE_CHECKING:
    from clbench.cli.run_options import Handling
    from clbench.reference_report import Judged

ROLES = (
    Role("joint", strategy="joint", own_upstream=True),
    Role("scratch", strategy="scratch"),
    Role("frozen", strategy="frozen"),
    Role("control", stream_settings={"no_shift": True}),
)
"""Which strategy stands for which role is declared here and nowhere else; the engine knows none of them."""
BASELINE = Role("baseline")
RECOVERY = ("median", "restricted_mean", "horizon")


@dataclass(frozen=True)
class Asked:
    """What the command line says. settings: of the reference strategies. baseline: runs without what is judged."""

    runs: list[str]
    settings: list[str]
    baseline: list[str]
    target: float | None
    horizon: int | None
    run: bool
    out: Path | None
    as_json: bool
    quiet: bool
    tracking: bool


def references_command(asked: Asked, results: Path) -> int:
    """Find what is there, run what is missing, compute, write references.json beside each record; the exit code.

    0, or 1 where a reference run failed. Raises Interrupted where a run was stopped: the same command goes on.
    """
    folders = _without_controls(select_runs(asked.runs, results))
    if not folders:
        raise UserError("no runs are named: clbench references RUN... or STRATEGY@STREAM")
    settings = _settings(asked.settings)
    if asked.horizon is not None and asked.horizon < 1:
        raise UserError(f"--horizon is {asked.horizon}; it must be 1 step or more")
    _check(folders)
    baselines = _baselines(asked.baseline, folders, results)
    failed = _run_missing(folders, settings, results, asked) if asked.run else 0
    runs = []
    for folder in folders:
        found = {one.role.name: one for one in find_references(folder, ROLES, results, settings)}
        runs.append((folder, found | ({BASELINE.name: baselines[folder]} if asked.baseline else {})))

    from clbench.reference_report import judge

    judged = judge(runs, asked.target, asked.horizon)
    for one in judged:
        one.write()
    _show(judged, asked)
    return 1 if failed else 0


def _run_missing(folders: Sequence[Path], settings: Mapping[str, Any], results: Path, asked: Asked) -> int:
    """Run or resume every reference that is not there, each once; how many failed."""
    from clbench.cli.execute import resume_one, run_one, say

    failed = 0
    tried: set[str] = set()
    for folder in folders:
        for one in find_references(folder, ROLES, results, settings):
            if one.state not in ("missing", "resumable") or one.spec is None or one.spec.hash() in tried:
                continue
            tried.add(one.spec.hash())
            say(f"{one.role.name} reference of {folder.name}: {one.spec.strategy}, seed {one.spec.seed}")
            handling = _handling(results, asked)
            try:
                outcome = resume_one(one.folder, handling) if one.folder else run_one(one.spec, handling)
            except UserError as error:
                say(f"no {one.role.name} reference: {error}")
                failed += 1
                continue
            if isinstance(outcome.error, Interrupted):
                raise Interrupted(f"interrupted; continue with: clbench references {' '.join(asked.runs)}")
            if outcome.error is not None:
                say(str(outcome.error))
                failed += 1
    return failed


def _handling(results: Path, asked: Asked) -> Handling:
    from clbench.cli.run_options import Handling

    off = os.environ.get("CLBENCH_TRACKING", "").lower() in ("off", "0", "no", "false")
    return Handling(results, asked.as_json, asked.quiet, asked.tracking and not off, None)


def _without_controls(folders: list[Path]) -> list[Path]:
    """A row STRATEGY@STREAM holds its own controls, too: they are judged only where nothing else is named."""
    settings = {key: value for role in ROLES for key, value in role.stream_settings.items()}
    given = {folder: read_record(folder)["spec"]["stream_settings"] for folder in folders}
    shifted = [folder for folder in folders if any(given[folder].get(key) != settings[key] for key in settings)]
    return shifted or folders


def _check(folders: Sequence[Path]) -> None:
    """Before anything is run: what is to be judged has ended, is unedited, and of one stream."""
    records = [read_record(folder) for folder in folders]
    for folder, record in zip(folders, records, strict=True):
        if record["status"] not in USABLE:
            raise UserError(
                f"{folder} is {record['status']}: only finished runs are judged (`clbench resume {folder}`)"
            )
        if broken := broken_seal(folder, record):
            raise UserError(f"not judged: {broken}")
        for key, what in (("name", "stream"), ("content", "data")):
            if record["stream"][key] != records[0]["stream"][key]:
                where = f"{folder} has another {what} than {folders[0]}"
                raise UserError(f"{where}: judge them one after another, or write STRATEGY@STREAM,KEY=VALUE")


def _baselines(texts: Sequence[str], folders: Sequence[Path], results: Path) -> dict[Path, Reference]:
    """For each run the baseline of equal data, order and seed. Raises UserError where two fit."""
    known: dict[Any, Path] = {}
    for folder in select_runs(list(texts), results) if texts else []:
        record = read_record(folder)
        key = (record["stream"]["content"], *pair(record))
        if key in known:
            raise UserError(f"--baseline: {folder} and {known[key]} have equal data and seed; name one of them")
        known[key] = folder
    found = {}
    for folder in folders:
        record = read_record(folder)
        there = known.get((record["stream"]["content"], *pair(record)))
        reason = None if there else "no baseline has the run's data and seed"
        found[folder] = Reference(BASELINE, "found" if there else "missing", folder=there, reason=reason)
    return found


def _settings(texts: Sequence[str]) -> dict[str, Any]:
    """`KEY=VALUE` of the reference strategies."""
    found: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise UserError(f"--set {text!r}: write KEY=VALUE")
        found[key.strip()] = parse_value(value, None, text)
    return found


def _show(judged: Sequence[Judged], asked: Asked) -> None:
    from clbench.reference_report import over_seeds, trade_off

    whole: dict[str, Any] = {"runs": [{"path": str(one.folder), **one.as_dict()} for one in judged]}
    whole |= {"rows": over_seeds(judged), "trade_off": trade_off(judged)}
    if asked.out is not None:
        try:
            write_atomically(asked.out, json.dumps(whole, indent=1, allow_nan=False) + "\n")
        except OSError as error:
            raise UserError(f"cannot write {asked.out}: {error.strerror or error}; choose another --out") from None
    if asked.as_json:
        print_json(whole)
        return
    lines: list[str] = []
    for one in judged:
        lines += [*_run_lines(one), ""]
    if len(judged) > 1:
        lines += _row_lines(whole)
    sys.stdout.write("\n".join(lines).rstrip() + "\n")


def _run_lines(one: Judged) -> list[str]:
    """A run's references, metrics and what has no value."""
    from clbench.metrics.references import REFERENCE_DEFINITIONS

    found = one.found
    head = f"{one.record['strategy']['name']} on {one.record['stream']['name']}, seed {one.record['spec']['seed']}"
    places = [
        [role, one_of.state, one_of.folder.name if one_of.folder else one_of.reason or ""]
        for role, one_of in one.references.items()
    ]
    values = [
        [key, number(found[key]), definition.sign.split(";")[0]]
        for key, definition in REFERENCE_DEFINITIONS.items()
        if found[key] is not None
    ]
    lines = [f"{head} ({one.folder.name})", "references", *columns(places, right=False)]
    lines += ["metrics against them", *columns(values, right=False)] if values else ["no metric has a value"]
    reasons: dict[str, list[str]] = {}
    for key, reason in found["undefined"].items():
        reasons.setdefault(reason, []).append(key)
    for reason, keys in reasons.items():
        lines += wrapped(f"no value: {', '.join(keys)}: {reason}")
    return lines


def _row_lines(whole: Mapping[str, Any]) -> list[str]:
    """Means over seeds, recovery, and the frontier."""
    lines = []
    for row in whole["rows"]:
        known = {key: value for key, value in row["metrics"].items() if "mean" in value}
        lines += [f"{row['row']}: mean of {len(row['runs'])} runs"]
        lines += columns(
            [[k, number(v["mean"]), f"{number(v['low'])} to {number(v['high'])}"] for k, v in known.items()]
        )
        table = [["after switch", "set", "recovered", "median", "restricted mean", "horizon (steps)"]]
        table += [
            [str(r["switch"]), r["eval_set"], f"{r['share']:.0%}", *(number(r[key], 1) for key in RECOVERY)]
            for r in row["recovery"]
        ]
        lines += [*(columns(table) if row["recovery"] else []), ""]
    trade = whole["trade_off"]
    if trade["points"]:
        points = [[p["row"], number(p["adaptation"]), number(p["forgetting"])] for p in trade["points"]]
        lines += ["adaptation and signed forgetting", *columns([["", "adaptation", "forgetting"], *points])]
        lines += [f"  on the frontier: {'; '.join(trade['frontier'])}"]
        lines += [f"  area over (0, {number(trade['reference'][1])}): {number(trade['hypervolume'])}"]
    return lines
