"""Boards for the page: real runs, and copies of them with names, numbers and texts changed."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clbench.leaderboard import Board, make_boards

HOSTILE = "</script><img src=x onerror=alert(1)>\"'`&lt;{{7*7}}${8*8}\u202egnp.exe\u2028\u0000\ud800<!--"
Run = tuple[Path, dict[str, Any]]


def changed(run: Run, /, **leaves: Any) -> Run:
    """A copy of a run with some leaves of its record changed: changed(run, **{"spec.seed": 3})."""
    record = copy.deepcopy(run[1])
    for path, value in leaves.items():
        *parents, last = path.split(".")
        place = record
        for parent in parents:
            place = place[parent]
        place[last] = value
    return run[0], record


@pytest.fixture(scope="session")
def real_runs(finished_results: Path) -> list[Run]:
    """(folder, record) of the finished runs, finetune first."""
    folders = sorted(finished_results.glob("runs/*/*/*"))
    return [(folder, json.loads((folder / "record.json").read_text())) for folder in folders]


@pytest.fixture(scope="session")
def hostile_runs(real_runs: list[Run], tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """A strategy and a stream whose every text is an attack; its table has hostile names of sets, too."""
    from clbench.table import EvaluationTable, Row

    folder = tmp_path_factory.mktemp("hostile") / "runs" / "s" / "x" / "20260101-000000-abcdef01"
    folder.mkdir(parents=True)
    name = HOSTILE.replace("\ud800", "").replace("\u0000", "")
    rows = [Row(step, int(step > 5), f"{name}{task}", 0.5, 8, task) for step in (5, 10) for task in (0, 1)]
    EvaluationTable(rows).write(folder / "evaluations.parquet")
    leaves: dict[str, Any] = {
        "spec.strategy": HOSTILE,
        "strategy.name": HOSTILE,
        "strategy.summary": HOSTILE,
        "stream.name": HOSTILE,
        "stream.notes": HOSTILE,
        "stream.primary": HOSTILE,
        "stream.content": HOSTILE,
        "spec.backbone": HOSTILE,
        "model.spec": HOSTILE,
        "warnings": [HOSTILE, HOSTILE * 100],
        "spec.stream": f"./{HOSTILE}.py:Evil",
        "environment.processor": HOSTILE,
        "run": HOSTILE,
    }
    runs = []
    for seed, value in enumerate((HOSTILE, "plain", [HOSTILE])):
        settings = {HOSTILE: value, "lr": seed}
        runs.append(changed((folder, real_runs[0][1]), **leaves, **{"spec.strategy_settings": settings}))
    return runs


@pytest.fixture(scope="session")
def many_runs(real_runs: list[Run], hostile_runs: list[Run]) -> list[Run]:
    """Five boards: digits with ten rows (one with a diverged run, a verified, an imported one), and a single run."""
    finetune = next(run for run in real_runs if run[1]["strategy"]["name"] == "finetune")
    runs = list(real_runs)
    for i in range(7):
        for seed in range(3):
            leaves: dict[str, Any] = {"spec.seed": seed, "spec.strategy_settings": {"lr": 0.1 * (i + 1)}}
            leaves |= {"spec.strategy": "ewc", "strategy.name": "ewc", "run": f"20260101-0000{i}{seed}-abcdef01"}
            leaves |= {"metrics.average": 0.3 + 0.05 * i + 0.01 * seed, "cost.seconds_train": 2.0**i}
            leaves |= {"strategy.needs": finetune[1]["strategy"]["needs"] | {"stores_samples": i % 2 == 0}}
            runs.append(changed(finetune, **leaves))
    stamp = {"verdict": "identical", "when": "2026-01-01T00:00:00Z"}
    runs[-1] = changed(runs[-1], verification=[stamp])
    runs.append(changed(runs[-2], **{"spec.seed": 9, "status": "diverged", "error": "the loss is NaN at step 3"}))
    lower = {"stream.name": "prose", "stream.direction": "lower", "stream.primary": "nats", "metrics.average": -2.5}
    runs.append(changed(finetune, **lower, **{"spec.budget": {"steps": 60}}))
    runs.append(changed(finetune, **{"spec.chosen_on": "test"}))
    return runs + hostile_runs


@pytest.fixture(scope="session")
def many_boards(many_runs: list[Run]) -> list[Board]:
    return make_boards(many_runs)


@pytest.fixture
def alter() -> Callable[..., Run]:
    return changed


@pytest.fixture
def data_of() -> Callable[[str], list[dict[str, Any]]]:
    """The embedded data of a page's boards."""

    def read(html: str) -> list[dict[str, Any]]:
        parts = html.split('<script type="application/json">')[1:]
        return [json.loads(part.split("</script>")[0]) for part in parts]

    return read
