"""The text of a filter, cut into tokens, and errors that point into it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from prequery.errors import RecipeError

MAX_CHARS = 2000

_TOKEN = re.compile(
    r"""(?P<number>[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)
      | (?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
      | (?P<word>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<symbol>==|!=|<=|>=|[-<>+*/()\[\],])
      | (?P<space>\s+)
      | (?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)
_INSTEAD = {
    "=": "compare with `==`",
    "!": "write `not`, or `!=`",
    "&": "write `and`",
    "|": "write `or`",
    '"': "end the text with the same quote",
    "'": "end the text with the same quote",
}


@dataclass(frozen=True)
class Token:
    """A piece of the expression.

    Attributes:
        kind: `number`, `text`, `word`, `symbol` or `end`.
        text: Its characters; a text has its quotes, so it is never taken for a word.
        start: Position of the first character, from 0.
    """

    kind: str
    text: str
    start: int

    @property
    def end(self) -> int:
        """Position after the last character."""
        return self.start + len(self.text)


@dataclass(frozen=True)
class Source:
    """An expression and its place."""

    expression: str
    where: str

    def tokens(self) -> Iterator[Token]:
        """Yield the tokens, and one of kind `end` after them.

        Raises:
            RecipeError: The expression is too long, or a character belongs to no token.
        """
        if len(self.expression) > MAX_CHARS:
            what = f"this filter has {len(self.expression):,} characters, more than {MAX_CHARS:,}"
            raise RecipeError(what, self.where, "write several filters: all of them must hold")
        for match in _TOKEN.finditer(self.expression):
            kind, text = str(match.lastgroup), match.group()
            if kind == "other":
                fix = _INSTEAD.get(text, "use fields, numbers, texts in quotes and operators")
                raise self.error(f"unexpected {text!r}", match.start(), fix)
            if kind != "space":
                yield Token(kind, text, match.start())
        yield Token("end", "", len(self.expression))

    def error(self, what: str, at: int, fix: str) -> RecipeError:
        """Make an error that points at a character; at most 80 around it are shown."""
        first = max(0, at - 60)
        shown = self.expression[first : first + 80]
        line = "".join(char if char.isprintable() else " " for char in shown)
        caret = " " * (at - first) + "^"
        where = f"{self.where}, character {at + 1}"
        return RecipeError(f"{what}\n    {line}\n    {caret}", where, fix)
