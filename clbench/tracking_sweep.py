"""The process that logs a sweep to MLflow: a parent run, a nested run for each run, figures and boards at the end.

It reads lines of JSON from stdin: {"run": folder} when a run is over, {"end": report} when the sweep is. Where stdin
ends without that, the sweep was killed: the parent run says so, and the next sitting goes on with it.
"""

from __future__ import annotations

import json
import queue
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clbench.errors import ClbenchError
from clbench.record import Record, read_record
from clbench.tracked import allowed_name
from clbench.tracking_store import END_STATES, Store, log_bytes, one_line

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

SWEEP_TAG, RESULTS_TAG = "clbench.sweep", "clbench.results"
MOST_FAILURES = 3  # in a row: then the server is taken for gone
MOST_GROUPS = 16  # in one picture
NOTE = "mlflow.note.content"
LONGEST_NOTE = 5000  # characters


def follow(store: Store, name: str) -> int:
    """Log what stdin says of the sweep `name`; the exit code."""
    sweep = _Sweep(store, name)
    for message in _messages():
        if "run" in message:
            sweep.log(Path(message["run"]))
        if sweep.given_up:
            complain(f"{MOST_FAILURES} failures in a row: no more is logged; the same sweep again does the rest")
            return 1
        if "end" in message:
            sweep.end(message["end"] or {})
            return int(sweep.failed)
    sweep.end({"status": "interrupted"})
    return int(sweep.failed)


def complain(text: str) -> None:
    """A line on stderr, which is the sweep's tracking.log."""
    sys.stderr.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} not logged to MLflow: {text}\n")
    sys.stderr.flush()


class _Sweep:
    """The parent run, found again by its tags, and the runs logged under it."""

    def __init__(self, store: Store, name: str) -> None:
        self.store = store
        self.name = name
        self.folders: dict[Path, None] = {}
        self.failed = False
        self._parent: str | None = None
        self._in_a_row = 0

    @property
    def given_up(self) -> bool:
        return self._in_a_row >= MOST_FAILURES

    def log(self, folder: Path) -> None:
        """Log one run; what goes wrong is one line."""
        try:
            self.store.log(folder, self.name, self.parent(), figures=False)
            self.folders[folder] = None
            self._in_a_row = 0
        except Exception as error:
            self.failed = True
            self._in_a_row += not isinstance(error, ClbenchError)
            complain(f"{folder.name}: {one_line(error)}; the same sweep again logs it")

    def end(self, report: dict[str, Any]) -> None:
        """Figures and boards of the runs that are completed, and the end of the parent run."""
        try:
            parent = self.parent()
            records = {folder: read_record(folder) for folder in sorted(self.folders, key=lambda path: path.name)}
            completed = {folder: r for folder, r in records.items() if r["status"] == "completed"}
            for artifact, content in _artifacts(completed):
                with self.store.alone() as client:
                    log_bytes(client, parent, content, artifact)
                    if artifact == "leaderboard.md":
                        client.set_tag(parent, NOTE, content.decode()[:LONGEST_NOTE])
            with self.store.alone() as client:
                self._close(client, parent, report)
        except Exception as error:
            self.failed = True
            complain(one_line(error))

    def parent(self) -> str:
        """The parent run's id: that of an earlier sitting, or a new one."""
        if self._parent is None:
            tags = {SWEEP_TAG: self.name, RESULTS_TAG: str(self.store.results)}
            with self.store.alone() as client:
                experiment = self.store.experiment(client, self.name)
                query = " and ".join(f"tags.`{key}` = '{_quoted(value)}'" for key, value in tags.items())
                found = client.search_runs([experiment], query, order_by=["attributes.start_time ASC"])
                if found:
                    self._parent = str(found[0].info.run_id)
                    client.update_run(self._parent, status="RUNNING")
                else:
                    run = client.create_run(experiment, tags=tags, run_name=self.name)
                    self._parent = str(run.info.run_id)
        return self._parent

    def _close(self, client: MlflowClient, parent: str, report: dict[str, Any]) -> None:
        for status, count in (report.get("counts") or {}).items():
            client.log_metric(parent, f"runs/{status}", count)
        if isinstance(report.get("seconds"), (int, float)):
            client.log_metric(parent, "sweep/seconds", report["seconds"])
        if report.get("engine"):
            client.set_tag(parent, "engine", str(report["engine"]))
        client.set_terminated(parent, status=END_STATES.get(str(report.get("status", "completed")), "FAILED"))


def _artifacts(records: dict[Path, Record]) -> Iterator[tuple[str, bytes]]:
    """(name, content): the boards as Markdown, JSON and HTML, then figures of each stream and row."""
    if not records:
        return
    yield from _boards(records)
    streams: dict[tuple[str, str], list[Path]] = {}
    for folder, record in records.items():
        streams.setdefault((record["stream"]["name"], record["stream"]["content"]), []).append(folder)
    names = [name for name, _ in streams]
    for (name, content), folders in streams.items():
        place = allowed_name(name if names.count(name) == 1 else f"{name}-{content[:8]}").replace("/", "-")
        try:
            yield from _figures(f"figures/{place}", folders)
        except ClbenchError as error:
            complain(str(error))


def _boards(records: dict[Path, Record]) -> Iterator[tuple[str, bytes]]:
    from clbench.cli.board_formats import json_text, markdown_text
    from clbench.cli.board_text import Shown
    from clbench.leaderboard import make_boards
    from clbench.page.build import page

    boards = make_boards(list(records.items()), warn=complain)
    shown = [Shown(board, board.columns) for board in boards]
    yield "leaderboard.md", markdown_text(shown, "").encode()
    yield "leaderboard.json", json_text(shown, "").encode()
    yield "leaderboard.html", page(boards).encode()


def _figures(place: str, folders: list[Path]) -> Iterator[tuple[str, bytes]]:
    """A comparison of all rows, and a picture of each."""
    from clbench.compare import compare
    from clbench.figures.material import Material
    from clbench.figures.write import overview, render

    found = compare(folders, least=1)
    if 1 < len(found.groups) <= MOST_GROUPS:
        material = Material(found)
        yield f"{place}/comparison.png", render(material, overview(material), "png")
        yield f"{place}/comparison.pdf", render(material, overview(material), "pdf")
    names = [allowed_name(label).replace("/", "-")[:60].strip() for label in found.labels]
    for i, row in enumerate(found.groups):
        material = Material(compare([folder for folder, _ in row.runs], least=1))
        name = names[i] if names.count(names[i]) == 1 else f"{names[i]}-{i + 1}"
        yield f"{place}/{name}.png", render(material, overview(material), "png")


def _messages() -> Iterator[dict[str, Any]]:
    """Lines of stdin, read at once in a thread: the sweep that writes them must never wait."""
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        for line in sys.stdin:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    while (line := lines.get()) is not None:
        if line.strip():
            yield json.loads(line)


def _quoted(value: str) -> str:
    """For MLflow's query language, which has no escapes: a name with both quotes cannot be looked for."""
    return value.replace("'", "")
