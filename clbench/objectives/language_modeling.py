"""Language modelling: token blocks; nats per token, bits per byte."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from clbench.objectives.base import Objective

if TYPE_CHECKING:
    from clbench.stream import EvalSet, Stream

_LARGEST_EXPONENT = 709.0
_TOKENS_AT_ONCE = 4096
"""Evaluated at once. On a CPU 8192 take half as long again each: their logits do not fit its caches."""


class LanguageModeling(Objective):
    """Next-token cross-entropy. A sample is a block; outputs are logits [B, T, vocabulary], targets int64 [B, T].

    A block scores its mean loss in nats per token. From a set's mean, `further` gives bits per byte
    (nats / ln 2 / bytes per target), which alone compares across tokenisers, and perplexity (exp of nats).
    """

    primary: ClassVar[str] = "nats"
    direction: ClassVar[Literal["higher", "lower"]] = "lower"
    keeps_values: ClassVar[bool] = True

    def __init__(self, stream: Stream) -> None:
        super().__init__(stream)
        self._unigram: dict[EvalSet, float] = {}

    @property
    def chunk(self) -> int:
        return max(1, min(super().chunk, _TOKENS_AT_ONCE // self.stream.input_shape[0]))

    def inputs(
        self,
        raw: Tensor,
        labels: Tensor,
        view: Literal["train", "plain"],
        generator: torch.Generator | None,
        rows: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """All tokens of a block but the last, and all but the first: int64 [B, T] each. The views do not differ."""
        tokens = raw.long()
        return tokens[:, :-1], tokens[:, 1:]

    def losses(self, outputs: Tensor, y: Tensor) -> Tensor:
        return _token_losses(outputs, y).view(y.shape).mean(1)

    def mean_loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        return _token_losses(outputs, y).mean()

    def decide(self, outputs: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Tokens, int64 [B, T]."""
        if generator is None:
            return outputs.argmax(-1)
        probabilities = _full(outputs).softmax(-1).flatten(0, -2).cpu()
        tokens = torch.multinomial(probabilities, 1, generator=generator)
        return tokens.view(outputs.shape[:-1]).to(outputs.device)

    def distillation(self, outputs: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """Mean over a block's tokens: Hinton et al. 2015 (arXiv 1503.02531), section 2."""
        student = (_full(outputs) / temperature).log_softmax(-1)
        target = (_full(teacher) / temperature).log_softmax(-1)
        return F.kl_div(student, target, reduction="none", log_target=True).sum(-1).mean(-1) * temperature**2

    def scores(self, outputs: Tensor, y: Tensor, eval_set: EvalSet) -> Tensor:
        """Nats per token of each block, float32 [B]."""
        return self.losses(outputs, y).float()

    def further(self, value: float, eval_set: EvalSet) -> dict[str, float]:
        """`bits_per_byte` and `perplexity` (held at the largest float where exp would overflow)."""
        return {
            "bits_per_byte": value / math.log(2) / eval_set.bytes_per_target,
            "perplexity": math.exp(min(value, _LARGEST_EXPONENT)),
        }

    def base(self, eval_set: EvalSet, n_classes: int) -> float:
        """Cross-entropy of the best predictor that ignores the context: the entropy of the set's target tokens."""
        if eval_set not in self._unigram:
            tokens = eval_set.data.raw(torch.arange(len(eval_set.data)))[:, 1:].long()
            counts = torch.bincount(tokens.flatten()).double()
            share = counts[counts > 0] / counts.sum()
            self._unigram[eval_set] = float(-(share * share.log()).sum())
        return self._unigram[eval_set]


def _full(outputs: Tensor) -> Tensor:
    """Logits in at least single precision (half precision comes from autocast)."""
    return outputs.float() if outputs.dtype in (torch.bfloat16, torch.float16) else outputs


def _token_losses(outputs: Tensor, y: Tensor) -> Tensor:
    """Nats of each target, [B * T]."""
    return F.cross_entropy(_full(outputs).flatten(0, 1), y.flatten(), reduction="none")
