"""Claims about any quantity of a run, read from claims.yaml, held against records, and written as a page.

A claims.yaml of this kind names runs once and then states each claim as inequalities about them, which are judged seed
by seed (`inequalities`), over the quantities of `run_quantities`:

    page: docs/cpt.md            # gets the table of verdicts, between its two marks
    about: Losses are in nats.   # said above the page's table
    runs:
      rewarm: finetune@text-weak schedule=rewarm-cosine no_shift=none
    claims:
      - id: C1
        claim: what is expected, in words
        source: who says so
        holds: [depth(rewarm, novels) > depth(constant, novels)]
        enough: 2/3            # of the seeds; default: all
        beside: [final(rewarm)]  # measured, not judged
        open: what it does not decide

A run is STRATEGY@STREAM and settings, without spaces, that tell its row from all others; `key=none`: a row without the
setting. Beside the settings of strategy and stream there are tune, precision, budget.maf and the like.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import signature
from pathlib import Path
from typing import Any

import yaml
from inequalities import Expression, Outcome, Values, Verdict, judge, mean_sd, noise, seeds_of, spread, together
from run_quantities import QUANTITIES, NoValue, Run

from clbench.board_records import board_records
from clbench.errors import UserError, did_you_mean
from clbench.leaderboard import Row, make_boards, plain
from clbench.record import Record, read_record

HEAD = """# What was expected, and what was measured

Written by `python results/claims.py {suite}` from the records beside it. Each claim is one inequality or more between
quantities of runs, judged seed by seed. It *holds* where all of them are true in every seed, or in as many as its
source asks for. *By how much*: the slack of the first of them that fails, or else of the first, mean and standard
deviation over seeds (negative: it fails by that). {about} What the functions stand for is said at the end.
"""
COLUMNS = ("| | claim | verdict | by how much | not decided |", "|---|---|---|---|---|")
MARKS = ("<!-- claims -->", "<!-- end of claims -->")
NOTHING = "no value"
DIGITS = {"points": 1, "components": 2}  # after the point, by unit
OVER_SEEDS = {"spread": spread, "noise": noise}  # of a function, for several runs: its name, their names, its set
CLAIM_KEYS = {"id", "claim", "source", "holds", "enough", "beside", "open"}


@dataclass(frozen=True)
class Claim:
    """holds: inequalities. beside: what is shown and not judged. open: what it leaves undecided."""

    id: str
    claim: str
    source: str
    holds: tuple[Expression, ...]
    enough: str
    beside: tuple[Expression, ...]
    open: str


@dataclass
class Evidence:
    """runs: name -> seed -> run. missing: name -> why it has fewer seeds than others, or none."""

    described: Mapping[str, str]
    runs: dict[str, dict[int, Run]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def measure(self, function: str, arguments: tuple[str | float, ...], seeds: Sequence[int]) -> Values:
        """The values of a function of runs; NaN where a run has none. Raises UserError for unknown names."""
        if function in OVER_SEEDS:
            inner, *given = [str(argument) for argument in arguments]
            of_runs = [name for name in given if name in self.described]
            rest = tuple(name for name in given if name not in self.described)
            return [OVER_SEEDS[function]([self.measure(inner, (run, *rest), seeds) for run in of_runs])] * len(seeds)
        if function not in QUANTITIES:
            raise UserError(f"unknown quantity {function!r}{did_you_mean(function, [*QUANTITIES, *OVER_SEEDS])}")
        quantity = QUANTITIES[function]
        names, others = arguments[: quantity.runs], arguments[quantity.runs :]
        for name in names:
            if name not in self.described:
                raise UserError(f"{function}: unknown run {name!r}{did_you_mean(str(name), self.described)}")
        try:
            signature(quantity.of).bind(*arguments)
        except TypeError as error:
            raise UserError(f"{function}{arguments}: {error}") from None
        values = []
        for seed in seeds:
            runs = [self.runs[str(name)][seed] for name in names]
            try:
                values.append(quantity.of(*runs, *others))
            except NoValue as reason:
                runs[0].notes.append(f"{function}: {reason}")
                values.append(math.nan)
        return values

    def used(self, expression: Expression) -> list[str]:
        """The runs that an expression names."""
        return [name for name in self.described if name in expression.names()]

    def outcome(self, expression: Expression) -> Outcome:
        """Over the seeds that all of its runs have."""
        used = self.used(expression)
        if not used:
            raise UserError(f"{expression.text!r} names no run")
        found = {name: set(self.runs.get(name, {})) for name in used}
        return expression.evaluate(self.measure, seeds_of(found, used))


def read(path: Path) -> tuple[dict[str, str], list[Claim]]:
    """Runs and claims of a file. Raises UserError."""
    described, claims, _ = read_all(path)
    return described, claims


def read_all(path: Path) -> tuple[dict[str, str], list[Claim], str]:
    """Runs and claims of a file, and what it says about them. Raises UserError."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        claims = [_claim(entry) for entry in content["claims"]]
        return dict(content["runs"]), claims, str(content.get("about", ""))
    except (OSError, yaml.YAMLError, TypeError, KeyError, AttributeError, ValueError) as error:
        raise UserError(f"claims {path}: {' '.join(str(error).split())}") from None


