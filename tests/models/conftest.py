from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

from clbench.models import build_model

Build = Callable[..., nn.Module]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def image_model() -> Build:
    """Build a seeded image model for 16 px (or other) images with three (or other) channels."""

    def build(
        spec: str, *, channels: int = 3, size: int = 16, classes: int = 0, seed: int = 0, **more: object
    ) -> nn.Module:
        torch.manual_seed(seed)
        statistics = {"mean": (0.4,) * channels, "std": (0.2,) * channels}
        model = build_model(spec, channels=channels, size=size, **statistics, **more)  # type: ignore[arg-type]
        model.grow(classes)  # type: ignore[operator]
        return model

    return build


@pytest.fixture
def text_model() -> Build:
    """Build a seeded language model for blocks of 16 tokens of a byte vocabulary."""

    def build(spec: str = "byte-gpt?d=32,heads=2", *, size: int = 16, seed: int = 0) -> nn.Module:
        torch.manual_seed(seed)
        return build_model(spec, channels=0, size=size, mean=(), std=(), vocab_size=257)

    return build
