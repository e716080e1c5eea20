"""How often captions of the pre-training name each concept."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from clbench.errors import UserError

from .fomo_captions import filled, naming, plain
from .fomo_concepts import Concept


def counts_in_pool(concepts: Sequence[Concept], pool: Sequence[Concept]) -> np.ndarray:
    """int64 [n]: in how many captions of the pool's images each concept's name is a phrase of whole words, in the
    singular or with an s, in lower case and without punctuation."""
    names = [plain(concept.said) for concept in concepts]
    longest = max(len(name.split()) for name in names)
    counts: Counter[str] = Counter()
    for concept in pool:
        for caption, images in _captions(concept).items():
            for phrase in _phrases(caption, longest):
                counts[phrase] += images
    return np.array([counts[name] for name in names], np.int64)


def _captions(concept: Concept) -> Counter[str]:
    """The captions of a concept's training images, each with the number of images it is said of."""
    source = concept.source
    primer = filled(source.primer, concept.said)
    own = source.captions.get("train")
    if own is None:
        return Counter({primer: len(concept.train)})
    said = (own[int(row)] for row in concept.train)
    if concept.role == "pretraining":  # as given
        return Counter(texts[0] if texts else primer for texts in said)
    return Counter(naming(texts[0], concept.said, primer) if texts else primer for texts in said)


def _phrases(caption: str, longest: int) -> set[str]:
    """All runs of up to `longest` words, those that end with an s also without it."""
    words = plain(caption).split()
    found = {" ".join(words[i : i + n]) for n in range(1, longest + 1) for i in range(len(words) - n + 1)}
    return found | {phrase[:-1] for phrase in found if phrase.endswith("s")}


def counts_in_file(path: Path, concepts: Sequence[Concept]) -> np.ndarray:
    """float64 [n]: counts by DATASET+++class or by class. Raises UserError where the file has none of a concept."""
    try:
        counts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"counts {path} cannot be read as JSON ({error})") from None
    if not isinstance(counts, dict) or not all(isinstance(value, (int, float)) for value in counts.values()):
        raise UserError(f"counts {path} holds no object from classes to counts")
    strange = next((name for name, value in counts.items() if not math.isfinite(value)), None)
    if strange is not None:
        raise UserError(f"counts {path}: {counts[strange]} is no count of {strange}")
    found = [counts.get(each.key, counts.get(each.class_name, counts.get(each.said))) for each in concepts]
    if None in found:
        raise UserError(f"counts {path} has no count of {concepts[found.index(None)].key}")
    return np.array(found, np.float64)
