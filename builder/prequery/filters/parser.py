"""From the text of a filter to its parts, checked: names, kinds and known values.

Recursive descent, one method a rule, loosest first::

    either      both ("or" both)*
    both        negation ("and" negation)*
    negation    "not" negation | comparison
    comparison  sum ["not"] "in" list | sum (("==" | "!=" | "<" | "<=" | ">" | ">=") sum)*
    list        "[" signed ("," signed)* "]"
    sum         product (("+" | "-") product)*
    product     signed (("*" | "/") signed)*
    signed      "-" signed | atom
    atom        number | text | "true" | "false" | "null" | field | "(" either ")"
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from difflib import get_close_matches
from math import isfinite
from typing import Any

from prequery.errors import RecipeError
from prequery.filters.nodes import (
    COMPARE,
    EQUALITY,
    ORDER,
    Arithmetic,
    Comparison,
    Constant,
    Field,
    Kind,
    Logic,
    Membership,
    Node,
    Not,
    Rank,
)
from prequery.filters.tokens import Source, Token

MAX_DEPTH = 30

_KINDS: Mapping[str, Kind] = {
    "string": "text",
    "bool": "bool",
    "int32": "number",
    "int64": "number",
    "float64": "number",
}
_ARTICLES: Mapping[Kind, str] = {
    "text": "a text",
    "bool": "true or false",
    "number": "a number",
    "null": "no value",
}
_CONSTANTS: Mapping[str, bool | None] = {"true": True, "false": False, "null": None}
_WORDS = frozenset({"and", "or", "not", "in", *_CONSTANTS})


class Parser:
    """Reads one filter. Each rule is a method that returns a node whose kind was checked.

    Attributes:
        reads: Names of the fields that were met so far.
    """

    def __init__(
        self,
        source: Source,
        fields: Mapping[str, str],
        choices: Mapping[str, Sequence[str]],
        ordered: Collection[str],
    ) -> None:
        self.source = source
        self.fields = fields
        self.choices = choices
        self.ordered = ordered
        self.reads: set[str] = set()
        self.depth = 0
        self.tokens = source.tokens()
        self.token = next(self.tokens)

    def root(self) -> Node:
        """Read the whole expression.

        Raises:
            RecipeError: It is no filter over these fields.
        """
        node = self._either()
        if self.token.kind != "end":
            raise self._unexpected("an operator or the end")
        self._require(node, "bool", "a filter is true or false")
        if not self.reads:
            what = "this filter reads no field: it keeps every row or none"
            raise self.source.error(what, node.start, f"compare one of {', '.join(self.fields)}")
        return node

    def _either(self) -> Node:
        return self._logic("or", self._both)

    def _both(self) -> Node:
        return self._logic("and", self._negation)

    def _logic(self, word: str, rule: Callable[[], Node]) -> Node:
        operands = [rule()]
        while self._take(word):
            operands.append(rule())
        if len(operands) == 1:
            return operands[0]
        for operand in operands:
            self._require(operand, "bool", f"`{word}` joins what is true or false")
        return Logic("bool", operands[0].start, operands[-1].end, word == "or", tuple(operands))

    def _negation(self) -> Node:
        word = self._take("not")
        if word is None:
            return self._comparison()
        operand = self._nested(self._negation, word)
        self._require(operand, "bool", "`not` turns what is true or false")
        return Not("bool", word.start, operand.end, operand)

    def _comparison(self) -> Node:
        left = self._sum()
        negated = self._take("not")
        if negated or self.token.text == "in":
            return self._membership(left, negated is not None)
        pairs: list[Node] = []
        while symbol := self._take(*COMPARE):
            right = self._sum()
            self._check_pair(left, symbol, right)
            labels = self._order(left, right) if symbol.text in ORDER else None
            sides = (left, right) if labels is None else (_rank(left, labels), _rank(right, labels))
            pairs.append(Comparison("bool", left.start, right.end, sides[0], symbol.text, sides[1]))
            left = right
        if len(pairs) > 1:
            return Logic("bool", pairs[0].start, pairs[-1].end, False, tuple(pairs))
        return pairs[0] if pairs else left

    def _membership(self, operand: Node, negated: bool) -> Node:
        word = self.token
        self._expect("in")
        self._expect("[")
        members = [self._member(operand, word)]
        while self._take(","):
            members.append(self._member(operand, word))
        end = self._expect("]").end
        return Membership("bool", operand.start, end, operand, tuple(members), negated)

    def _member(self, operand: Node, word: Token) -> Constant:
        member = self._signed()
        if not isinstance(member, Constant) or member.kind == "null":
            what = f"{self._describe(member)}, which no list can hold"
            fix = "list texts or numbers; ask for null apart: x == null or x in [...]"
            raise self.source.error(what, member.start, fix)
        self._check_pair(operand, word, member)
        return member

    def _sum(self) -> Node:
        return self._arithmetic(self._product, "+", "-")

    def _product(self) -> Node:
        return self._arithmetic(self._signed, "*", "/")

    def _arithmetic(self, rule: Callable[[], Node], *symbols: str) -> Node:
        first = rule()
        steps: list[tuple[str, Node]] = []
        while symbol := self._take(*symbols):
            steps.append((symbol.text, rule()))
        if not steps:
            return first
        for node in (first, *(node for _, node in steps)):
            self._require(node, "number", "only numbers are calculated with")
        return Arithmetic("number", first.start, steps[-1][1].end, first, tuple(steps))

    def _signed(self) -> Node:
        sign = self._take("-")
        if sign is None:
            return self._atom()
        operand = self._nested(self._signed, sign)
        self._require(operand, "number", "only a number has a sign")
        if isinstance(operand, Constant):
            return Constant("number", sign.start, operand.end, -operand.constant)
        zero = Constant("number", sign.start, sign.end, 0)
        return Arithmetic("number", sign.start, operand.end, zero, (("-", operand),))

    def _atom(self) -> Node:
        token = self.token
        if token.kind == "number":
            return self._constant("number", self._number(token))
        if token.kind == "text":
            return self._constant("text", re.sub(r"(?s)\\(.)", r"\1", token.text[1:-1]))
        if token.text in _CONSTANTS:
            kind: Kind = "null" if token.text == "null" else "bool"
            return self._constant(kind, _CONSTANTS[token.text])
        if token.kind == "word" and token.text not in _WORDS:
            return self._field()
        if self._take("("):
            node = self._nested(self._either, token)
            self._expect(")")
            return node
        raise self._unexpected("a field, a number, a text or `(`")

    def _constant(self, kind: Kind, value: Any) -> Constant:
        token = self._next()
        return Constant(kind, token.start, token.end, value)

    def _field(self) -> Field:
        token = self._next()
        if token.text not in self.fields:
            what = f"unknown field {token.text!r}"
            fix = _choose(token.text, [*self.fields, *_CONSTANTS])
            raise self.source.error(what, token.start, fix)
        dtype = self.fields[token.text]
        if dtype not in _KINDS:
            what = f"the field {token.text!r} is {dtype}, which no filter can compare"
            raise self.source.error(
                what, token.start, "filter by a text, a number or true and false"
            )
        self.reads.add(token.text)
        return Field(_KINDS[dtype], token.start, token.end, token.text)

    def _number(self, token: Token) -> int | float:
        value = float(token.text)
        if not isfinite(value):
            raise self.source.error("this number is too large", token.start, "write at most 1e308")
        # Whole numbers stay exact, but not so long that calculating with them takes time.
        return int(token.text) if token.text.isdigit() and value < 2**63 else value

    def _check_pair(self, left: Node, symbol: Token, right: Node) -> None:
        """Refuse comparisons that could never be true, or whose order nobody defined."""
        if "null" in (left.kind, right.kind):
            if symbol.text not in EQUALITY:
                what = f"`{symbol.text}` cannot compare with null"
                raise self.source.error(what, symbol.start, "only == and != ask for null")
            return
        if left.kind != right.kind:
            what = f"{self._describe(left)} and {self._describe(right)}: they are never equal"
            raise self.source.error(what, symbol.start, "compare values of one kind")
        # Alphabetical order is none.
        is_ordered = left.kind == "number" or self._order(left, right) is not None
        if symbol.text in ORDER and not is_ordered:
            what = f"{self._describe(left)}, which has no order"
            raise self.source.error(what, symbol.start, "compare it with ==, != or in [...]")
        for node, other in ((left, right), (right, left)):
            if isinstance(node, Field) and isinstance(other, Constant):
                self._check_choice(node, other)

    def _order(self, left: Node, right: Node) -> tuple[str, ...] | None:
        """Return the labels, lowest first, that both sides are of; null: they have no order."""
        labels = [
            tuple(self.choices[node.name])
            for node in (left, right)
            if isinstance(node, Field) and node.name in self.ordered
        ]
        texts = sum(isinstance(node, Constant) and node.kind == "text" for node in (left, right))
        fits = len(labels) + texts == 2 and len(set(labels)) == 1
        return labels[0] if fits else None

    def _check_choice(self, node: Field, constant: Constant) -> None:
        allowed = self.choices.get(node.name)
        if allowed is not None and constant.constant not in allowed:
            what = f"{node.name!r} is never {constant.constant!r}"
            # Just low enough to find "eos_token" from "eos" and "stop_sequence" from "stop".
            fix = _choose(constant.constant, allowed, likeness=0.45)
            raise self.source.error(what, constant.start, fix)

    def _require(self, node: Node, kind: Kind, why: str) -> None:
        if node.kind != kind:
            what = f"{why}, and {self._describe(node)}"
            raise self.source.error(what, node.start, "write a comparison, such as: x > 0")

    def _describe(self, node: Node) -> str:
        source = self.source.expression[node.start : node.end]
        shown = source if len(source) <= 40 else source[:37] + "..."
        return f"`{shown}` is {_ARTICLES[node.kind]}"

    def _nested(self, rule: Callable[[], Node], opening: Token) -> Node:
        if self.depth == MAX_DEPTH:
            what = f"this filter is nested more than {MAX_DEPTH} deep"
            raise self.source.error(what, opening.start, "write several filters")
        self.depth += 1
        node = rule()
        self.depth -= 1
        return node

    def _next(self) -> Token:
        token, self.token = self.token, next(self.tokens)
        return token

    def _take(self, *texts: str) -> Token | None:
        return self._next() if self.token.text in texts else None

    def _expect(self, text: str) -> Token:
        token = self._take(text)
        if token is None:
            raise self._unexpected(f"`{text}`")
        return token

    def _unexpected(self, expected: str) -> RecipeError:
        ended = self.token.kind == "end"
        found = "the filter ends" if ended else f"found {self.token.text!r:.40}"
        what = f"{found} where {expected} is expected"
        fix = 'write it as in: language == "en" and instruction_words >= 3'
        return self.source.error(what, self.token.start, fix)


def _rank(node: Node, labels: tuple[str, ...]) -> Rank:
    return Rank("number", node.start, node.end, node, labels)


def _choose(name: str, known: Sequence[str], likeness: float = 0.6) -> str:
    close = get_close_matches(name, known, 1, likeness)
    meant = f"did you mean {close[0]!r}? " if close else ""
    return f"{meant}known: {', '.join(known)}"
