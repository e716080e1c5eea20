"""Captions: the texts that a stream's images go with, and how images and texts are learned and scored.

Strings only: turning them into tokens belongs to the model. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from clbench.config import Config, setting

Loss = Literal["clip", "clip-mp", "siglip", "siglip-mp"]
LabelSpace = Literal["own", "union"]
Prompts = Literal["primer", "ensemble"]
SEPARATOR = "+++"


@dataclass(frozen=True)
class Captions:
    """The captions of a stream.

    concepts: "DATASET+++class" by concept; a sample's label is its concept's place here.
    texts: of each concept its captions, one or more; the first is the primer, which evaluation uses.
    of_row: captions of single samples, by their row in the pool; a stream that has any keeps all samples in one pool.
        Such a sample goes with these instead of its concept's; the first is the one that evaluation uses.
    """

    concepts: tuple[str, ...]
    texts: tuple[tuple[str, ...], ...]
    of_row: Mapping[int, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.concepts) != len(self.texts):
            raise ValueError(f"{len(self.concepts)} concepts, captions of {len(self.texts)}")
        if not all(self.texts) or not all(self.of_row.values()):
            raise ValueError("every concept and every sample with captions of its own needs one at least")

    @cached_property
    def vocabulary(self) -> tuple[str, ...]:
        """Every caption once: those of the concepts, then those of samples. A caption's id is its place here, so equal
        texts have equal ids."""
        every = [*self.texts, *(self.of_row[row] for row in sorted(self.of_row))]
        return tuple(dict.fromkeys(text for texts in every for text in texts))

    @cached_property
    def ids(self) -> dict[str, int]:
        """The id of every caption."""
        return {text: number for number, text in enumerate(self.vocabulary)}

    def primer(self, concept: int) -> str:
        """The caption of a concept that evaluation uses."""
        return self.texts[concept][0]

    def dataset(self, concept: int) -> str:
        """The data set a concept belongs to."""
        return self.concepts[concept].partition(SEPARATOR)[0]

    def class_name(self, concept: int) -> str:
        """The name of a concept's class."""
        return self.concepts[concept].partition(SEPARATOR)[2]


@dataclass(frozen=True)
class Contrast:
    """How a stream's images and captions are learned and scored: see `ContrastConfig`."""

    loss: Loss = "clip-mp"
    label_space: LabelSpace = "own"
    prompts: Prompts = "primer"
    recall_at: int = 5


class ContrastConfig(Config):
    """The settings that recipes of streams with captions have in common; `contrast()` gives a stream's `contrast`."""

    loss: Loss = setting(
        "clip-mp",
        "clip: image and caption of a row alone go together; clip-mp: all images and captions of equal text; "
        "siglip, siglip-mp: the same by independent decisions",
        source="clbench: clip-mp, since captions from templates repeat; FoMo-in-Flux (arXiv 2408.14471): clip",
    )
    label_space: LabelSpace = setting(
        "own",
        "what an image is classified among: its own data set's concepts in the evaluation set, or those of all sets",
        source="FoMo-in-Flux: own; X-TAIL (RAIL): union",
    )
    prompts: Prompts = setting(
        "primer", "a class's text in evaluation: its primer, or the mean over its captions", source="FoMo-in-Flux"
    )
    recall_at: int = setting(5, "the k of recall@k on retrieval sets", source="FoMo-in-Flux", ge=1)

    def contrast(self) -> Contrast:
        """As the stream holds it."""
        return Contrast(self.loss, self.label_space, self.prompts, self.recall_at)
