"""Inputs, captions and scores of a small stream of images with captions, with an untrained model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from clbench.errors import UserError
from clbench.gradients import squared_gradients
from clbench.models import build_model
from clbench.models.clip.model import CLIP
from clbench.objectives import build_objective
from clbench.objectives.contrastive import Contrastive
from clbench.pairs import Pairs
from clbench.samples import Batch, Samples
from clbench.stream import EvalSet, Stream


class Case:
    """The stream, a model and its objective."""

    def __init__(self, module: Any, folder: Path, **settings: Any) -> None:
        config = module.Squares.Config(**settings)
        self.stream: Stream = module.Squares("squares", config).build()
        torch.manual_seed(0)
        images = {"channels": 3, "size": 8, "mean": (0.5,) * 3, "std": (0.25,) * 3}
        model = build_model(module.tiny_clip(folder), pairs=True, **images).eval()
        objective = build_objective(self.stream)
        assert isinstance(model, CLIP) and isinstance(objective, Contrastive)
        self.model, self.objective = model, objective
        objective.fit(model.input)

    def inputs(self, samples: Samples, seed: int | None = None) -> tuple[Pairs, Tensor]:
        raw = samples.raw(torch.arange(len(samples)))
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        view: Any = "plain" if seed is None else "train"
        return self.objective.inputs(raw, samples.labels, view, generator, samples.index)

    def scores(self, eval_set: EvalSet) -> Tensor:
        """By way of the model, as evaluation does it."""
        with torch.no_grad():
            self.objective.prepare_scoring([eval_set], self.model, None)
            x = self.objective.asked(self.inputs(eval_set.data)[0])
            answers = self.objective.answers(self.model(x))
            return self.objective.score_whole(answers, eval_set.data, eval_set)

    def texts(self, *captions: str) -> Tensor:
        with torch.no_grad():
            return self.model.encode_text(self.model.tokenize(captions))

    def images(self, samples: Samples) -> Tensor:
        images = self.inputs(samples)[0].images
        assert images is not None
        with torch.no_grad():
            return self.model.encode_image(images)

    def set(self, name: str) -> EvalSet:
        return next(s for s in self.stream.eval_sets if s.name == name)


@pytest.fixture
def case(pairs_stream: Any, tmp_path: Path) -> Case:
    return Case(pairs_stream, tmp_path)


def test_the_plain_view_has_the_first_caption_and_the_training_view_draws(case: Case) -> None:
    captions = case.stream.captions
    assert captions is not None
    samples = case.stream.tasks[0].train
    x, y = case.inputs(samples)
    assert [captions.vocabulary[i] for i in y.tolist()] == [captions.primer(c) for c in samples.labels.tolist()]
    assert x.tokens is not None and torch.equal(x.tokens, case.model.tokenize([captions.vocabulary[i] for i in y]))
    drawn = torch.stack([case.inputs(samples, seed)[1] for seed in range(60)])
    for label, column in zip(samples.labels.tolist(), drawn.T, strict=True):
        found, counts = column.unique(return_counts=True)
        assert {captions.vocabulary[i] for i in found.tolist()} == set(captions.texts[label])
        assert counts.min() > 5  # of 20 expected
    again = case.inputs(samples, 7)[1]
    assert torch.equal(again, drawn[7])


def test_captions_of_a_sample_stand_in_for_its_concepts(case: Case) -> None:
    captions, data = case.stream.captions, case.set("columns").data
    assert captions is not None
    y = case.inputs(data)[1]
    assert [captions.vocabulary[i] for i in y.tolist()] == [f"stripes number {row}" for row in data.index.tolist()]
    unknown = case.objective.inputs(data.raw(torch.arange(len(data))), data.labels, "plain", None)[1]
    assert {captions.vocabulary[i] for i in unknown.tolist()} == {captions.primer(5)}
    elsewhere = torch.full_like(data.index, -1)
    assert torch.equal(case.objective.inputs(data.raw(y * 0), data.labels, "plain", None, elsewhere)[1], unknown)


@pytest.mark.parametrize("prompts", ["primer", "ensemble"])
def test_an_image_is_of_the_class_whose_text_is_nearest(pairs_stream: Any, tmp_path: Path, prompts: str) -> None:
    case = Case(pairs_stream, tmp_path, prompts=prompts)
    colours, captions = case.set("colours"), case.stream.captions
    assert captions is not None
    n = 1 if prompts == "primer" else 3
    classes = torch.stack([F.normalize(case.texts(*captions.texts[c][:n]).sum(0), dim=0) for c in colours.classes])
    expected = (case.images(colours.data) @ classes.T).argmax(1) == colours.data.labels
    assert case.scores(colours).tolist() == expected.float().tolist()
    assert case.objective.base(colours, 0) == pytest.approx(1 / 4)


def test_the_union_of_all_sets_holds_more_classes(pairs_stream: Any, tmp_path: Path) -> None:
    case = Case(pairs_stream, tmp_path, label_space="union")
    captions, stripes = case.stream.captions, case.set("stripes")
    assert captions is not None
    classes = case.texts(*(captions.primer(c) for c in range(6)))
    expected = (case.images(stripes.data) @ classes.T).argmax(1) == stripes.data.labels
    assert case.scores(stripes).tolist() == expected.float().tolist()
    assert case.objective.base(stripes, 0) == pytest.approx(1 / 6)


def test_equal_primers_are_equally_right(pairs_stream: Any, tmp_path: Path) -> None:
    case = Case(pairs_stream, tmp_path)
    captions = case.stream.captions
    assert captions is not None
    same = [("the same",), ("the same",), *captions.texts[2:]]
    stream = case.stream.__class__(
        **{**vars(case.stream), "captions": captions.__class__(captions.concepts, tuple(same), captions.of_row)}
    )
    objective = Contrastive(stream)
    objective.fit(case.model.input)
    pair = EvalSet("pair", case.set("task0").data, None, (0, 1))
    with torch.no_grad():
        objective.prepare_scoring([pair], case.model, None)
        assert objective.zero_shot(case.images(pair.data), pair.data.labels, pair).tolist() == [1.0] * len(pair.data)


def test_retrieval_of_a_set(pairs_stream: Any, tmp_path: Path) -> None:
    case = Case(pairs_stream, tmp_path, recall_at=1, per_class=24)
    data = case.set("columns").data
    texts = case.texts(*(f"stripes number {row}" for row in data.index.tolist()))
    near = case.images(data) @ texts.T
    own = torch.arange(len(data))
    expected = ((near.argmax(1) == own).float() + (near.argmax(0) == own).float()) / 2
    assert case.scores(case.set("columns")).tolist() == expected.tolist()
    assert case.objective.base(case.set("columns"), 0) == pytest.approx(1 / 6)


def test_a_caption_set_is_needed(case: Case) -> None:
    with pytest.raises(UserError, match="without captions"):
        Contrastive(case.stream.__class__(**{**vars(case.stream), "captions": None}))


def test_squared_gradients_are_those_of_batches(case: Case) -> None:
    """With one sample at a time the loss would be that of telling it apart from nothing: zero."""
    samples = case.stream.tasks[0].train
    x, y = case.inputs(samples)
    batches = [
        Batch(x=x[rows], y=y[rows], raw=y[rows], labels=samples.labels[rows], index=samples.index[rows])
        for rows in (torch.arange(0, 18, 2), torch.arange(1, 18, 3))
    ]
    found = squared_gradients(case.model, case.objective, batches)
    total = {name: torch.zeros_like(p) for name, p in case.model.named_parameters()}
    for batch in batches:
        case.model.zero_grad()
        case.objective.loss(case.model, batch).backward()
        for name, p in case.model.named_parameters():
            if p.grad is not None:
                total[name] += len(batch) * p.grad**2 / sum(map(len, batches))
    for name, squares in found.items():
        torch.testing.assert_close(squares, total[name])
    assert found["backbone.visual.proj"].any()
    with pytest.raises(UserError, match="labels=true"):
        squared_gradients(case.model, case.objective, batches, "predicted")


def test_decisions_are_positions_in_the_batch(case: Case) -> None:
    samples = case.stream.tasks[0].train
    with torch.no_grad():
        out = case.model(case.inputs(samples)[0])
    drawn = case.objective.decide(out, torch.Generator().manual_seed(0))
    assert torch.equal(case.objective.decide(out), out.logits().argmax(1))
    assert drawn.shape == (len(samples),) and int(drawn.max()) < len(samples)


def test_a_batch_is_scored_by_its_own_texts(case: Case) -> None:
    """For methods that choose among weights: any caption equal to the image's is right."""
    samples = case.stream.tasks[0].train
    x, y = case.inputs(samples)
    with torch.no_grad():
        out = case.model(x)
    nearest = (out.image @ out.text.T).argmax(1)
    expected = [float(y[j] == y[i]) for i, j in enumerate(nearest.tolist())]
    assert case.objective.scores(out, y, case.set("task0")).tolist() == expected
