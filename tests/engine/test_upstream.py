"""A first task learned elsewhere: the same numbers as learning it, trained once, resumed anywhere, never mixed up."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clbench.errors import UserError
from clbench.launch import resume_run, start_run

Outcome = Callable[[Path], dict[str, Any]]

PLAIN = {"epochs": 1.0, "batch_size": 32, "schedule": "warmup-cosine"}
SHORT = {"steps": 5, "batch_size": 16}
SHARED = {"upstream": "shared", "upstream_settings": PLAIN}


def entry(runs: Any) -> Path:
    """The only entry of the store."""
    found = list((runs.folder / "cache" / "upstream").iterdir())
    assert len(found) == 1
    return found[0]


def boundary(outcome: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for row in outcome["table"] if row["kind"] == "boundary"]


@pytest.mark.oracle("finetune", "starting from a shared upstream of its own settings changes no weight and no score")
@pytest.mark.parametrize(
    ("stream", "fields"),
    [
        ("split-digits", {}),
        pytest.param("split-digits", {"head": "cosine", "backbone": "slim-resnet18?width=4"}, marks=pytest.mark.slow),
        pytest.param(
            "text-shift",
            {"stream_settings": {"tokens": 3000, "context": 16, "eval_blocks": 20}},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_shared_upstream_is_what_the_run_would_have_learned(
    runs: Any, outcome: Outcome, stream: str, fields: dict[str, Any]
) -> None:
    own = outcome(runs.finish("own", runs.spec("finetune", stream, strategy_settings=PLAIN, **fields), every=None))
    spec = runs.spec("finetune", stream, strategy_settings=PLAIN, **SHARED, **fields)
    folder = runs.finish("shared", spec, every=None)
    found = outcome(folder)
    assert found["state"] == own["state"]
    assert boundary(found) == boundary(own)
    assert [row["step"] for row in found["table"]] == sorted(row["step"] for row in found["table"])
    cost = json.loads((folder / "record.json").read_text())["cost"]
    assert cost["steps"] + cost["upstream_steps"] == own["steps"]


@pytest.mark.parametrize("policy", ["keep", pytest.param("keep-moments", marks=pytest.mark.slow)])
def test_the_optimisers_state_goes_over(runs: Any, outcome: Outcome, policy: str) -> None:
    settings = {**PLAIN, "optimizer": "adamw", "lr": 0.003, "optimizer_state": policy}
    own = outcome(runs.finish("own", runs.spec("finetune", strategy_settings=settings), every=None))
    shared = {"upstream": "shared", "upstream_settings": {**PLAIN, "optimizer": "adamw", "lr": 0.003}}
    found = outcome(runs.finish("shared", runs.spec("finetune", strategy_settings=settings, **shared), every=None))
    assert found["state"] == own["state"]


def test_continual_evaluation_costs_a_tenth_of_what_the_run_trains_itself(runs: Any) -> None:
    blocks, scored = 3000, 2
    stream = {"domains": ["prose", "cipher"], "upstream_tokens": 160 * blocks, "tokens": 16 * blocks, "context": 16}
    short = {"upstream": "shared", "upstream_settings": {**PLAIN, "steps": 2}}
    spec = runs.spec("finetune", "text-shift", stream_settings={**stream, "eval_blocks": 64}, **short)
    folder = runs.finish("grid", spec, every=None)
    grid = json.loads((folder / "record.json").read_text())["evaluation"]
    assert 2 < grid["points"] <= 0.1 * 3 * blocks / (scored * grid["subset"])


def test_it_is_trained_once_and_found_again(runs: Any, outcome: Outcome) -> None:
    """By another strategy, on another stream that begins with the same task; not with another seed or rate."""
    first = runs.finish("first", runs.spec("finetune", strategy_settings=SHORT, **SHARED), every=None)
    facts = (entry(runs) / "upstream.json").stat().st_mtime_ns
    others: list[tuple[str, str, dict[str, Any]]] = [
        ("replay", "replay", {}),
        ("tuned", "finetune", {"tune": "head", "eval_grid": "none"}),
        ("other-stream", "ewc", {"stream_settings": {"sizes": [3, 4, 3]}}),
    ]
    for name, strategy, fields in others:
        folder = runs.finish(name, runs.spec(strategy, strategy_settings=SHORT, **SHARED, **fields), every=None)
        records = [json.loads((f / "record.json").read_text()) for f in (first, folder)]
        assert records[0]["upstream"] == records[1]["upstream"]
        assert outcome(folder)["steps"] == outcome(first)["steps"]
    assert (entry(runs) / "upstream.json").stat().st_mtime_ns == facts
    assert not (entry(runs) / "training").exists()
    runs.finish("seed", runs.spec("finetune", strategy_settings=SHORT, seed=1, **SHARED), every=None)
    other = {"upstream": "shared", "upstream_settings": {**PLAIN, "lr": 0.01}}
    runs.finish("rate", runs.spec("finetune", strategy_settings=SHORT, **other), every=None)
    assert len(list((runs.folder / "cache" / "upstream").iterdir())) == 3


def slow(*values: str) -> Any:
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("strategy", "fault"),
    [
        ("everything", "phase:4"),  # while the upstream is trained
        ("replay", "end_task:1"),
        *(slow("everything", fault) for fault in ("initial:1", "begin_task:2", "end_task:1", "phase:13", "phase:19")),
        *(slow("der", fault) for fault in ("phase:4", "phase:13", "end_task:1")),
    ],
)
def test_killed_anywhere_it_resumes_exactly(
    runs: Any, outcome: Outcome, everything: str, strategy: str, fault: str
) -> None:
    name = everything if strategy == "everything" else strategy
    spec = runs.spec(name, strategy_settings=SHORT, **SHARED)
    os.environ["CLBENCH_CACHE"] = str(runs.folder / "whole-cache")
    whole = outcome(runs.finish("whole", spec, every=None))
    os.environ["CLBENCH_CACHE"] = str(runs.folder / "cache")
    folder = runs.finish("killed", spec, fault)
    assert runs.resume(folder) == 0
    assert outcome(folder) == whole


def test_after_the_load_the_store_is_not_needed(runs: Any, outcome: Outcome) -> None:
    spec = runs.spec("replay", strategy_settings=SHORT, **SHARED)
    whole = outcome(runs.finish("whole", spec, every=None))
    folder = runs.finish("killed", spec, "end_task:2")
    for file in entry(runs).glob("upstream.*"):
        file.unlink()
    assert runs.resume(folder) == 0
    assert outcome(folder) == whole
    assert not list(entry(runs).glob("upstream.*"))


@pytest.mark.parametrize("strategy", ["replay", "der"])
def test_a_memory_holds_the_upstreams_samples(runs: Any, strategy: str) -> None:
    """Of the first task only, all of them offered, at random: not the first ones of the data. DER's have the outputs of
    the model that was adopted."""
    import torch

    from clbench.engine.reporter import Reporter
    from clbench.launch import Prepared

    spec = runs.spec(strategy, strategy_settings={**SHORT, "memory_size": 60}, backbone="mlp", **SHARED)
    folder = runs.folder / "session"
    folder.mkdir()
    session = Prepared(spec).session(folder, Reporter(), None)
    session.start()
    task = next(session.remaining_tasks())
    session.begin_task(task)
    memory = session.strategy.state.memory
    if strategy == "der":
        rows = memory.all()
        inputs, _ = session.services.transform(rows.raw, rows.labels, "plain")
        assert torch.allclose(rows.extra["outputs"], session.model.eval()(inputs), atol=1e-5)
    assert len(memory) == 60 and memory.seen == len(task.train)
    assert set(memory.all().labels.tolist()) == set(task.classes)
    first = task.train.raw(torch.arange(60))
    assert not torch.equal(memory.all().raw, first)


@pytest.mark.slow
def test_lora_starts_from_the_whole_upstream(runs: Any, outcome: Outcome) -> None:
    """Adapters wrap the layers before the weights are there; before they are trained they change nothing."""
    text = {"stream_settings": {"tokens": 2000, "context": 16, "eval_blocks": 16}, "strategy_settings": SHORT}
    full = runs.finish("full", runs.spec("finetune", "text-shift", **text, **SHARED), every=None)
    lora = runs.finish("lora", runs.spec("finetune", "text-shift", tune="lora:2", **text, **SHARED), every=None)
    after_first = [
        {
            row["eval_set"]: row["value"]
            for row in boundary(outcome(folder))
            if row["tasks_seen"] == 1 and row["se"] is None
        }
        for folder in (full, lora)
    ]
    assert after_first[0] == pytest.approx(after_first[1], abs=1e-6)


# -- the store -------------------------------------------------------------------------------------------------------


def test_a_damaged_entry_is_trained_again_with_a_warning(runs: Any, outcome: Outcome) -> None:
    spec = runs.spec("finetune", strategy_settings=SHORT, **SHARED)
    whole = outcome(runs.finish("first", spec, every=None))
    file = entry(runs) / "upstream.safetensors"
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(bytes(content))
    folder = runs.finish("second", spec, every=None)
    assert outcome(folder) == whole
    warnings = json.loads((folder / "record.json").read_text())["warnings"]
    assert any("is damaged" in warning for warning in warnings)
    assert file.read_bytes() != bytes(content)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_cache_that_cannot_be_written(runs: Any, outcome: Outcome) -> None:
    _without_a_cache(runs, outcome, lambda cache: cache.mkdir(mode=0o500))


def test_no_cache_at_all(runs: Any, outcome: Outcome) -> None:
    """A file stands where the cache should be: the upstream is trained in the run's folder and removed there."""
    _without_a_cache(runs, outcome, lambda cache: cache.write_text(""))


