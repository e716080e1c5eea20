"""Scores of a base model against plain loops, their cache, and orders that come from them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clbench.models import build_model
from clbench.stream import Stream
from clbench.streams import fomo_scores
from clbench.streams.fomo_concepts import Concept, Limits, concepts_of
from clbench.streams.fomo_orders import neighbour_cosine
from clbench.streams.fomo_scores import SCORES, BaseModel
from clbench.streams.fomo_source import read_sets

MODEL = "micro-clip"


@pytest.fixture(scope="module")
def concepts() -> list[Concept]:
    """Four concepts of two sets, three images each."""
    sets = read_sets("s", [("shapes:clean@0/6", "adaptation"), ("digits:clean@0/5", "adaptation")], None, 32, {})
    return concepts_of(sets, Limits(train=3, test=1))


@pytest.fixture
def base(concepts: list[Concept], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BaseModel:
    torch.set_num_threads(1)
    monkeypatch.setenv("CLBENCH_CACHE", str(tmp_path / "cache"))
    return BaseModel(MODEL, concepts, 32)


@torch.no_grad()
def plain_scores(concepts: list[Concept]) -> dict[str, list[float]]:
    """One image after another, from the definitions."""
    model: Any = build_model(MODEL, channels=3, size=32, mean=(0.5,) * 3, std=(0.5,) * 3, pairs=True).eval()
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (model.input.mean, model.input.std))
    texts = [model.encode_text(model.tokenize([c.source.primer.format(c.said)]))[0] for c in concepts]
    found: dict[str, list[float]] = {score: [] for score in SCORES}
    for place, concept in enumerate(concepts):
        mine: dict[str, list[float]] = {score: [] for score in SCORES}
        own = [i for i, other in enumerate(concepts) if other.source is concept.source]
        for row in concept.train:
            image = torch.from_numpy(concept.source.data.train.x[row].copy())[None].float() / 255
            embedded = model.encode_image((image - mean) / std)[0]
            cosines = [float(embedded @ text) for text in texts]
            scale = float(model.scale)

            def loss(among: list[int], cosines: list[float] = cosines, place: int = place, by: float = scale) -> float:
                logits = torch.tensor([by * cosines[i] for i in among])
                return float(F.cross_entropy(logits[None], torch.tensor([among.index(place)])))

            others = [cosines[i] for i in own if i != place]
            mine["sim"].append(cosines[place])
            mine["margin"].append(cosines[place] - max(others))
            mine["acc"].append(float(cosines[place] > max(others)))
            mine["loss"].append(-loss(own))
            mine["loss_all"].append(-loss(list(range(len(texts)))))
        for score, values in mine.items():
            found[score].append(float(np.mean(values)))
    return found


def test_scores_are_those_of_their_definitions_and_are_kept(
    concepts: list[Concept], base: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = plain_scores(concepts)
    for score in SCORES:
        np.testing.assert_allclose(base.scores(score), wanted[score], atol=2e-4)
    np.testing.assert_allclose(np.linalg.norm(base.embeddings(), axis=1), 1, atol=1e-5)

    def computed(*_: Any) -> Any:
        raise AssertionError("computed again")

    monkeypatch.setattr(fomo_scores, "measure", computed)
    again = BaseModel(MODEL, concepts, 32)
    assert np.array_equal(again.scores("sim"), base.scores("sim"))
    with pytest.raises(AssertionError, match="computed again"):
        BaseModel(MODEL, concepts[:3], 32).scores("sim")


@pytest.mark.slow
def test_a_streams_similarity_order_has_nearer_neighbours(
    build: Callable[..., Stream], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sanity relation: with the embedded model's own primers."""
    monkeypatch.setenv("CLBENCH_CACHE", str(tmp_path / "cache"))
    model: Any = build_model(MODEL, channels=3, size=32, mean=(0.5,) * 3, std=(0.5,) * 3, pairs=True).eval()

    @torch.no_grad()
    def cosine(**settings: Any) -> float:
        stream = build("fomo-nano", 1, None, train_per_concept=2, test_per_concept=1, pool_per_concept=1, **settings)
        assert stream.captions is not None
        primers = [stream.captions.primer(label) for task in stream.tasks for label in task.classes]
        return neighbour_cosine(model.encode_text(model.tokenize(primers)).numpy())

    assert cosine(ordering="similarity") > cosine(ordering="cluster") > cosine(ordering="random")
    order = build("fomo-nano", 1, None, train_per_concept=2, test_per_concept=1, ordering="easy_hard", score="loss")
    back = build(
        "fomo-nano", 1, None, train_per_concept=2, test_per_concept=1, ordering="reverse:easy_hard", score="loss"
    )
    assert order.captions is not None and back.captions is not None
    n = len(order.captions.concepts) - 44 - 56
    assert order.captions.concepts[:n] == back.captions.concepts[:n][::-1]
