"""What the tasks of a stream of concepts hold: sets, concepts, images, and how far their mix of sets is from the whole;
and what the pool, the tasks and the held-out sets have in common.

`python -m clbench.streams.fomo_report STREAM [--set KEY=VALUE ...]` prints it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from clbench.errors import UserError
from clbench.samples import Samples
from clbench.stream import Stream

from .fomo_captions import plain
from .row_keys import row_keys


@dataclass(frozen=True)
class TaskReport:
    """sets, concepts, images: how many. divergence: Jensen-Shannon divergence of the shares that the sets have in the
    task's images from those in the whole stream's, in bits: 0 for the same mix, towards 1 for sets of its own."""

    name: str
    sets: int
    concepts: int
    images: int
    divergence: float


def task_reports(stream: Stream) -> list[TaskReport]:
    """Of every task of a stream with captions."""
    assert stream.captions is not None
    owner = [stream.captions.dataset(label) for label in range(len(stream.captions.concepts))]
    names = sorted({owner[label] for task in stream.tasks for label in task.classes})
    number = np.array([names.index(each) if each in names else -1 for each in owner])
    counts = np.stack(
        [np.bincount(number[task.train.labels.numpy()], minlength=len(names)) for task in stream.tasks]
    ).astype(np.float64)
    whole = counts.sum(0)
    return [
        TaskReport(
            name=task.name,
            sets=len({owner[label] for label in task.classes}),
            concepts=len(task.classes),
            images=len(task.train),
            divergence=jensen_shannon(mine, whole),
        )
        for task, mine in zip(stream.tasks, counts, strict=True)
    ]


def jensen_shannon(one: np.ndarray, other: np.ndarray) -> float:
    """The divergence of two distributions given as counts, in bits: 0 to 1."""
    p, q = one / one.sum(), other / other.sum()
    return max(0.0, (_relative(p, (p + q) / 2) + _relative(q, (p + q) / 2)) / 2)


def _relative(p: np.ndarray, q: np.ndarray) -> float:
    held = p > 0
    return float((p[held] * np.log2(p[held] / q[held])).sum())


def shared_names(stream: Stream) -> dict[tuple[str, str], int]:
    """How many names of classes, in lower case and without punctuation, two parts of a stream with captions share."""
    captions, before = stream.captions, stream.pretraining
    assert captions is not None

    def named(labels: Iterable[int]) -> set[str]:
        return {plain(captions.class_name(label).replace("_", " ")) for label in labels}

    parts = {
        "pool": named([] if before is None else before.labels.unique().tolist()),
        "tasks": named(label for task in stream.tasks for label in task.classes),
        "held-out sets": named(label for s in stream.eval_sets if s.role == "held-out" for label in s.classes),
    }
    return {(one, other): len(parts[one] & parts[other]) for one, other in combinations(parts, 2)}


def shown_in_training(stream: Stream) -> tuple[int, int]:
    """(how many test images have the very pixels of an image that is trained on, how many there are)."""
    pretraining = [] if stream.pretraining is None else [stream.pretraining]
    trained = _pictures([*(task.train for task in stream.tasks), *pretraining])
    tested = _pictures([s.data for s in stream.eval_sets if s.role])
    return int(np.isin(tested, trained).sum()), len(tested)


def _pictures(parts: Sequence[Samples]) -> np.ndarray:
    """uint64 [n]: keys of all rows of the parts, each row once."""
    if not parts:
        return np.empty(0, np.uint64)
    samples = Samples.union(parts)
    images = samples.pool.inputs[samples.index.unique()].numpy()
    return row_keys(images, np.zeros(len(images), np.int64), [""])


def built(name: str, settings: Sequence[str] = (), order_seed: int = 0) -> Stream:
    """The stream of that name with settings as `--set` takes them."""
    from clbench.catalogue import find
    from clbench.config import parse_config
    from clbench.registry import load_recipe
    from clbench.settings import parse_value

    entry = find("stream", name)
    values = {}
    for text in settings:
        key, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"--set {text}: write KEY=VALUE")
        values[key] = parse_value(value, entry.settings.get(key), text)
    recipe = load_recipe(name)
    return recipe(name, parse_config(recipe.Config, values, f"stream {name}"), order_seed=order_seed).build()


def main(arguments: Sequence[str]) -> None:
    """`STREAM [--set KEY=VALUE ...]`: print what the stream's tasks hold."""
    import argparse

    parser = argparse.ArgumentParser(prog="clbench.streams.fomo_report", description=main.__doc__)
    parser.add_argument("stream")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--order-seed", type=int, default=0)
    given = parser.parse_args(arguments)
    stream = built(given.stream, given.set, given.order_seed)
    print(stream.notes)
    print(f"{'task':20} {'sets':>5} {'concepts':>9} {'images':>8} {'divergence':>11}")
    for each in task_reports(stream):
        print(f"{each.name:20} {each.sets:5} {each.concepts:9} {each.images:8} {each.divergence:11.3f}")
    common = ", ".join(f"{one} and {other} {n}" for (one, other), n in shared_names(stream).items())
    again, tested = shown_in_training(stream)
    print(f"names of classes in common: {common}; {again} of {tested} test images are training images, too")


if __name__ == "__main__":
    import sys

    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(str(error))
