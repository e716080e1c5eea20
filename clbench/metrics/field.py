"""How other libraries compute metrics of the same names: small re-statements, for tests and explanations.

R is a list of rows, R[t][j] = accuracy on task j after training task t; rows may be ragged (seen tasks only)
unless a function says that it reads unseen tasks. Nothing here feeds a clbench metric.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

Matrix = Sequence[Sequence[float]]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def avalanche_forgetting(R: Matrix) -> float:
    """First minus last: the negative of backward transfer."""
    T = len(R)
    return _mean([R[j][j] - R[T - 1][j] for j in range(T - 1)])


def mammoth_forgetting(R: Matrix) -> float:
    """Best minus last; the last row, and zeros for unseen tasks, are in the max: never negative."""
    T = len(R)
    padded = [[*row, *[0.0] * (T - len(row))] for row in R]
    return _mean([max(row[j] for row in padded) - R[T - 1][j] for j in range(T - 1)])


def facil_forgetting(R: Matrix) -> float:
    """Best of the earlier rows, zeros where the task is not learned yet, minus last."""
    T = len(R)
    earlier = [[*row[: t + 1], *[0.0] * (T - t - 1)] for t, row in enumerate(R[:-1])]
    return _mean([max(row[j] for row in earlier) - R[T - 1][j] for j in range(T - 1)])


def continuum_forgetting(R: Matrix) -> float:
    """Best of the rows from the task's own to the last but one, minus last (Chaudhry et al. 2018)."""
    T = len(R)
    return _mean([max(R[t][j] for t in range(j, T - 1)) - R[T - 1][j] for j in range(T - 1)])


def renate_forgetting(R: Matrix) -> float:
    """Best of all rows but the last, rows before the task was trained among them (full matrix)."""
    T = len(R)
    return _mean([max(R[t][j] for t in range(T - 1) if j < len(R[t])) - R[T - 1][j] for j in range(T - 1)])


def libcontinual_forgetting(R: Matrix) -> float:
    """First minus last without the last-but-one task, divided as if it were there."""
    T = len(R)
    return math.fsum(R[j][j] - R[T - 1][j] for j in range(T - 2)) / (T - 1)


def gem_backward_transfer(R: Matrix) -> float:
    """Last minus first: GEM, Mammoth, FoMo, Renate; Avalanche reports it as the negative of forgetting."""
    T = len(R)
    return _mean([R[T - 1][j] - R[j][j] for j in range(T - 1)])


def continuum_backward_transfer(R: Matrix) -> float:
    """Every later row minus first, mean over all pairs (Diaz-Rodriguez et al. 2018)."""
    return _mean([R[t][j] - R[j][j] for t in range(1, len(R)) for j in range(t)])


def libcontinual_backward_transfer(R: Matrix) -> float:
    """The same sum without the task just before the row's, divided by the number of all pairs."""
    T = len(R)
    return math.fsum(R[t][j] - R[j][j] for t in range(1, T) for j in range(t - 1)) / (T * (T - 1) / 2)


def trace_backward_transfer(R: Matrix) -> float:
    """TRACE (Wang et al. 2023): last minus first over all T tasks, the last one's 0 among them."""
    T = len(R)
    return _mean([R[T - 1][j] - R[j][j] for j in range(T)])


def fuar(forgotten: Sequence[float], updated: Sequence[float], acquired: Sequence[float]) -> float | None:
    """CKL's ratio of facts forgotten to facts updated and acquired (Jang et al. 2022); None where nothing was gained.

    forgotten: score before minus after, of each set of facts that still hold; updated, acquired: after minus before, of
    each set of changed and of new facts. What is below 0 counts as 0.
    """
    gained = math.fsum(max(0.0, gain) for gain in (*updated, *acquired))
    return math.fsum(max(0.0, loss) for loss in forgotten) / gained if gained > 0 else None


def stability_gap_norm(before: float, scores: Sequence[float]) -> float:
    """SG_norm (Lapacz et al. 2024): fall to the lowest score since the switch, as a share of the score before it."""
    return (before - min(scores)) / before


def recovery_norm(before: float, scores: Sequence[float]) -> float:
    """REC_norm (Lapacz et al. 2024): rise from that lowest score to the last one, as a share of the score before."""
    return (scores[-1] - min(scores)) / before


def gem_forward_transfer(R: Matrix, initial: Sequence[float]) -> float:
    """Just before training the task minus before any training (Mammoth: minus a random model)."""
    return _mean([R[j - 1][j] - initial[j] for j in range(1, len(R))])


def continuum_forward_transfer(R: Matrix) -> float:
    """Mean of the lower triangle without the diagonal; no baseline is subtracted."""
    return _mean([R[t][j] for t in range(1, len(R)) for j in range(t)])


def mammoth_average(R: Matrix) -> float:
    """Mean over seen tasks after the last one (Renate's average_accuracy: same)."""
    return _mean(R[-1][: len(R)])


def continuum_accuracy_a(R: Matrix) -> float:
    """Mean of the lower triangle with its diagonal: early tasks count more often."""
    return _mean([R[t][j] for t in range(len(R)) for j in range(t + 1)])


def pilot_average(R: Matrix, sizes: Sequence[int]) -> float:
    """PILOT, PyCIL: mean over time of the sample-weighted accuracy on seen tasks (they round it first)."""
    return _mean([_weighted(row[: t + 1], sizes) for t, row in enumerate(R)])


def avalanche_stream_accuracy(R: Matrix, sizes: Sequence[int]) -> float:
    """Sample-weighted accuracy on all that was evaluated, unseen tasks among them, after the last task."""
    return _weighted(R[-1], sizes)


def fomo_accumulation(accuracy: float, recall: float) -> float:
    """FoMo's knowledge accumulation: mean accuracy of 40 sets and recall@5 of one, counts fixed."""
    return (40 * accuracy + recall) / 41


def continual_evaluation_window(scores: Sequence[float], window: int, rising: bool = False) -> float:
    """WF (or WP, `rising`) of ContinualEvaluation: windows of evaluations, not steps.

    Both start only from points at least as high as every earlier one in the window: enough for drops, too
    few for rises.
    """
    best = 0.0
    for end in range(len(scores)):
        seen = scores[max(0, end - window + 1) : end + 1]
        for m, first in enumerate(seen):
            if first >= max(seen[: m + 1]):
                changes = [later - first if rising else first - later for later in seen[m + 1 :]]
                best = max([best, *changes])
    return best


FORGETTING: dict[str, Callable[[Matrix], float]] = {
    "Avalanche": avalanche_forgetting,
    "Mammoth, FoMo, PILOT, PyCIL": mammoth_forgetting,
    "FACIL": facil_forgetting,
    "Continuum": continuum_forgetting,
    "Renate": renate_forgetting,
    "LibContinual": libcontinual_forgetting,
}
BACKWARD_TRANSFER: dict[str, Callable[[Matrix], float]] = {
    "Mammoth, FoMo, Renate, Avalanche": gem_backward_transfer,
    "Continuum": continuum_backward_transfer,
    "LibContinual": libcontinual_backward_transfer,
    "TRACE": trace_backward_transfer,
}


def _weighted(scores: Sequence[float], sizes: Sequence[int]) -> float:
    weights = sizes[: len(scores)]
    return math.fsum(a * n for a, n in zip(scores, weights, strict=True)) / sum(weights)
