"""Contrastive learning of images and captions; zero-shot accuracy and retrieval."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor

from clbench.errors import UserError
from clbench.objectives.base import Objective
from clbench.objectives.caption_table import CaptionTable
from clbench.objectives.contrastive_losses import LOSSES, collisions, similarity_divergence
from clbench.objectives.zero_shot import TextCache, chance_of_recall, class_embeddings, recall
from clbench.pairs import Embeddings, Pairs
from clbench.transforms import Normalise, augment

if TYPE_CHECKING:
    from clbench.captions import Captions
    from clbench.models import InputSpec
    from clbench.samples import Batch, Samples
    from clbench.stream import EvalSet, Stream


class Contrastive(Objective):
    """Embeddings of images and of their captions are brought together; images are classified by their classes' texts.

    Inputs are `Pairs`, outputs `Embeddings`, targets caption ids, int64 [B]: equal texts have equal ids. A sample's
    label is its concept. In the train view images are augmented and one of the sample's captions is drawn; the plain
    view has the first. `Stream.contrast` says which loss it is (`contrastive_losses`) and how sets are scored: a set
    for classification by whether the nearest text is the image's concept's, among the set's concepts of the image's
    own data set, or among those of all sets; a retrieval set by recall at k, the mean of both directions. Both are
    called accuracy, so that all sets of a stream weigh alike; chance is what guessing gives.
    """

    primary: ClassVar[str] = "accuracy"
    direction: ClassVar[Literal["higher", "lower"]] = "higher"
    couples_samples: ClassVar[bool] = True
    scores_whole: ClassVar[bool] = True

    def __init__(self, stream: Stream) -> None:
        super().__init__(stream)
        if stream.captions is None:
            raise UserError(f"{stream.name} is a contrastive stream without captions")
        self.captions: Captions = stream.captions
        self.how = stream.contrast
        self.normalise = Normalise(stream.mean, stream.std, stream.input_shape[0], None)
        self.table: CaptionTable | None = None
        self.texts = TextCache()
        self._tensors: set[str] = set()
        self._pairs: dict[EvalSet, tuple[list[int], Tensor]] = {}
        union = {c for s in stream.eval_sets if s.kind == "classification" for c in s.classes}
        self._union = tuple(sorted(union))
        names = [self.captions.dataset(c) for c in range(len(self.captions.concepts))]
        place = {name: i for i, name in enumerate(dict.fromkeys(names))}
        self._dataset = torch.tensor([place[name] for name in names], dtype=torch.int64)

    # -- inputs --------------------------------------------------------------------------------------------------

    def fit(self, spec: InputSpec) -> None:
        assert spec.tokenize is not None
        self.normalise = Normalise(spec.mean, spec.std, spec.channels, spec.size)
        self.table = CaptionTable(self.captions, spec.tokenize)

    @property
    def _table(self) -> CaptionTable:
        assert self.table is not None, "captions become tokens once the model is known"
        return self.table

    def inputs(
        self,
        raw: Tensor,
        labels: Tensor,
        view: Literal["train", "plain"],
        generator: torch.Generator | None,
        rows: Tensor | None = None,
    ) -> tuple[Any, Tensor]:
        if view == "train":
            raw = augment(raw, self.stream.augmentation, generator)
        ids = self._table.draw(labels, rows, generator if view == "train" else None)
        return Pairs(self.normalise(raw), self._table.tokens_of(ids)), ids

    # -- losses --------------------------------------------------------------------------------------------------

    def losses(self, outputs: Any, y: Tensor) -> Tensor:
        """float32 [B]; each depends on the whole batch."""
        return LOSSES[self.how.loss](outputs.logits(), y)

    def counts(self, batch: Batch) -> dict[str, int]:
        """Pairs of two samples of the batch, and those of them with the same caption."""
        same, pairs = collisions(batch.y)
        return {"caption_collisions": same, "caption_pairs": pairs}

    def decide(self, outputs: Any, generator: torch.Generator | None = None) -> Tensor:
        """The text of the batch that goes with each image: positions, int64 [B]."""
        logits = outputs.logits()
        if generator is None:
            return logits.argmax(1)
        return torch.multinomial(logits.softmax(1).cpu(), 1, generator=generator)[:, 0].to(logits.device)

    def distillation(self, outputs: Any, teacher: Any, temperature: float) -> Tensor:
        """Of similarities within the batch, over texts and over images: Zheng et al. 2023 (ZSCL, arXiv 2303.06628),
        section 3.1, on the batch's own pairs."""
        return similarity_divergence(outputs.logits(), teacher.logits(), temperature)

    def per_sample(self, outputs: Any) -> Tensor:
        """Both embeddings of each sample, [B, 2 d]."""
        return torch.cat([outputs.image, outputs.text], dim=1)

    # -- scores --------------------------------------------------------------------------------------------------

    def candidates(self, eval_set: EvalSet) -> tuple[int, ...]:
        """The concepts that images of the set are classified among, each among those of its own data set where
        `label_space` says so."""
        return tuple(eval_set.classes) if self.how.label_space == "own" else self._union

    def prepare_scoring(self, sets: Sequence[EvalSet], predict: Callable[[Any], Any], key: str | None) -> int:
        every = dict.fromkeys((*self.stream.eval_sets, *sets))  # always in the same chunks, whatever is scored now
        needed = sorted({number for s in every for number in self._needed(s)})

        def encode(ids: Tensor) -> Tensor:
            out: Embeddings = predict(Pairs(None, self._table.tokens_of(ids)))
            assert out.text is not None
            return out.text

        self.texts.update(needed, key, encode)
        return len(needed)

    def asked(self, x: Any) -> Any:
        """The images alone."""
        return x.only_images()

    def answers(self, outputs: Any) -> Tensor:
        """Embeddings of images, [B, d]."""
        assert outputs.image is not None
        image: Tensor = outputs.image
        return image

    def scores(self, outputs: Any, y: Tensor, eval_set: EvalSet) -> Tensor:
        """Of a batch by itself, without other texts: 1 where the text nearest to an image is one with its caption."""
        return (y[self.decide(outputs)] == y).float()

    def zero_shot(self, outputs: Tensor, y: Tensor, eval_set: EvalSet) -> Tensor:
        """Of embeddings of images [B, d] and their concepts: 1 where the nearest text is the concept's, else 0. Where
        concepts have the same primer, any of them is right."""
        candidates = self.candidates(eval_set)
        classes = class_embeddings(self.texts, [self._prompts(c) for c in candidates]).to(outputs.device)
        primers = self._table.draw(torch.tensor(candidates, device=outputs.device), None, None)
        right = self._table.draw(y.to(outputs.device), None, None)
        similarities = outputs.float() @ classes.T
        if self.how.label_space == "own":
            foreign = self._dataset[y.cpu()][:, None] != self._dataset[list(candidates)][None]
            similarities = similarities.masked_fill(foreign.to(outputs.device), -torch.inf)
        return (primers[similarities.argmax(1)] == right).float()

    def score_whole(self, outputs: Tensor, samples: Samples, eval_set: EvalSet) -> Tensor:
        if eval_set.kind == "classification":
            return self.zero_shot(outputs, samples.labels, eval_set)
        ids, own = self._of(eval_set)
        if len(samples) != len(eval_set.data):
            raise ValueError(f"{eval_set.name}: retrieval is scored on whole sets")
        texts = self.texts[ids].to(outputs.device)
        return recall(outputs.float(), texts, own.to(outputs.device), self.how.recall_at)

    def base(self, eval_set: EvalSet, n_classes: int) -> float:
        if eval_set.kind == "classification":
            return self._chance(eval_set)
        ids, own = self._of(eval_set)
        return chance_of_recall(own, len(eval_set.data), len(ids), self.how.recall_at)

    def _chance(self, eval_set: EvalSet) -> float:
        """What guessing among an image's candidates gets right, the mean over the set's images."""
        candidates = self.candidates(eval_set)
        if self.how.label_space == "union" or not len(eval_set.data):
            return 1.0 / max(1, len(candidates))
        sizes = torch.bincount(self._dataset[list(candidates)], minlength=int(self._dataset.max()) + 1)
        return float((1.0 / sizes[self._dataset[eval_set.data.labels]].clamp(min=1)).double().mean())

    def _prompts(self, concept: int) -> Sequence[int]:
        """Ids of the captions that stand for a class."""
        ids = self._table.of_concept(concept)
        return ids[:1] if self.how.prompts == "primer" else ids

    def _needed(self, eval_set: EvalSet) -> list[int]:
        """Ids of the captions that a set is scored with."""
        if eval_set.kind == "retrieval":
            return self._of(eval_set)[0]
        return [number for c in self.candidates(eval_set) for number in self._prompts(c)]

    def _of(self, eval_set: EvalSet) -> tuple[list[int], Tensor]:
        """A retrieval set's captions, each once, and which belong to which image: int64 [2, pairs]."""
        if eval_set not in self._pairs:
            labels, rows = eval_set.data.labels.tolist(), eval_set.data.index.tolist()
            own = [self._table.captions_of(label, row) for label, row in zip(labels, rows, strict=True)]
            ids = list(dict.fromkeys(number for mine in own for number in mine))
            place = {number: i for i, number in enumerate(ids)}
            pairs = sorted({(i, place[number]) for i, mine in enumerate(own) for number in mine})
            self._pairs[eval_set] = ids, torch.tensor(pairs, dtype=torch.int64).T
        return self._pairs[eval_set]
