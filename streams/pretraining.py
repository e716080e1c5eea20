"""Which usual pretraining data show what a stream is about: a backbone that saw them knows the later tasks' classes.

Notes for readers, kept in every record. They say what is known to overlap, not that nothing else does.
"""

from __future__ import annotations

from collections.abc import Sequence

from clbench.data.root import canonical

CIFAR = (
    "ImageNet-1k and ImageNet-21k hold most of the classes; Tiny-ImageNet (micro-vit) shares concepts: cats, dogs, "
    "frogs, cars, lorries, ships, furniture, fruit"
)
TINY_IMAGENET = (
    "classes and images are taken from ImageNet-1k: models pretrained on ImageNet have seen the images themselves, and "
    "micro-vit was trained on this very set"
)
IMAGENET_R = (
    "all 200 classes are classes of ImageNet-1k, as drawings, toys and so on: checkpoints trained or fine-tuned on "
    "ImageNet-1k were taught them, ImageNet-21k holds them too, Tiny-ImageNet (micro-vit) some of them"
)
CUB = (
    "ImageNet-1k and ImageNet-21k hold birds, some of these species among them; the authors of CUB warn that images "
    "overlap with ImageNet"
)
CARS = "ImageNet-1k and ImageNet-21k hold kinds of cars (convertible, minivan), not these makes and models"
CORE50 = "ImageNet-1k and ImageNet-21k hold the ten categories or near ones; not these fifty objects"
CALTECH = "most of the classes are in ImageNet-21k, many in ImageNet-1k; Tiny-ImageNet (micro-vit) shares concepts"
PACS = (
    "the seven classes are in ImageNet-21k as photographs, most in ImageNet-1k; Tiny-ImageNet (micro-vit) has dogs and "
    "elephants"
)

BY_SET = {
    "cifar10": CIFAR,
    "cifar100": CIFAR,
    "tiny_imagenet": TINY_IMAGENET,
    "imagenet_r": IMAGENET_R,
    "cub200": CUB,
    "cars196": CARS,
    "core50": CORE50,
    "caltech101": CALTECH,
    "pacs_photo": PACS,
    "pacs_art_painting": PACS,
    "pacs_cartoon": PACS,
    "pacs_sketch": PACS,
}


def overlap(sets: Sequence[str]) -> str:
    """What is known of these image sets, by name."""
    known = {canonical(name): note for name, note in BY_SET.items()}
    notes = [known.get(canonical(name.partition(":")[0]), "") for name in sets]
    return "; ".join(dict.fromkeys(note for note in notes if note))
