"""Settings of streams of concepts."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import field_validator

from clbench.captions import ContrastConfig
from clbench.config import setting

from .fomo_captions import CaptionMode
from .fomo_orders import check_kind

FOMO = "FoMo-in-Flux (arXiv 2408.14471)"


class FomoConfig(ContrastConfig):
    """Which sets, in which roles, as which concepts, in which order, and what batches are made of."""

    sets: list[str] = setting(
        [],
        "sets to adapt to: names of the data root, folders, generated ones (shapes:noisy); NAME@I/N: every N-th class "
        "from class I on",
        source="the user",
    )
    held_out: list[str] | None = setting(
        None,
        "sets that are evaluated and never trained on; none: a third of `sets`, drawn by their names",
        source="clbench",
    )
    pretraining: list[str] = setting([], "sets whose training images are the pre-training pool", source="none")
    carve: float | None = setting(
        None,
        "share of every set's classes that go to the pool and not to the stream; none: 0.2 where the mixture needs a "
        "pool and nothing else makes one",
        source="clbench",
        ge=0,
        lt=1,
    )
    pool_held_out: bool = setting(
        False, "training images of held-out sets are in the pool, so that they measure what was taught", source=FOMO
    )
    retrieval: list[str] = setting(
        [], "sets with captions of their images that are scored by retrieval of these", source="none"
    )
    max_concepts: int | None = setting(None, "at most so many concepts of a set", source="all", ge=1)
    train_per_concept: int | None = setting(None, "at most so many training images of a concept", source="all", ge=1)
    test_per_concept: int | None = setting(None, "at most so many test images of a concept", source="all", ge=1)
    pool_per_concept: int | None = setting(
        None, "at most so many images of a class in the pre-training pool", source="all", ge=1
    )
    validation: float = setting(
        0.0, "share of each concept's training images held out for validation", source="clbench: none", ge=0, lt=1
    )
    captions: CaptionMode = setting(
        "rich",
        "primer: one template; templates: one of several at every access; rich: captions the set has of its own, else "
        "templates; attr: the primer with what the image looks like",
        source=FOMO,
    )
    ordering: str = setting(
        "random",
        "random, dataset, listed, time_chunk, time_mix, frequency, easy_hard, loss, similarity, cluster; reverse:KIND",
        source=FOMO,
    )
    score: Literal["sim", "loss", "acc", "margin"] = setting(
        "sim",
        "the base model's, of easy_hard: cosine of image and primer; minus the loss, accuracy, margin in the own set",
        source=f"clbench; the files of {FOMO} fit sim",
    )
    base_model: str | None = setting(
        None, "the model whose scores order concepts; none: the stream's default model", source="clbench"
    )
    years: dict[str, int] = setting({}, "years of sets, for orders by time: {mnist: 1998}", source="info.json")
    counts: str | None = setting(
        None, "a JSON file of {class or DATASET+++class: count} for frequency; none: the pool's captions", source="none"
    )
    stream_file: str | None = setting(
        None, "a JSON list of DATASET+++class: the concepts and their order, instead of `ordering`", source=FOMO
    )
    tasks: int | None = setting(
        None,
        "tasks, of as equal numbers of concepts as possible; none: 10, or one a set where sets come one by one",
        source="clbench",
        ge=1,
    )
    mixture: list[float] = setting(
        [0.33, 0.34, 0.33],
        "shares of every batch: pre-training pool, task, earlier tasks; [0,1,0]: the task alone",
        source=FOMO,
    )
    buffer: int | None = setting(
        None, "how many samples of earlier tasks may be drawn again, evenly from concepts; none: all", source=FOMO, ge=1
    )
    size: int = setting(32, "side of the square images in pixels", source="the embedded model", ge=1)
    crop: float = setting(
        0.9, "training images: random crop of at least this share of the area; 0: none", source=FOMO, ge=0, le=1
    )

    @field_validator("mixture")
    @classmethod
    def _shares(cls, value: list[float]) -> list[float]:
        if len(value) != 3 or min(value) < 0 or not math.isclose(sum(value), 1, abs_tol=1e-6):
            raise ValueError("give three shares of 0 or more that sum to 1: pool, task, earlier tasks")
        return value

    @field_validator("ordering")
    @classmethod
    def _known_order(cls, value: str) -> str:
        return check_kind(value)

    @property
    def pool_share(self) -> float:
        return self.mixture[0]
