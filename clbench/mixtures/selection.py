"""Which samples of a domain are read, and in which order: by scores, or at random."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from clbench.errors import UserError

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

    from clbench.samples import Samples


def sorted_by(samples: Samples, scores: Tensor) -> Samples:
    """The samples from low to high score, equal ones in their order. scores: [n]."""
    return samples.subset(_scored(samples, scores).argsort(stable=True))


def lowest(samples: Samples, scores: Tensor, n: int) -> Samples:
    """The n samples of the lowest scores, in the order in which they stood."""
    return samples.subset(_scored(samples, scores).argsort(stable=True)[:n].sort().values)


def random_subset(samples: Samples, n: int, generator: torch.Generator) -> Samples:
    """n samples drawn without replacement, in the order in which they stood."""
    import torch

    return samples.subset(torch.randperm(len(samples), generator=generator)[:n].sort().values)


def ngram_perplexity(samples: Samples, reference: Samples | None = None, order: int = 5) -> Tensor:
    """Perplexity of each block under an n-gram model of a reference, float64 [n].

    Without a reference the samples are their own: each half is scored by a model of the other half (blocks at even and
    at odd places), so that no block is scored by a model that has counted it. Raises UserError where samples hold no
    tokens.
    """
    import torch

    from clbench.ngram import NGram

    if not holds_tokens(samples):
        raise UserError("n-gram perplexity needs blocks of tokens: set quality=random on streams of images")
    vocabulary = 1 + max(int(_tokens(part).max()) for part in (samples, reference or samples))
    if reference is not None:
        model = NGram(vocabulary, order).fit(_tokens(reference))
        return torch.from_numpy(model.perplexity(_tokens(samples)))
    if len(samples) < 2:
        return torch.zeros(len(samples), dtype=torch.float64)
    scores = torch.empty(len(samples), dtype=torch.float64)
    for half in (0, 1):
        mine, other = torch.arange(half, len(samples), 2), torch.arange(1 - half, len(samples), 2)
        model = NGram(vocabulary, order).fit(_tokens(samples.subset(other)))
        scores[mine] = torch.from_numpy(model.perplexity(_tokens(samples.subset(mine))))
    return scores


def holds_tokens(samples: Samples) -> bool:
    """Whether the samples are blocks of tokens."""
    return samples.pool.inputs.dim() == 2 and not samples.pool.inputs.is_floating_point()


def taylor_softmax(values: Sequence[float]) -> list[float]:
    """Probabilities in proportion to 1 + x + x^2 / 2, always above 0 (as INGENIOUS weighs its gains)."""
    terms = [1 + x + x * x / 2 for x in values]
    total = math.fsum(terms)
    return [term / total for term in terms]


def _tokens(samples: Samples) -> NDArray[Any]:
    tokens: NDArray[Any] = samples.pool.inputs[samples.index].numpy()
    return tokens


def _scored(samples: Samples, scores: Tensor) -> Tensor:
    if scores.shape != (len(samples),):
        raise ValueError(f"{len(samples)} samples, scores of shape {tuple(scores.shape)}")
    return scores
