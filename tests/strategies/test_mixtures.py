"""stability-gap, skill-it, syne, feedback and curriculum: what they read of each task, and what it helps."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch

from clbench.engine.session import Session
from clbench.errors import UserError
from clbench.mixtures.selection import ngram_perplexity
from clbench.samples import Batch
from clbench.strategies.curriculum import EasyToHard
from clbench.strategies.guided_mixture import GuidedMixture
from clbench.strategies.stability_gap import StabilityGap

Drive = Callable[..., Session]
Final = Callable[[Session], float]
TEXT = {
    "stream": "text-shift",
    "backbone": "byte-gpt?d=16,layers=1,ctx=16",
    "stream_settings": {"domains": "prose,cipher", "context": 16, "tokens": 2400, "eval_blocks": 24, "validation": 0.1},
}
DIGITS = {
    "stream": "permuted-digits",
    "backbone": "mlp:32x1",
    "stream_settings": {"tasks": 2, "train_per_class": 20, "validation": 0.2},
}
SHORT = {"batch_size": 8, "lr": 0.003}


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Batch]:
    """The batches of phases of stability-gap, as they come."""
    batches: list[Batch] = []
    monkeypatch.setattr(StabilityGap, "after_step", lambda self, batch: batches.append(batch), raising=False)
    return batches


def second(session: Session, batches: list[Batch]) -> tuple[torch.Tensor, torch.Tensor]:
    """Sample ids of the second task's phase, and the number of the source of each."""
    mixed = [b for b in batches if b.part is not None]
    return torch.cat([b.index for b in mixed]), torch.cat([b.part for b in mixed if b.part is not None])


# -- stability-gap -----------------------------------------------------------------------------------------------------


@pytest.mark.oracle("stability-gap", "the subset holds the blocks of lowest n-gram perplexity, each read once a pass")
def test_several_passes_over_the_best_blocks(drive: Drive, read: list[Batch]) -> None:
    settings = {**SHORT, "mixture": False, "subset": 0.2, "passes": 3}
    session = drive("stability-gap", settings, job=TEXT)
    task = session.stream.tasks[1]
    index, _ = second(session, read)
    n = round(0.2 * len(task.train))
    assert len(index) == 3 * n
    ids, counts = index.unique(return_counts=True)
    assert len(ids) == n and set(counts.tolist()) == {3}
    chosen = torch.isin(task.train.index, ids)
    scores = ngram_perplexity(task.train, task.validation)
    assert scores[chosen].max() <= scores[~chosen].min()


@pytest.mark.oracle("stability-gap", "earlier tasks keep their shares, the new one takes that of the replaced slice")
@pytest.mark.parametrize(
    ("mixture", "share"),
    [({}, 0.82), ({"new_share": 0.5}, 0.5), ({"slices": {"prose": 1, "web": 3}, "substitute": "web"}, 0.75)],
    ids=str,
)
def test_the_mixture_of_the_pre_training(
    drive: Drive, read: list[Batch], mixture: dict[str, Any], share: float
) -> None:
    session = drive("stability-gap", {**SHORT, "subset": 0.2, "passes": 4, **mixture}, job=TEXT)
    index, part = second(session, read)
    assert int((part == 0).sum()) == pytest.approx(share * len(part), abs=1)
    old = session.stream.tasks[0].train.index
    assert torch.isin(index[part == 1], old).all() and not torch.isin(index[part == 0], old).any()


@pytest.mark.oracle("stability-gap", "redrawn, passes share the whole subset; otherwise they repeat one part of it")
def test_what_a_pass_draws(drive: Drive, read: list[Batch]) -> None:
    kinds = {}
    for redraw in (True, False):
        read.clear()
        settings = {**SHORT, "subset": 0.2, "passes": 4, "new_share": 0.5, "redraw": redraw}
        session = drive("stability-gap", settings, job=TEXT)
        index, part = second(session, read)
        kinds[redraw] = len(index[part == 0].unique())
    n = round(0.2 * len(session.stream.tasks[1].train))
    assert kinds[False] == round(0.5 * n) < kinds[True] <= n


def test_all_remedies_off_are_finetuning(drive: Drive) -> None:
    off = {**SHORT, "subset": 1.0, "passes": None, "mixture": False}
    one, other = drive("stability-gap", off, job=TEXT), drive("finetune", SHORT, job=TEXT)
    for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_on_images_the_subset_is_drawn_at_random(drive: Drive, read: list[Batch]) -> None:
    session = drive("stability-gap", {**SHORT, "subset": 0.5, "passes": 2}, job=DIGITS)
    _, part = second(session, read)
    assert int((part == 0).sum()) == pytest.approx(0.82 * len(part), abs=1)


# -- skill-it and syne -------------------------------------------------------------------------------------------------


def drawn_of(session: Session) -> dict[str, int]:
    return {name: entry["samples"] for name, entry in session.diagnostics[-1]["values"]["drawn"].items()}


