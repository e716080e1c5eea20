"""Skill-It: tasks are sampled by the losses of what they help."""

from __future__ import annotations

from typing import Any

from clbench.config import setting
from clbench.errors import UserError
from clbench.mixtures import Policy, SkillIt
from clbench.samples import Samples
from clbench.stream import Stream, Task

from .guided_mixture import GuidedMixture


class SkillItMixture(GuidedMixture):
    """Sample tasks in proportion to the exponential of the losses of all they help (Skill-It).

    Chen et al. 2023 (arXiv 2307.14430): task i gets a share in proportion to exp(eta * sum over the last `window`
    observations of sum_j A_ij L_j), with L_j the loss of task j on validation data; the shares before are no factor.
    Until the first observation it is exp(eta * sum_j A_ij). A_ij >= 0 says how much training on i helps j; without an
    adjacency it is the identity, and tasks are sampled by their own losses. The paper samples skills of one training
    set at once; here the skills are the tasks seen so far, whose training data are kept.
    """

    class Config(GuidedMixture.Config):
        eta: float = setting(0.2, "how sharply shares follow losses", source="arXiv 2307.14430: pre-training", ge=0)
        window: int = setting(3, "observations that are summed", source="arXiv 2307.14430 and its code", ge=1)
        adjacency: list[list[float]] | None = setting(
            None, "row i, column j: how much task i helps task j, in the stream's order", source="clbench: the identity"
        )
        relative: bool = setting(
            False, "divide losses by the first observed ones", source="arXiv 2307.14430's code: an option"
        )
        floor: float = setting(0.0, "smallest share of a task", source="arXiv 2307.14430: none", ge=0, le=0.5)

    paper = "Chen et al. 2023, NeurIPS (arXiv 2307.14430)"

    @classmethod
    def check_stream(cls, config: Any, stream: Stream) -> None:
        rows, tasks = config.adjacency, len(stream.tasks)
        if rows is not None and [len(row) for row in rows] != [tasks] * tasks:
            raise UserError(
                f"strategy skill-it: adjacency must have {tasks} rows of {tasks} numbers, one for each task of "
                f"{stream.name}; the lengths of its rows are {[len(row) for row in rows]}"
            )
        SkillIt(config.eta, config.window, rows)

    def policy(self, task: Task, earlier: dict[str, Samples]) -> Policy:
        c = self.config
        matrix = None if c.adjacency is None else self._seen(task)
        return SkillIt(c.eta, c.window, matrix, relative=c.relative, floor=c.floor)

    def _seen(self, task: Task) -> list[list[float]]:
        """The adjacency of the tasks seen, the current one first."""
        order = [task.index, *range(task.index)]
        return [[self.config.adjacency[i][j] for j in order] for i in order]
