"""The captions of a stream of concepts: of every concept, and of samples that have their own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clbench.captions import Captions
from clbench.errors import UserError

from .fomo_captions import CaptionMode, concept_texts, described, filled, naming
from .fomo_concepts import Concept
from .fomo_rows import PARTS, Part, Rows


def texts_of(concepts: Sequence[Concept], rows: Rows, mode: CaptionMode, retrieval: frozenset[str]) -> Captions:
    """The captions of concepts in the order of their labels. retrieval: sets whose test images have their own."""
    texts, of_row = [], dict[int, tuple[str, ...]]()
    for concept in concepts:
        source = concept.source
        said = source.descriptions.get(concept.class_name, "")
        texts.append(concept_texts(concept.said, source.primer, source.templates, mode, said))
        for part in PARTS:
            retrieved = part == "test" and source.name in retrieval
            if retrieved or (part != "test" and mode == "rich"):
                of_row |= _own(concept, rows, part, retrieved, as_given=retrieved or concept.role == "pretraining")
            elif part != "test" and mode == "attr":
                of_row |= _looks(concept, rows, part)
    return Captions(tuple(concept.key for concept in concepts), tuple(texts), of_row)


def _own(concept: Concept, rows: Rows, part: Part, needed: bool, as_given: bool) -> dict[int, tuple[str, ...]]:
    """Captions that the set has of its rows, as they are given or naming the class."""
    own = concept.source.captions.get("test" if part == "test" else "train")
    if own is None:
        return {}
    primer, found = filled(concept.source.primer, concept.said), {}
    for row in rows.of([concept], part).tolist():
        texts = own[int(rows.source[row])]
        if needed and not texts:
            raise UserError(f"{concept.source.name}: an image of {concept.class_name!r} has no caption to be retrieved")
        if texts:
            found[row] = texts if as_given else tuple(naming(text, concept.said, primer) for text in texts)
    return found


def _looks(concept: Concept, rows: Rows, part: Part) -> dict[int, tuple[str, ...]]:
    """The primer and what the image looks like."""
    primer = (filled(concept.source.primer, concept.said),)
    places: np.ndarray = rows.of([concept], part)
    return {row: described(primer, rows.x[row], concept.source.style) for row in places.tolist()}
