"""The loop. Every strategy is driven through every stream by these lines.

A run is a sequence of positions (`Cursor`): entering one saves the run if it is time to, and keys all randomness to
it. A resumed run replays the builds, then enters the positions that are left. A task has one line of them; one whose
last steps are an anneal forks, and has two: the line that is left again, then the one that the next task goes on from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clbench.engine.cursor import START, Cursor, Stage

if TYPE_CHECKING:
    from clbench.engine.session import Session


def run(session: Session) -> None:
    """Drive the session's strategy through its stream; the evaluation table is in `session.table` afterwards."""
    session.start()
    if session.enter(START):
        session.evaluate_boundary(tasks_seen=0)
    for task in session.remaining_tasks():
        if session.enter(Cursor(task.index, Stage.BEGIN_TASK)):
            session.begin_task(task)
        for line in session.lines(task):
            for phase in session.phases(task):
                for step in phase.steps:
                    batch = phase.batch(step)
                    phase.update(batch)
                    phase.after_step(batch)
                    if phase.evaluation_due(step):
                        session.evaluate_trace(task)
            if session.enter(line.at(Stage.END_TASK)):
                session.end_task(task)
            if session.enter(line.at(Stage.EVALUATE)):
                session.evaluate_boundary(tasks_seen=task.index + 1)
    session.enter(Cursor(len(session.stream.tasks), Stage.DONE))
