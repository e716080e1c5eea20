"""Claims as inequalities: `depth(rewarm, novels) > depth(constant, novels)`, evaluated seed by seed.

An inequality is an expression of Python's syntax: numbers, + - * /, comparisons (which may be chained), `abs`, `max`,
`min` and functions of runs. Nothing else is evaluated. What a function of runs gives is the caller's business
(`Measure`); here are the arithmetic and the verdicts.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from clbench.errors import UserError

Values = list[float]  # one for each seed; NaN: no value
Measure = Callable[[str, tuple["str | float", ...], Sequence[int]], Values]
"""(function, arguments, seeds) -> its values. Arguments are names, strings and numbers."""

ARITHMETIC: dict[type[ast.AST], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: lambda a, b: a / b if b else math.nan,
}
COMPARISONS: dict[type[ast.AST], tuple[str, Callable[[float, float], bool]]] = {
    ast.Lt: ("<", operator.lt),
    ast.LtE: ("<=", operator.le),
    ast.Gt: (">", operator.gt),
    ast.GtE: (">=", operator.ge),
}
SEED_BY_SEED: dict[str, Callable[..., float]] = {"abs": abs, "max": max, "min": min}
ROUNDING = 1e-9  # nats: float32 losses are not known better; what is closer is equal


@dataclass(frozen=True)
class Outcome:
    """What an expression came to. sides: text and values of what is compared, or of the whole expression where nothing
    is. holds: for each seed, None where it has no value; empty where nothing is compared. margins: by how much the
    tightest of the comparisons holds (negative: fails)."""

    text: str
    seeds: tuple[int, ...]
    sides: tuple[tuple[str, tuple[float, ...]], ...]
    holds: tuple[bool | None, ...] = ()
    margins: tuple[float, ...] = ()

    @property
    def kept(self) -> int:
        """In how many seeds it holds."""
        return sum(held is True for held in self.holds)


@dataclass(frozen=True)
class Verdict:
    """passed: None where there is nothing to decide on."""

    text: str
    passed: bool | None


@dataclass
class Expression:
    """A parsed inequality, or a plain expression. Raises UserError for anything else."""

    text: str
    tree: ast.expr = field(init=False)

    def __post_init__(self) -> None:
        try:
            self.tree = ast.parse(self.text.strip(), mode="eval").body
        except SyntaxError:
            raise UserError(f"{self.text!r} is no expression") from None

    def names(self) -> set[str]:
        """Every name that is an argument: runs and sets."""
        functions = {id(node.func) for node in ast.walk(self.tree) if isinstance(node, ast.Call)}
        return {node.id for node in ast.walk(self.tree) if isinstance(node, ast.Name) and id(node) not in functions}

    def functions(self) -> list[str]:
        """Functions of runs, in the order in which they are written."""
        calls = [node.func for node in ast.walk(self.tree) if isinstance(node, ast.Call)]
        return [call.id for call in calls if isinstance(call, ast.Name) and call.id not in SEED_BY_SEED]

    @property
    def is_ratio(self) -> bool:
        """Whether functions of runs are divided by functions of runs: the unit is gone."""
        divisors = [node.right for node in ast.walk(self.tree) if isinstance(node, ast.BinOp) and _divides(node)]
        return any(isinstance(inner, ast.Call) for node in divisors for inner in ast.walk(node))

    def evaluate(self, measure: Measure, seeds: Sequence[int]) -> Outcome:
        """Its values, and where something is compared, in which seeds that is true."""
        seeds = tuple(seeds)
        if not isinstance(self.tree, ast.Compare):
            return Outcome(self.text, seeds, ((self.text, tuple(self._values(self.tree, measure, seeds))),))
        operands = [self.tree.left, *self.tree.comparators]
        sides = tuple((ast.unparse(node), tuple(self._values(node, measure, seeds))) for node in operands)
        kinds = [type(op) for op in self.tree.ops]
        if not set(kinds) <= set(COMPARISONS):
            raise UserError(f"{self.text!r}: what is compared must be <, <=, > or >=")
        held, margins = [], []
        for i in range(len(seeds)):
            holds, margin = compare([values[i] for _, values in sides], [COMPARISONS[kind][0] for kind in kinds])
            held.append(holds)
            margins.append(margin)
        return Outcome(self.text, seeds, sides, tuple(held), tuple(margins))

    def _values(self, node: ast.expr, measure: Measure, seeds: Sequence[int]) -> Values:
        if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
            return [float(node.value)] * len(seeds)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return [-value for value in self._values(node.operand, measure, seeds)]
        if isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC:
            left, right = (self._values(side, measure, seeds) for side in (node.left, node.right))
            return [ARITHMETIC[type(node.op)](a, b) for a, b in zip(left, right, strict=True)]
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
            if node.func.id in SEED_BY_SEED:
                columns = [self._values(argument, measure, seeds) for argument in node.args]
                return [_or_nan(SEED_BY_SEED[node.func.id], column) for column in zip(*columns, strict=True)]
            return measure(node.func.id, tuple(self._argument(argument) for argument in node.args), seeds)
        raise UserError(f"{self.text!r}: {ast.unparse(node)!r} is no number, arithmetic or function of runs")

    def _argument(self, node: ast.expr) -> str | float:
        if isinstance(node, ast.Name):
            return node.id
        if isinstance(node, ast.Constant) and isinstance(node.value, (str, int, float)):
            return node.value
        raise UserError(f"{self.text!r}: {ast.unparse(node)!r} is no run, set or number")


def compare(values: Sequence[float], signs: Sequence[str]) -> tuple[bool | None, float]:
    """Whether a chain such as 1 < 2 <= 3 is true, and the smallest of its slacks; (None, NaN) where a value is NaN.

    Of values closer than ROUNDING, < and > are false, <= and >= are true.
    """
    if any(math.isnan(value) for value in values):
        return None, math.nan
    slacks, holds = [], True
    for a, b, sign in zip(values[:-1], values[1:], signs, strict=True):
        slack = b - a if sign in ("<", "<=") else a - b
        holds &= slack >= -ROUNDING if sign.endswith("=") else slack > ROUNDING
        slacks.append(slack)
    return holds, min(slacks)


def needed(share: str | float, seeds: int) -> int:
    """In how many of so many seeds a claim must hold: `2/3` of 3 are 2, of 4 are 3."""
    return math.ceil(Fraction(str(share)) * seeds)


def judge(outcome: Outcome, share: str | float = 1) -> Verdict:
    """The verdict on one inequality. Seeds without a value count as those in which it does not hold."""
    n, k = len(outcome.holds), outcome.kept
    if all(held is None for held in outcome.holds):
        return Verdict("not decided", None)
    if k == n:
        return Verdict("holds" if n > 1 else "holds (one seed)", True)
    if k >= needed(share, n):
        return Verdict(f"holds in {k} of {n} seeds", True)
    return Verdict(f"does not hold ({k} of {n} seeds)" if k else "does not hold", False)


def together(verdicts: Sequence[Verdict]) -> Verdict:
    """The verdict on a claim of several inequalities: the weakest one where all pass, else how many do."""
    if not verdicts or any(verdict.passed is None for verdict in verdicts):
        return Verdict("not decided", None)
    passed = sum(verdict.passed is True for verdict in verdicts)
    if passed == len(verdicts):
        texts = sorted({verdict.text for verdict in verdicts})
        return Verdict(next((text for text in texts if text != "holds"), "holds"), True)
    if len(verdicts) == 1:
        return verdicts[0]
    return Verdict(f"holds in part ({passed} of {len(verdicts)})" if passed else "does not hold", False)


def mean_sd(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and standard deviation over seeds (n - 1) of those that have a value; NaN where none has."""
    numbers = [value for value in values if not math.isnan(value)]
    if not numbers:
        return math.nan, None
    center = math.fsum(numbers) / len(numbers)
    if len(numbers) < 2:
        return center, None
    return center, math.sqrt(math.fsum((value - center) ** 2 for value in numbers) / (len(numbers) - 1))


def spread(runs: Sequence[Values]) -> float:
    """Largest minus smallest of the runs' means over seeds."""
    means = [mean_sd(values)[0] for values in runs]
    return max(means) - min(means)


def noise(runs: Sequence[Values]) -> float:
    """Standard error over seeds of the paired difference between the two runs whose means are farthest apart; NaN with
    fewer than two seeds."""
    means = [mean_sd(values)[0] for values in runs]
    high, low = runs[means.index(max(means))], runs[means.index(min(means))]
    differences = [a - b for a, b in zip(high, low, strict=True)]
    _, sd = mean_sd(differences)
    return math.nan if sd is None else sd / math.sqrt(len(differences))


def seeds_of(available: Mapping[str, set[int]], names: Sequence[str]) -> list[int]:
    """The seeds that all of these runs have."""
    sets = [available[name] for name in names]
    return sorted(set.intersection(*sets)) if sets else []


def _divides(node: ast.BinOp) -> bool:
    return isinstance(node.op, ast.Div)


def _or_nan(function: Callable[..., float], column: tuple[float, ...]) -> float:
    return math.nan if any(math.isnan(value) for value in column) else function(*column)
