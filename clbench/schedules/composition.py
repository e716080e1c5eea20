"""Schedules: pieces one after another, the rate of any step as a pure function of its place in the run."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Literal

from clbench.errors import UserError
from clbench.schedules import pieces
from clbench.schedules.recovery import COSINES, ROOTS, recovering
from clbench.schedules.shapes import ANNEALS, ENDLESS, SHAPES, Context, Length, Piece, Spot, in_steps, is_number


@dataclass(frozen=True)
class Schedule:
    """Pieces of phase 0 (`first`) and of the phases after it (`later`; None: they restart with the first ones).

    clock: what the pieces span: each phase, or once the whole run. anneal: the shape of a branch; it goes from where
    its parent stands to `to`. branch_length: set by `branch`. declining: (peak, floor), where the peaks of later phases
    decline as TiC-LM's autoregressive cosine. recovery: the rule of `recovery` by which later phases follow the first,
    which is a warm-up and a cosine or `cooled_rsqrt` then. Values are multiples of the peak rate, or absolute rates
    where the caller takes them so. Raises UserError for pieces that do not fit one another.
    """

    name: str
    first: tuple[Piece, ...]
    later: tuple[Piece, ...] | None = None
    clock: Literal["phase", "run"] = "phase"
    anneal: Piece = field(default_factory=lambda: Piece("one_minus_sqrt", None, {"to": 0.1}))
    branch_length: Length | None = None
    declining: tuple[float, float] | None = None
    recovery: str | None = None

    def __post_init__(self) -> None:
        for program in (self.first, self.later):
            if program is None:
                continue
            if not any(piece.length != 0 for piece in program) or sum(piece.length is None for piece in program) > 1:
                raise self._wrong("each phase needs pieces, one at most without a length")
            if sum(piece.length for piece in program if isinstance(piece.length, float)) > 1 + 1e-9:
                raise self._wrong("the shares of its pieces sum to more than 1")
        if self.recovery is not None and not self._can_recover():
            raise self._wrong("recovery needs a warm-up, a cosine or cooled_rsqrt, and a rule that there is for it")
        if self.anneal.kind not in ANNEALS:
            raise self._wrong(f"a branch cannot have the shape {self.anneal.kind!r} (use {', '.join(ANNEALS)})")
        if self.branch_length is not None:
            replace(self.anneal, length=self.branch_length)

    def lr(self, step: int, phase: int, phase_steps: int, context: Context | None = None) -> float:
        """The rate of the update after `step` others of this phase; beyond the phase's end, the last value.

        phase: 0 for the first of a run. Raises UserError where the schedule cannot fit, ValueError for a negative step
        or an empty phase.
        """
        context = context or Context(run_step=step)
        if step < 0 or phase_steps < 1:
            raise ValueError(f"step {step} of a phase of {phase_steps} steps")
        if step > phase_steps:
            context = replace(context, run_step=context.run_step - (step - phase_steps))
            step = phase_steps
        start, length = self._branch(step, phase, phase_steps, context)
        if step <= start:
            return self._trunk(step, phase, phase_steps, context)
        frm = self._trunk(start, phase, phase_steps, replace(context, run_step=context.run_step - (step - start)))
        if frm <= self.anneal.values.get("to", 0.0):
            return frm
        at = Spot(min(step - start, length), length, start, context)
        return SHAPES[self.anneal.kind](at, **self.anneal.values | {"frm": frm})

    @property
    def needs_horizon(self) -> bool:
        """Whether it must know how many steps the whole run has."""
        shares = any(isinstance(piece.length, float) and piece.length for piece in self.first)
        endless = self.first[-1].length is None and self.first[-1].kind in ENDLESS
        return self.clock == "run" and (shares or not endless)

    def branch(self, anneal_length: Length) -> Schedule:
        """The same until `anneal_length` (steps, or a share of the phase) before a phase's end, annealed from there."""
        return replace(self, branch_length=anneal_length)

    def check(self, phase: int, phase_steps: int, context: Context | None = None) -> None:
        """Raises UserError where the pieces, or a branch, cannot fit a phase of that many steps."""
        context = context or Context()
        steps = self._span(phase_steps, context)
        program = self._program(phase)
        warm = self._warm(program, steps)
        span = "the run" if self.clock == "run" else f"phase {phase}"
        if isinstance(program[0].length, int) and warm > steps:
            raise self._wrong(f"its warm-up of {warm} steps is longer than {span}, which has {steps}; shorten it")
        lengths = [in_steps(piece.length, steps) for piece in program if piece.length is not None]
        fixed = any(isinstance(piece.length, int) and piece.length and piece.kind != "warmup" for piece in program)
        if fixed and steps > warm and sum(lengths) > steps:
            raise self._wrong(f"its pieces take {sum(lengths)} steps, {span} has {steps}; shorten them or train longer")
        warm, ending = self._warm(program, steps), _after_the_open_one(program, steps)
        if warm < steps < warm + ending - 1:  # shares that fill a phase may be a step too long by rounding
            raise self._wrong(
                f"its last {ending} of {steps} steps begin inside the warm-up of {warm}; shorten one of them or train "
                "longer"
            )
        self._branch(0, phase, phase_steps, context)

    def to_json(self) -> str:
        """All of it, as text that `from_json` reads back exactly."""
        values = {
            "name": self.name,
            "first": [piece.as_dict() for piece in self.first],
            "later": None if self.later is None else [piece.as_dict() for piece in self.later],
            "clock": self.clock,
            "anneal": self.anneal.as_dict(),
            "branch_length": self.branch_length,
            "declining": self.declining,
        }
        return json.dumps(values if self.recovery is None else {**values, "recovery": self.recovery})

    @staticmethod
    def from_json(text: str) -> Schedule:
        """What `to_json` gave, or was written by hand: all but `first` may be left out. Raises UserError."""
        try:
            values = json.loads(text)
        except ValueError as error:
            raise UserError(f"schedule: no valid JSON: {error}") from None
        known = ("name", "first", "later", "clock", "anneal", "branch_length", "declining", "recovery")
        unknown = [key for key in values if key not in known] if isinstance(values, dict) else None
        if unknown is None or unknown or not isinstance(values.get("first"), list):
            hint = f"{unknown[0]!r} is not known" if unknown else "`first` must be a list of pieces"
            raise UserError(f"schedule: {hint} (keys: {', '.join(known)})")
        later, anneal, declining = values.get("later"), values.get("anneal"), values.get("declining")
        if values.get("clock", "phase") not in ("phase", "run") or not isinstance(later, list | None):
            raise UserError("schedule: `clock` is phase or run, `later` a list of pieces or null")
        if declining is not None and not (
            isinstance(declining, list) and len(declining) == 2 and all(map(is_number, declining))
        ):
            raise UserError("schedule: `declining` is [peak, floor] or null")
        return Schedule(
            name=str(values.get("name", "custom")),
            first=tuple(map(Piece.of, values["first"])),
            later=None if later is None else tuple(map(Piece.of, later)),
            clock=values.get("clock", "phase"),
            branch_length=values.get("branch_length"),
            declining=None if declining is None else (declining[0], declining[1]),
            recovery=values.get("recovery"),
            **({} if anneal is None else {"anneal": Piece.of(anneal)}),
        )

    # -- within ----------------------------------------------------------------------------------------------------

    def _can_recover(self) -> bool:
        kinds = tuple(piece.kind for piece in self.first)
        rules = {"cosine": COSINES, "cooled_rsqrt": ROOTS}.get(kinds[-1], ())
        plain = self.later is None and self.declining is None and self.clock == "phase"
        return plain and kinds[:-1] == ("warmup",) and self.recovery in rules

    def _program(self, phase: int) -> tuple[Piece, ...]:
        return self.first if phase == 0 or self.later is None or self.clock == "run" else self.later

    def _span(self, phase_steps: int, context: Context) -> int:
        """The steps that shares are of."""
        if self.clock == "phase":
            return phase_steps
        if context.run_steps is not None:
            return context.run_steps
        if self.needs_horizon:
            raise self._wrong("it spans the whole run, whose number of steps is not known")
        return 1 << 60

    def _trunk(self, step: int, phase: int, phase_steps: int, context: Context) -> float:
        """The rate without any branch."""
        steps = self._span(phase_steps, context)
        if self.clock == "run":
            step = min(context.run_step, steps)
        program = self._program(phase)
        if self.recovery is not None and phase > 0:
            program = recovering(program, self.recovery, phase, steps)
        placed = _placed(program, steps)
        number = next((i for i, (_, _, end) in enumerate(placed) if step < end), len(placed) - 1)
        piece, value = placed[number][0], self._value(placed, number, step, context)
        if self.declining is None or phase == 0:
            return value
        peak, floor = self.declining
        top = pieces.autoregressive_peak(phase, peak, floor)
        if piece.kind == "warmup":
            return value * top / peak
        return floor + (value - floor) * (top - floor) / (peak - floor) if peak > floor else value

    def _value(self, placed: list[_Placed], number: int, step: int, context: Context) -> float:
        piece, start, end = placed[number]
        at = Spot(min(step, end) - start, end - start, start, context)
        values = piece.values
        if piece.kind == "warmup" and "to" not in values:
            there = replace(context, run_step=context.run_step + end - step)
            values = {**values, "to": self._value(placed, number + 1, end, there) if number + 1 < len(placed) else 1.0}
        return SHAPES[piece.kind](at, **values)

    def _branch(self, step: int, phase: int, phase_steps: int, context: Context) -> tuple[int, int]:
        """Where the branch of the phase starts and its length, in steps of the phase; its end where there is none."""
        start, length = context.anneal_start, context.anneal_length
        if start is None:
            length = in_steps(self.branch_length or 0, phase_steps)
            start = phase_steps - length
        if length == 0:
            return phase_steps, 0
        warm = self._warm(self._program(phase), self._span(phase_steps, context))
        done = context.run_step - step if self.clock == "run" else 0
        if start < 0 or start < warm - done:
            raise self._wrong(
                f"an anneal of {length} steps in a phase of {phase_steps} begins at step {start}, inside the warm-up "
                f"of {warm}; shorten the anneal or train longer"
            )
        return start, length

    @staticmethod
    def _warm(program: tuple[Piece, ...], steps: int) -> int:
        return in_steps(program[0].length or 0, steps) if program[0].kind == "warmup" else 0

    def _wrong(self, text: str) -> UserError:
        return UserError(f"schedule {self.name}: {text}")


_Placed = tuple[Piece, int, int]


def _placed(program: tuple[Piece, ...], steps: int) -> list[_Placed]:
    """Pieces with the steps at which they start and end. Those after the open one end with the phase; pieces without
    any step are left out."""
    placed: list[_Placed] = []
    start = 0
    for piece in program:
        if piece.length is None:
            end = steps - _after_the_open_one(program, steps)
            placed.append((piece, start, end))
            start = end
        else:
            length = in_steps(piece.length, steps)
            placed.append((piece, start, start + length))
            start += length
    return [each for each in placed if each[2] > each[1]]


def _after_the_open_one(program: tuple[Piece, ...], steps: int) -> int:
    """Steps of the pieces that end with the phase."""
    opened = next((i for i, piece in enumerate(program) if piece.length is None), len(program))
    return sum(in_steps(piece.length or 0, steps) for piece in program[opened + 1 :])
