r"""Text from anywhere, made harmless inside Markdown.

A model's words, a recipe's filters and an endpoint's answers stand on a card only as code, the one
part of Markdown in which nothing has a meaning: no HTML, no link, no image, no autolink, no math.
What remains is where code ends, and so its delimiter is always longer than any run of backticks
inside. Characters that nobody sees, or that change how others are seen (ANSI escapes, NUL,
U+2028, bidirectional overrides, private use), are written as Python would: `\x1b`, `\u202e`.
"""

import json
import re
import unicodedata
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlsplit

CELL_CHARS = 120
"""`short` cuts a value behind so many characters."""

LINE_CHARS = 80
"""`folded` breaks a line behind so many characters: pages do not wrap code, and show some 85."""

NULL = "—"

MARK = "<!-- prequery:"
"""A line of a README that begins so is a mark of `sections`."""

_INVISIBLE = frozenset(("Cc", "Cf", "Co", "Cs", "Zl", "Zp"))
# Emoji, Persian and Indian scripts are written with these joiners.
_JOINERS = "\u200c\u200d"


class Markdown(str):
    """Markdown already: made by a function of this module, never from outside as it is."""

    __slots__ = ()


def safe(value: Any) -> str:
    """Make anything that a template prints harmless: Jinja calls this on every expression.

    Text becomes code, numbers are rounded for reading, null is a dash. Inside a table or a line.
    """
    if isinstance(value, Markdown):
        return value
    if value is None:
        return NULL
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, float):
        return number(value)
    return code(str(value))


def code(text: str) -> Markdown:
    r"""Return text as a code span on one line, fit for a table's cell.

    Backslashes are doubled, and not only because the notation needs it: renderers disagree on
    whether the pipe of `\\|` ends a cell, and agree on `\|` behind an even number of backslashes.
    """
    shown = one_line(text).replace("|", r"\|")
    if not shown:
        return Markdown("(empty)")
    ticks = "`" * (_longest_run(shown) + 1)
    # A span drops one space at both ends, and a backtick there would join the delimiter.
    pad = " " if shown[0] in "` " or shown[-1] in "` " else ""
    return Markdown(f"{ticks}{pad}{shown}{pad}{ticks}")


def short(text: str) -> Markdown:
    """Return text as a code span, cut behind `CELL_CHARS` characters with a mark outside it."""
    if len(text) <= CELL_CHARS:
        return code(text)
    return Markdown(f"{code(text[:CELL_CHARS])} … ({len(text):,} characters)")


def fence(text: str, language: str = "text") -> Markdown:
    r"""Return text as a fenced code block; newlines and tabs stay, backslashes are not doubled.

    What looks like one of the marks around a config's section is written with `\x21` for its `!`.
    """
    ticks = "`" * max(3, _longest_run(text) + 1)
    shown = _visible(text, kept=chr(10) + chr(9)).replace(MARK, MARK.replace("!", r"\x21"))
    return Markdown(f"{ticks}{language}\n{shown}\n{ticks}")


def prose(text: str) -> Markdown:
    """Return one line of a docstring as plain words. Not for texts that a model wrote."""
    return Markdown(re.sub(r"([\\`*_\[\]<>|#!&~$])", r"\\\1", one_line(text)))


def folded(text: str) -> str:
    """Return text with lines of at most `LINE_CHARS` characters, broken at spaces where it can."""
    return "\n".join(part for line in text.split("\n") for part in _folded(line))


def _folded(line: str) -> Iterator[str]:
    while len(line) > LINE_CHARS:
        at = line.rfind(" ", 1, LINE_CHARS + 1)
        at = LINE_CHARS if at < 1 else at
        yield line[:at]
        line = line[at:].removeprefix(" ")
    yield line


def link(address: str) -> Markdown:
    """Return an http(s) address as the target of a link; anything else as a place that is none."""
    parts = urlsplit(address)
    kept = quote(address, safe="/:?=&.#-_~%+@") if parts.scheme in ("http", "https") else "#"
    return Markdown(kept)


def literal(text: str) -> Markdown:
    """Return text as a string literal, the same in Python and JSON, for use inside a fence."""
    return Markdown(json.dumps(text).replace("`", r"\u0060"))


def one_line(text: str) -> str:
    r"""Return text with every invisible character written out; a backslash becomes `\\`."""
    return _visible(text.replace("\\", "\\\\"), kept="")


def number(value: float) -> Markdown:
    """Return a number to four digits."""
    return Markdown(f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}")


def share(part: int, whole: int) -> Markdown:
    """Return a share in percent, to one decimal."""
    return Markdown(f"{100 * part / whole:.1f} %" if whole else NULL)


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)


def _visible(text: str, kept: str) -> str:
    return "".join(
        _written_out(char)
        if unicodedata.category(char) in _INVISIBLE and char not in kept + _JOINERS
        else char
        for char in text
    )


def _written_out(char: str) -> str:
    named = {"\n": r"\n", "\t": r"\t", "\r": r"\r"}.get(char)
    point = ord(char)
    width = "x02" if point < 0x100 else "u04" if point < 0x10000 else "U08"
    return named or f"\\{width[0]}{point:{width[1:]}x}"
