"""Published numbers beside a recipe, and the recipes that come with clbench. They say nothing of how a run is made."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from clbench.config import Config, parse_config
from clbench.errors import UserError, did_you_mean

SUITES = "suites"


class Published(Config):
    """One number that somebody published for (nearly) the experiment a recipe describes.

    metric: the record's key it compares with. value, std: as in the record, a share and no percentage, for accuracies.
    unit: `share` (shown in percent) or `nats`, for losses of text.
    source: who says so, and where. secondary: taken from others than the authors, or read off a plot.
    comparable: false where another experiment than the recipe's is meant; note: what differs.
    """

    metric: str
    value: float
    std: float | None = None
    unit: Literal["share", "nats"] = "share"
    source: str = Field(min_length=1)
    secondary: bool = False
    comparable: bool = True
    note: str = ""

    @field_validator("metric")
    @classmethod
    def _metric(cls, key: str) -> str:
        from clbench.metrics.definitions import DEFINITIONS

        if key not in DEFINITIONS:
            raise ValueError(f"no such metric{did_you_mean(key, DEFINITIONS)}")
        return key

    @property
    def text(self) -> str:
        """`91.53 ± 0.28 %`, `2.47 nats`."""
        if self.unit == "nats":
            return f"{self.value:.2f}{f' ± {self.std:.2f}' if self.std is not None else ''} nats"
        spread = f" ± {100 * self.std:.2f}" if self.std is not None else ""
        return f"{100 * self.value:.2f}{spread} %"


def published(values: Mapping[str, Any], owner: str) -> list[Published]:
    """The `published:` entries of a config file's mapping, checked. Raises UserError naming `owner`."""
    entries = values.get("published") or []
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UserError(f"{owner}: published must be a list of entries with metric, value and source")
    return [parse_config(Published, entry, f"{owner}, published") for entry in entries]


def recipes() -> dict[str, Path]:
    """STRATEGY/STREAM -> file, of the recipes in the package."""
    folder = Path(str(files("clbench.configs")))
    found = sorted(path for path in folder.glob("*/*.yaml") if path.parent.name != SUITES)
    return {f"{path.parent.name}/{path.stem}": path for path in found}


def find_recipe(name: str) -> Path:
    """A recipe of the package by STRATEGY/STREAM, or any file. Raises UserError naming the nearest."""
    path, known = Path(name), recipes()
    if path.is_file():
        return path
    key = name.removeprefix("configs/").removesuffix(".yaml")
    if key not in known:
        raise UserError(f"no recipe {name!r}{did_you_mean(key, known)} (`clbench list configs`)")
    return known[key]
