"""Artificial program text: nested brackets, indentation, and names that are bound before they are used."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from .generated_prose import pick

NAMES = [first + second for first in "abcdfghkmnpqrstvwxyz" for second in ("", "0", "1", "x", "_len", "_id")]
FUNCTIONS = [verb + noun for verb in ("get", "set", "put", "map", "run") for noun in ("_row", "_key", "_sum", "_max")]
DEEPEST = 3


@dataclass
class Program:
    """One document: functions over integers. A statement reads only names bound in the blocks around it; a call
    names a function defined above, with as many arguments as it has parameters."""

    random: Random
    lines: list[str] = field(default_factory=list)
    arity: dict[str, int] = field(default_factory=dict)

    def text(self) -> str:
        for _ in range(2 + int(self.random.random() * 3)):
            self._function()
        return "\n".join(self.lines) + "\n"

    def _function(self) -> None:
        free = [name for name in FUNCTIONS if name not in self.arity]
        name = pick(self.random, free)
        parameters: list[str] = []
        for _ in range(1 + int(self.random.random() * 3)):
            parameters.append(self._fresh(parameters))
        self.lines.append(f"fn {name}({', '.join(parameters)}) {{")
        bound = list(parameters)
        self._block(bound, depth=1)
        self.lines += [f"  return {self._expression(bound, 1)};", "}"]
        self.arity[name] = len(parameters)

    def _block(self, bound: list[str], depth: int) -> None:
        """Statements of one block; `bound` gains the names they bind."""
        indent = "  " * depth
        for _ in range(1 + int(self.random.random() * 3)):
            kind = self.random.random()
            if kind < 0.45:
                name = self._fresh(bound)
                self.lines.append(f"{indent}let {name} = {self._expression(bound, 2)};")
                bound.append(name)
            elif kind < 0.7 or depth == DEEPEST:
                name = pick(self.random, bound)
                self.lines.append(f"{indent}{name} = {self._expression(bound, 2)};")
            else:
                keyword = pick(self.random, ("if", "while"))
                comparison = pick(self.random, ("<", ">", "==", "!="))
                left, right = pick(self.random, bound), self._expression(bound, 0)
                self.lines.append(f"{indent}{keyword} ({left} {comparison} {right}) {{")
                self._block(list(bound), depth + 1)
                self.lines.append(f"{indent}}}")

    def _expression(self, bound: list[str], depth: int) -> str:
        kind = self.random.random()
        if depth == 0 or kind < 0.3:
            return pick(self.random, bound) if self.random.random() < 0.7 else str(int(self.random.random() * 100))
        if kind < 0.5 and self.arity:
            name = pick(self.random, list(self.arity))
            arguments = [self._expression(bound, 0) for _ in range(self.arity[name])]
            return f"{name}({', '.join(arguments)})"
        operator = pick(self.random, ("+", "-", "*"))
        return f"{self._expression(bound, 0)} {operator} {self._expression(bound, depth - 1)}"

    def _fresh(self, bound: list[str]) -> str:
        while (name := pick(self.random, NAMES)) in bound:
            pass
        return name
