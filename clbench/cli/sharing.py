"""`clbench export` and `clbench import`: which runs go into an archive, and what is said about those that come."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from clbench.board_records import board_records
from clbench.cli.text import print_json, print_lines, size
from clbench.errors import UserError, did_you_mean
from clbench.selection import ROW, names_a_row, select_rows, select_runs
from clbench.sharing.export import export_runs
from clbench.sharing.importing import import_archive

SHOWN = 5


@dataclass(frozen=True)
class Chosen:
    """What is exported: named runs and rows, all of some streams, or everything."""

    texts: list[str]
    board: list[str]
    everything: bool


def export_command(chosen: Chosen, archive: Path, with_source: bool, as_json: bool, results: Path) -> None:
    """Write the archive and say what is in it."""
    folders = chosen_runs(chosen, results)
    done = export_runs(folders, archive, with_source)
    if as_json:
        print_json({"archive": str(archive), "runs": done.runs, "bytes": done.bytes, "hidden": done.hidden})
        return
    print_lines([f"{archive}: {done.runs} runs, {size(done.bytes)}"])
    print_lines(["in it: records, configurations, evaluation tables; no weights, checkpoints or logs"])
    for place, count in list(done.hidden.items())[:SHOWN]:
        print_lines([f"folders taken out of {place} ({count} runs)"])


def chosen_runs(chosen: Chosen, results: Path) -> list[Path]:
    """Folders of finished runs, diverged ones too. Raises UserError where nothing is named, or nothing found."""
    if not (chosen.texts or chosen.board or chosen.everything):
        raise UserError("nothing is named: clbench export RUN... or STRATEGY@STREAM, --board STREAM, or --all")
    rows = [text for text in chosen.texts if names_a_row(text)]
    found = dict.fromkeys(select_runs([text for text in chosen.texts if text not in rows], results))
    if not (rows or chosen.board or chosen.everything):
        return list(found)
    places = [
        (record["strategy"].get("name"), record["stream"].get("name"), folder)
        for folder, record in board_records(results)
    ]
    for text in rows:
        if "," in text:  # one group of settings
            groups = select_rows(text, results, lambda line: None)
            found |= dict.fromkeys(folder for row in groups for folder, _ in [*row.runs, *row.failures])
            continue
        strategy, _, stream = text.partition(ROW)
        found |= dict.fromkeys(_fitting(text, [f for a, b, f in places if (a, b) == (strategy, stream)], places))
    for stream in chosen.board:
        found |= dict.fromkeys(_fitting(stream, [f for _, b, f in places if b == stream], places))
    if chosen.everything:
        if not places:
            raise UserError(f"no finished runs in {results / 'runs'}")
        found |= dict.fromkeys(folder for _, _, folder in places)
    return list(found)


def _fitting(text: str, folders: list[Path], places: list[tuple[str, str, Path]]) -> list[Path]:
    if folders:
        return folders
    known = {f"{a}{ROW}{b}" for a, b, _ in places} if ROW in text else {str(b) for _, b, _ in places}
    raise UserError(f"no finished runs of {text!r}{did_you_mean(text, known)}")


def import_command(archive: Path, out: Path, partial: bool, as_json: bool) -> None:
    """Add the archive's runs and say which."""
    done = import_archive(archive, out, partial)
    for line in done.refused:
        sys.stderr.write(f"clbench: not taken: {line}\n")
    if as_json:
        added, known = ([str(folder) for folder in folders] for folders in (done.added, done.known))
        print_json({"added": added, "known": known, "refused": done.refused})
        return
    for folder in done.added:
        print_lines([f"added    {folder}"])
    here = f", {len(done.known)} were here already" if done.known else ""
    print_lines([f"{len(done.added)} runs added as unverified{here}"])
    if done.added:
        place = "" if out == Path("results") else f" --results {out}"
        print_lines([f"next     clbench verify --board{place}", f"         clbench leaderboard{place}"])