@pytest.mark.oracle("skill-it", "shares follow from the recorded losses of the last three observations")
def test_skill_its_shares_follow_from_its_losses(drive: Drive) -> None:
    session = drive("skill-it", {**SHORT, "observe_every": 4, "eta": 0.3}, job=TEXT)
    history = session.diagnostics[-1]["values"]["mixture"]
    assert [entry["step"] for entry in history] == list(range(4, 4 * len(history) + 1, 4)) and len(history) > 3
    for i, entry in enumerate(history):
        window = history[max(0, i - 2) : i + 1]
        powers = {name: math.exp(0.3 * sum(e["losses"][name] for e in window)) for name in entry["weights"]}
        for name, weight in entry["weights"].items():
            assert weight == pytest.approx(powers[name] / sum(powers.values()))


@pytest.mark.oracle("skill-it", "a task that helps another is read more for it")
def test_skill_its_adjacency_is_by_the_streams_order(drive: Drive) -> None:
    """Task 0 helps both, task 1 nothing: nearly all is read of task 0, though task 1 is the current one."""
    session = drive("skill-it", {**SHORT, "eta": 5.0, "adjacency": [[1, 1], [0, 0]]}, job=TEXT)
    drawn = drawn_of(session)
    assert drawn["prose"] > 50 * drawn["cipher"]


@pytest.mark.oracle("syne", "proportions follow from the recorded changes of perplexity, compounding")
def test_synes_proportions_follow_from_its_losses(drive: Drive) -> None:
    session = drive("syne", {**SHORT, "observe_every": 4, "alpha": 0.5, "share": 0.25}, job=TEXT)
    history = session.diagnostics[-1]["values"]["mixture"]
    assert history[0]["step"] == 0 and history[0]["weights"] == pytest.approx({"cipher": 0.75, "prose": 0.25})
    for before, entry in pairwise(history):
        change = {n: math.exp(entry["losses"][n]) - math.exp(before["losses"][n]) for n in entry["losses"]}
        largest = max(map(abs, change.values()))
        raw = {n: before["weights"][n] * (1 + 0.5 * change[n] / largest) for n in change}
        for name, weight in entry["weights"].items():
            assert weight == pytest.approx(raw[name] / sum(raw.values()))


@pytest.mark.oracle("syne", "new samples come from low to high loss of the model before them")
def test_syne_reads_from_easy_to_hard(drive: Drive, monkeypatch: pytest.MonkeyPatch) -> None:
    losses: list[torch.Tensor] = []
    monkeypatch.setattr(GuidedMixture, "after_step", lambda self, b: losses.append(self.of_start(b)))
    monkeypatch.setattr(GuidedMixture, "of_start", of_start, raising=False)
    drive("syne", {**SHORT, "share": 0.0, "floor": 0.0}, job=TEXT)
    in_order = torch.cat(losses)
    assert len(in_order) > 50 and (in_order.diff() >= 0).all()


def of_start(strategy: Any, batch: Batch) -> torch.Tensor:
    """Losses that the strategy has kept of the batch's samples."""
    if strategy.mixture is None:
        return torch.empty(0)
    train = strategy._services.stream.tasks[1].train
    place = {int(row): i for i, row in enumerate(train.index)}
    return strategy.state.order[[place[int(i)] for i in batch.index]]


# -- feedback and curriculum -------------------------------------------------------------------------------------------


@pytest.mark.oracle("feedback", "the share follows from the recorded rises of earlier tasks' mean loss, adding up")
def test_the_share_is_steered_by_the_rise_of_earlier_losses(drive: Drive) -> None:
    three = {**TEXT, "stream_settings": {**TEXT["stream_settings"], "domains": "prose,cipher,code"}}  # type: ignore[dict-item]
    settings = {**SHORT, "lr": 0.01, "observe_every": 4, "gain": 0.4, "target": 0.05, "start": 0.1, "lowest": 0.02}
    session = drive("feedback", {**settings, "highest": 0.6}, job=three)
    history = session.diagnostics[-1]["values"]["mixture"]
    assert [entry["step"] for entry in history] == list(range(0, 4 * len(history), 4)) and len(history) > 3
    share, means = 0.1, []
    for entry in history:
        means.append((entry["losses"]["prose"] + entry["losses"]["cipher"]) / 2)
        share = min(0.6, max(0.02, share + 0.4 * (means[-1] - means[0] - 0.05)))
        assert entry["weights"] == pytest.approx({"code": 1 - share, "prose": share / 2, "cipher": share / 2})
    assert len({entry["weights"]["code"] for entry in history}) > 3


def test_feedback_divides_its_share_by_the_sizes_of_earlier_tasks(drive: Drive) -> None:
    sizes = {"domains": "prose,cipher,code", "tokens": [3600, 1200, 1200]}
    three = {**TEXT, "stream_settings": {**TEXT["stream_settings"], **sizes}}  # type: ignore[dict-item]
    session = drive("feedback", {**SHORT, "over": "samples"}, job=three)
    n = {task.name: len(task.train) for task in session.stream.tasks}
    weights = session.diagnostics[-1]["values"]["mixture"][0]["weights"]
    assert weights["prose"] / weights["cipher"] == pytest.approx(n["prose"] / n["cipher"]) and n["prose"] > n["cipher"]


