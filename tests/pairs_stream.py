"""A small hand-made stream of images with captions, and the configuration of a CLIP model that takes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clbench.captions import Captions, ContrastConfig
from clbench.config import setting
from clbench.samples import Pool, Samples
from clbench.stream import ClassMap, EvalSet, Recipe, Stream, Task, Training
from clbench.streams.identity import content_hash

COLOURS = {"red": (220, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 220), "white": (230, 230, 230)}
STRIPES = {"rows": 0, "columns": 1}
SIDE = 8
TINY = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": SIDE, "layers": 1, "width": 16, "head_width": 8, "patch_size": 4},
    "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


def tiny_clip(folder: Path) -> str:
    """The model string of an untrained CLIP model whose configuration is written there."""
    path = folder / "tiny.json"
    path.write_text(json.dumps({"model_cfg": TINY}))
    return f"open_clip:{path}"


class Squares(Recipe):
    """Coloured squares in two tasks of two colours; stripes are held out, and sought by their captions."""

    class Config(ContrastConfig):
        per_class: int = setting(12, "images of a colour", source="this file", ge=4)

    def build(self) -> Stream:
        names = [*COLOURS, *STRIPES]
        labels = torch.arange(len(names)).repeat_interleave(self.config.per_class)
        images = torch.stack([_draw(names[label]) for label in labels.tolist()])
        noise = torch.randint(-15, 16, images.shape, generator=torch.Generator().manual_seed(self.order_seed))
        pool = Pool((images + noise).clamp(0, 255).to(torch.uint8), labels, fingerprint="squares")
        concepts = [f"colours+++{name}" for name in COLOURS] + [f"stripes+++{name}" for name in STRIPES]
        texts = [tuple(form.format(name) for form in ("a {} square", "{} paint", "it is {}")) for name in names]
        rows = {row: (f"stripes number {row}",) for row in torch.nonzero(labels == 5).flatten().tolist()}
        return Stream(
            name=self.name,
            objective="contrastive",
            tasks=tuple(self._task(pool, index) for index in range(2)),
            eval_sets=self._sets(pool),
            content=content_hash({"squares": self.config.model_dump()}),
            order="one",
            input_shape=(3, SIDE, SIDE),
            classes=ClassMap(tuple(concepts), tuple(range(len(concepts)))),
            mean=(0.5,) * 3,
            std=(0.25,) * 3,
            training=Training("adamw", lr=0.003, batch_size=8),
            captions=Captions(tuple(concepts), tuple(texts), rows),
            contrast=self.config.contrast(),
        )

    def _task(self, pool: Pool, index: int) -> Task:
        mine = (2 * index, 2 * index + 1)
        return Task(index, f"task{index}", self._rows(pool, mine, train=True), classes=mine, new_classes=mine)

    def _sets(self, pool: Pool) -> tuple[EvalSet, ...]:
        colours, stripes = (0, 1, 2, 3), (4, 5)
        return (
            EvalSet("task0", self._rows(pool, (0, 1)), 0, colours),
            EvalSet("task1", self._rows(pool, (2, 3)), 1, colours),
            EvalSet("colours", self._rows(pool, colours), None, colours, role="adaptation"),
            EvalSet("stripes", self._rows(pool, stripes), None, stripes, role="held-out"),
            EvalSet("columns", self._rows(pool, (5,)), None, (5,), kind="retrieval", role="held-out"),
        )

    def _rows(self, pool: Pool, classes: tuple[int, ...], train: bool = False) -> Samples:
        """Of each class the first quarter for tests, the others for training."""
        cut = self.config.per_class // 4
        parts = [torch.nonzero(pool.labels == label).flatten() for label in classes]
        return Samples(pool, torch.cat([rows[cut:] if train else rows[:cut] for rows in parts]))


def _draw(name: str) -> Tensor:
    """int64 [3, 8, 8]."""
    if name in COLOURS:
        return torch.tensor(COLOURS[name])[:, None, None].expand(3, SIDE, SIDE)
    line = (torch.arange(SIDE) % 4 < 2).long() * 200 + 20
    return (line[:, None] if STRIPES[name] == 0 else line[None, :]).expand(3, SIDE, SIDE)


def job(folder: Path, **fields: Any) -> dict[str, Any]:
    """Entries of a specification: the stream, the model, three steps a task."""
    return {"stream": f"{__file__}:Squares", "backbone": tiny_clip(folder), **fields}
