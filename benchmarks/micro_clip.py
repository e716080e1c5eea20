"""Zero-shot accuracy of micro-clip on the sets of the data root and on the generated ones: the table of its card.

CLBENCH_DATA=FOLDER python benchmarks/micro_clip.py [MODEL] [IMAGES]

Test images (the first so many of each set; all), 32 px; every class's text is its primer (the set's own template); the
nearest text among all classes of the set. A set of which a part is in the pool is also scored by parts, among the same
classes.
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor

from clbench.data.root import data_root
from clbench.models import build_model
from clbench.models.clip.model import CLIP
from clbench.streams.fomo_captions import filled
from clbench.streams.fomo_presets import CLIP_POOL, MINI_HELD_OUT, NANO_ADAPTATION, NANO_HELD_OUT
from clbench.streams.fomo_source import SourceSet, read_sets
from clbench.transforms import Normalise

SIZE = 32


def whole(name: str) -> str:
    """The set's name, without the part of it that is meant."""
    return name.partition("@")[0]


@torch.no_grad()
def zero_shot(model: CLIP, source: SourceSet, most: int | None) -> tuple[Tensor, Tensor]:
    """(labels, whether each test image's text is found), int64 and bool [N]."""
    normalise = Normalise(model.input.mean, model.input.std, 3, SIZE)
    texts = model.encode_text(model.tokenize([filled(source.primer, name) for name in source.said]))
    images, labels = (torch.from_numpy(v[:most]) for v in (source.data.test.x, source.data.test.y))
    found = torch.cat([(model.encode_image(normalise(part)) @ texts.T).argmax(1) for part in images.split(500)])
    return labels, found == labels


def main() -> None:
    torch.manual_seed(0)
    spec = sys.argv[1] if len(sys.argv) > 1 else "micro-clip"
    most = int(sys.argv[2]) if len(sys.argv) > 2 else None
    model = build_model(spec, channels=3, size=SIZE, mean=(0.5,) * 3, std=(0.25,) * 3, pairs=True).eval()
    assert isinstance(model, CLIP)
    generated = [*(name for name in CLIP_POOL if ":" in name), *NANO_ADAPTATION, *NANO_HELD_OUT]
    names = sorted(path.parent.name for path in (data_root() / "images").glob("*/info.json")) + generated
    pool = {whole(name): name for name in CLIP_POOL}
    held_out = {*MINI_HELD_OUT, *NANO_HELD_OUT}
    print("| set | role | classes | chance | accuracy |\n|---|---|---|---|---|")
    for name in names:
        [source] = read_sets("micro-clip", [(name, "held-out")], None, SIZE, {})
        labels, right = zero_shot(model, source, most)
        role = "pool" if name in pool else "held out" if name in held_out else "new"
        parts = {name: torch.ones_like(right)}
        if pool.get(name, name) != name:
            first, step = (int(part) for part in pool[name].partition("@")[2].split("/"))
            taught = labels % step == first
            parts = {name + " (taught classes)": taught, name + " (others)": ~taught}
        for part, rows in parts.items():
            told = "new" if part.endswith("(others)") else role
            n = len(source.data.class_names)
            accuracy = 100 * float(right[rows].float().mean())
            print(f"| {part} | {told} | {n} | {100 / n:.1f} | {accuracy:.1f} |", flush=True)


if __name__ == "__main__":
    main()
