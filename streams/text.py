"""Text streams: one domain of text after another, scored in nats per token and bits per byte."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, field_validator, model_validator

from clbench.config import setting
from clbench.errors import UserError
from clbench.rng import derive_seed
from clbench.stream import EvalSet, Recipe, Stream, Task, Training

from .document_split import SIDES, DocumentSplit, Side
from .generated import DOMAINS
from .text_domains import domain_name, read_domain

if TYPE_CHECKING:
    import numpy as np

    from clbench.data.tokens import Packed, Tokenizer


def _items(value: Any) -> Any:
    """`a,b` as a list."""
    return [item.strip() for item in value.split(",") if item.strip()] if isinstance(value, str) else value


Names = Annotated[list[str], BeforeValidator(_items)]

TRAINING = Training(
    optimizer="adamw", lr=3e-3, weight_decay=0.1, batch_size=8, epochs=1.0, schedule="constant", clip=1.0
)
"""For the default model of about 0.1 M parameters (clbench); weight decay 0.1 and clipping at 1.0 as in Brown et al.
2020 (arXiv 2005.14165, appendix B). Larger models need a smaller learning rate."""


@dataclass
class _Domain:
    """A domain with its documents on their sides, and its blocks once they are packed."""

    name: str
    split: DocumentSplit
    packed: dict[Side, Packed]


class TextShift(Recipe):
    """Text whose domain changes from task to task: generated (no download), or named sets and files."""

    class Config(Recipe.Config):
        domains: Names = setting(
            ["prose", "code", "cipher"],
            "domains in order: generated (prose, prose2, code, math, cipher), or names or paths of text sets",
            source="clbench",
            min_length=1,
        )
        probes: Names = setting([], "domains that are evaluated and never trained on", source="clbench")
        kappa: float = setting(
            1.0, "share of the alphabet that the domain `cipher` permutes", source="clbench", ge=0, le=1
        )
        context: int = setting(64, "tokens a model sees at once", source="clbench", ge=1, le=1_048_576)
        tokenizer: str = setting("bytes", "`bytes`, or `hf:NAME` or `hf:FOLDER` (transformers)", source="clbench")
        tokens: int = setting(
            150_000, "target tokens to train on in each domain; 0: all there are", source="clbench", ge=0
        )
        eval_blocks: int = setting(256, "blocks of each evaluation set", source="clbench", ge=1)
        validation: float = setting(
            0.0, "share of the training documents kept for choosing hyper-parameters", source="clbench", ge=0, le=0.5
        )

        @field_validator("domains", "probes")
        @classmethod
        def _distinct(cls, names: list[str]) -> list[str]:
            short = [domain_name(name) for name in names]
            if len(set(short)) < len(short):
                raise ValueError("a domain is named twice")
            return names

        @model_validator(mode="after")
        def _fit(self) -> TextShift.Config:
            both = {domain_name(name) for name in self.domains} & {domain_name(name) for name in self.probes}
            if both:
                raise ValueError(f"{sorted(both)[0]} is both a domain to train on and a probe")
            if 0 < self.tokens < self.context:
                raise ValueError(f"tokens={self.tokens} is less than one block of context={self.context}")
            return self

    def build(self) -> Stream:
        from clbench.data.tokens import build_tokenizer

        tokenizer = build_tokenizer(self.config.tokenizer)
        trained = [self._read(source, tokenizer) for source in self._ordered()]
        probes = [self._read(source, tokenizer) for source in self.config.probes]
        notes = _keep_apart(trained, probes)
        for domain in trained:
            self._pack(domain, SIDES, tokenizer)
        for domain in probes:
            self._pack(domain, ("evaluation",), tokenizer)
        return self._stream(trained, probes, tokenizer, notes)

    def _ordered(self) -> list[str]:
        """The domains as given, or permuted by the order seed."""
        names: list[str] = self.config.domains
        if self.order_seed == 0:
            return names
        order = sorted(range(len(names)), key=lambda i: derive_seed(self.order_seed, "domains", i))
        return [names[i] for i in order]

    def _read(self, source: str, tokenizer: Tokenizer) -> _Domain:
        # A generated domain goes on until every side has text for its blocks, by the widest likely token.
        text = {side: (self._limit(side) or 0) * self.config.context * tokenizer.widest for side in SIDES}
        enough = {side: amount + tokenizer.widest for side, amount in text.items() if amount}
        if source in DOMAINS and self.config.tokens == 0:
            raise UserError(f"the generated domain {source} has no end; give tokens=NUMBER instead of 0")
        split = read_domain(source, self.config.kappa, self.config.validation, enough, self.data_root)
        return _Domain(domain_name(source), split, {})

    def _limit(self, side: Side) -> int | None:
        """Blocks wanted on a side; None: all there are."""
        if side == "evaluation":
            return self.config.eval_blocks
        if self.config.validation == 0 and side == "validation":
            return 0
        if self.config.tokens == 0:
            return None
        blocks = self.config.tokens // self.config.context
        return blocks if side == "train" else max(1, round(blocks * self.config.validation))

    def _pack(self, domain: _Domain, sides: Sequence[Side], tokenizer: Tokenizer) -> None:
        from clbench.data.tokens import pack

        for side in sides:
            limit = self._limit(side)
            texts = domain.split.texts(side)
            if side == "evaluation":
                packed = pack(texts, tokenizer, self.config.context).first_by_hash(self.config.eval_blocks)
            else:
                packed = pack(texts, tokenizer, self.config.context, limit)
            if len(packed.blocks) < (1 if limit is None else limit):
                raise UserError(self._too_small(domain.name, side, len(packed.blocks)))
            domain.packed[side] = packed

    def _too_small(self, name: str, side: Side, blocks: int) -> str:
        context = self.config.context
        found = f"text domain {name}: {blocks} {side} blocks of {context} tokens"
        if blocks == 0:
            return f"{found}; it needs more text, or a smaller context"
        if side == "evaluation":
            return f"{found}, but eval_blocks={self.config.eval_blocks}; set eval_blocks={blocks} or fewer"
        if side == "validation":
            return f"{found}, but {self._limit(side)} are asked for; set fewer tokens or a larger validation share"
        return f"{found}, but tokens={self.config.tokens}; set tokens={blocks * context} or fewer, or 0 for all"

    def _stream(self, trained: list[_Domain], probes: list[_Domain], tokenizer: Tokenizer, notes: str) -> Stream:
        import numpy as np
        import torch

        from clbench.data.fingerprint import content_fingerprint
        from clbench.samples import Pool, Samples

        parts = [
            (label, domain, side, domain.packed[side].blocks)
            for label, domain in enumerate([*trained, *probes])
            for side in domain.packed
            if len(domain.packed[side].blocks)
        ]
        blocks: np.ndarray = np.concatenate([rows for *_, rows in parts])
        labels = np.concatenate([np.full(len(rows), label, np.int64) for label, _, _, rows in parts])
        owners = [f"{domain.name}/{side}" for _, domain, side, rows in parts for _ in rows]
        fingerprint = content_fingerprint(blocks, owners)
        pool = Pool(torch.from_numpy(blocks), torch.from_numpy(labels), fingerprint)
        samples: dict[tuple[str, Side], Samples] = {}
        start = 0
        for _, domain, side, rows in parts:
            samples[domain.name, side] = Samples(pool, torch.arange(start, start + len(rows)))
            start += len(rows)

        names = [domain.name for domain in trained]
        content = _hash(
            [
                type(self).version,
                fingerprint,
                sorted(names),
                sorted(domain.name for domain in probes),
                self.config.context,
                tokenizer.vocabulary,
                tokenizer.end,
                sorted((d.name, d.packed["evaluation"].bytes_per_target) for d in [*trained, *probes]),
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
                    domain.name,
                    samples[domain.name, "evaluation"],
                    belongs_to=label if label < len(trained) else None,
                    bytes_per_target=domain.packed["evaluation"].bytes_per_target,
                )
                for label, domain in enumerate([*trained, *probes])
            ),
            content=content,
            order=_hash([content, names]),
            input_shape=(self.config.context,),
            scenario="domain",
            vocabulary=tokenizer.vocabulary,
            training=TRAINING,
            default_model=f"byte-gpt?ctx={self.config.context}",
            notes=notes,
        )


def _keep_apart(trained: list[_Domain], probes: list[_Domain]) -> str:
    """Drop every training document that stands in any evaluation set (of any domain), and every validation document
    alike; what was dropped, in words."""
    evaluated = {key for domain in [*trained, *probes] for key in domain.split.sides["evaluation"]}
    dropped = {domain.name: domain.split.drop(evaluated) for domain in trained}
    return "; ".join(
        f"{count} documents of {name} left out of training: they stand in an evaluation set"
        for name, count in dropped.items()
        if count
    )


def _hash(parts: list[Any]) -> str:
    return sha256(json.dumps(parts).encode()).hexdigest()[:32]
