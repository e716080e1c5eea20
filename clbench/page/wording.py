"""What the page calls things: metrics, costs, declared needs, and what chose the hyper-parameters."""

from __future__ import annotations

from typing import NamedTuple

from clbench import board_terms
from clbench.metrics.definitions import DEFINITIONS, base_key


class Term(NamedTuple):
    """A name as the page shows it, and what it means. `formula` and `note` are empty where there is none."""

    name: str
    meaning: str
    formula: str = ""
    note: str = ""


NEEDS = {
    key: Term(need.name, f"{need.meaning[0].upper()}{need.meaning[1:]}.") for key, need in board_terms.NEEDS.items()
}

CHOSEN = {
    key: Term(board_terms.CHOSEN[key], meaning)
    for key, meaning in {
        "nothing": "Declared: no data of this stream chose the hyper-parameters (published or default values, say).",
        "validation": "Hyper-parameters were chosen on validation data.",
        "test": "Hyper-parameters were chosen on test data: not comparable with other boards.",
    }.items()
}

COSTS = {
    "seconds_train": Term("train time", "Wall time of training, without evaluation."),
    "seconds_total": Term("total time", "Wall time of the whole run, evaluation included."),
    "seconds_evaluate": Term("evaluation time", "Wall time of evaluation at task ends."),
    "flops_train": Term("FLOPs", "Floating-point operations of training, counted."),
    "stored_bytes": Term("stored", "Bytes kept between tasks: memories, features, prototypes, copies of the model."),
    "maf_train": Term("MAF", "Floating-point operations of training, adjusted by memory: what a maf budget counts."),
    "memory_deterministic_bytes": Term("step memory", "What a training step needs, counted in tensors."),
    "peak_memory_bytes": Term("peak memory", "Largest memory in use during the run."),
    "parameters_trained": Term("trained parameters", "Parameters that were trained."),
    "parameters": Term("parameters", "Parameters of the final model."),
    "samples_train": Term("samples seen", "Training samples read, repeats counted."),
    "steps": Term("steps", "Optimiser steps."),
}

OTHERS = {
    "rank": Term(
        "#",
        "Rank on the whole board. 2\u20134: the runs do not show whether the row is second, third or fourth.",
        note="A row is better than another where the 95 % interval of their difference, over runs of equal task order "
        "and seed, leaves 0 out.",
    ),
    "strategy": Term("strategy", "The method, with the settings in which its rows on this board differ."),
    "needs": Term("needs", "What a strategy declares that it uses. The engine refuses any other use."),
    "n": Term("runs", "Completed runs, one for each task order and seed. A mean and its interval are over these."),
    "chosen": Term(
        "chosen on",
        "The data that chose the hyper-parameters, as declared: none, validation, or test data.",
    ),
}

MARKS = {
    "verified": Term("verified", "Runs whose latest repetition gave the same result (clbench verify)."),
    "refuted": Term("refuted", "Runs whose latest repetition gave another result."),
    "imported": Term("imported", "Runs that were made elsewhere and brought here (clbench import)."),
    "diverged": Term("diverged", "Runs whose loss became NaN or infinite. None of their numbers is in a mean."),
}


def metric_name(key: str) -> str:
    """`gap_depth` as `gap depth`; a prefix or weights stay."""
    return key.replace("_", " ").replace(":", ": ").replace("[", " [")


def term_key(key: str) -> str:
    """Under which key the page explains a metric or a cost: `average` also for `loss:average` and `average[train]`."""
    return key if key in COSTS else base_key(key)


def term_of(key: str) -> Term:
    """What a metric or a cost means; the bare key where nobody has said."""
    if key in COSTS:
        return COSTS[key]
    definition = DEFINITIONS.get(base_key(key))
    if definition is None:
        return Term(metric_name(key), "")
    meaning = definition.meaning[0].upper() + definition.meaning[1:] + "."
    note = f"{definition.sign}. Version {definition.version}. No value where {definition.null_when or 'never'}."
    return Term(metric_name(key), meaning, definition.formula, note[0].upper() + note[1:])
