"""Hold what is expected of a published board against its records.

python results/claims.py SUITE [--records FOLDER]

Reads results/SUITE/claims.yaml and writes results/SUITE/claims.md: of each claim, what was measured. (Of other runs of
the suite, in FOLDER, it is printed.) A claim says that a metric of the rows `better` is above that of the rows `worse`,
or lies at most `margin` below it. A row is written as a strategy's name and what tells it from others,
`lae expert=online`: settings of the strategy or of the stream.

A claims.yaml that names runs and states inequalities between any quantities of them is read by `evidence`.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import evidence
import yaml

from clbench.board_records import board_records
from clbench.errors import UserError
from clbench.leaderboard import Row, group_runs, metric_value, pair, plain
from clbench.record import Record
from clbench.statistics import paired_difference

ROOT = Path(__file__).resolve().parents[1]
HEAD = """# What was expected, and what was measured

Written by `python results/claims.py {suite}` from the records beside it. In percent points of accuracy after the last
task. *Difference*: the mean over pairs of runs of equal seed (and order, on one stream), with its 95 % interval. A
claim *holds* where the mean difference is above 0, or above minus the margin it allows, *clearly* where the interval
is, too.

| claim | stream | rows | difference | pairs | |
|---|---|---|---|---|---|
"""


@dataclass(frozen=True)
class Claim:
    """`better` minus `worse`, one row each, is above -margin."""

    claim: str
    stream: str
    better: str
    worse: str
    metric: str = "average"
    margin: float = 0.0


def read_claims(path: Path) -> list[Claim]:
    """The claims of a suite; where `better` or `worse` are lists, one for each pair. Raises UserError."""
    try:
        found = []
        for entry in yaml.safe_load(path.read_text(encoding="utf-8")):
            better, worse = (_list(entry.pop(side)) for side in ("better", "worse"))
            found += [Claim(better=a, worse=b, **entry) for a in better for b in worse if a != b]
        return found
    except (OSError, yaml.YAMLError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"claims {path}: {' '.join(str(error).split())}") from None


def all_rows(folder: Path) -> list[Row]:
    """The rows of all boards in a folder."""
    boards: dict[str, list[tuple[Path, Record]]] = defaultdict(list)
    for place, record in board_records(folder):
        boards[record["stream"]["content"]].append((place, record))
    return [row for runs in boards.values() for row in group_runs(runs)]


def find_row(rows: Iterable[Row], stream: str, text: str) -> Row:
    """The one row on a stream that `text` describes. Raises UserError where there is none, or more than one."""
    strategy, *wanted = text.split()
    found = [
        row
        for row in rows
        if row.strategy == strategy and _spec(row)["stream"] == stream and _told(row).issuperset(wanted)
    ]
    if len(found) != 1:
        raise UserError(f"{len(found)} rows on {stream} are {text!r}: {', '.join(row.label for row in found)}")
    return found[0]


def measured(claim: Claim, rows: Sequence[Row]) -> list[str]:
    """The claim's cells. Raises UserError for a row that is not there."""
    better, worse = (find_row(rows, claim.stream, text) for text in (claim.better, claim.worse))
    one_board = _content_hash(better) == _content_hash(worse)
    a, b = ({pair(r) if one_board else pair(r)[1]: v for r, v in _values(row, claim.metric)} for row in (better, worse))
    difference = paired_difference(a, b)
    text = claim.claim + (f" (within {100 * claim.margin:g})" if claim.margin else "")
    shown = f"{claim.better} {_mean(a.values(), better)}; {claim.worse} {_mean(b.values(), worse)}"
    if difference is None:
        return [text, claim.stream, shown, "", "0", "no pair"]
    low = -math.inf if difference.low is None else difference.low
    verdict = "**fails**" if difference.mean <= -claim.margin else "holds clearly" if low > -claim.margin else "holds"
    half = "" if difference.half_width is None else f" ± {100 * difference.half_width:.1f}"
    return [text, claim.stream, shown, f"{100 * difference.mean:+.1f}{half}", str(difference.n), verdict]


def _spec(row: Row) -> dict[str, Any]:
    members = row.runs or row.failures
    spec: dict[str, Any] = members[0][1]["spec"]
    return spec


def _content_hash(row: Row) -> str:
    return str((row.runs or row.failures)[0][1]["stream"]["content"])


def _told(row: Row) -> set[str]:
    values = {**_spec(row)["stream_settings"], **row.all_settings}
    return {f"{key}={plain(value)}" for key, value in values.items()}


def _values(row: Row, metric: str) -> list[tuple[Record, float]]:
    return [(record, v) for _, record in row.runs if (v := metric_value(record, metric)) is not None]


def _mean(values: Iterable[float], row: Row) -> str:
    numbers = list(values)
    lost = f" ({row.diverged} diverged)" if row.diverged else ""
    return f"{100 * math.fsum(numbers) / len(numbers):.1f}{lost}" if numbers else f"diverged ({row.diverged})"


def _list(value: Any) -> list[str]:
    return list(value) if isinstance(value, list) else [value]


def page(suite: str, records: Path | None = None) -> str:
    """The whole of claims.md. records: a folder with other runs of the suite."""
    folder = ROOT / "results" / suite
    if isinstance(_content(suite), dict):
        return evidence.page(suite, folder, records)
    rows = all_rows(records or folder)
    lines = [f"| {' | '.join(measured(claim, rows))} |" for claim in read_claims(folder / "claims.yaml")]
    return HEAD.format(suite=suite) + "\n".join(lines) + "\n"


def documents(suite: str, text: str) -> dict[Path, str]:
    """The pages elsewhere that show the verdicts of a claims.md, and what they say with them."""
    content = _content(suite)
    place = content.get("page") if isinstance(content, dict) else None
    if place is None:
        return {}
    return {ROOT / place: evidence.with_table((ROOT / place).read_text(encoding="utf-8"), evidence.table_of(text))}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("suite", help="a published suite: a folder beside this file")
    parser.add_argument("--records", type=Path, help="a folder with other runs of it: the page is printed, not written")
    arguments = parser.parse_args()
    suite = arguments.suite
    try:
        text = page(suite, arguments.records)
        if arguments.records:
            sys.stdout.write(text)
            return 0
        written = {ROOT / "results" / suite / "claims.md": text, **documents(suite, text)}
    except UserError as error:
        sys.stderr.write(f"claims: {error}\n")
        return 2
    for path, content in written.items():
        path.write_text(content, encoding="utf-8")
    return 0


def _content(suite: str) -> Any:
    """What a claims.yaml holds. Raises UserError where it cannot be read."""
    path = ROOT / "results" / suite / "claims.yaml"
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"claims {path}: {' '.join(str(error).split())}") from None


if __name__ == "__main__":
    sys.exit(main())
