"""Where a card says something else than the data gives: each number, row and line by its place."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import zip_longest
from typing import Any

from prequery.card import sections

NUMBER = re.compile(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?")
SHOWN_CHARS = 160


@dataclass(frozen=True)
class Difference:
    """One thing that a card says and the data does not.

    Args:
        place: Where it stands: headings, row and column, or key.
        told: What is there; null: nothing.
        given: What the data gives; null: nothing.
    """

    place: str
    told: str | None
    given: str | None

    def __str__(self) -> str:
        told = "is missing" if self.told is None else f"says {_short(self.told)}"
        given = "has no such thing" if self.given is None else f"gives {_short(self.given)}"
        return f"{self.place}: {told}, the data {given}"


def in_readme(readme: str, card: str, config: str) -> list[Difference]:
    """Compare a README with the card that the data gives.

    Text outside of the config's section is nobody's claim about the data, and is not looked at.

    Raises:
        CardError: The README's YAML block or its marks are broken.
    """
    told = sections.section_of(readme, config)
    if told is None:
        return [Difference(f"README.md, the section of {config}", None, "one")]
    wanted = sections.merged(readme, card, config)
    found = list(_in_values("YAML", sections.block_of(readme), sections.block_of(wanted)))
    given = sections.section_of(wanted, config) or ""
    return found + in_text(told, given)


def in_text(told: str, given: str) -> list[Difference]:
    """Compare two Markdown texts: cells of tables, numbers in lines, and lines."""
    lines, wanted = told.splitlines(), given.splitlines()
    places = _places(wanted)
    found: list[Difference] = []
    matcher = SequenceMatcher(None, lines, wanted, autojunk=False)
    for operation, a, b, c, d in matcher.get_opcodes():
        if operation == "equal":
            continue
        for step, (one, other) in enumerate(zip_longest(lines[a:b], wanted[c:d])):
            place, header = places[min(c + step, len(places) - 1)]
            found += _in_line(place, header, one, other)
    return found


def count_numbers(text: str) -> int:
    """Return how many numbers a text has."""
    return len(NUMBER.findall(text))


def _places(lines: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Return the headings above each line, and the header cells of the table that it is in."""
    found: list[tuple[str, list[str]]] = []
    heading, sub = "the top", ""
    header: list[str] = []
    for line in lines:
        if line.startswith("#"):
            words = line.lstrip("#").strip()
            heading, sub = (heading, words) if line.startswith("###") else (words, "")
        if not line.startswith("|"):
            header = []
        elif not header:
            header = _cells(line)
        found.append((f"{heading}, {sub}" if sub else heading, header))
    return found or [("the top", [])]


def _in_line(
    place: str, header: Sequence[str], told: str | None, given: str | None
) -> Iterator[Difference]:
    if told is None or given is None:
        if (told or given or "").strip():
            yield Difference(place, told, given)
        return
    cells, wanted = _cells(told), _cells(given)
    if given.startswith("|") and len(cells) == len(wanted) and cells[0] == wanted[0]:
        for number, (one, other) in enumerate(zip(cells, wanted, strict=True)):
            if one != other:
                column = header[number] if number < len(header) else f"cell {number + 1}"
                yield Difference(f"{place}, {wanted[0]}, {column}", one, other)
        return
    numbers, others = NUMBER.findall(told), NUMBER.findall(given)
    if len(numbers) == len(others) and NUMBER.sub("0", told) == NUMBER.sub("0", given):
        line = _short(NUMBER.sub("…", given), 60)
        for one, other in zip(numbers, others, strict=True):
            if one != other:
                yield Difference(f"{place}, {line}", one, other)
        return
    yield Difference(place, told, given)


def _in_values(place: str, told: Any, given: Any) -> Iterator[Difference]:
    """Compare two YAML values key by key."""
    if isinstance(told, dict) and isinstance(given, dict):
        for key in dict.fromkeys((*told, *given)):
            inside = f"{place}, {key}"
            yield from _in_values(inside, told.get(key), given.get(key))
    elif isinstance(told, list) and isinstance(given, list):
        for number, (one, other) in enumerate(zip_longest(told, given)):
            name = next(
                (
                    v.get("config_name") or v.get("name")
                    for v in (one, other)
                    if v and isinstance(v, dict)
                ),
                None,
            )
            yield from _in_values(f"{place}, {name or number}", one, other)
    elif told != given or type(told) is not type(given):
        shown = [None if value is None else str(value) for value in (told, given)]
        yield Difference(place, *shown)


def _name(entry: Any, number: int) -> str:
    """Return what an entry of a list is called, else its number."""
    held = entry if isinstance(entry, dict) else {}
    return str(held.get("config_name") or held.get("name") or number)


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]


def _short(text: str, chars: int = SHOWN_CHARS) -> str:
    return repr(text) if len(text) <= chars else repr(text[:chars]) + " …"
