"""Where weights come from: a local safetensors file, or the hub and its cache. Nothing is unpickled."""

from __future__ import annotations

import json
from pathlib import Path

from torch import Tensor, nn

from ..errors import UserError

CONNECT_SECONDS = 5.0  # how long to wait for the hub's first answer


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, on the CPU; UserError where there is no such readable file."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise UserError(f"weights {path}: no such file")
    if path.suffix != ".safetensors":
        raise UserError(
            f"weights {path}: only .safetensors files are read; convert it with safetensors.torch.save_file"
        )
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"weights {path}: not a readable safetensors file ({_first_line(error)})") from error


def load_backbone(backbone: nn.Module, path: Path) -> None:
    """Load a safetensors file whose names are those of the backbone; UserError at any difference."""
    tensors = read_tensors(path)
    try:
        backbone.load_state_dict(tensors)
    except RuntimeError as error:
        raise UserError(f"weights {path} do not fit the model: {mismatch(error)}") from error


def mismatch(error: Exception) -> str:
    """PyTorch's multi-line message of a failed load as one short line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = "; ".join(lines[1:] or lines)
    return text if len(text) <= 300 else text[:297] + "..."


def hub_folder(repo: str, patterns: list[str], revision: str | None = None, model: str = "") -> Path:
    """A local folder with the files of a hub repository that match `patterns`, the weights' first.

    The cache is asked first, so a run never changes because the hub did. Otherwise the files are downloaded;
    without a network this ends at once in a UserError.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError

    model = model or repo
    try:
        cached = Path(snapshot_download(repo, revision=revision, allow_patterns=patterns, local_files_only=True))
        if _is_complete(cached, patterns[0]):
            return cached
    except HFValidationError as error:
        raise UserError(f"model {model!r}: {repo!r} is neither a folder here nor a hub name OWNER/NAME") from error
    except (LocalEntryNotFoundError, RepositoryNotFoundError):
        pass
    try:
        folder = snapshot_download(repo, revision=revision, allow_patterns=patterns, etag_timeout=CONNECT_SECONDS)
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise UserError(f"model {model!r}: the hub has no repository {repo!r} (or it needs a login)") from error
    except Exception as error:  # the hub client raises its own, httpx's, requests' and OS errors
        raise UserError(
            f"model {model!r}: cannot download {repo!r} from the Hugging Face hub ({type(error).__name__}); "
            "connect to the network, or fetch it elsewhere and give the local file or folder in its place"
        ) from error
    if not _is_complete(Path(folder), patterns[0]):
        raise UserError(f"model {model!r}: {repo!r} on the hub holds no {patterns[0]}; only safetensors are read")
    return Path(folder)


def _is_complete(folder: Path, weights: str) -> bool:
    """Whether the weight files are there; of a model in several files, all those its index names."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        return all((folder / shard).is_file() for shard in shards)
    return any(folder.glob(weights))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
