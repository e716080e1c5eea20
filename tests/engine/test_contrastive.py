"""Images with captions through the engine: the same strategies, resumed anywhere, evaluated without traces."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from clbench.engine.validity import invalid_base
from clbench.errors import UserError
from clbench.launch import Prepared
from clbench.spec import make_spec
from clbench.stream import EvalSet
from clbench.table import Row

Outcome = Callable[[Path], dict[str, Any]]
STEPS = {"steps": 5, "batch_size": 8}


@pytest.fixture
def job(pairs_stream: Any, tmp_path: Path) -> Callable[..., Any]:
    """The specification of a small run of a strategy."""

    def made(strategy: str, settings: dict[str, Any] | None = None, **fields: Any) -> Any:
        values = {"strategy": strategy, "strategy_settings": STEPS | (settings or {}), "threads": 1, "eval_grid": "2"}
        return make_spec({**values, **pairs_stream.job(tmp_path), **fields})

    return made


@pytest.mark.parametrize(
    ("strategy", "settings", "fields", "fault"),
    [
        pytest.param("replay", {"memory_size": 10}, {}, "phase:7", marks=pytest.mark.slow),
        pytest.param("lwf", {}, {"tune": "locked-text"}, "phase:8", marks=pytest.mark.slow),
        pytest.param("codyra", {}, {}, "phase:8", marks=pytest.mark.slow),
        ("ema-merge", {}, {"tune": "lora:2"}, "evaluate:6"),
        ("ewc", {"fisher_samples": None}, {}, "batches:2"),
    ],
)
def test_killed_and_resumed(
    runs: Any,
    outcome: Outcome,
    job: Callable[..., Any],
    strategy: str,
    settings: dict[str, Any],
    fields: dict[str, Any],
    fault: str,
) -> None:
    spec = job(strategy, settings, **fields)
    folder = runs.finish("whole", spec, every=None)
    whole, cost = outcome(folder), json.loads((folder / "record.json").read_text())["cost"]
    folder = runs.finish("killed", spec, fault)
    assert runs.resume(folder) == 0
    assert outcome(folder) == whole
    again = json.loads((folder / "record.json").read_text())["cost"]
    assert {key: again[key] for key in cost if "flops" in key or "caption" in key or "samples" in key} == {
        key: cost[key] for key in cost if "flops" in key or "caption" in key or "samples" in key
    } | {"samples_per_second": again["samples_per_second"]}
    assert cost["caption_pairs"] == 2 * (4 * 8 * 7 + 2 * 1)  # of two tasks, in batches of 8, 8, 2, 8, 8
    assert 0 < cost["caption_collisions"] < cost["caption_pairs"]
    assert cost["flops_evaluate"] > 0


@pytest.mark.parametrize("loss", ["clip", "siglip-mp"])
@pytest.mark.parametrize("strategy", ["si", "wise-ft"])
def test_other_losses_and_strategies(runs: Any, outcome: Outcome, job: Any, strategy: str, loss: str) -> None:
    folder = runs.finish("run", job(strategy, stream_settings={"loss": loss}), every=None)
    values = [row["value"] for row in outcome(folder)["table"]]
    assert values and all(0 <= value <= 1 for value in values)


def test_training_on_two_colours_tells_them_apart(runs: Any, outcome: Outcome, job: Any) -> None:
    settings = {"steps": 40, "batch_size": 16}
    folder = runs.finish("run", job("finetune", settings, eval_grid="none"), every=None)
    rows = [row for row in outcome(folder)["table"] if row["kind"] == "boundary" and row["eval_set"] == "task0"]
    assert [row["value"] for row in rows if row["tasks_seen"] == 1] == [1.0]


def test_evaluation_does_not_touch_training(runs: Any, outcome: Outcome, job: Any) -> None:
    often = outcome(runs.finish("often", job("replay", {"memory_size": 10}, eval_grid="1"), every=None))
    never = outcome(runs.finish("never", job("replay", {"memory_size": 10}, eval_grid="none"), every=None))
    assert often["state"] == never["state"]
    assert len(often["table"]) > len(never["table"])


def test_a_model_that_knows_nothing_is_marked(runs: Any, job: Any) -> None:
    folder = runs.finish("run", job("finetune", eval_grid="none"), every=None)
    record = json.loads((folder / "record.json").read_text())
    assert "invalid_base" in record["warnings"][0]
    found = record["evaluation"]["invalid_base"]
    assert found["chance"] == pytest.approx((1 / 2 + 1) / 2) and found["score"] < 0.875


def row(name: str, value: float, **fields: Any) -> Row:
    common = {"step": 0, "tasks_seen": 0, "n": 10, "belongs_to": None, "kind": "boundary", "metric": "accuracy"}
    return Row(**{**common, "eval_set": name, "value": value, "base": 0.1, **fields})


@pytest.mark.parametrize(("values", "invalid"), [((0.1, 0.19), True), ((0.1, 0.21), False)])
def test_the_mean_of_the_held_out_sets_decides(values: tuple[float, float], invalid: bool) -> None:
    data: Any = None
    sets = [EvalSet(name, data, None, role="held-out") for name in ("a", "b")]
    rows = [row("a", values[0]), row("b", values[1]), row("a", 0.9, tasks_seen=1), row("other", 0.9)]
    found = invalid_base(rows, sets, "accuracy")
    assert (found is not None) == invalid
    assert invalid_base(rows, [EvalSet("a", data, 0)], "accuracy") is None


def test_features_of_a_frozen_backbone_have_no_use_for_captions(job: Any) -> None:
    with pytest.raises(UserError, match="classification"):
        Prepared(job("nmc", {"steps": None, "batch_size": None}).model_copy(update={"strategy_settings": {}}))


def test_each_image_is_embedded_once(job: Any, tmp_path: Path) -> None:
    """Images of a task are in its own set and in its data set's; texts are embedded again only after a change."""
    from clbench.engine.reporter import Reporter
    from clbench.models.clip.model import CLIP

    session = Prepared(job("finetune", tune="locked-text")).session(tmp_path, Reporter(), None)
    seen = {"images": 0, "texts": 0}
    model = session.model
    assert isinstance(model, CLIP)
    image, text = model.encode_image, model.encode_text

    def count(name: str, function: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
        def counting(x: torch.Tensor) -> torch.Tensor:
            seen[name] += len(x)
            return function(x)

        return counting

    model.encode_image = count("images", image)  # type: ignore[method-assign]
    model.encode_text = count("texts", text)  # type: ignore[method-assign]
    session.start()

    def evaluated() -> float:
        before = session.meters.totals["flops_evaluate"]
        session.evaluator.boundary(step=0, tasks_seen=0, repeats=False, line=session.line)
        return session.meters.totals["flops_evaluate"] - before

    cost = evaluated()
    assert seen["images"] == 32  # of 18 different ones, filled up
    once = seen["texts"]
    torch.nn.init.normal_(model.backbone.visual.proj)  # type: ignore[arg-type, union-attr]
    assert evaluated() == cost  # known texts count as embedded: a resumed run embeds them
    assert seen["texts"] == once
    model.backbone.text_projection.data += 1  # type: ignore[operator, union-attr]
    assert evaluated() == cost
    assert seen["texts"] == 2 * once
    session.close()
