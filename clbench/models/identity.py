"""What the record says about a model: which weights, which input, how large."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor, nn

from .spec import InputSpec


def weights_sha256(module: nn.Module) -> str:
    """SHA-256 over the state dict's tensors, ordered by name: name, dtype, shape and bytes of each.

    Independent of device, memory format and of the file that the tensors came from.
    """
    return tensors_sha256(module.state_dict())


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """The same of a mapping."""
    digest = sha256()
    for name, tensor in sorted(tensors.items()):
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def identify(model: nn.Module, backbone: nn.Module, spec: str, family: str, checkpoint: str | None) -> None:
    """Note, once and before anything is grown or trained, what `model_info` returns."""
    identity: dict[str, Any] = {
        "spec": spec,
        "family": family,
        "checkpoint": checkpoint,
        "weights_sha256": weights_sha256(backbone),
        "parameters": sum(p.numel() for p in backbone.parameters()),
    }
    model.identity = identity  # type: ignore[assignment]


def model_info(model: nn.Module) -> dict[str, Any]:
    """The model's entry in the record, JSON-ready. Weight hash and size are those of the backbone as it was
    built.

    Keys: spec, family, checkpoint (None: untrained), weights_sha256, parameters, feature_dim, head, input
    (kind, channels, size, range, mean, std, vocab_size; `range` is that of pixels before normalisation).
    """
    input_spec = model.input
    assert isinstance(input_spec, InputSpec)
    head = type(model.head).__name__ if hasattr(model, "head") else None
    return {
        **model.identity,  # type: ignore[dict-item]
        "feature_dim": model.feature_dim,
        "head": head,
        "input": {
            "kind": input_spec.kind,
            "channels": input_spec.channels,
            "size": input_spec.size,
            "range": [0.0, 1.0] if input_spec.kind in ("image", "pairs") else None,
            "mean": list(input_spec.mean),
            "std": list(input_spec.std),
            "vocab_size": input_spec.vocab_size,
        },
    }