def _without_a_cache(runs: Any, outcome: Outcome, make: Callable[[Path], Any]) -> None:
    spec = runs.spec("finetune", strategy_settings=SHORT, **SHARED)
    whole = outcome(runs.finish("whole", spec, every=None))
    os.environ["CLBENCH_CACHE"] = str(runs.folder / "no-cache")
    make(runs.folder / "no-cache")
    folder = runs.finish("killed", spec, "phase:4")
    assert (folder / "upstream").is_dir()
    assert runs.resume(folder) == 0
    assert outcome(folder) == whole
    assert not (folder / "upstream").exists()


def test_two_runs_at_once_train_it_once(runs: Any, outcome: Outcome) -> None:
    """The second waits for the lock of the first, and says so."""
    import fcntl

    from clbench.engine.reporter import Reporter

    spec = runs.spec("finetune", strategy_settings=SHORT, **SHARED)
    whole = outcome(runs.finish("first", spec, every=None))
    facts = entry(runs) / "upstream.json"
    hidden = facts.rename(facts.with_name("hidden.json"))  # as if the first were not done yet
    notes: list[str] = []

    class Told(Reporter):
        def note(self, text: str) -> None:
            notes.append(text)

    with (entry(runs) / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = threading.Thread(target=lambda: start_run(spec, runs.folder / "second", Told()))
        second.start()
        while not notes:
            time.sleep(0.01)
        hidden.rename(facts)
        stamp = facts.stat().st_mtime_ns
    second.join()
    assert "waiting for the shared upstream" in notes[0]
    assert facts.stat().st_mtime_ns == stamp
    assert outcome(next((runs.folder / "second").glob("runs/*/*/*"))) == whole


# -- given weights ---------------------------------------------------------------------------------------------------


def test_weights_from_a_file(runs: Any, outcome: Outcome) -> None:
    shared = runs.finish("shared", runs.spec("finetune", strategy_settings=SHORT, **SHARED), every=None)
    spec = runs.spec("finetune", strategy_settings=SHORT, upstream=str(entry(runs)))
    folder = runs.finish("file", spec, every=None)
    assert outcome(folder)["state"] == outcome(shared)["state"]
    assert boundary(outcome(folder)) == boundary(outcome(shared))
    records = [json.loads((f / "record.json").read_text()) for f in (shared, folder)]
    assert records[0]["upstream"]["weights_sha256"] == records[1]["upstream"]["weights_sha256"]
    assert records[1]["spec"]["upstream"] == "upstream.safetensors"
    file = entry(runs) / "upstream.safetensors"
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(UserError, match="holds other weights than those that the run began with"):
        from clbench.spec import make_spec, read_spec_file

        start_run(make_spec(read_spec_file(folder / "config.yaml")), runs.folder / "again")


def test_weights_that_do_not_fit(runs: Any, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    save_file({"other.weight": torch.zeros(2, 2)}, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=r"the model has no backbone\.other\.weight"):
        start_run(runs.spec("finetune", upstream=str(tmp_path / "w.safetensors")), runs.folder / "out")


@pytest.mark.slow
def test_a_given_backbone(runs: Any, outcome: Outcome) -> None:
    """Nothing is trained for task 0; the steps begin with task 1."""
    spec = runs.spec("finetune", strategy_settings=SHORT, upstream="given", backbone="micro-vit")
    folder = runs.finish("given", spec, every=None)
    record = json.loads((folder / "record.json").read_text())
    assert record["upstream"]["kind"] == "given" and record["cost"]["steps"] == 2 * SHORT["steps"]
    assert {row["step"] for row in boundary(outcome(folder)) if row["tasks_seen"] == 1} == {0}


@pytest.mark.parametrize(
    ("strategy", "fields", "message"),
    [
        ("nmc", {"upstream": "shared"}, "reads features of a frozen backbone"),
        ("finetune", {"upstream": "given"}, "is untrained"),
        ("finetune", {"upstream": "nowhere"}, "no such file; write own, shared, given"),
        ("finetune", {"upstream_settings": {"lr": 1.0}}, "settings go with upstream=shared"),
        ("finetune", {"upstream": "shared", "upstream_settings": {"rate": 1.0}}, "upstream has no setting 'rate'"),
        (
            "finetune",
            {**SHARED, "strategy_settings": {"optimizer": "adam", "optimizer_state": "keep"}},
            "set upstream.optimizer=adam",
        ),
    ],
)
def test_mistakes_are_told_before_anything_runs(runs: Any, strategy: str, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        start_run(runs.spec(strategy, **fields), runs.folder / "out")
    assert not list((runs.folder / "out").glob("runs/*/*/*"))


# -- what is made of the run -----------------------------------------------------------------------------------------


def test_verify_and_boards_and_archives(runs: Any) -> None:
    from clbench.board_records import board_records
    from clbench.leaderboard import make_boards
    from clbench.sharing.export import export_runs
    from clbench.sharing.importing import import_archive
    from clbench.verify import verify

    results = runs.folder / "results"
    own, _ = start_run(runs.spec("finetune", strategy_settings=PLAIN), results)
    shared, record = start_run(runs.spec("finetune", strategy_settings=PLAIN, **SHARED), results)
    found = verify(shared)
    assert (found.verdict, found.faults) == ("identical", [])
    assert record["spec_hash"] != json.loads((own / "record.json").read_text())["spec_hash"]
    boards = make_boards(board_records(results))
    assert sorted(board.upstream is None for board in boards) == [False, True]
    export_runs([shared], runs.folder / "runs.zip")
    done = import_archive(runs.folder / "runs.zip", runs.folder / "elsewhere")
    assert len(done.added) == 1


def test_a_run_without_an_upstream_has_the_specification_it_always_had(runs: Any) -> None:
    """Published records name these hashes."""
    spec = runs.spec("finetune", strategy_settings={"lr": 0.1})
    content = spec.model_dump(mode="json", exclude={"data_root", "threads", "device", "devices", "sync_bn"})
    del content["upstream"], content["upstream_settings"]
    from hashlib import sha256

    assert spec.hash() == sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def test_interrupted_while_it_waits_or_trains(runs: Any, outcome: Outcome) -> None:
    """The run says how to go on; what was trained of the upstream is not lost."""
    from clbench.engine.reporter import Reporter
    from clbench.errors import Interrupted

    class Stops(Reporter):
        def started(self, session: Any) -> None:
            self.session = session

        def stepped(self, task: int, step: int, length: int, loss: Any) -> None:
            self.session.interrupted = True

    spec = runs.spec("finetune", strategy_settings=SHORT, **SHARED)
    with pytest.raises(Interrupted, match="while the upstream was trained; continue with: clbench resume"):
        start_run(spec, runs.folder / "stopped", Stops())
    assert (entry(runs) / "training" / "checkpoint").is_dir()
    folder = next((runs.folder / "stopped").glob("runs/*/*/*"))
    assert resume_run(folder)["status"] == "completed"
    whole = outcome(runs.finish("whole", spec, every=None))
    assert outcome(folder) == whole


# -- upstreams that fork ---------------------------------------------------------------------------------------------

ANNEALED = {"steps": 5, "batch_size": 16, "schedule": "warmup-cosine", "anneal": 0.4}


@pytest.mark.oracle("infinite", "a shared upstream with an anneal has the rows of a run that trains it itself")
@pytest.mark.parametrize("kept", ["stable", "annealed"])
def test_an_upstream_that_forks_is_evaluated_at_both_ends(runs: Any, outcome: Outcome, kept: str) -> None:
    settings = {**ANNEALED, "resume_from": kept}
    own = outcome(runs.finish("own", runs.spec("finetune", strategy_settings=settings), every=None))
    shared = runs.spec("finetune", strategy_settings=settings, upstream="shared", upstream_settings=settings)
    found = outcome(runs.finish("shared", shared, every=None))
    assert found["state"] == own["state"]
    assert boundary(found) == boundary(own)
    first = [row for row in boundary(found) if row["tasks_seen"] == 1]
    assert {row["weights"] for row in first} == {"anneal", "train"}
    values = {w: [row["value"] for row in first if row["weights"] == w] for w in ("anneal", "train")}
    assert values["anneal"] != values["train"]


@pytest.mark.parametrize(
    ("strategy", "kept", "fault"),
    [
        ("finetune", "stable", "rejoin:1"),  # while the upstream is trained: the model of the line it leaves is kept
        slow("finetune", "annealed", "phase:4"),
        slow("finetune", "stable", "fork:2"),  # the run's own: the upstream forks, and then the run that adopts it
        slow("finetune", "stable", "end_task:3"),
        slow("replay", "annealed", "rejoin:2"),
        slow("everything", "stable", "end_task:4"),
    ],
)
def test_one_that_forks_survives_faults(
    runs: Any, outcome: Outcome, everything: str, strategy: str, kept: str, fault: str
) -> None:
    name = everything if strategy == "everything" else strategy
    settings = {**ANNEALED, "resume_from": kept}
    spec = runs.spec(name, strategy_settings=SHORT, upstream="shared", upstream_settings=settings)
    os.environ["CLBENCH_CACHE"] = str(runs.folder / "whole-cache")
    whole = outcome(runs.finish("whole", spec, every=None))
    os.environ["CLBENCH_CACHE"] = str(runs.folder / "cache")
    folder = runs.finish("killed", spec, fault)
    assert runs.resume(folder) == 0
    assert outcome(folder) == whole
