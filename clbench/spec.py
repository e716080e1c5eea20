"""The specification of a run: everything its numbers depend on, in one typed object."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import field_validator

from clbench.budgets import EXAMPLE, budget_amount
from clbench.budgets import KEYS as BUDGETS
from clbench.config import Config, parse_config
from clbench.errors import UserError
from clbench.files import write_atomically

MOST_DEVICES = 1024


class RunSpec(Config):
    """What `config.yaml` holds. Equal specifications (`hash`) on equal machines give equal bytes.

    strategy, stream: names, or `file.py:Class`. *_settings: values that differ from the defaults (in a record: all).
    eval_grid: default (thinned to 10 % of training), full, none, or an interval in steps. budget: what maf (memory-
    adjusted FLOPs) and flops give to the tasks, which decides how long each trains; upper limits on seconds and steps
    (training stops there) and memory (bytes a strategy may store): `clbench.budgets`. chosen_on: what chose the
    hyper-parameters. data_root is where the data lie. devices: how many share the run, a process each; threads counts
    for each of them. sync_bn: batch statistics over all of them, as one device has them. upstream: how the first task
    is learned: own (by the run), shared (once for all such runs), given (the backbone has learned it), or a path to
    weights that have (`clbench.upstream`).
    """

    strategy: str
    stream: str
    strategy_settings: dict[str, Any] = {}
    stream_settings: dict[str, Any] = {}
    backbone: str | None = None
    head: Literal["linear", "cosine", "prototype"] = "linear"
    tune: str = "full"
    seed: int = 0
    order_seed: int = 0
    eval_grid: str = "default"
    precision: Literal["fp32", "bf16", "auto"] = "fp32"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = None
    compile: bool = False
    channels_last: bool | None = None
    devices: int = 1
    sync_bn: bool = False
    budget: dict[str, float] = {}
    chosen_on: Literal["nothing", "validation", "test"] = "nothing"
    data_root: str | None = None
    upstream: str = "own"
    upstream_settings: dict[str, Any] = {}

    @field_validator("eval_grid", mode="before")
    @classmethod
    def _grid(cls, value: Any) -> str:
        text = str(value)
        if text not in ("default", "full", "none") and not (text.isdigit() and int(text) > 0):
            raise ValueError("use default, full, none or a number of steps")
        return text

    @field_validator("seed", "order_seed")
    @classmethod
    def _seed(cls, value: int) -> int:
        if not 0 <= value < 2**32:
            raise ValueError("a seed lies between 0 and 4294967295")
        return value

    @field_validator("threads")
    @classmethod
    def _threads(cls, value: int | None) -> int | None:
        if value is not None and value < 1:
            raise ValueError("use 1 thread or more")
        return value

    @field_validator("devices")
    @classmethod
    def _devices(cls, value: int) -> int:
        if not 1 <= value <= MOST_DEVICES:
            raise ValueError(f"use 1 to {MOST_DEVICES} devices")
        return value

    @field_validator("upstream")
    @classmethod
    def _upstream(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("use own, shared, given, or a path to weights")
        return value

    @field_validator("budget", mode="before")
    @classmethod
    def _amounts(cls, value: Any) -> Any:
        """Limits as people write them (`maf: full`, `memory: 10MB`) are numbers from here on."""
        if not isinstance(value, dict):
            return value
        unknown = [key for key in value if key not in BUDGETS]
        if unknown:
            raise ValueError(f"unknown budget {unknown[0]!r}; known: {', '.join(BUDGETS)}")
        try:
            return {key: budget_amount(key, given) if isinstance(given, str) else given for key, given in value.items()}
        except ValueError as error:
            raise ValueError(f"{error} (as in {EXAMPLE})") from None

    @field_validator("budget")
    @classmethod
    def _budget(cls, value: dict[str, float]) -> dict[str, float]:
        for key, limit in value.items():
            if limit <= 0:
                raise ValueError(f"budget {key} must be above 0")
        return value

    def hash(self) -> str:
        """sha256 (hex) of the specification, without what is the machine's: data_root, threads, devices, ..."""
        content = self.model_dump(mode="json", exclude={"data_root", "threads", "device", "devices", "sync_bn"})
        for key in ("strategy", "stream"):
            content[key] = Path(content[key]).name  # of a file: its name and class, not where it lies
        if self.upstream == "own":  # as it was before there was a choice
            del content["upstream"], content["upstream_settings"]
        elif "sha256" in self.upstream_settings:
            del content["upstream"]
        return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def shareable(self) -> dict[str, Any]:
        """For a record: every field, without this machine's folders (of a file: its name, and class; no data_root)."""
        names = {key: Path(getattr(self, key)).name for key in ("strategy", "stream", "upstream")}
        return self.model_dump(mode="json") | names | {"data_root": None}

    def write(self, path: Path) -> None:
        """As YAML, atomically."""
        write_atomically(path, self.yaml())

    def yaml(self) -> str:
        """One key a line, nothing left to a default."""
        return str(yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True))


def read_spec_file(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file, checked key by key. Raises UserError with the file's name."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"no such config file: {path}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"cannot read config {path}: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise UserError(f"config {path}: expected `key: value` lines")
    return values


def make_spec(values: dict[str, Any], owner: str = "run") -> RunSpec:
    """A checked specification; mistakes are one-line errors naming `owner`."""
    spec: RunSpec = parse_config(RunSpec, values, owner)
    return spec
