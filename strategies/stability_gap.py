"""Three remedies for the stability gap of continual pre-training, all of them on the side of the data."""

from __future__ import annotations

from typing import Any, Literal

from clbench.config import setting
from clbench.errors import UserError, did_you_mean
from clbench.mixtures import NewOnly, Policy, PretrainLike
from clbench.mixtures.policy import normalised
from clbench.mixtures.selection import holds_tokens, lowest, ngram_perplexity, random_subset
from clbench.phase import Phase
from clbench.samples import Samples
from clbench.strategy import Needs, Strategy
from clbench.stream import Stream, Task


class StabilityGap(Strategy):
    """Several passes over a small, good subset of a new domain, in the mixture of the pre-training.

    Guo et al. 2024 (arXiv 2406.14833), from the second task on; the first is plain training. Three remedies, each of
    which can be switched off. (1) `subset`: a part of the new data, read in `passes` passes, in the place of one pass
    over all (1: off). (2) `quality`: the subset holds the blocks of the lowest perplexity under an n-gram model of the
    task's validation data, or, where there are none, of the other half of its training data; `random`: off, and the
    only choice on images. (3) `mixture`: the new domain takes the place of one slice of the pre-training's mixture, the
    other slices keep their shares. Slices are earlier tasks: `slices` with `substitute`, or all of them by their sizes,
    with `new_share` for the new one (the paper's web share, 82 %). A pass is as long as the subset; what it draws
    of the subset is drawn anew for each pass with `redraw`, which the paper finds better.
    """

    class Config(Strategy.Config):
        subset: float = setting(
            0.1, "part of a new task's data that is read; 1: all", source="arXiv 2406.14833: 5B of 50B", gt=0, le=1
        )
        passes: float | None = setting(
            4.0,
            "passes as long as the subset, where `steps` is not set; none: as many samples as `epochs` says",
            source="arXiv 2406.14833: best after 4",
            gt=0,
        )
        quality: Literal["auto", "ngram", "random"] = setting(
            "auto", "how the subset is chosen; auto: ngram on text, else random", source="arXiv 2406.14833: n-grams"
        )
        order: int = setting(5, "length of the n-grams", source="clbench; KenLM's usual 5", ge=1, le=12)
        mixture: bool = setting(True, "mix as in pre-training", source="arXiv 2406.14833")
        new_share: float = setting(
            0.82, "share of the new task without `slices`", source="arXiv 2406.14833: CommonCrawl and C4", ge=0, le=1
        )
        slices: dict[str, float] | None = setting(
            None, "shares of earlier tasks in the mixture, by name", source="clbench: their sizes"
        )
        substitute: str | None = setting(
            None, "the slice whose share the new task takes", source="arXiv 2406.14833: the web"
        )
        redraw: bool = setting(
            True, "draw a pass's part of the subset anew for each pass", source="arXiv 2406.14833: data-dynamic"
        )

    paper = "Guo et al. 2024 (arXiv 2406.14833)"
    needs = Needs(stores_samples=True)
    plans_ahead = True

    @classmethod
    def check_stream(cls, config: Any, stream: Stream) -> None:
        c = config
        if c.quality == "ngram" and stream.vocabulary is None:
            raise UserError(f"strategy stability-gap: {stream.name} is no stream of text: use quality=random")
        if (c.slices is None) != (c.substitute is None):
            raise UserError(
                "strategy stability-gap: slices and substitute are set together: which slice the new task replaces"
            )
        if c.slices is not None:
            PretrainLike(c.slices, str(c.substitute))
            first = [task.name for task in stream.tasks[:1]]
            unknown = [name for name in c.slices if name not in (c.substitute, *first)]
            if unknown and c.mixture:
                raise UserError(
                    f"strategy stability-gap: slices names {unknown[0]!r}, but the second task of {stream.name} can "
                    f"only be mixed with the first{did_you_mean(unknown[0], first)}"
                )

    def setup(self) -> None:
        self._subsets: dict[int, Samples] = {}

    def phases(self, task: Task) -> list[Phase]:
        c, earlier = self.config, self.earlier_samples()
        if not earlier:
            return [self.phase("train", task.train)]
        n = max(1, round(c.subset * len(task.train)))
        shares = self._shares(task, earlier)
        new = normalised(shares)[c.substitute or task.name] if c.mixture else 1.0
        drawn = max(1, round(new * n))
        redraws = c.mixture and c.redraw and c.subset < 1
        if task.index not in self._subsets:
            self._subsets[task.index] = self._chosen(task, n if redraws or c.subset == 1 else drawn)
        chosen = self._subsets[task.index]
        sources = {task.name: chosen, **(earlier if c.mixture else {})}
        policy = self._policy(task, shares, drawn if redraws else None)
        if c.steps is None and c.passes is not None:
            length = task.train.subset(list(range(n)))
            return [self.phase("subset", length, sources=sources, mixture=policy, epochs=c.passes)]
        return [self.phase("subset", task.train, sources=sources, mixture=policy)]

    def _shares(self, task: Task, earlier: dict[str, Samples]) -> dict[str, float]:
        """Shares of the slices, the replaced one under its own name, or the new task's under its."""
        c = self.config
        if c.slices is not None:
            return dict(c.slices)
        total = sum(len(samples) for samples in earlier.values())
        rest = {name: (1 - c.new_share) * len(samples) / total for name, samples in earlier.items()}
        return {task.name: c.new_share, **rest}

    def _policy(self, task: Task, shares: dict[str, float], take: int | None) -> Policy:
        if not self.config.mixture:
            return NewOnly(take=take)
        return PretrainLike(shares, self.config.substitute or task.name, take)

    def _chosen(self, task: Task, n: int) -> Samples:
        """n samples of the task: the best ones, or some."""
        quality = self.config.quality
        if quality == "auto":
            quality = "ngram" if holds_tokens(task.train) else "random"
        if n >= len(task.train):
            return task.train
        if quality == "random":
            return random_subset(task.train, n, self.generator("subset"))
        scores = ngram_perplexity(task.train, task.validation or None, self.config.order)
        return lowest(task.train, scores, n)

    def diagnostics(self) -> dict[str, Any] | None:
        """Samples and passes of every task."""
        return {"drawn": self.draw_counts()} if self.draw_counts() else None
