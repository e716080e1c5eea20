"""Upstreams: how a run's first task is learned, where not by the run itself.

`shared`: by plain training, once for all runs that ask for the same (`clbench.engine.upstream_store`). `given`: the
backbone as it is has learned it. A path: the weights in a file have. Nothing slow is imported here.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clbench.config import Config, parse_config, setting
from clbench.errors import UserError
from clbench.phase import TrainingConfig

if TYPE_CHECKING:
    from clbench.spec import RunSpec
    from clbench.stream import Training

OWN, SHARED, GIVEN = "own", "shared", "given"
NAMES = (OWN, SHARED, GIVEN)
PREFIX = "upstream."
"""Of its settings, where they stand beside those of strategy and stream."""
WEIGHTS = ("upstream.safetensors", "weights.safetensors", "model.safetensors")
"""What is looked for in a folder."""
SCHEDULE = "warmup-cosine"
"""An upstream is a finished model: where the stream recommends a constant rate, its rate decays (Ibrahim et al. 2024,
arXiv 2403.08763)."""


class FileSettings(Config):
    """Of weights in a file: which bytes they were, filled in when the run begins."""

    sha256: str | None = setting(None, "of the file", source="clbench: computed")


def settings_kind(upstream: str) -> type[Config] | None:
    """The settings that an upstream has; None: it has none."""
    if upstream in (OWN, GIVEN):
        return None
    return TrainingConfig if upstream == SHARED else FileSettings


def check_settings(upstream: str, values: dict[str, Any], owner: str = "upstream") -> Any:
    """The settings of an upstream, checked; None where it has none. Raises UserError."""
    kind = settings_kind(upstream)
    if kind is not None:
        return parse_config(kind, values, owner)
    if values:
        key = next(iter(values))
        raise UserError(f"{owner} has a setting {key!r} with upstream={upstream}: settings go with upstream=shared")
    return None


def in_full(spec: RunSpec, backbone: str, training: Training) -> dict[str, Any]:
    """The fields `upstream` and `upstream_settings` with nothing left open. training: what the stream recommends.

    Raises UserError for settings that do not fit, for `given` with an untrained backbone, for weights that are not
    there, or no longer those that the settings name.
    """
    settings = check_settings(spec.upstream, spec.upstream_settings)
    if spec.upstream == GIVEN:
        from clbench.models import describe

        if not describe(backbone).pretrained:
            raise UserError(f"upstream=given: model {backbone!r} is untrained; name one with weights (--backbone)")
    if spec.upstream in (OWN, GIVEN):
        return {"upstream": spec.upstream, "upstream_settings": {}}
    if spec.upstream == SHARED:
        for name, value in (asdict(training) | _decaying(training)).items():
            if name in type(settings).model_fields and getattr(settings, name) is None:
                setattr(settings, name, value)
        return {"upstream": SHARED, "upstream_settings": settings.model_dump(mode="json")}
    from clbench.data.cache import file_sha256

    file = weights_file(spec.upstream)
    found = file_sha256(file)
    if settings.sha256 not in (None, found):
        raise UserError(f"upstream {file} holds other weights than those that the run began with (sha256 {found[:16]})")
    return {"upstream": str(file), "upstream_settings": {"sha256": found}}


def _decaying(training: Training) -> dict[str, Any]:
    return {"schedule": SCHEDULE} if training.schedule == "constant" else {}


def weights_file(place: str) -> Path:
    """The absolute path of the weights that a file's or a folder's name stands for. Raises UserError."""
    path = Path(place).expanduser().resolve()
    if path.is_dir():
        found = [path / name for name in WEIGHTS if (path / name).is_file()]
        if not found:
            raise UserError(f"upstream {place}: the folder holds none of {', '.join(WEIGHTS)}")
        return found[0]
    if not path.is_file():
        raise UserError(f"upstream {place}: no such file; write own, shared, given, or a path to weights")
    if path.suffix != ".safetensors":
        raise UserError(f"upstream {place}: only .safetensors files are read")
    return path


def check_strategy(spec: RunSpec, name: str, adopts: bool, reads: str, config: Any) -> None:
    """Refuse an upstream for a strategy that cannot start from one."""
    if spec.upstream == OWN:
        return
    if reads == "features":
        raise UserError(f"strategy {name} reads features of a frozen backbone: it takes no upstream (--upstream own)")
    if not adopts:
        raise UserError(f"strategy {name} cannot go on from a task that it did not learn itself: use --upstream own")
    kept = getattr(config, "optimizer_state", "reset")
    mine, theirs = getattr(config, "optimizer", None), spec.upstream_settings.get("optimizer")
    if spec.upstream == SHARED and kept != "reset" and mine is not None and _family(mine) != _family(theirs):
        raise UserError(
            f"optimizer_state={kept} keeps the upstream's optimiser state, but that is of {theirs} and the strategy "
            f"trains with {mine}: set upstream.optimizer={mine}, or optimizer_state=reset"
        )


def _family(optimizer: Any) -> str:
    """Optimisers of one family have the same state."""
    return str(optimizer).removesuffix("w")


def same_for_all(spec: dict[str, Any]) -> str | None:
    """What the upstreams of runs that may stand beside each other have in common, from a record's specification; None
    where each run learns its first task itself."""
    kind, settings = spec.get("upstream", OWN), spec.get("upstream_settings") or {}
    if kind == OWN:
        return None
    if kind not in NAMES:
        return f"weights {str(settings.get('sha256'))[:16]}"
    given = [f"{key}={value}" for key, value in sorted(settings.items()) if value is not None]
    return ", ".join([kind, *given])
