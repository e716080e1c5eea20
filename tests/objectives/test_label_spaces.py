"""What an image is classified among: its own data set's concepts, or those of all sets."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from clbench.captions import Captions, Contrast
from clbench.models import InputSpec
from clbench.objectives.contrastive import Contrastive
from clbench.pairs import Embeddings, Pairs
from clbench.samples import Pool, Samples
from clbench.stream import EvalSet, Stream

CONCEPTS = ("a+++cat", "a+++dog", "b+++oak", "b+++elm", "b+++fir", "c+++cat")
VECTORS = torch.eye(6)


def made(label_space: str) -> tuple[Contrastive, dict[str, EvalSet]]:
    """The objective, the text of concept i on the i-th axis; a set of images of `a`, one of images of `a` and `b`."""
    pool = Pool(torch.zeros(4, 3, 2, 2, dtype=torch.uint8), torch.tensor([0, 1, 2, 3]))
    sets = {
        "a": EvalSet("a", Samples(pool, [0, 1]), None, classes=(0, 1)),
        "task": EvalSet("task", Samples(pool, [0, 1, 2, 3]), 0, classes=(0, 1, 2, 3, 4)),
        "c": EvalSet("c", Samples(pool, [0]), None, classes=(5,)),
    }
    stream = Stream(
        "s",
        "contrastive",
        (),
        tuple(sets.values()),
        "",
        "",
        (3, 2, 2),
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        captions=Captions(CONCEPTS, tuple((f"text {i}",) for i in range(6))),
        contrast=Contrast(label_space=label_space),  # type: ignore[arg-type]
    )
    objective = Contrastive(stream)

    def tokenize(texts: list[str]) -> Tensor:
        return torch.tensor([[int(text.split()[1])] for text in texts])

    objective.fit(InputSpec("pairs", 3, 2, (0.5,) * 3, (0.5,) * 3, 6, tokenize))

    def predict(x: Pairs) -> Embeddings:
        assert x.tokens is not None
        return Embeddings(None, VECTORS[x.tokens[:, 0]], torch.tensor(1.0), None)

    objective.prepare_scoring(list(sets.values()), predict, None)
    return objective, sets


# Nearest first: image 0 (a cat) to b's oak, then cat; image 1 (a dog) to cat, then dog; 2 (an oak) to dog, then oak.
IMAGES = torch.tensor(
    [
        [0.5, 0.1, 0.8, 0.0, 0.0, 0.0],
        [0.8, 0.5, 0.0, 0.0, 0.0, 0.0],
        [0.0, 0.8, 0.5, 0.1, 0.0, 0.0],
        [0.0, 0.0, 0.1, 0.8, 0.0, 0.9],
    ]
)
Y = torch.tensor([0, 1, 2, 3])


def test_candidates_are_those_of_the_images_own_set() -> None:
    objective, sets = made("own")
    assert objective.zero_shot(IMAGES, Y, sets["task"]).tolist() == [1.0, 0.0, 1.0, 1.0]
    assert objective.zero_shot(IMAGES[:2], Y[:2], sets["a"]).tolist() == [1.0, 0.0]


def test_with_union_all_concepts_compete() -> None:
    objective, sets = made("union")
    assert objective.zero_shot(IMAGES, Y, sets["task"]).tolist() == [0.0, 0.0, 0.0, 0.0]
    assert objective.zero_shot(IMAGES[:2], Y[:2], sets["a"]).tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("space", "name", "chance"), [("own", "a", 1 / 2), ("own", "task", (1 / 2 + 1 / 3) / 2), ("union", "task", 1 / 6)]
)
def test_chance_is_that_of_the_candidates(space: str, name: str, chance: float) -> None:
    objective, sets = made(space)
    assert objective.base(sets[name], 6) == pytest.approx(chance)
