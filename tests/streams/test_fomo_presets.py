"""The presets hold what their documentation says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from clbench.config import parse_config
from clbench.errors import UserError
from clbench.registry import load_recipe
from clbench.stream import Stream
from clbench.streams.fomo_full import ADAPTATION, HELD_OUT, RETRIEVAL, YEARS
from clbench.streams.fomo_presets import CLIP_POOL, MINI_HELD_OUT, MINI_POOL, NANO_HELD_OUT, NANO_POOL
from clbench.streams.fomo_procedural import FAMILIES, STYLES, generated_set, template

Build = Callable[..., Stream]


@pytest.mark.parametrize("style", list(STYLES))
def test_generated_sets_are_balanced_and_the_same_everywhere(style: str) -> None:
    data, again = generated_set(f"shapes:{style}"), generated_set(f"shapes:{style}")
    assert data.fingerprint == again.fingerprint
    assert data.train.x.shape == (1200, 3, 32, 32) and data.test.x.shape == (240, 3, 32, 32)
    assert np.bincount(data.train.y).tolist() == [100] * 12
    assert "{}" in template(f"shapes:{style}")
    assert len(set(data.train.keys.tolist()) & set(data.test.keys.tolist())) == 0
    assert generated_set(f"shapes:{style}", 16).test.x.shape == (240, 3, 16, 16)


def test_the_styles_of_a_family_show_the_same_things() -> None:
    clean, inverted = (generated_set(f"glyphs:{style}").test.x.astype(int) for style in ("clean", "inverted"))
    ink = clean.mean(1) < 128
    assert (inverted.mean(1)[ink] > 128).mean() > 0.95 and (inverted.mean(1)[~ink] < 128).mean() > 0.95


def test_an_unknown_style_is_refused() -> None:
    with pytest.raises(UserError, match=r"no style 'clear'.*clean"):
        generated_set("shapes:clear")
    assert set(FAMILIES) == {"shapes", "stripes", "glyphs", "digits"}


def test_nano_is_what_it_says(build: Build, tmp_path: Path) -> None:
    stream = build("fomo-nano", 0, tmp_path)
    assert stream.captions is not None and stream.pretraining is not None
    assert sum(len(task.classes) for task in stream.tasks) == 66 and len(stream.tasks) == 5
    assert {s.name for s in stream.eval_sets if s.role == "held-out"} == set(NANO_HELD_OUT)
    assert {stream.captions.dataset(int(label)) for label in stream.pretraining.labels.unique()} == set(NANO_POOL)
    steps = [-(-len(task.train) // stream.training.batch_size) * stream.training.epochs for task in stream.tasks]
    assert all(20 <= n <= 23 for n in steps)


def test_the_embedded_models_pool_is_that_of_the_presets() -> None:
    assert [*MINI_POOL, *NANO_POOL] == CLIP_POOL
    assert not set(CLIP_POOL) & {*MINI_HELD_OUT, *NANO_HELD_OUT}


def test_full_is_the_published_list() -> None:
    assert len(ADAPTATION) == len(set(ADAPTATION)) == 41 and len(HELD_OUT) == len(set(HELD_OUT)) == 22
    assert set(YEARS) == set(ADAPTATION) and set(RETRIEVAL) <= {*ADAPTATION, *HELD_OUT}
    assert len(set(YEARS.values())) == 15
    years = [YEARS[name] for name in ("flowers102", "cifar100", "sun397", "cub200", "fgvcaircraft", "zappos50k")]
    assert years == sorted(set(years))


def test_full_reads_a_published_stream_where_its_sets_are(write_set: Callable[..., Path], tmp_path: Path) -> None:
    root = tmp_path
    for seed, name in enumerate((*ADAPTATION[:2], "mnist", "laion400m_2m")):
        write_set(name, ("cat", "dog"), train=3, test=1, side=4, seed=seed)
    order = ["ArtBench10+++dog", "AI2Diagrams+++cat", "ArtBench10+++cat"]
    (root / "published.json").write_text(json.dumps(order))
    recipe = load_recipe("fomo-full")
    settings = {
        "sets": ADAPTATION[:2],
        "held_out": ["mnist"],
        "retrieval": [],
        "size": 4,
        "tasks": 2,
        "stream_file": str(root / "published.json"),
    }
    stream = recipe("fomo-full", parse_config(recipe.Config, settings, "fomo-full"), data_root=root).build()
    assert stream.captions is not None
    assert stream.captions.concepts[:3] == ("artbench10+++dog", "ai2diagrams+++cat", "artbench10+++cat")
    assert stream.contrast.loss == "clip" and stream.training.batch_size == 512


@pytest.mark.slow
def test_mini_is_what_it_says(build: Build, real_data: Path) -> None:
    stream = build("fomo-mini", 0, real_data)
    assert sum(len(task.classes) for task in stream.tasks) == 248 and len(stream.tasks) == 10
    assert {s.name for s in stream.eval_sets if s.role == "held-out"} == set(MINI_HELD_OUT)
    assert stream.captions is not None
    assert stream.captions.texts[stream.captions.concepts.index("gtsrb+++stop")][0].endswith("stop")
