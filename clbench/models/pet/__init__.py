"""Parameter-efficient tuning (PET) modules that wrap parts of a timm vision transformer.

Every wrapper calls the wrapped part `inner` and its own parameters `pet`, so their names hold ".pet." wherever they
are: `is_pet` tells them apart. Attach them in `Strategy.setup`, which is replayed on resuming. They are drawn on the
CPU from torch's default generator, and moved to where the block is. `untouched(model)` switches them off for a while.
"""

from __future__ import annotations

from .adapter import Adapter, attach_attention_adapters, attach_mlp_adapters
from .lora import KVLoRA, attach_lora
from .parameters import Scaler, is_pet, pet_parameters, untouched
from .prefix import Prefix, attach_prefix
from .ssf import ScaleAndShift, attach_ssf

__all__ = [
    "Adapter",
    "KVLoRA",
    "Prefix",
    "ScaleAndShift",
    "Scaler",
    "attach_attention_adapters",
    "attach_lora",
    "attach_mlp_adapters",
    "attach_prefix",
    "attach_ssf",
    "is_pet",
    "pet_parameters",
    "untouched",
]
