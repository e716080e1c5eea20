"""What a model knows of each concept before the stream: scores of training images, embeddings of primers.

They are computed once for the model's weights, the captions and the images, and kept in the cache.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from clbench.data.root import cache_dir
from clbench.models import build_model

from .choosing import limited
from .fomo_captions import filled
from .fomo_concepts import Concept

VERSION = 1  # of the scores: a change makes old entries of the cache unreachable
IMAGES = 32
BATCH = 64
SCORES = ("sim", "loss", "acc", "margin", "loss_all")


class BaseModel:
    """A model and the concepts it is asked about. size: side of the concepts' images. Nothing is done until asked."""

    def __init__(self, spec: str, concepts: Sequence[Concept], size: int) -> None:
        self.spec = spec
        self.concepts = concepts
        self.size = size
        self._found: dict[str, np.ndarray] | None = None

    def scores(self, which: str) -> np.ndarray:
        """float64 [n], high for what the model knows, to four places: means over at most 32 training images.

        sim: cosine of image and primer; loss, loss_all: minus the cross-entropy among the primers of the concept's set,
        of all sets; acc: the share that is classified right among the set's; margin: how far the right cosine is above
        the next one.
        """
        return np.round(self._measured()[which], 4)

    def embeddings(self) -> np.ndarray:
        """float64 [n, d]: of the primers, of unit length."""
        return self._measured()["text"].astype(np.float64)

    def _measured(self) -> dict[str, np.ndarray]:
        if self._found is None:
            model = _built(self.spec, self.size)
            primers = [filled(each.source.primer, each.said) for each in self.concepts]
            images = [_images(each) for each in self.concepts]
            path = _entry(model, primers, images)
            self._found = _stored(path)
            if self._found is None:
                self._found = measure(model, primers, images, [each.source.name for each in self.concepts])
                _store(path, self._found)
        return self._found


def _built(spec: str, size: int) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_model(spec, channels=3, size=size, mean=(0.5,) * 3, std=(0.5,) * 3, pairs=True)
    return model.eval()


def _images(concept: Concept) -> np.ndarray:
    """uint8 [m, 3, R, R], m at most 32."""
    rows = concept.source.data.train
    return rows.x[limited(concept.train, rows.y, rows.keys, IMAGES, None)]


@torch.no_grad()
def measure(
    model: Any, primers: Sequence[str], images: Sequence[np.ndarray], sets: Sequence[str]
) -> dict[str, np.ndarray]:
    """The scores of each concept (float32 [n]) and the embeddings `text` of the primers (float32 [n, d]).

    primers, images, sets: by concept; model: in eval mode, with `encode_image`, `encode_text`, `tokenize`, `input`.
    """
    text = torch.cat([model.encode_text(model.tokenize(primers[i : i + BATCH])) for i in range(0, len(primers), BATCH)])
    number = torch.tensor(np.unique(list(sets), return_inverse=True)[1])
    own = number[:, None] == number
    found = {score: np.zeros(len(primers), np.float32) for score in SCORES}
    for place, pixels in enumerate(images):
        cosines = _embedded(model, pixels) @ text.T
        logits = cosines * model.scale
        among = logits.masked_fill(~own[place], -torch.inf)
        others = cosines.masked_fill(~own[place], -torch.inf)
        others[:, place] = -torch.inf
        right = torch.full((len(pixels),), place)
        of_each = {
            "sim": cosines[:, place],
            "loss": -F.cross_entropy(among, right, reduction="none"),
            "acc": (among.argmax(1) == place).float(),
            "margin": cosines[:, place] - others.max(1).values.clamp(min=-1),
            "loss_all": -F.cross_entropy(logits, right, reduction="none"),
        }
        for score, values in of_each.items():
            found[score][place] = values.mean().item()
    return {**found, "text": text.numpy()}


def _embedded(model: Any, pixels: np.ndarray) -> Tensor:
    takes = model.input
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (takes.mean, takes.std))
    x = torch.from_numpy(np.ascontiguousarray(pixels)).float() / 255
    if x.shape[-1] != takes.size:
        x = F.interpolate(x, takes.size, mode="bilinear", antialias=True)
    embedded: Tensor = model.encode_image((x - mean) / std)
    return embedded


def _entry(model: Any, primers: Sequence[str], images: Sequence[np.ndarray]) -> Path | None:
    """The file in the cache; None without one."""
    folder = cache_dir()
    if folder is None:
        return None
    total = sha256(repr([VERSION, IMAGES, list(primers), [len(each) for each in images]]).encode())
    for pixels in images:
        total.update(np.ascontiguousarray(pixels).tobytes())
    for name, tensor in model.state_dict().items():
        total.update(name.encode())
        total.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return folder / "concept-scores" / f"{total.hexdigest()[:32]}.npz"


def _stored(path: Path | None) -> dict[str, np.ndarray] | None:
    if path is None:
        return None
    with contextlib.suppress(OSError, ValueError, KeyError, EOFError), np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in (*SCORES, "text")}
    return None


def _store(path: Path | None, found: dict[str, np.ndarray]) -> None:
    if path is None:
        return
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=".new-", suffix=".npz", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            np.savez(file, **found)  # type: ignore[arg-type]
        Path(temporary).replace(path)
