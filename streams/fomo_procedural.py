"""Generated image sets, `FAMILY:STYLE`: shapes, stripes, glyphs and the digits of scikit-learn, each in five styles.

A picture is a mask of ink, float [32, 32] in [0, 1], put on paper in a style. The pictures of a class are drawn one
after another from the key (family, split, class), the same things in every style of a family.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import numpy as np
import torch

from clbench.data.digits import load_digits
from clbench.data.fingerprint import content_fingerprint
from clbench.errors import UserError, did_you_mean

from .image_data import ImageData, Rows, to_uint8
from .keyed import draw
from .row_keys import row_keys

SIDE = 32
PER_CLASS = {"train": 100, "test": 20}
UNKNOWN = ((0.5,) * 3, (0.25,) * 3)

Mask = np.ndarray
Draw = Callable[[np.random.RandomState], Mask]

AXIS = (np.arange(SIDE) + 0.5) / SIDE * 2 - 1
GRID_Y, GRID_X = np.meshgrid(AXIS, AXIS, indexing="ij")
SOFT = 2.0 / SIDE  # width of an edge


def _filled(signed: np.ndarray) -> Mask:
    """Ink where a signed distance is below 0, with a soft edge."""
    return np.clip(0.5 - signed / SOFT, 0, 1)


def _placed(random: np.random.RandomState, turn: float) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of the picture in the frame of a thing that is moved, scaled and turned by up to `turn` radians."""
    scale, angle = random.uniform(0.5, 0.8), random.uniform(-turn, turn)
    x = (GRID_X - random.uniform(-0.2, 0.2)) / scale
    y = (GRID_Y - random.uniform(-0.2, 0.2)) / scale
    return np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x


def _polygon(x: np.ndarray, y: np.ndarray, sides: int) -> np.ndarray:
    """Signed distance (about) to a regular polygon that stands on a side."""
    angles = np.pi / 2 + 2 * np.pi * np.arange(sides) / sides
    return np.max([np.cos(a) * x + np.sin(a) * y for a in angles], axis=0) - np.cos(np.pi / sides) * 0.9


