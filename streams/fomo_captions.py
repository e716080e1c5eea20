"""Captions of image sets that have none: from class names, templates, descriptions, and what an image looks like."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

CaptionMode = Literal["primer", "templates", "rich", "attr"]

PRIMER = "a photo of a {}"
GENERAL = (
    "an image of a {}",
    "a picture that shows a {}",
    "this is a {}",
    "an example of a {}",
    "one can see a {}",
    "{}",
)
"""Ways to say what is in an image that hold for photographs, drawings and measurements alike."""

HUES = ("red", "yellow", "green", "cyan", "blue", "magenta")


def said(class_names: Sequence[str]) -> list[str]:
    """The classes' names as they are said: of several synonyms the first, where no other class has it, too."""
    short = [_words(name.split(",")[0]) or name for name in class_names]
    counts = Counter(short)
    return [one if counts[one] == 1 else _words(name) for one, name in zip(short, class_names, strict=True)]


def _words(name: str) -> str:
    return " ".join(name.replace("_", " ").split())


def filled(template: str, name: str) -> str:
    """The template with a class's name; "a" becomes "an" before a vowel."""
    if name[:1].lower() in ("a", "e", "i", "o", "u"):
        template = re.sub(r"\b([Aa]) \{\}", r"\1n {}", template)
    return template.replace("{}", name)


def concept_texts(
    name: str, primer: str, templates: tuple[str, ...], mode: CaptionMode, description: str = ""
) -> tuple[str, ...]:
    """The captions of a class that is called `name`, the primer first.

    primer: that alone. templates: all templates. rich: the primer and the description where there is one, else
    templates. attr: as templates, for the images' own captions are made of them.
    """
    first = filled(primer, name)
    if mode == "primer":
        return (first,)
    if mode == "rich" and description:
        return (first, naming(description, name, first))
    return tuple(dict.fromkeys([first, *(filled(template, name) for template in templates)]))


def naming(caption: str, name: str, primer: str) -> str:
    """The caption, the primer put before it where it does not say the class's name."""
    text = " ".join(caption.split())
    return text if contains(text, name) else f"{primer}. {text}"


def contains(caption: str, name: str) -> bool:
    """Whether a caption has the name as a phrase of whole words, in the singular or with an s."""
    return f" {plain(name)} " in f" {plain(caption)} " or f" {plain(name)}s " in f" {plain(caption)} "


def plain(text: str) -> str:
    """Lower case, words parted by single spaces, without punctuation."""
    return " ".join(re.findall(r"\w+", text.lower()))


def described(texts: tuple[str, ...], image: np.ndarray, style: str) -> tuple[str, ...]:
    """The captions of an image: its class's, each with the image's attributes. image: uint8 [3, H, W]."""
    words = ", ".join(word for word in (style, brightness(image), colour(image)) if word)
    return tuple(f"{text}, {words}" for text in texts)


def brightness(image: np.ndarray) -> str:
    """dark, medium or bright: the mean grey level in thirds of its range."""
    return ("dark", "medium", "bright")[min(2, int(image.mean() / 256 * 3))]


def colour(image: np.ndarray) -> str:
    """The hue of the mean colour; "grey" where its channels differ by less than 10 %."""
    red, green, blue = (float(channel.mean()) / 255 for channel in image)
    high, low = max(red, green, blue), min(red, green, blue)
    if high - low < 0.1:
        return "grey"
    if high == red:
        sixth = (green - blue) / (high - low) % 6
    else:
        sixth = 2 + (blue - red) / (high - low) if high == green else 4 + (red - green) / (high - low)
    return HUES[round(sixth) % 6]


def templates_of(info: Mapping[str, object], fallback: str = PRIMER) -> tuple[str, tuple[str, ...]]:
    """(primer, further templates) of a set: `caption_template` and `caption_templates` of its info.json, then the
    general ones."""
    own, more = info.get("caption_template"), info.get("caption_templates")
    primer = own if isinstance(own, str) and "{}" in own else fallback
    further = [text for text in more if isinstance(text, str) and "{}" in text] if isinstance(more, list) else []
    return primer, (*further, *GENERAL)