def gather(described: Mapping[str, str], results: Path) -> Evidence:
    """The runs of these descriptions. One that is not there is noted. Raises UserError where two rows fit one."""
    evidence = Evidence(described)
    rows = [row for board in make_boards(board_records(results)) for row in board.rows]
    for name, text in described.items():
        row = find(rows, text)
        if row is None:
            evidence.missing[name] = "no such run"
            continue
        number = numbering([record for _, record in (*row.runs, *row.failures)])
        evidence.runs[name] = {number(record): _run(folder) for folder, record in row.runs}
        if row.failures:
            lost = sorted(number(record) for _, record in row.failures)
            evidence.missing[name] = f"diverged with seed {', '.join(map(str, lost))}"
    return evidence


def numbering(records: Sequence[Record]) -> Callable[[Record], int]:
    """What tells the runs of a row apart: the seed, or the order's seed where that differs instead. Raises UserError
    where both do."""
    varying = [key for key in ("seed", "order_seed") if len({record["spec"][key] for record in records}) > 1]
    if len(varying) > 1:
        raise UserError("claims: the runs of a row differ in seed and in order")
    key = varying[0] if varying else "seed"
    return lambda record: int(record["spec"][key])


def find(rows: Sequence[Row], text: str) -> Row | None:
    """The one row that a description fits; None where there is none. Raises UserError where there are more."""
    label, *wanted = text.split()
    strategy, _, stream = label.partition("@")
    found = [row for row in rows if row.strategy == strategy and _fits(_member(row), stream, wanted)]
    if len(found) > 1:
        raise UserError(f"{len(found)} rows are {text!r}: {'; '.join(_apart(row, found) for row in found)}")
    return found[0] if found else None


def page(suite: str, folder: Path, records: Path | None = None) -> str:
    """The whole of claims.md. records: a folder with runs, where they are not beside claims.yaml."""
    described, claims, about = read_all(folder / "claims.yaml")
    evidence = gather(described, records or folder)
    lines, details = [], []
    for claim in claims:
        line, detail = held(claim, evidence)
        lines.append(f"| {' | '.join(line)} |")
        details.append(detail)
    expressions = [expression for claim in claims for expression in (*claim.holds, *claim.beside)]
    used = {name for expression in expressions for name in (*expression.functions(), *expression.names())}
    return "\n".join([HEAD.format(suite=suite, about=about), *COLUMNS, *lines, "", *details, glossary(used)])


def table_of(text: str) -> str:
    """The table of verdicts in a claims.md."""
    lines = text.splitlines()
    first = lines.index(COLUMNS[0])
    return "\n".join(itertools.takewhile(bool, lines[first:]))


def with_table(text: str, table: str) -> str:
    """A page with this table between its marks. Raises UserError where it has none."""
    before, mark, rest = text.partition(MARKS[0])
    _, end, after = rest.partition(MARKS[1])
    if not mark or not end:
        raise UserError(f"the page of claims has no {MARKS[0]} before {MARKS[1]}")
    return f"{before}{mark}\n{table}\n{end}{after}"


def held(claim: Claim, evidence: Evidence) -> tuple[list[str], str]:
    """The claim's line of the summary, and its section."""
    outcomes = [evidence.outcome(expression) for expression in claim.holds]
    verdicts = [judge(outcome, claim.enough) for outcome in outcomes]
    verdict = together(verdicts)
    telling = _telling(verdicts)
    units = [_unit(expression) for expression in claim.holds]
    by = "" if telling is None else with_unit(outcomes[telling].margins, units[telling])
    used = list(dict.fromkeys(name for e in (*claim.holds, *claim.beside) for name in evidence.used(e)))
    shown = [evidence.outcome(expression) for expression in claim.beside]
    left_open = open_points(claim, evidence, used, [*outcomes, *shown])
    rows = [
        f"| {_code(outcome.text)} | {sides(outcome, unit)} | {with_unit(outcome.margins, unit)} | {found.text} |"
        for outcome, found, unit in zip(outcomes, verdicts, units, strict=True)
    ]
    rows += [
        f"| {_code(outcome.text)} | {sides(outcome, _unit(expression))} | | beside |"
        for outcome, expression in zip(shown, claim.beside, strict=True)
    ]
    enough = "" if claim.enough == "1" else f" Asked of {claim.enough} of the seeds."
    section = [
        f"## {claim.id}: {claim.claim}",
        "",
        f"{_marked(verdict)}. Claimed by {claim.source}.{enough}",
        "",
        "| | measured | slack | |",
        "|---|---|---|---|",
        *rows,
        "",
        *(f"- `{name}`: {_code(evidence.described[name])}{_seeds(evidence, name)}" for name in used),
        "",
    ]
    return [claim.id, claim.claim, _marked(verdict), by, "; ".join(left_open)], "\n".join(section)


