"""Train micro-clip on its pool, `CLIP_POOL`: `CLBENCH_DATA=FOLDER python -m clbench.streams.micro_clip_pool OUT`.

Writes OUT.safetensors and OUT.json; see `clbench/models/micro_clip/pretrain.py` for how it is trained.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from clbench.models.micro_clip.architecture import PIXELS
from clbench.models.micro_clip.pretrain import Captioned, Images, run
from clbench.models.micro_clip.tokenizer import encode, tokenize

from .fomo_captions import concept_texts
from .fomo_presets import CLIP_POOL
from .fomo_source import read_sets


def read_pool() -> tuple[list[Images], list[Captioned]]:
    """The sets of the pool and the classes they show; classes of equal captions are one."""
    numbers: dict[tuple[str, ...], int] = {}
    sets, classes = [], list[Captioned]()
    for source in read_sets("micro-clip", [(name, "pretraining") for name in CLIP_POOL], None, PIXELS, {}):
        number_of = torch.full((len(source.data.class_names),), -1)
        for label in source.classes:
            texts = concept_texts(source.said[label], source.primer, source.templates, "templates")
            if texts not in numbers:
                numbers[texts] = len(numbers)
                classes.append(Captioned(tokenize(texts), set(encode(source.said[label]))))
            number_of[label] = numbers[texts]
        numbered = number_of[torch.from_numpy(source.data.train.y)]
        rows = (numbered >= 0).nonzero()[:, 0]
        sets.append(Images(source.name, torch.from_numpy(source.data.train.x)[rows], numbered[rows]))
    return sets, classes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    run(*read_pool(), out)


if __name__ == "__main__":
    main()