def _cross(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    arms = [np.maximum(np.abs(x) - a, np.abs(y) - b) for a, b in ((0.9, 0.25), (0.25, 0.9))]
    return np.minimum(*arms)


def _star(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    angle = np.arctan2(x, -y)
    within = np.abs((angle + np.pi / 5) % (2 * np.pi / 5) - np.pi / 5) / (np.pi / 5)
    return np.hypot(x, y) - (0.95 - 0.6 * within)


def _heart(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    u, v = x * 1.2, -y * 1.2 + 0.1
    return (u * u + v * v - 0.8) ** 3 / 0.8 - u * u * v**3


SHAPES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "circle": lambda x, y: np.hypot(x, y) - 0.85,
    "ring": lambda x, y: np.abs(np.hypot(x, y) - 0.65) - 0.2,
    "square": lambda x, y: np.maximum(np.abs(x), np.abs(y)) - 0.75,
    "triangle": partial(_polygon, sides=3),
    "pentagon": partial(_polygon, sides=5),
    "diamond": lambda x, y: np.abs(x) * 1.5 + np.abs(y) - 0.95,
    "cross": _cross,
    "star": _star,
    "heart": _heart,
    "crescent": lambda x, y: np.maximum(np.hypot(x, y) - 0.9, 0.75 - np.hypot(x - 0.4, y)),
    "bar": lambda x, y: np.maximum(np.abs(x) - 0.95, np.abs(y) - 0.22),
    "half disc": lambda x, y: np.maximum(np.hypot(x, y - 0.4) - 0.95, y - 0.4),
}


def _shape(random: np.random.RandomState, distance: Callable[..., np.ndarray]) -> Mask:
    return _filled(distance(*_placed(random, turn=0.3)))


def _stripes(random: np.random.RandomState, angle: float, width: float) -> Mask:
    """Parallel stripes; `angle` of their direction, `width` of stripe and gap together."""
    angle, width = angle + random.uniform(-0.12, 0.12), width * random.uniform(0.9, 1.1)
    across = np.sin(angle) * GRID_X + np.cos(angle) * GRID_Y + random.uniform(0, width)
    return _filled(np.abs(across % width - width / 2) - width / 4)


def _chequers(random: np.random.RandomState, width: float) -> Mask:
    width, x0, y0 = width * random.uniform(0.9, 1.1), *random.uniform(0, width, 2)
    wave = np.sin(np.pi * (GRID_X + x0) / width) * np.sin(np.pi * (GRID_Y + y0) / width)
    return np.clip(0.5 + 2 * wave, 0, 1)


def _dots(random: np.random.RandomState, width: float) -> Mask:
    width, x0, y0 = width * random.uniform(0.9, 1.1), *random.uniform(0, width, 2)
    x, y = (GRID_X + x0) % width - width / 2, (GRID_Y + y0) % width - width / 2
    return _filled(np.hypot(x, y) - width / 3.5)


DIRECTIONS = {"horizontal": 0.0, "vertical": np.pi / 2, "rising": np.pi / 4, "falling": -np.pi / 4}
STRIPES: dict[str, Draw] = {
    f"{thickness} {direction} stripes": partial(_stripes, angle=angle, width=width)
    for thickness, width in (("thin", 0.35), ("broad", 0.8))
    for direction, angle in DIRECTIONS.items()
} | {"chequers": partial(_chequers, width=0.5), "dots": partial(_dots, width=0.6)}

# Strokes between points of a grid of 3 columns (0, 1, 2) and 5 rows (0 above, 4 below): (column, row) pairs.
STROKES: dict[str, tuple[tuple[int, int, int, int], ...]] = {
    "A": ((0, 4, 1, 0), (1, 0, 2, 4), (0, 3, 2, 3)),
    "E": ((0, 0, 0, 4), (0, 0, 2, 0), (0, 2, 2, 2), (0, 4, 2, 4)),
    "F": ((0, 0, 0, 4), (0, 0, 2, 0), (0, 2, 2, 2)),
    "H": ((0, 0, 0, 4), (2, 0, 2, 4), (0, 2, 2, 2)),
    "K": ((0, 0, 0, 4), (0, 2, 2, 0), (0, 2, 2, 4)),
    "L": ((0, 0, 0, 4), (0, 4, 2, 4)),
    "N": ((0, 4, 0, 0), (0, 0, 2, 4), (2, 4, 2, 0)),
    "T": ((0, 0, 2, 0), (1, 0, 1, 4)),
    "V": ((0, 0, 1, 4), (1, 4, 2, 0)),
    "X": ((0, 0, 2, 4), (2, 0, 0, 4)),
    "Y": ((0, 0, 1, 2), (2, 0, 1, 2), (1, 2, 1, 4)),
    "Z": ((0, 0, 2, 0), (2, 0, 0, 4), (0, 4, 2, 4)),
}


def _glyph(random: np.random.RandomState, strokes: tuple[tuple[int, int, int, int], ...]) -> Mask:
    x, y = _placed(random, turn=0.2)
    width, slant = random.uniform(0.1, 0.18), random.uniform(-0.2, 0.2)
    x = x - slant * y
    return _filled(np.min([_to_stroke(x, y, *stroke) for stroke in strokes], axis=0) - width)


def _to_stroke(x: np.ndarray, y: np.ndarray, *ends: int) -> np.ndarray:
    """Distance to the line between two points of the grid."""
    x0, y0, x1, y1 = ((end - 1) * 0.6 if i % 2 == 0 else (end - 2) * 0.45 for i, end in enumerate(ends))
    dx, dy = x1 - x0, y1 - y0
    along = np.clip(((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy), 0, 1)
    return np.hypot(x - x0 - along * dx, y - y0 - along * dy)


FAMILIES: dict[str, dict[str, Draw]] = {
    "shapes": {name: partial(_shape, distance=distance) for name, distance in SHAPES.items()},
    "stripes": STRIPES,
    "glyphs": {name: partial(_glyph, strokes=strokes) for name, strokes in STROKES.items()},
    "digits": {},
}

PHRASES = {"shapes": "a {}", "stripes": "{}", "glyphs": "the letter {}", "digits": "the digit {}"}
PICTURES = {
    "clean": "a drawing of",
    "inverted": "a white drawing on black of",
    "noisy": "a noisy drawing of",
    "outline": "an outline of",
    "coloured": "a coloured drawing of",
}


def _clean(mask: Mask, random: np.random.RandomState) -> np.ndarray:
    paper, ink = random.uniform(0.85, 1.0), random.uniform(0.0, 0.2)
    return np.repeat((paper + (ink - paper) * mask)[None], 3, axis=0)


def _inverted(mask: Mask, random: np.random.RandomState) -> np.ndarray:
    return 1 - _clean(mask, random)


def _noisy(mask: Mask, random: np.random.RandomState) -> np.ndarray:
    return 0.2 + 0.6 * _clean(mask, random) + random.normal(0, 0.18, (1, SIDE, SIDE))


def _outline(mask: Mask, random: np.random.RandomState) -> np.ndarray:
    """The rim of the ink: what a step in any direction takes away."""
    padded = np.pad(mask, 1)
    moved = [padded[1 + dy : 1 + dy + SIDE, 1 + dx : 1 + dx + SIDE] for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0))]
    return _clean(mask - np.min([mask, *moved], axis=0), random)


def _coloured(mask: Mask, random: np.random.RandomState) -> np.ndarray:
    paper, ink = random.uniform(0.6, 1.0, (3, 1, 1)), random.uniform(0.0, 0.35, (3, 1, 1))
    ink[random.randint(3)] = random.uniform(0.5, 0.9)
    return paper + (ink - paper) * mask


STYLES: dict[str, Callable[[Mask, np.random.RandomState], np.ndarray]] = {
    "clean": _clean,
    "inverted": _inverted,
    "noisy": _noisy,
    "outline": _outline,
    "coloured": _coloured,
}


def is_generated(name: str) -> bool:
    """Whether a name is one of a generated set."""
    family, colon, _ = name.partition(":")
    return bool(colon) and family in FAMILIES


def template(name: str) -> str:
    """The caption of a generated set, `{}` in the place of the class."""
    family, _, style = name.partition(":")
    return f"{PICTURES[style]} {PHRASES[family]}"


@cache
def generated_set(name: str, size: int = SIDE) -> ImageData:
    """The set `FAMILY:STYLE`, uint8 [N, 3, size, size]. Raises UserError for a style that there is not."""
    family, _, style = name.partition(":")
    if style not in STYLES:
        raise UserError(f"{name}: generated sets have no style {style!r}{did_you_mean(style, STYLES)}")
    class_names = list(FAMILIES[family]) or [str(digit) for digit in range(10)]
    splits = []
    for split in ("train", "test"):
        masks, y = _digits(split) if family == "digits" else _drawn(family, split)
        x = np.empty((len(y), 3, SIDE, SIDE), np.uint8)
        for label, class_name in enumerate(class_names):
            random = _random(family, style, split, class_name)
            for row in np.flatnonzero(y == label).tolist():
                x[row] = (np.clip(STYLES[style](masks[row], random), 0, 1) * 255 + 0.5).astype(np.uint8)
        x = x if size == SIDE else _resized(x, size)
        splits.append(Rows(x, y, row_keys(x, y, class_names)))
    prints = [content_fingerprint(rows.x, [class_names[label] for label in rows.y]) for rows in splits]
    return ImageData(name, class_names, splits[0], splits[1], UNKNOWN, "/".join(prints))


@cache
def _drawn(family: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Masks float [N, 32, 32] and labels int64 [N] of a family that is drawn."""
    drawn, masks = FAMILIES[family], list[Mask]()
    for name, make in drawn.items():
        random = _random(family, split, name)
        masks += [make(random) for _ in range(PER_CLASS[split])]
    return np.stack(masks), np.repeat(np.arange(len(drawn)), PER_CLASS[split])


def _digits(split: str) -> tuple[np.ndarray, np.ndarray]:
    """The digits' ink, enlarged fourfold by straight lines between the pixels' centres."""
    found = load_digits(split)
    at = np.clip((np.arange(SIDE) + 0.5) / 4 - 0.5, 0, 7)
    low = np.minimum(at.astype(np.int64), 6)
    weights = np.zeros((SIDE, 8))
    weights[np.arange(SIDE), low] = 1 - (at - low)
    weights[np.arange(SIDE), low + 1] = at - low
    return weights @ (found.x[:, 0] / 255.0) @ weights.T, found.y


def _resized(x: np.ndarray, size: int) -> np.ndarray:
    pixels = torch.from_numpy(x).float()
    return to_uint8(torch.nn.functional.interpolate(pixels, (size, size), mode="bilinear", antialias=True)).numpy()


def _random(*key: object) -> np.random.RandomState:
    """Numpy's legacy generator, which never changes between versions."""
    return np.random.RandomState(draw(0, *key) % 2**32)