def open_points(claim: Claim, evidence: Evidence, used: Sequence[str], outcomes: Sequence[Outcome]) -> list[str]:
    """What a claim leaves undecided: runs that are missing, seeds that do not suffice, values that do not exist."""
    found = [f"{name}: {evidence.missing[name]}" for name in used if name in evidence.missing]
    if any(len(outcome.seeds) == 1 for outcome in outcomes):
        found.append("one seed only")
    for name in used:
        noted: dict[str, int] = {}
        for run in evidence.runs.get(name, {}).values():
            for note in dict.fromkeys(run.notes):
                noted[note] = noted.get(note, 0) + 1
            run.notes.clear()
        found += [f"{name}: {note} (seeds: {count})" for note, count in noted.items()]
    return [*found, *([claim.open] if claim.open else [])]


def glossary(used: set[str]) -> str:
    """What those of the functions stand for that are used."""
    lines = [f"- `{name}` ({of.unit}): {_sentence(of.of)}" for name, of in QUANTITIES.items() if name in used]
    more = {
        "spread": "- `spread(f, ..., set)`: largest minus smallest mean over seeds of `f` among these runs.",
        "noise": "- `noise(f, ..., set)`: standard error over seeds of the difference, paired by seed, of those two.",
    }
    return "\n".join(["## Functions", "", *lines, *(line for name, line in more.items() if name in used), ""])


def sides(outcome: Outcome, unit: str) -> str:
    """What is compared, in numbers."""
    texts = [number(values, DIGITS.get(unit, 4)) for _, values in outcome.sides]
    return " ; ".join(texts) + ("" if NOTHING in texts or not unit else f" {unit}")


def number(values: Sequence[float], small: int = 4) -> str:
    """Mean and, where it is not 0, standard deviation; NOTHING where there is no value. small: digits of numbers below
    10."""
    center, sd = mean_sd(values)
    if math.isnan(center):
        return NOTHING
    if not math.isfinite(center):
        return "diverged"
    digits = small if abs(center) < 10 else min(small, 1)
    return f"{center:.{digits}f}" + (f" ± {sd:.{digits}f}" if sd else "")


def with_unit(values: Sequence[float], unit: str) -> str:
    """A number with its sign and its unit."""
    text = number(values, DIGITS.get(unit, 4))
    return text if text in (NOTHING, "diverged") else ("" if text.startswith("-") else "+") + f"{text} {unit}".rstrip()


def _claim(entry: Mapping[str, Any]) -> Claim:
    unknown = set(entry) - CLAIM_KEYS
    if unknown:
        raise ValueError(f"unknown key {sorted(unknown)[0]!r}")
    return Claim(
        id=entry["id"],
        claim=entry["claim"],
        source=entry["source"],
        holds=tuple(Expression(text) for text in entry["holds"]),
        enough=str(entry.get("enough", 1)),
        beside=tuple(Expression(text) for text in entry.get("beside", ())),
        open=entry.get("open", ""),
    )


def _run(folder: Path) -> Run:
    return Run(folder, read_record(folder))


def _member(row: Row) -> Record:
    record: Record = (row.runs or row.failures)[0][1]
    return record


def _told(record: Record) -> dict[str, str]:
    spec = record["spec"]
    upstream = {f"upstream.{key}": value for key, value in (spec.get("upstream_settings") or {}).items()}
    budget = {f"budget.{key}": value for key, value in (spec.get("budget") or {}).items()}
    one = {key: spec.get(key) for key in ("eval_grid", "precision", "backbone", "tune", "upstream")}
    settings = {**one, **upstream, **budget, **spec["stream_settings"], **spec["strategy_settings"]}
    return {key: plain(value) for key, value in settings.items()}


def _fits(record: Record, stream: str, wanted: Sequence[str]) -> bool:
    told = _told(record)
    pairs = [text.partition("=")[::2] for text in wanted]
    return record["spec"]["stream"] == stream and all(
        told.get(key, "none").replace(" ", "") == value for key, value in pairs
    )


def _apart(row: Row, rows: Sequence[Row]) -> str:
    """In what a row differs from the others."""
    all_told = [_told(_member(other)) for other in rows]
    mine = _told(_member(row))
    keys = {key for told in all_told for key in told}
    differing = sorted(key for key in keys if len({told.get(key) for told in all_told}) > 1)
    return " ".join(f"{key}={mine.get(key, 'none')}" for key in differing) or row.label


def _telling(verdicts: Sequence[Verdict]) -> int | None:
    """The first inequality that fails, or else the first one; None where none is decided."""
    decided = [i for i, verdict in enumerate(verdicts) if verdict.passed is not None]
    return next((i for i in decided if not verdicts[i].passed), decided[0] if decided else None)


def _unit(expression: Expression) -> str:
    if expression.is_ratio:
        return ""
    used = [name for name in (*expression.functions(), *sorted(expression.names())) if name in QUANTITIES]
    return QUANTITIES[used[0]].unit if used else "nats"


def _marked(verdict: Verdict) -> str:
    return f"**{verdict.text}**"


def _seeds(evidence: Evidence, name: str) -> str:
    seeds = sorted(evidence.runs.get(name, {}))
    if not seeds:
        return ": not there"
    return f" (seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))})"


def _code(text: str) -> str:
    return f"`{text}`"


def _sentence(function: Any) -> str:
    return " ".join((function.__doc__ or "").split())
