"""Reference runs: made once, found again, resumed, and what a run is worth against them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clbench.cli.references import ROLES
from clbench.errors import UserError
from clbench.record import read_record
from clbench.references import Role, find_references, reference_spec, spec_of, tokens_per_step
from clbench.runs import run_folders

Cli = Callable[..., Any]
STREAM = [
    "text-shift", "--set", "domains=prose,cipher", "--set", "tokens=1280",
    "--set", "context=16", "--set", "eval_blocks=8",
]  # fmt: skip
HOW = ["--backbone", "byte-gpt?d=16,layers=1,ctx=16", "--set", "lr=0.01", "--threads", "1", "--no-tracking", "--quiet"]


def train(cli: Cli, strategy: str = "finetune", *more: str) -> Path:
    done = cli("run", strategy, *STREAM, *HOW, "--json", *more)
    assert done.code == 0, done.err
    return Path(done.json()["path"])


def states(folder: Path) -> dict[str, str]:
    found = find_references(folder, ROLES, Path("results"))
    return {one.role.name: one.state for one in found}


def test_made_once_then_found(cli: Cli) -> None:
    run = train(cli)
    before = (run / "record.json").read_bytes()
    looked = cli("references", run, "--no-run", "--json")
    assert looked.code == 0
    assert {r["state"] for r in looked.json()["runs"][0]["references"].values()} == {"missing"}
    assert len(run_folders(Path("results"))) == 1

    made = cli("references", run, "--quiet", "--no-tracking", "--json")
    assert made.code == 0, made.err
    (found,) = made.json()["runs"]
    assert {role: r["state"] for role, r in found["references"].items()} == dict.fromkeys(
        ("joint", "scratch", "frozen", "control"), "found"
    )
    assert len(run_folders(Path("results"))) == 5
    assert json.loads((run / "references.json").read_text()) == {k: v for k, v in found.items() if k != "path"}
    assert (run / "record.json").read_bytes() == before

    records = {role: read_record(Path(r["path"])) for role, r in found["references"].items()}
    own = read_record(run)
    joint = sum(records["joint"]["metrics"]["matrix"]["rows"][-1]) / 2
    last = sum(own["metrics"]["matrix"]["rows"][-1]) / 2
    assert found["union_gap"] == pytest.approx(last - joint)
    diagonal = [r["metrics"]["matrix"]["rows"][1][1] for r in (own, records["scratch"])]
    assert found["learning_gap"] == pytest.approx(diagonal[0] - diagonal[1])
    # Frozen is the run after its first task, so nothing is transferred to the second one by the time it begins.
    assert found["forward_transfer_frozen"] == 0.0
    depth = {name: r["metrics"]["gap"][0]["depth"] for name, r in (("run", own), ("control", records["control"]))}
    assert found["depth_shift"] == pytest.approx(depth["run"] - depth["control"])
    assert found["tokens_per_step"] == 8 * 16 == tokens_per_step(own)

    again = cli("references", "finetune@text-shift")  # a row, in which the control stands as well
    assert again.code == 0 and again.err == "" and "union_gap" in again.out
    assert len(run_folders(Path("results"))) == 5
    both = cli("references", run, records["joint"]["run"], "--no-run")
    assert both.code == 0 and "on the frontier" in both.out and "restricted mean" in both.out
    assert cli("show", "metric", "depth_shift").out.startswith("depth_shift (version 1)")
    baseline = cli("references", run, "--no-run", "--baseline", records["frozen"]["run"], "--json").json()["runs"][0]
    assert baseline["forgetting_saved"] == pytest.approx(-own["metrics"]["forgetting_signed"])
    assert baseline["new_domain_cost"] < 0
    assert baseline["undefined"]["replay_efficiency"].endswith("or none were")


@pytest.mark.slow
def test_a_stopped_reference_is_taken_up_again(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from clbench.engine.session import Session

    run = train(cli)
    stepped = Session.stepped

    def stop(self: Session, batch: Any) -> None:
        stepped(self, batch)
        self.interrupted = self.step == 7

    monkeypatch.setattr(Session, "stepped", stop)
    stopped = cli("references", run, "--quiet", "--no-tracking")
    assert stopped.code == 130 and "continue with: clbench references" in stopped.err
    monkeypatch.setattr(Session, "stepped", stepped)
    assert states(run) == {"joint": "resumable", "scratch": "missing", "frozen": "missing", "control": "missing"}
    assert cli("references", run, "--quiet", "--no-tracking").code == 0
    assert set(states(run).values()) == {"found"}
    assert len(run_folders(Path("results"))) == 5


def test_only_a_run_of_equal_settings_is_a_reference(cli: Cli) -> None:
    run = train(cli)
    train(cli, "frozen", "--seed", "1")
    train(cli, "frozen", "--set", "lr=0.02")
    train(cli, "frozen", "--set", "tokens=2560")
    assert states(run)["frozen"] == "missing"
    train(cli, "frozen", "--eval-grid", "none")  # what is evaluated on the way is not the run's training
    assert states(run)["frozen"] == "found"
    settings = {"lr": "2e-2"}
    (other,) = find_references(run, [role for role in ROLES if role.name == "frozen"], Path("results"), settings)
    assert other.state == "found" and read_record(other.folder or run)["spec"]["strategy_settings"]["lr"] == 0.02


def test_what_cannot_be_a_reference_says_why(cli: Cli, small_run: Callable[..., Any]) -> None:
    run = train(cli, "joint")
    spec = spec_of(run)
    with pytest.raises(UserError, match="is this reference itself"):
        reference_spec(spec, Role("joint", strategy="joint"))
    control = Role("control", stream_settings={"no_shift": True})
    with pytest.raises(UserError, match="its own control"):
        reference_spec(reference_spec(spec, control), control)
    with pytest.raises(UserError, match="no setting 'warmth'"):
        reference_spec(spec, Role("frozen", strategy="frozen"), {"warmth": 1})
    digits = spec_of(Path(small_run("finetune", "--json").json()["path"]))
    with pytest.raises(UserError, match="stream split-digits has no setting no_shift"):
        reference_spec(digits, control)


def test_settings_of_training_are_the_runs_and_no_others(cli: Cli) -> None:
    run = train(cli, "replay", "--set", "memory_size=10", "--set", "optimizer_state=keep")
    scratch = reference_spec(spec_of(run), Role("scratch", strategy="scratch"))
    assert scratch.strategy_settings["lr"] == 0.01
    assert scratch.strategy_settings["optimizer_state"] == "keep"
    assert "memory_size" not in scratch.strategy_settings


def test_mistakes_are_one_line(cli: Cli) -> None:
    assert "no run" in cli("references", "nonsense").error()
    run = train(cli)
    assert "--horizon is 0" in cli("references", run, "--horizon", "0").error()
    assert "write KEY=VALUE" in cli("references", run, "--set", "lr").error()
    assert "equal data and seed" in cli("references", run, "--baseline", run, "--baseline", train(cli)).error()
    other = train(cli, "finetune", "--set", "eval_blocks=4")
    assert "has another data than" in cli("references", run, other).error()
    record = json.loads((run / "record.json").read_text())
    (run / "record.json").write_text(json.dumps(record | {"status": "interrupted"}))
    assert "only finished runs are judged" in cli("references", run, "--no-run").error()
