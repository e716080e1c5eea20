"""The fomo presets: which sets they are made of, and which role each set has.

The pool of the embedded CLIP model is `CLIP_POOL`: it is trained on these sets and on nothing else, so that `fomo-mini`
and `fomo-nano` may treat them as what the model has seen before the stream.

A name is a set of the data root, a folder, one of the generated sets `FAMILY:STYLE`, or any of these with `@I/N`: every
N-th class from class I on (`caltech101@0/2`: classes 0, 2, 4, ...).
"""

from __future__ import annotations

from typing import ClassVar

from clbench.config import setting
from clbench.stream import Training

from .fomo import Fomo
from .fomo_config import FomoConfig

MINI_POOL = ["cifar10", "tiny_imagenet", "pacs_photo", "caltech101@0/2"]
"""Photographs of things."""

MINI_ADAPTATION = [
    "gtsrb",
    "mnist",
    "chars74k_fonts",
    "grocery_store",
    "dtd_textures10",
    "medical_mnist",
    "rsscn7_satellite",
    "pacs_sketch",
    "caltech101@1/2",
]
"""Signs, characters, goods, textures, radiology, satellite pictures, sketches, and the photographs left out above."""

MINI_HELD_OUT = ["pacs_art_painting", "pacs_cartoon", "cifar100"]
"""What the pool teaches without showing it: its classes painted and drawn, and photographs of related classes."""

NANO_POOL = ["shapes:clean", "stripes:clean", "glyphs:clean", "digits:clean"]
"""Generated drawings, and the digits that come with scikit-learn, in black on white."""

NANO_ADAPTATION = [
    "shapes:inverted",
    "stripes:noisy",
    "glyphs:noisy",
    "glyphs:inverted",
    "digits:inverted",
    "digits:noisy",
]
"""The same families in other styles."""

NANO_HELD_OUT = ["shapes:coloured", "stripes:coloured", "glyphs:coloured", "digits:coloured", "shapes:outline"]
"""Styles that are never trained on."""

CLIP_POOL = [*MINI_POOL, *NANO_POOL]
"""What the embedded CLIP model is trained on."""

MINI_YEARS = {
    "gtsrb": 2011,
    "mnist": 1998,
    "chars74k_fonts": 2009,
    "grocery_store": 2019,
    "dtd_textures10": 2014,
    "medical_mnist": 2017,
    "rsscn7_satellite": 2015,
    "pacs_sketch": 2017,
    "caltech101": 2004,
}
"""When the sets were published, for orders by time."""


class FomoNano(Fomo):
    """Generated drawings and scikit-learn's digits in new styles: 66 concepts in 5 tasks; nothing to download.

    The pool holds the clean style, which the embedded model was trained on; coloured drawings and outlines are held
    out. 20 steps of 64 samples a task; for the other settings see fomo.
    """

    class Config(FomoConfig):
        sets: list[str] = setting(NANO_ADAPTATION, "sets to adapt to (see fomo)", source="clbench")
        held_out: list[str] | None = setting(NANO_HELD_OUT, "sets that are never trained on", source="clbench")
        pretraining: list[str] = setting(NANO_POOL, "sets that are the pre-training pool", source="clbench")
        train_per_concept: int | None = setting(40, "training images of a concept", source="clbench", ge=1)
        test_per_concept: int | None = setting(10, "test images of a concept", source="clbench", ge=1)
        pool_per_concept: int | None = setting(40, "images of a class in the pool", source="clbench", ge=1)
        tasks: int | None = setting(
            5, "tasks; none: 10, or one a set where sets come one by one", source="clbench", ge=1
        )

    training: ClassVar[Training] = Training(
        optimizer="adamw",
        lr=1e-4,
        weight_decay=0.05,
        batch_size=64,
        epochs=2.5,
        schedule="rewarm-cosine:warmup=0.1,floor=0.001",
        clip=1.0,
    )


class FomoMini(Fomo):
    """Signs, characters, goods, textures, radiology, satellite pictures and sketches: 248 concepts in 10 tasks.

    Nine sets of the data root, 32 pixels. The pool is what the embedded model was trained on, photographs; its classes
    painted, drawn as cartoons, and the photographs of CIFAR-100 are held out. About 60 steps of 128 samples a task.
    """

    class Config(FomoConfig):
        sets: list[str] = setting(MINI_ADAPTATION, "sets to adapt to (see fomo)", source="clbench")
        held_out: list[str] | None = setting(MINI_HELD_OUT, "sets that are never trained on", source="clbench")
        pretraining: list[str] = setting(MINI_POOL, "sets that are the pre-training pool", source="clbench")
        train_per_concept: int | None = setting(100, "training images of a concept", source="clbench", ge=1)
        test_per_concept: int | None = setting(10, "test images of a concept", source="clbench", ge=1)
        pool_per_concept: int | None = setting(100, "images of a class in the pool", source="clbench", ge=1)
        years: dict[str, int] = setting(MINI_YEARS, "years of the sets, for orders by time", source="the sets' papers")
