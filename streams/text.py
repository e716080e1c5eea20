"""Text streams: one domain of text after another, scored in nats per token and bits per byte."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import TYPE_CHECKING, Any, ClassVar

from clbench.errors import UserError
from clbench.rng import derive_seed
from clbench.stream import EvalSet, Recipe, Stream, Task, Training

from .text_config import TextConfig, TextPhase, plan
from .text_domains import Library

if TYPE_CHECKING:
    from clbench.data.tokens import Tokenizer

    from .text_packing import PackedStream
    from .text_sources import Domain

TRAINING = Training(
    optimizer="adamw", lr=3e-3, weight_decay=0.1, batch_size=8, epochs=1.0, schedule="constant", clip=1.0
)
"""For the default model of about 0.1 M parameters (clbench); weight decay 0.1 and clipping at 1.0 as in Brown et al.
2020 (arXiv 2005.14165, appendix B). Larger models need a smaller learning rate."""


class TextShift(Recipe):
    """Text whose domain changes from task to task: generated (no download), or named sets and files."""

    Config = TextConfig

    training: ClassVar[Training] = TRAINING
    model: ClassVar[str] = ""
    model_options: ClassVar[str] = ""

    def build(self) -> Stream:
        from clbench.data.tokens import build_tokenizer

        from .text_packing import packed_stream

        tokenizer = build_tokenizer(self.config.tokenizer)
        library = Library(self.config.kappa, self.config.drift, self.config.validation, self.data_root)
        try:
            phases, probes = plan(self.config, self.domains(library))
        except ValueError as error:
            raise UserError(f"stream {self.name}: {error}") from None
        packed = packed_stream(phases, probes, self.config, library, tokenizer)
        return self._stream(phases, probes, packed, tokenizer)

    def domains(self, library: Library) -> list[str]:
        """The domains in order, as the setting writes them."""
        return list(self.config.domains)

    def _ordered(self, phases: list[TextPhase]) -> list[TextPhase]:
        """The phases as given, or permuted by the order seed; an upstream phase stays the first."""
        fixed = 0 if self.config.upstream_tokens is None else 1
        if self.order_seed == 0:
            return phases
        later = range(fixed, len(phases))
        order = sorted(later, key=lambda i: derive_seed(self.order_seed, "domains", i))
        return [*phases[:fixed], *(phases[i] for i in order)]

    def _stream(
        self, phases: list[TextPhase], probes: list[Domain], packed: PackedStream, tokenizer: Tokenizer
    ) -> Stream:
        import torch

        from clbench.samples import Pool, Samples

        names = [phase.name for phase in self._ordered(phases)]
        label = {name: i for i, name in enumerate([*names, *(probe.name for probe in probes)])}
        labels = torch.cat(
            [torch.full((part.stop - part.start,), label[part.name], dtype=torch.int64) for part in packed.parts]
        )
        pool = Pool(torch.from_numpy(packed.blocks), labels, packed.fingerprint)
        samples = {(part.name, part.side): Samples(pool, torch.arange(part.start, part.stop)) for part in packed.parts}
        first = {phase.domain: phase.name for phase in reversed(phases)}  # whose evaluation blocks are the domain's
        owner = {phase.name: first[phase.domain] for phase in phases} | {probe.name: probe.name for probe in probes}
        content = _hash(
            [
                type(self).version,
                packed.fingerprint,
                sorted(names),
                sorted(probe.name for probe in probes),
                self.config.context,
                tokenizer.vocabulary,
                tokenizer.end,
                sorted((name, packed.bytes_per_target[owner[name]]) for name in label),
            ]
        )
        return Stream(
            name=self.name,
            objective="language_modeling",
            tasks=tuple(
                Task(i, name, samples[name, "train"], samples.get((name, "validation"))) for i, name in enumerate(names)
            ),
            eval_sets=tuple(
                EvalSet(
                    name,
                    samples[owner[name], "evaluation"],
                    belongs_to=number if number < len(names) else None,
                    bytes_per_target=packed.bytes_per_target[owner[name]],
                )
                for name, number in label.items()
            ),
            content=content,
            order=_hash([content, names]),
            input_shape=(self.config.context,),
            scenario="domain",
            vocabulary=tokenizer.vocabulary,
            training=self.training,
            default_model=self.model or f"byte-gpt?ctx={self.config.context}{self.model_options}",
            notes=packed.notes,
        )


def _hash(parts: list[Any]) -> str:
    return sha256(json.dumps(parts).encode()).hexdigest()[:32]
