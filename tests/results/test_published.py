"""The published boards are what their records say, and their records are what their tables say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.testing import CliRunner

from clbench.cli.app import app
from clbench.errors import UserError
from clbench.record import read_record
from clbench.runs import run_folders
from clbench.seal import broken_seal
from clbench.verify import record_faults

RESULTS = Path(__file__).parents[2] / "results"
PUBLISHED = RESULTS / "published"
VISION = RESULTS / "vision-cpu"
CPT = RESULTS / "cpt-cpu"
PAIRS = RESULTS / "multimodal-cpu"
needs_cpt = pytest.mark.skipif(
    not (CPT / "runs").is_dir(), reason="results/cpt-cpu/runs is not there: python results/publish.py cpt-cpu"
)
needs_pairs = pytest.mark.skipif(
    not (PAIRS / "runs").is_dir(),
    reason="results/multimodal-cpu/runs is not there: python results/publish.py multimodal-cpu",
)
BOARDS = [
    pytest.param(PUBLISHED, id="published"),
    pytest.param(VISION, id="vision-cpu"),
    pytest.param(CPT, id="cpt-cpu", marks=needs_cpt),
    pytest.param(PAIRS, id="multimodal-cpu", marks=needs_pairs),
]
EVIDENCE = BOARDS[2:]
FOLDERS = run_folders(PUBLISHED)
ALL = [*FOLDERS, *run_folders(VISION), *run_folders(CPT), *run_folders(PAIRS)]
EACH = 12  # by default one record of so many is looked at in full

TINY = """
name: tiny-published
runs:
  - strategies: [finetune, replay, ewc]
    stream: split-digits
    backbone: mlp
    seeds: 0-2
  - strategy: nmc
    stream: split-digits
    backbone: pixels
    seeds: 0-2
