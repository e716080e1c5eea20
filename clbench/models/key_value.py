"""A discrete key-value bottleneck: many small codebooks of keys, each with a value vector."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SEARCHED_AT_ONCE = 1 << 22
FEWEST = 16  # rows multiplied at once: products of fewer differ in their last bits, which decide near ties


class KeyValueBottleneck(nn.Module):
    """Scores [B, n] as the mean over codebooks of the value whose key is nearest to a projection of the features.

    Träuble et al., ICML 2023 (arXiv 2207.11240). Buffers: `projections` [codebooks, dim, key_dim], standard normal
    with columns of unit length; `keys` [codebooks, pairs, key_dim]; `sizes` [codebooks, pairs] and `sums` (as `keys`),
    their moving averages while keys are placed; `used` bool [codebooks, pairs]. Parameter: `values`
    [codebooks * pairs, n], zero at first.
    """

    projections: Tensor
    keys: Tensor
    sizes: Tensor
    sums: Tensor
    used: Tensor

    def __init__(self, dim: int, codebooks: int, pairs: int, key_dim: int, generator: torch.Generator) -> None:
        super().__init__()
        self.codebooks, self.pairs = codebooks, pairs
        projections = F.normalize(torch.randn(codebooks, dim, key_dim, generator=generator), dim=1)
        keys = torch.randn(codebooks, pairs, key_dim, generator=generator)
        self.register_buffer("projections", projections)
        self.register_buffer("keys", keys)
        self.register_buffer("sizes", torch.zeros(codebooks, pairs))
        self.register_buffer("sums", torch.zeros_like(keys))
        self.register_buffer("used", torch.zeros(codebooks, pairs, dtype=torch.bool))
        self.values = nn.Parameter(torch.zeros(codebooks * pairs, 0))

    def grow(self, n_classes: int) -> None:
        """Values for that many classes, those of new ones zero."""
        if n_classes > self.values.shape[1]:
            self.values = nn.Parameter(F.pad(self.values.detach(), (0, n_classes - self.values.shape[1])))

    def nearest(self, features: Tensor, used_only: bool = False) -> Tensor:
        """The key nearest to each sample [B, dim] in each codebook: int64 [B, codebooks].

        used_only: among those that were used; among all while none was.
        """
        with torch.no_grad(), torch.autocast(features.device.type, enabled=False):
            n = len(features)
            filled = features[torch.arange(FEWEST, device=features.device) % n] if 0 < n < FEWEST else features
            return self._nearest(self.project(filled), used_only)[:n]

    def forward(self, fetched: Tensor) -> Tensor:
        """Scores [B, n] of samples that fetch these keys [B, codebooks]."""
        rows = fetched + torch.arange(self.codebooks, device=fetched.device) * self.pairs
        return F.embedding_bag(rows, self.values, mode="mean")

    def mark(self, fetched: Tensor) -> None:
        """Note that these keys [B, codebooks] were used."""
        self.used[torch.arange(self.codebooks, device=fetched.device), fetched] = True

    @torch.no_grad()
    def place_keys(self, features: Tensor, decay: float, threshold: float, generator: torch.Generator) -> None:
        """One step of k-means by moving averages on features [B, dim].

        `sizes` and `sums` move towards the number and the sum of the samples nearest to each key, which becomes their
        quotient, sizes Laplace-smoothed by 1e-5. Keys whose size is below the threshold jump to random samples.
        """
        u = self.project(features)
        fetched = self._nearest(u).T
        counts = torch.zeros_like(self.sizes).scatter_add_(1, fetched, torch.ones_like(fetched, dtype=u.dtype))
        sums = torch.zeros_like(self.sums).scatter_add_(1, fetched[..., None].expand_as(u), u)
        self.sizes.lerp_(counts, 1 - decay)
        self.sums.lerp_(sums, 1 - decay)
        total = self.sizes.sum(1, keepdim=True)
        smoothed = (self.sizes + 1e-5) / (total + 1e-5 * self.pairs) * total
        chosen = torch.randint(len(features), self.sizes.shape, generator=generator).to(u.device)
        samples = u.gather(1, chosen[..., None].expand_as(self.keys))
        self.keys.copy_(torch.where((self.sizes < threshold)[..., None], samples, self.sums / smoothed[..., None]))

    def project(self, features: Tensor) -> Tensor:
        """[codebooks, B, key_dim]."""
        u = features.float() @ self.projections.transpose(0, 1).flatten(1)
        return u.view(len(features), self.codebooks, -1).transpose(0, 1)

    def _nearest(self, u: Tensor, used_only: bool = False) -> Tensor:
        """Of projections [codebooks, B, key_dim]: the keys k with the largest u.k - |k|^2 / 2, a single product."""
        offsets = -self.keys.square().sum(2) / 2
        if used_only and bool(self.used.any()):
            offsets = offsets.masked_fill(~self.used, float("-inf"))
        keys = torch.cat([self.keys, offsets[..., None]], dim=2).mT
        rows = max(FEWEST, SEARCHED_AT_ONCE // (self.codebooks * self.pairs))
        parts = F.pad(u, (0, 1), value=1.0).tensor_split(max(1, u.shape[1] // rows), dim=1)
        return torch.cat([(part @ keys).argmax(2) for part in parts], dim=1).T
