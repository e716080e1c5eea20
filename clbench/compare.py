"""Comparing runs of one stream: their metrics side by side, and what differs where the same seeds were used."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from clbench.block_losses import FILE, PairedDifference, pooled_difference
from clbench.errors import UserError
from clbench.leaderboard import COSTS, Row, is_whole, mark_differences, metric_keys, metric_value, pair, row_settings
from clbench.metrics.definitions import COUNT, DEFINITIONS, base_key
from clbench.record import Record, read_record
from clbench.seal import broken_seal
from clbench.statistics import Difference, holm, paired_difference

MODEL = ("backbone", "head", "tune", "budget")


@dataclass
class Comparison:
    """Groups of runs (one for each strategy and its settings) and every metric that any of them has.

    differences[i][key]: group i minus group 0 over the runs with equal (order hash, run seed), None where no run pairs;
    its p_holm is corrected for the comparisons with group 0 in that metric. blocks[i][eval_set]: the same pairs' loss
    after the last task, block by block (`clbench.block_losses`); empty where a run of them kept
    no losses, without sets that cannot be paired.
    """

    stream: dict[str, Any]
    groups: list[Row]
    labels: list[str]
    metrics: list[str]
    differences: list[dict[str, Difference | None]]
    blocks: list[dict[str, PairedDifference]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        keys = [*self.metrics, *COSTS]
        of_blocks: list[dict[str, PairedDifference]] = self.blocks or [{} for _ in self.groups]
        return {
            "stream": {key: self.stream[key] for key in ("name", "content", "objective", "primary", "direction")},
            "groups": [
                {
                    "label": label,
                    "strategy": row.strategy,
                    "settings": row.settings,
                    "runs": [str(folder) for folder, _ in row.runs],
                    "metrics": {key: row.value(key).as_dict() for key in keys},
                    "difference_to_first": {k: None if d is None else d.as_dict() for k, d in differences.items()},
                    "block_difference_to_first": {name: found.as_dict() for name, found in blocks.items()},
                }
                for label, row, differences, blocks in zip(
                    self.labels, self.groups, self.differences, of_blocks, strict=True
                )
            ],
        }


def compare(folders: Sequence[Path], least: int = 2) -> Comparison:
    """Group and pair the runs in these folders, in the order given.

    Raises UserError for fewer than `least` runs, a run that is not completed or was edited, or runs of different
    data.
    """
    folders = list(dict.fromkeys(Path(folder) for folder in folders))
    if len(folders) < least:
        raise UserError("compare needs two runs or more (`clbench runs list`)")
    runs = [(folder, read_record(folder)) for folder in folders]
    for folder, record in runs:
        if record.get("status") != "completed":
            raise UserError(f"{folder} is {record.get('status')}: only completed runs are compared")
        if broken := broken_seal(folder, record):
            raise UserError(f"not compared: {broken}")
        if not is_whole(record):
            raise UserError(f"{folder / 'record.json'} lacks a part of a finished record (`clbench verify {folder}`)")
    _check_same_data(runs)
    groups = _group(runs)
    metrics = [key for key in metric_keys(record for _, record in runs) if _worth_showing(key, runs)]
    differences = [_differences(group, groups[0], metrics) for group in groups]
    for key in metrics:
        _correct(differences[1:], key)
    blocks = [_blocks(group, groups[0]) for group in groups]
    return Comparison(runs[0][1]["stream"], groups, _labels(groups), metrics, differences, blocks)


def _group(runs: Sequence[tuple[Path, Record]]) -> list[Row]:
    """Runs of one strategy, source, model and settings together; none is left out: repeats of a seed stand apart."""
    groups: dict[str, Row] = {}
    for folder, record in runs:
        strategy, spec = record["strategy"], record["spec"]
        settings = {
            **row_settings(record),
            **{key: spec[key] for key in MODEL},
            "source": strategy["source_hash"][:8],
        }
        repeat = 0
        while True:
            row = groups.setdefault(
                json.dumps([settings, repeat], sort_keys=True),
                Row(strategy["name"], strategy["summary"], settings, strategy["needs"], spec["chosen_on"], []),
            )
            if pair(record) not in row.seeds:
                break
            repeat += 1
        row.runs.append((folder, record))
    rows = list(groups.values())
    mark_differences(rows)
    return rows


def _labels(groups: Sequence[Row]) -> list[str]:
    """One for each group; where two would be equal, with the id of the group's first run."""
    labels = [group.label for group in groups]
    return [
        f"{label} {group.runs[0][0].name}" if labels.count(label) > 1 else label
        for label, group in zip(labels, groups, strict=True)
    ]


def _check_same_data(runs: Sequence[tuple[Path, Record]]) -> None:
    first_folder, first = runs[0]
    for folder, record in runs[1:]:
        for key, what in (("name", "stream"), ("content", "data")):
            if record["stream"][key] != first["stream"][key]:
                here, there = str(record["stream"][key])[:40], str(first["stream"][key])[:40]
                raise UserError(f"{folder} has another {what} ({here}) than {first_folder} ({there}): not comparable")


def _differences(group: Row, reference: Row, metrics: Sequence[str]) -> dict[str, Difference | None]:
    if group is reference:
        return {}
    return {key: paired_difference(_by_pair(group, key), _by_pair(reference, key)) for key in metrics}


def _blocks(group: Row, reference: Row) -> dict[str, PairedDifference]:
    here, there = ({pair(record): folder for folder, record in row.runs} for row in (group, reference))
    pairs = [(folder, there[seeds]) for seeds, folder in here.items() if seeds in there]
    kept = all((folder / FILE).is_file() for both in pairs for folder in both)
    if group is reference or not pairs or not kept:
        return {}
    found = {}
    for name in (of_set["name"] for of_set in group.runs[0][1]["stream"]["eval_sets"]):
        with suppress(UserError):
            found[name] = pooled_difference(pairs, name)
    return found


def _correct(differences: Sequence[dict[str, Difference | None]], key: str) -> None:
    """Holm's correction for the comparisons of all groups with the first, in one metric."""
    tested = [of_group for of_group in differences if (found := of_group[key]) and found.p is not None]
    corrected = holm([found.p for of_group in tested if (found := of_group[key]) and found.p is not None])
    for of_group, p in zip(tested, corrected.tolist(), strict=True):
        if found := of_group[key]:
            of_group[key] = replace(found, p_holm=p)


def _by_pair(group: Row, key: str) -> dict[Any, float]:
    found = {seeds: metric_value(record, key) for seeds, record in group.seeds.items()}
    return {seeds: value for seeds, value in found.items() if value is not None}


def _worth_showing(key: str, runs: Sequence[tuple[Path, Record]]) -> bool:
    counted = base_key(key) in DEFINITIONS and DEFINITIONS[base_key(key)].sign == COUNT
    return not counted and any(metric_value(record, key) is not None for _, record in runs)
