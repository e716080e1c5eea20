"""What stands behind a row: how to repeat it, its fingerprints, environment, settings, warnings and runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from clbench.board_records import last_verdict
from clbench.leaderboard import Row
from clbench.page.text import clean
from clbench.record import Record

MOST_WARNINGS = 20
MOST_VALUES = 12
SPEC = ("backbone", "head", "tune", "eval_grid", "precision", "compile", "channels_last", "budget", "chosen_on")
ENVIRONMENT = ("device", "gpu", "processor", "threads", "precision", "channels_last", "compile", "python", "platform")
PRINTS = {
    "data (content)": ("stream", "content"),
    "task order": ("stream", "order"),
    "specification": ("spec_hash",),
    "strategy source": ("strategy", "source_hash"),
    "stream source": ("stream", "source_hash"),
    "initial weights": ("model", "weights_sha256"),
    "final state": ("state_hash",),
}
OF_RUNS = ("task order", "specification", "initial weights", "final state")
SHOWN = 16  # characters of a fingerprint that differs from run to run
DIFFERS = "differs from run to run"
Facts = list[list[str]]


def row_details(row: Row) -> dict[str, Any]:
    """For JSON: lists of [name, value] pairs; values that differ between runs are all named, with their counts."""
    records = [record for _, record in row.runs or row.failures]
    of_runs = [name for name in OF_RUNS if len({_print(record, name) for record in records}) > 1]
    return {
        "commands": [clean(command, 20_000) for command in _commands(records)],
        "prints": _fingerprints(records, f"{DIFFERS}: see below" if row.runs else DIFFERS),
        "environment": _environment(records),
        "settings": _settings(records),
        "warnings": _warnings(records),
        "of_runs": of_runs,
        "runs": [_run(record, of_runs) for record in sorted((r for _, r in row.runs), key=_place)],
        "failed": [_failure(record) for _, record in row.failures],
    }


def _commands(records: Sequence[Record]) -> list[str]:
    from clbench.command import repeat_commands

    return repeat_commands(records)


def _fingerprints(records: Sequence[Record], several: str) -> Facts:
    """Those that all runs share; of the others `several`."""
    found = {name: {value for record in records if (value := _print(record, name))} for name in PRINTS}
    return [
        [name, clean(next(iter(values)), 200) if len(values) == 1 else several]
        for name, values in found.items()
        if values
    ]


def _print(record: Record, name: str) -> str:
    value: Any = record
    for key in PRINTS[name]:
        value = (value or {}).get(key)
    return value if isinstance(value, str) else ""


def _environment(records: Sequence[Record]) -> Facts:
    places = [record["environment"] for record in records]
    packages = sorted({name for place in places for name in place["versions"]})
    return [
        *_facts({name.replace("_", " "): [place.get(name) for place in places] for name in ENVIRONMENT}),
        *_facts({name: [place["versions"].get(name) for place in places] for name in packages}),
    ]


def _settings(records: Sequence[Record]) -> dict[str, Facts]:
    specs = [record["spec"] for record in records]
    groups = {}
    for title, part in (("strategy", "strategy_settings"), ("stream", "stream_settings")):
        names = {name: None for spec in specs for name in spec[part]}
        groups[title] = _facts({name: [spec[part].get(name) for spec in specs] for name in names}, empty="null")
    groups["run"] = _facts({name.replace("_", " "): [spec.get(name) for spec in specs] for name in SPEC}, empty="null")
    return groups


def _warnings(records: Sequence[Record]) -> list[str]:
    """Each once, with the number of runs where there are several."""
    counts: dict[str, int] = {}
    for record in records:
        for text in dict.fromkeys(clean(warning, 1000) for warning in record["warnings"]):
            counts[text] = counts.get(text, 0) + 1
    texts = [
        text + (f" ({count} of {len(records)} runs)" if len(records) > 1 else "") for text, count in counts.items()
    ]
    more = len(texts) - MOST_WARNINGS
    return texts[:MOST_WARNINGS] + ([f"and {more} more (see the records)"] if more > 0 else [])


def _place(record: Record) -> tuple[int, int]:
    return record["spec"]["order_seed"], record["spec"]["seed"]


def _run(record: Record, prints: Sequence[str]) -> dict[str, Any]:
    average = record["metrics"].get("average")
    return {
        "run": clean(record["run"], 120),
        "order_seed": record["spec"]["order_seed"],
        "seed": record["spec"]["seed"],
        "average": average if isinstance(average, (int, float)) else None,
        "finished": clean(record["finished"] or "", 40),
        "prints": [clean(_print(record, name)[:SHOWN]) for name in prints],
        "standing": _standing(record),
    }


def _failure(record: Record) -> dict[str, Any]:
    return {
        "run": clean(record["run"], 120),
        "order_seed": record["spec"]["order_seed"],
        "seed": record["spec"]["seed"],
        "error": clean(record["error"] or "", 400),
    }


def _standing(record: Record) -> str:
    """What is known of a run beyond its record: the verdict of its latest repetition, and whether it was imported."""
    verdict = last_verdict(record)
    parts = ["imported"] if record.get("origin") else []
    return clean(", ".join([*parts, verdict] if verdict else parts), 80)


def _facts(found: dict[str, list[Any]], empty: str = "") -> Facts:
    """[name, value] pairs; a value that no run has is `empty`, or left out where that is."""
    facts = [[clean(name, 80), _agreed(values) or empty] for name, values in found.items()]
    return [fact for fact in facts if fact[1]]


def _agreed(values: Sequence[Any]) -> str:
    """The value all runs share; else each value with its number of runs. Empty where no run has one."""
    if values and values.count(values[0]) == len(values) and not isinstance(values[0], (bool, int, float)):
        values = values[:1]  # the common case, without writing JSON for every run
    counts: dict[str, int] = {}
    for value in values:
        if value is not None:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            counts[text] = counts.get(text, 0) + 1
    if len(counts) <= 1:
        return clean(next(iter(counts), ""), 2000)
    shown = [clean(text, 200) + (f" ({n} runs)" if n > 1 else "") for text, n in list(counts.items())[:MOST_VALUES]]
    more = len(counts) - MOST_VALUES
    return ", ".join(shown) + (f", and {more} more" if more > 0 else "")
