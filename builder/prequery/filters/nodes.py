# ruff: noqa: D102 -- Node.__call__ says what each of them does
"""The parts of a filter expression, each of which evaluates itself for one row.

Plain dataclasses, so that a filter can be pickled into a worker process. Calling one with a row
evaluates it.
"""

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal

Kind = Literal["number", "text", "bool", "null"]

EQUALITY: Mapping[str, Callable[[Any, Any], bool]] = {"==": operator.eq, "!=": operator.ne}
ORDER: Mapping[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
COMPARE = {**EQUALITY, **ORDER}
ARITHMETIC: Mapping[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}


@dataclass(frozen=True)
class Node(ABC):
    """A part of an expression, from `start` up to `end` of its characters."""

    kind: Kind
    start: int
    end: int

    @abstractmethod
    def __call__(self, row: Mapping[str, Any]) -> Any:
        """Evaluate it for one row."""


@dataclass(frozen=True)
class Constant(Node):
    """A value that was written out."""

    constant: Any

    def __call__(self, row: Mapping[str, Any]) -> Any:
        return self.constant


@dataclass(frozen=True)
class Field(Node):
    """The value of a field of the row."""

    name: str

    def __call__(self, row: Mapping[str, Any]) -> Any:
        return row[self.name]


@dataclass(frozen=True)
class Rank(Node):
    """Where a label stands in its order, from 0; null stays null."""

    operand: Node
    labels: tuple[str, ...]

    def __call__(self, row: Mapping[str, Any]) -> int | None:
        label = self.operand(row)
        return self.labels.index(label) if label in self.labels else None


@dataclass(frozen=True)
class Not(Node):
    """The opposite; null stays null."""

    operand: Node

    def __call__(self, row: Mapping[str, Any]) -> bool | None:
        known = self.operand(row)
        return None if known is None else not known


@dataclass(frozen=True)
class Logic(Node):
    """`and`, which one false decides, or `or`, which one true decides."""

    decides: bool
    operands: tuple[Node, ...]

    def __call__(self, row: Mapping[str, Any]) -> bool | None:
        values = [operand(row) for operand in self.operands]
        if self.decides in values:
            return self.decides
        return None if None in values else not self.decides


@dataclass(frozen=True)
class Comparison(Node):
    """Two values. A chain is the `and` of its pairs."""

    left: Node
    symbol: str
    right: Node

    def __call__(self, row: Mapping[str, Any]) -> bool | None:
        left, right = self.left(row), self.right(row)
        about_null = "null" in (self.left.kind, self.right.kind)
        if not about_null and (left is None or right is None):
            return None
        return COMPARE[self.symbol](left, right)


@dataclass(frozen=True)
class Membership(Node):
    """Whether a value is in a list of constants, or with `not in` is not."""

    operand: Node
    members: tuple[Constant, ...]
    negated: bool

    def __call__(self, row: Mapping[str, Any]) -> bool | None:
        known = self.operand(row)
        if known is None:
            return None
        return any(known == member.constant for member in self.members) is not self.negated


@dataclass(frozen=True)
class Arithmetic(Node):
    """A first number and what is done to it, from left to right."""

    first: Node
    steps: tuple[tuple[str, Node], ...]

    def __call__(self, row: Mapping[str, Any]) -> Any:
        total = self.first(row)
        for symbol, node in self.steps:
            operand = node(row)
            if total is None or operand is None:
                return None
            try:
                total = ARITHMETIC[symbol](total, operand)
                if not isfinite(total):
                    return None
            except (ZeroDivisionError, OverflowError):
                return None
        return total