@pytest.mark.parametrize(
    ("settings", "words"), [({"start": 0.6}, "start=0.6"), ({"lowest": 0.4}, "start=0.05")], ids=str
)
def test_feedbacks_first_share_lies_within_its_bounds(drive: Drive, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=f"feedback: {words} does not lie between"):
        drive("feedback", {**SHORT, **settings}, job=TEXT)


@pytest.fixture
def ordered(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, torch.Tensor, torch.Tensor]]:
    """Of every batch of curriculum: samples read before in its task, its rows, and their losses before the task."""
    seen: list[tuple[int, torch.Tensor, torch.Tensor]] = []
    start: dict[int, torch.Tensor] = {}

    def begin_task(self: EasyToHard, task: Any) -> None:
        losses = self.sample_losses(task.train)
        start.update({int(row): loss for row, loss in zip(task.train.index, losses, strict=True)})
        begin(self, task)

    def after_step(self: EasyToHard, batch: Batch) -> None:
        task = self._services.task
        seen.append((task, batch.index, torch.stack([start[int(row)] for row in batch.index])))

    begin = EasyToHard.begin_task
    monkeypatch.setattr(EasyToHard, "begin_task", begin_task)
    monkeypatch.setattr(EasyToHard, "after_step", after_step)
    return seen


@pytest.mark.oracle("curriculum", "samples of a later task come by the loss of the model before it, in every pass")
@pytest.mark.parametrize("direction, sign", [("easy_to_hard", 1), ("hard_to_easy", -1)])
def test_a_task_is_read_from_easy_to_hard(
    drive: Drive, ordered: list[tuple[int, torch.Tensor, torch.Tensor]], direction: str, sign: int
) -> None:
    session = drive("curriculum", {**SHORT, "epochs": 2, "direction": direction}, job=TEXT)
    n = len(session.stream.tasks[1].train)
    losses = torch.cat([values for task, _, values in ordered if task == 1])
    rows = torch.cat([index for task, index, _ in ordered if task == 1])
    assert len(losses) == 2 * n
    for one in (0, 1):
        assert (sign * losses[one * n : (one + 1) * n].diff() >= 0).all()
        assert len(rows[one * n : (one + 1) * n].unique()) == n
    first = torch.cat([values for task, _, values in ordered if task == 0])
    assert (first.diff() < 0).any() and (first.diff() > 0).any()


@pytest.mark.oracle("curriculum", "key=ngram orders blocks by n-gram perplexity, whatever the model")
def test_a_task_is_read_by_its_n_grams(drive: Drive, ordered: list[tuple[int, torch.Tensor, torch.Tensor]]) -> None:
    session = drive("curriculum", {**SHORT, "key": "ngram", "order": 3}, job=TEXT)
    task = session.stream.tasks[1]
    scores = dict(zip(task.train.index.tolist(), ngram_perplexity(task.train, task.validation, 3), strict=True))
    read_in = torch.stack([scores[int(row)] for number, index, _ in ordered if number == 1 for row in index])
    assert len(read_in) == len(task.train) and (read_in.float().diff() >= 0).all()


def test_n_grams_are_of_text(drive: Drive) -> None:
    with pytest.raises(UserError, match="no stream of text: use key=loss"):
        drive("curriculum", {**SHORT, "key": "ngram"}, job=DIGITS)


@pytest.mark.oracle("feedback", "above finetuning on streams of domains, of text and of images")
@pytest.mark.oracle("skill-it", "above finetuning on streams of domains, of text and of images")
@pytest.mark.oracle("syne", "above finetuning on streams of domains, of text and of images")
@pytest.mark.parametrize("strategy", ["skill-it", "syne", "feedback"])
def test_earlier_domains_are_kept(drive: Drive, strategy: str) -> None:
    for job, sign, settings in ((TEXT, 1, {"lr": 0.003, "epochs": 3}), (DIGITS, -1, {"lr": 0.1, "epochs": 8})):
        given = {"batch_size": 8, **settings}
        scores = [first_set(drive(name, given, job=job)) for name in ("finetune", strategy)]
        assert sign * (scores[0] - scores[1]) > 0.05, (strategy, scores)


def first_set(session: Session) -> float:
    rows = [r for r in session.table.table if r.kind == "boundary" and r.metric == session.objective.primary]
    last = max(r.tasks_seen for r in rows)
    return next(float(r.value or 0) for r in rows if r.tasks_seen == last and r.belongs_to == 0)


@pytest.mark.parametrize("strategy", ["skill-it", "syne", "feedback"])
def test_validation_data_are_needed_before_any_training(drive: Drive, strategy: str) -> None:
    with pytest.raises(UserError, match=r"--set validation=0\.05"):
        drive(strategy, SHORT, job={**TEXT, "stream_settings": {**TEXT["stream_settings"], "validation": 0}})  # type: ignore[dict-item]


def test_observations_count_as_training(drive: Drive) -> None:
    often, never = (drive("skill-it", {**SHORT, "observe_every": n}, job=DIGITS) for n in (2, 10_000))
    assert often.meters.totals["flops_train"] > 1.2 * never.meters.totals["flops_train"]
    assert often.meters.totals["samples_train"] == never.meters.totals["samples_train"]
