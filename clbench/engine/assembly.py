"""Putting a session together: environment, model, objective, services."""

from __future__ import annotations

import json
import random as python_random
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from clbench.engine.environment import Environment
from clbench.engine.features import Features
from clbench.engine.parallel import Ranks
from clbench.engine.reporter import Reporter
from clbench.engine.services import Services
from clbench.engine.session import Session
from clbench.errors import UserError
from clbench.files import checksum, write_atomically
from clbench.models import InputSpec, build_model, describe
from clbench.models.modes import set_mode
from clbench.models.tune import apply_tuning
from clbench.objectives import Objective, build_objective
from clbench.rng import Randomness
from clbench.spec import RunSpec
from clbench.strategy import Strategy
from clbench.stream import Stream


def assemble(
    spec: RunSpec,
    folder: Path,
    stream: Stream,
    strategy: type[Strategy],
    config: Any,
    reporter: Reporter,
    checkpoint_every: int | None,
    kind: type[Session] = Session,
    ranks: Ranks | None = None,
) -> Session:
    """A session ready for `run`. The model is built when it is first needed."""
    environment = Environment(spec)
    environment.apply()
    spec = spec.model_copy(update=environment.resolved())
    objective = build_objective(stream)
    frozen = strategy.reads(config) == "features"
    builder = ModelBuilder(spec, stream, objective, environment, frozen)
    random = Randomness(spec.seed, environment.device.type == "cuda")
    build, features = builder.build, None
    if frozen:
        backbone = cache(builder.build)
        features = Features(builder.identity(), backbone, objective, environment, _cache_folder())
        build = partial(builder.build_on_features, features)
    ranks = ranks or Ranks()
    ranks.divides = not objective.couples_samples
    services = Services(
        stream, objective, strategy.needs_with(config), random, environment.device, build, features, ranks
    )
    return kind(
        spec,
        folder,
        stream,
        strategy,
        config,
        objective,
        environment,
        services,
        random,
        reporter,
        builder,
        ranks,
        checkpoint_every,
    )


class ModelBuilder:
    """Builds the model a specification names: seeded, tuned, on its device. `info` describes it once built."""

    def __init__(
        self, spec: RunSpec, stream: Stream, objective: Objective, environment: Environment, frozen: bool
    ) -> None:
        self.spec = spec
        self.stream = stream
        self.objective = objective
        self.environment = environment
        self.all_frozen = frozen
        self.frozen: set[str] = set()
        self.plain: dict[str, nn.Parameter] = {}  # of the model before it is tuned, wrapped or grown
        self.info: dict[str, Any] = {"spec": spec.backbone}

    def identity(self) -> dict[str, Any]:
        """What the values of an untrained or pretrained backbone depend on."""
        info = describe(self.spec.backbone or "")
        return {
            "backbone": self.spec.backbone,
            "weights": _weights_checksum(info.local_weights),
            "seed": None if info.pretrained else self.spec.seed,
            "input": [self.stream.input_shape, self.stream.mean, self.stream.std],
            **self.environment.conditions(),
        }

    def described(self) -> dict[str, Any]:
        """`info`. Of a model that was never built, since its features are cached, what is kept in the cache, too."""
        if "family" not in self.info and (kept := self._kept()):
            with suppress(OSError, ValueError):
                self.info = json.loads(kept.read_text(encoding="utf-8"))
        if "family" not in self.info:
            self.build()
        return self.info

    def _kept(self) -> Path | None:
        """Where the description of a frozen model is kept."""
        folder = _cache_folder()
        if folder is None or not self.all_frozen:
            return None
        key = sha256(json.dumps(self.identity(), sort_keys=True).encode()).hexdigest()
        return folder.with_name("models") / f"{key}.json"

    def _keep(self) -> None:
        """A cache that cannot be written is done without."""
        if kept := self._kept():
            with suppress(OSError):
                kept.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(kept, json.dumps(self.info))

    def build(self) -> nn.Module:
        """A new model. Its weights depend on the run's seed alone, not on when it is built."""
        from clbench.models import model_info

        stream = self.stream
        images = stream.objective != "language_modeling"
        with _own_randomness(Randomness(self.spec.seed, self.environment.device.type == "cuda")):
            model = build_model(
                self.spec.backbone or "",
                channels=stream.input_shape[0] if images else 0,
                size=stream.input_shape[-1],
                mean=stream.mean,
                std=stream.std,
                vocab_size=stream.vocabulary,
                pairs=stream.objective == "contrastive",
                head=self.spec.head,
            )
            self.info = model_info(model)
            self._keep()
            self.plain = dict(model.named_parameters(remove_duplicate=False))
            apply_tuning(model, self.spec.tune)
        if self.all_frozen:
            model.requires_grad_(False)
        else:
            self.frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
            self.release(model)
        if self.environment.sync_bn:
            from clbench.models.sync_norm import synchronised

            model = synchronised(model, self.environment.device)
        model.to(self.environment.device)
        if self.environment.channels_last:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.environment.compile:
            model.compile()
        self.objective.fit(model.input)  # type: ignore[arg-type]
        return model

    def build_on_features(self, features: Features) -> nn.Module:
        """A model of the frozen backbone's features: a growing head, and what a strategy adds to it."""
        from clbench.models.classifier import Classifier
        from clbench.models.heads import HEADS

        width = features.width(self.stream.tasks[0].train.pool)
        model = Classifier(nn.Identity(), HEADS[self.spec.head](width), InputSpec("features", 0, width))
        return model.to(self.environment.device)

    def release(self, model: nn.Module) -> None:
        """Put the model into the state in which it is outside phases."""
        set_mode(model, "train")
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name not in self.frozen)
            parameter.grad = None


def _weights_checksum(place: str | Path | None) -> list[str] | None:
    """Checksums of the local weight file, or of those in a folder."""
    if place is None:
        return None
    path = Path(place)
    files = [path]
    if path.is_dir():
        files = sorted(path.glob("*.safetensors")) or sorted([*path.glob("*.bin"), *path.glob("*.pt")])
    try:
        return [checksum(file) for file in files]
    except OSError as error:
        raise UserError(f"weights {path}: {(error.strerror or str(error)).lower()}") from None


@contextmanager
def _own_randomness(randomness: Randomness) -> Iterator[None]:
    """Draw from the "model" place inside, and leave every global generator as it was."""
    before = torch.get_rng_state(), np.random.get_state(), python_random.getstate()
    randomness.enter("model")
    try:
        yield
    finally:
        torch.set_rng_state(before[0])
        np.random.set_state(before[1])
        python_random.setstate(before[2])


def _cache_folder() -> Path | None:
    from clbench.data.root import cache_dir

    folder = cache_dir()
    return folder / "features" if folder is not None else None
