"""`clbench show metric NAME`: one metric in plain text, with what other libraries would print."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from clbench.errors import UserError, did_you_mean
from clbench.metrics import field
from clbench.metrics.definitions import DEFINITIONS, GAP_FIELDS, Definition, base_key

FALLING = [[0.80], [0.70, 0.90], [0.85, 0.60, 0.90], [0.84, 0.75, 0.70, 0.95]]
RISING = [[0.5], [0.6, 0.7], [0.8, 0.9, 0.7]]
ZERO_SHOT = [[0.80, 0.95, 0.25], [0.70, 0.90, 0.45], [0.75, 0.60, 0.90]]
UNTRAINED = [0.10, 0.20, 0.30]
SIZES = [1000, 500, 500, 2000]


def explain(key: str) -> str:
    """Formula, sign, null cases, version, and the other libraries' readings of the same word.

    `key` may be `metric:key` or `key[weights]`. Raises UserError for an unknown one.
    """
    name = base_key(key)
    known = definitions()
    if name not in known:
        raise UserError(f"no metric is called {key!r}{did_you_mean(name, known)}")
    definition = known[name]
    lines = [
        f"{name} (version {definition.version})",
        f"  {definition.meaning}",
        "",
        f"  formula    {definition.formula}",
        f"  sign       {definition.sign}",
        f"  null when  {definition.null_when}",
        f"  versions   {name}@{definition.version}; a changed formula is a new version",
    ]
    if name not in DEFINITIONS and name not in GAP_FIELDS:
        lines.append("  where      in references.json: `clbench references RUN`")
    elif name in GAP_FIELDS:
        lines.append('  where      in each entry of the list "gap": one for each switch and old set')
    elif name.startswith("gap_stream_") and definition.formula.startswith("mean of"):
        lines.append("  averaged   over the held-out sets")
    elif name.startswith("gap_") and definition.formula.startswith("mean of"):
        lines.append("  averaged   over the sets of a switch, then over the switches")
    return "\n".join([*lines, *_others(definition), *_worked(name)])


def definitions() -> dict[str, Definition]:
    """All keys: of the metrics object, of one gap, and those that need other runs."""
    from clbench.metrics.references import REFERENCE_DEFINITIONS

    return DEFINITIONS | GAP_FIELDS | REFERENCE_DEFINITIONS


def _others(definition: Definition) -> list[str]:
    if not definition.others:
        return []
    return [
        "",
        "In other libraries",
        *(f"  {library}: {text}" for library, text in definition.others.items()),
    ]


def _worked(name: str) -> list[str]:
    """The examples of a key, every number computed when it is asked for."""
    if name == "forgetting":
        return (
            _example("after each of four tasks", FALLING, field.continuum_forgetting, field.FORGETTING)
            + _example("where old tasks get better", RISING, field.continuum_forgetting, field.FORGETTING)
            + _example(
                "where task 1 scores .95 before it is trained",
                ZERO_SHOT,
                field.continuum_forgetting,
                field.FORGETTING,
            )
        )
    if name == "backward_transfer":
        formulas = field.BACKWARD_TRANSFER
        return _example("after each of four tasks", FALLING, field.gem_backward_transfer, formulas) + _example(
            "where old tasks get better", RISING, field.gem_backward_transfer, formulas
        )
    if name == "forward_transfer":
        formulas = {
            "Renate, Avalanche": lambda R: field.gem_forward_transfer(R, UNTRAINED),
            "Continuum": field.continuum_forward_transfer,
        }
        title = f"unseen tasks scored; untrained model {_row(UNTRAINED)}"
        return _example(title, ZERO_SHOT, formulas["Renate, Avalanche"], formulas)
    if name in ("average", "average_micro", "average_incremental"):
        return _average_example(name)
    if name.startswith(("wf_", "wp_")):
        return _window_example(rising=name.startswith("wp_"))
    return []


def _average_example(name: str) -> list[str]:
    formulas = {
        "Mammoth, Renate (macro)": field.mammoth_average,
        "Avalanche, Renate (micro)": lambda R: field.avalanche_stream_accuracy(R, SIZES),
        "PILOT, PyCIL": lambda R: field.pilot_average(R, SIZES),
        "Continuum accuracy_A": field.continuum_accuracy_a,
    }
    own: dict[str, Callable[[field.Matrix], float]] = {
        "average": field.mammoth_average,
        "average_micro": lambda R: field.avalanche_stream_accuracy(R, SIZES),
        "average_incremental": lambda R: sum(sum(row) / len(row) for row in R) / len(R),
    }
    title = f"with {', '.join(map(str, SIZES))} samples"
    return _example(title, FALLING, own[name], formulas)


def _window_example(rising: bool) -> list[str]:
    from clbench.metrics.trace import largest_changes

    scores = [0.5, 0.1, 0.9]
    changes = largest_changes(list(enumerate(scores)), 3) or (0.0, 0.0)
    theirs = field.continual_evaluation_window(scores, 3, rising)
    return [
        "",
        f"Example: scores {_row(scores)} at consecutive steps, window 3",
        f"  {changes[rising]:.4f}  clbench",
        f"  {theirs:.4f}  ContinualEvaluation",
    ]


def _example(
    title: str,
    R: field.Matrix,
    own: Callable[[field.Matrix], float],
    others: Mapping[str, Callable[[field.Matrix], float]],
) -> list[str]:
    lines = ["", f"Example: {title}", *(f"  after task {t}: {_row(row)}" for t, row in enumerate(R))]
    lines.append(f"  {own(R):7.4f}  clbench")
    return lines + [f"  {formula(R):7.4f}  {library}" for library, formula in others.items()]


def _row(scores: Sequence[float]) -> str:
    return " ".join(f"{score:.2f}" for score in scores)
