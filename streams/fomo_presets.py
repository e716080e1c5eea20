"""The fomo presets: which sets they are made of, and which role each set has.

The pool of the embedded CLIP model is `CLIP_POOL`: it is trained on these sets and on nothing else, so that `fomo-mini`
and `fomo-nano` may treat them as what the model has seen before the stream.

A name is a set of the data root, a folder, one of the generated sets `FAMILY:STYLE`, or any of these with `@I/N`: every
N-th class from class I on (`caltech101@0/2`: classes 0, 2, 4, ...).
"""

from __future__ import annotations

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