"""


def test_there_are_three_seeds_and_more_of_every_row() -> None:
    rows = json.loads((PUBLISHED / "leaderboard.json").read_text(encoding="utf-8"))
    assert {row["stream"] for row in rows} >= {"split-digits", "split-cifar10", "split-cifar100", "text-shift"}
    for row in rows:
        seeds = {read_record(PUBLISHED.parents[1] / folder)["spec"]["seed"] for folder in row["runs"]}
        assert len(seeds) >= 3 or row["diverged"], row["strategy"]


def test_the_vision_board_has_two_seeds_and_more_of_every_row() -> None:
    rows = json.loads((VISION / "leaderboard.json").read_text(encoding="utf-8"))
    assert {row["stream"] for row in rows} == {"split-cifar100", "split-cifar10", "domains", "permuted-digits"}
    assert all(len(row["runs"]) >= 2 or row["diverged"] for row in rows)


@pytest.mark.parametrize("board", BOARDS)
def test_no_record_was_edited(board: Path) -> None:
    folders = run_folders(board)
    assert folders
    assert [fault for folder in folders if (fault := broken_seal(folder, read_record(folder)))] == []


@needs_cpt
def test_the_language_models_have_three_seeds_of_every_row() -> None:
    rows = json.loads((CPT / "leaderboard.json").read_text(encoding="utf-8"))
    assert {row["stream"] for row in rows} == {"text-weak", "text-strong", "text-three", "tiny-months"}
    assert all(len(row["runs"]) >= 3 or row["diverged"] for row in rows)


@needs_pairs
def test_image_text_models_have_three_orders_of_every_row_but_all_at_once() -> None:
    rows = json.loads((PAIRS / "leaderboard.json").read_text(encoding="utf-8"))
    assert {row["stream"] for row in rows} == {"fomo-mini"}
    assert [len(row["runs"]) for row in rows if not row["diverged"]].count(1) == 1
    assert all(len(row["runs"]) in (1, 3) or row["diverged"] for row in rows)


@pytest.mark.parametrize("board", BOARDS[1:])
def test_the_claims_page_follows_from_the_records(claims: ModuleType, board: Path) -> None:
    suite = board.name
    written = (board / "claims.md").read_text(encoding="utf-8")
    made = claims.page(suite)
    assert written == made, f"run: python results/claims.py {suite}"
    for path, text in claims.documents(suite, made).items():
        assert path.read_text(encoding="utf-8") == text, f"run: python results/claims.py {suite}"


@pytest.mark.parametrize("board", EVIDENCE)
def test_every_run_that_a_claim_names_is_there(script: Callable[[str], ModuleType], board: Path) -> None:
    evidence = script("evidence")
    described, stated = evidence.read(board / "claims.yaml")
    found = evidence.gather(described, board)
    assert not found.missing
    named = {name for claim in stated for rule in (*claim.holds, *claim.beside) for name in found.used(rule)}
    assert named == set(described)


@needs_cpt
def test_verdicts_on_language_models_are_those_of_plain_arithmetic(script: Callable[[str], ModuleType]) -> None:
    evidence, inequalities = script("evidence"), script("inequalities")
    described, stated = evidence.read(CPT / "claims.yaml")
    found = evidence.gather(described, CPT)
    rule = next(claim for claim in stated if claim.id == "C7").holds[1]
    outcome = found.outcome(rule)
    lost: dict[float, dict[int, float]] = {0.0: {}, 0.05: {}}
    for folder in run_folders(CPT):
        spec = (record := read_record(folder))["spec"]
        share = spec["strategy_settings"].get("share")
        if spec["strategy"] == "replay" and spec["stream"] == "text-strong" and share in lost:
            before, after = (row[0] for row in record["metrics"]["matrix"]["rows"])
            lost[share][spec["seed"]] = after - before
    assert rule.text == "forgetting(replay5, english_novels) <= 0.6 * forgetting(replay0, english_novels)"
    assert outcome.seeds == (0, 1, 2)
    assert outcome.margins == pytest.approx([0.6 * lost[0.0][s] - lost[0.05][s] for s in range(3)])
    assert inequalities.judge(outcome).passed == all(lost[0.05][s] <= 0.6 * lost[0.0][s] for s in range(3))


def test_a_claim_holds_or_fails_by_its_margin(claims: ModuleType) -> None:
    rows = claims.all_rows(VISION)
    scores: dict[str, dict[int, float]] = {"slda": {}, "nmc": {}}
    for folder in run_folders(VISION):
        spec = (record := read_record(folder))["spec"]
        if spec["strategy"] in scores and spec["stream"] == "split-cifar100":
            scores[spec["strategy"]][spec["seed"]] = record["metrics"]["average"]
    gain = sum(scores["slda"][seed] - scores["nmc"][seed] for seed in range(3)) / 3
    for better, worse, margin, sign, holds in (
        ("slda", "nmc", 0.0, 1, True),
        ("nmc", "slda", 0.0, -1, False),
        ("nmc", "slda", gain + 0.01, -1, True),
        ("nmc", "slda", gain - 0.01, -1, False),
    ):
        *_, difference, pairs, verdict = claims.measured(
            claims.Claim("one is above the other", "split-cifar100", better, worse, margin=margin), rows
        )
        assert float(difference.split()[0]) == pytest.approx(100 * sign * gain, abs=0.06) and pairs == "3"
        assert verdict.startswith("holds") == holds
    with pytest.raises(UserError, match="2 rows on split-cifar100 are 'slca'"):
        claims.find_row(rows, "split-cifar100", "slca")


@pytest.mark.parametrize(
    "folder",
    [pytest.param(f, marks=() if i % EACH == 0 else pytest.mark.slow, id=f.name) for i, f in enumerate(ALL)],
)
def test_metrics_follow_from_the_table(folder: Path) -> None:
    assert record_faults(folder, read_record(folder)) == []


@pytest.mark.parametrize("board", BOARDS)
def test_the_board_follows_from_the_records(board: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(RESULTS.parent)
    made = CliRunner().invoke(app, ["leaderboard", "--results", f"results/{board.name}", "--json"])
    assert made.exit_code == 0, made.output
    published = json.loads((board / "leaderboard.json").read_text(encoding="utf-8"))
    assert rounded(json.loads(made.stdout)) == rounded(published)


@pytest.mark.slow
def test_a_tiny_board_made_anew_gives_the_published_numbers(tmp_path: Path) -> None:
    suite = tmp_path / "tiny.yaml"
    suite.write_text(TINY, encoding="utf-8")
    done = CliRunner().invoke(app, ["sweep", str(suite), "--out", str(tmp_path), "--quiet", "--no-tracking"])
    assert done.exit_code == 0, done.output
    published = {same_run(record): record for folder in FOLDERS if (record := read_record(folder))}
    made = [read_record(folder) for folder in run_folders(tmp_path)]
    assert len(made) == 12
    for record in made:
        before = published[same_run(record)]
        same = all(record["environment"][key] == before["environment"][key] for key in ("versions", "processor"))
        if same and record["environment"]["threads"] == before["environment"]["threads"]:
            assert record["state_hash"] == before["state_hash"]
        assert record["metrics"]["average"] == pytest.approx(before["metrics"]["average"], abs=0.05)


def same_run(record: dict[str, Any]) -> tuple[Any, ...]:
    """What tells the board's runs apart; their hashes are of the settings that streams had when they were made."""
    spec = record["spec"]
    return spec["strategy"], spec["stream"], spec["backbone"], spec["seed"], spec["order_seed"]


def rounded(value: Any) -> Any:
    """Sums differ in the last digits between processors and versions of numpy."""
    if isinstance(value, float):
        return float(f"{value:.9g}")
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    return [rounded(inner) for inner in value] if isinstance(value, list) else value
