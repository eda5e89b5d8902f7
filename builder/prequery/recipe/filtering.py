"""The filters of a recipe: expressions over one row, choices among all, and names of several."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, get_args

from prequery import filters, rows
from prequery.bundled import bundled
from prequery.columns.base import Column
from prequery.columns.prompted import PromptColumn
from prequery.errors import RecipeError
from prequery.filters import Filter, Pick
from prequery.filters.picks import Order
from prequery.recipe.parts import Preference, column_dtypes
from prequery.recipe.section import Section, short
from prequery.strict_yaml import Node, parse

_NUMBERS = ("int32", "int64", "float64")
_TEXTS = ("id", "instruction", "response", "min_similar_id", "duplicate_of")
"""Texts that are meant to differ from row to row: no groups come of them."""


@dataclass(frozen=True)
class _Fields:
    """What filters can read.

    Args:
        dtypes: Every flat field by name, lists left out.
        choices: Fields that hold one of a few texts, with these.
        ordered: Those of them whose texts stand in their order, lowest first.
    """

    dtypes: Mapping[str, str]
    choices: Mapping[str, Sequence[str]]
    ordered: Collection[str]

    @property
    def ranked(self) -> list[str]:
        """Fields whose values are higher or lower."""
        return [n for n, dtype in self.dtypes.items() if dtype in _NUMBERS or n in self.ordered]

    @property
    def grouping(self) -> list[str]:
        """Fields whose values rows can share."""
        shared = ("string", "bool", "int32", "int64")
        return [n for n, dtype in self.dtypes.items() if dtype in shared and n not in _TEXTS]

    def labels(self, name: str | None) -> tuple[str, ...]:
        """Return the labels of a field, lowest first; none where it holds numbers."""
        return tuple(self.choices[name]) if name in self.ordered and name is not None else ()


def read(
    top: Section,
    chosen: Sequence[Column],
    preference: Preference | None,
    row_count: int,
    given: Mapping[str, str] | None = None,
) -> tuple[Filter | Pick, ...]:
    """Check the filters of a recipe.

    Args:
        top: The recipe.
        chosen: Its columns.
        preference: Of the recipe.
        row_count: Rows that it releases.
        given: Fields that rows have before columns, with their dtypes; null: those of a build.

    Raises:
        RecipeError: One is no filter, or does not fit the fields.
    """
    shape: rows.Shape = "preference" if preference else "messages"
    dtypes = rows.dtypes(column_dtypes(chosen), shape)
    if given is not None:
        dtypes = {**given, **column_dtypes(chosen)}
    judged = [column for column in chosen if isinstance(column, PromptColumn)]
    known = _Fields(
        {name: dtype for name, dtype in dtypes.items() if not dtype.endswith("[]")},
        {**rows.CHOICES, **{name: c.labels[name] for c in judged for name in c.labels}},
        {name for column in judged for name in column.ordered},
    )
    reader = _Reader(top, top.source, known, row_count)
    steps: list[Filter | Pick] = []
    for at, node in enumerate(top.items("filters", default=())):
        steps += reader.named(node) or [reader.step(node, at)]
    return tuple(steps)


def bundled_filters() -> dict[str, Traversable]:
    """Return the filters that ship with the package: name to file."""
    entries = (bundled("configs") / "filters").iterdir()
    found = {Path(entry.name).stem: entry for entry in entries}
    return {name: found[name] for name in sorted(found)}


def candidates(top: Section, steps: Sequence[Filter | Pick], row_count: int) -> int | None:
    """Return how many rows are chosen from; null where no filter needs all rows.

    Raises:
        RecipeError: It is missing where one does, or given where none does.
    """
    picks = [step for step in steps if isinstance(step, Pick)]
    found: int | None = top.integer("candidates", row_count, 10**10, default=None)
    if picks and found is None:
        raise top.bad(
            "filters",
            f"`{picks[0].text}` chooses among rows, and the recipe does not say among how many",
            "add `candidates:`, the rows that pass the filters before it; more than `rows`",
        )
    if found is not None and not picks:
        what = "candidates is given, and no filter chooses among them"
        raise top.bad("candidates", what, "add top, balance or at_most to filters, or remove it")
    return found


@dataclass(frozen=True)
class _Reader:
    """Reads one entry after the other."""

    top: Section
    where: str
    fields: _Fields
    row_count: int

    def named(self, node: Node) -> list[Filter | Pick] | None:
        """Read the filters that an entry names; null where it is an expression or a choice.

        No expression is two words with a hyphen between: it would be a number, not true or false.
        """
        name = node.value
        if not isinstance(name, str) or not re.fullmatch(r"[a-z]\w*(-\w+)+", name):
            return None
        files = bundled_filters()
        place = f"{self.where}, line {node.line}, filters"
        if name not in files:
            close = get_close_matches(name, files, 1)
            meant = f"did you mean {close[0]!r}? " if close else ""
            raise RecipeError(
                f"there are no filters {name!r}", place, f"{meant}known: {', '.join(files)}"
            )
        where = f"{place}: {name}"
        content = parse(files[name].read_text(encoding="utf-8"), where)
        assert isinstance(content.value, list)
        inside = replace(self, where=where)
        return [inside.step(entry, at) for at, entry in enumerate(content.value)]

    def step(self, node: Node, at: int) -> Filter | Pick:
        """Read one entry."""
        where = f"{self.where}, line {node.line}, filters"
        if isinstance(node.value, str):
            known = self.fields
            return filters.parse(node.value, where, known.dtypes, known.choices, known.ordered)
        kinds = filters.PICKS
        if not isinstance(node.value, dict) or len(node.value) != 1:
            fix = f'write an expression, as language == "en", or one of {", ".join(kinds)}'
            raise RecipeError(f"{node.plain()!r} is not a filter", where, fix)
        ((name, inner),) = node.value.items()
        if name not in kinds:
            close = get_close_matches(name, kinds, 1)
            meant = f"did you mean {close[0]!r}? " if close else ""
            raise RecipeError(
                f"there is no choice {name!r} among rows",
                where,
                f"{meant}known: {', '.join(kinds)}",
            )
        path = f"filters[{at}].{name}"
        if name == "top":
            pick = self._top(Section(inner, self.where, path, _TopKeys))
        else:
            pick = self._grouped(name, Section(inner, self.where, path, _GroupedKeys))
        if pick.most is not None and pick.most < self.row_count:
            what = f"`{pick.text}` leaves {pick.most} rows at most, and {self.row_count} are wanted"
            raise RecipeError(what, where, "raise its rows, or lower those of the recipe")
        return pick

    def _top(self, section: Section) -> Pick:
        by = section.text("by", choices=self.fields.ranked)
        return filters.PICKS["top"](
            by=by,
            rows=section.integer("rows", 1, 10**9, default=self.row_count),
            labels=self.fields.labels(by),
            **{"order": section.text("order", choices=get_args(Order), default="highest")},
        )

    def _grouped(self, name: str, section: Section) -> Pick:
        by = section.text("by", choices=self.fields.grouping)
        best = section.text("best", choices=self.fields.ranked, default=None)
        whole = {"default": self.row_count} if name == "balance" else {}
        more: dict[str, Any] = {"groups": self._groups(section, by), "best": best}
        return filters.PICKS[name](
            by=by,
            rows=section.integer("rows", 1, 10**9, **whole),
            labels=self.fields.labels(best),
            **more,
        )

    def _groups(self, section: Section, by: str) -> tuple[tuple[Any, ...], ...] | None:
        """Return lists of values, each value once; null where they are left out."""
        found: list[tuple[Any, ...]] = []
        seen: set[Any] = set()
        for node in section.items("groups", default=()):
            values = node.plain()
            if not isinstance(values, list) or not values:
                fix = "write lists of values: [[easy], [medium, hard]]"
                raise section.bad("groups", f"{short(node)} is no group", fix)
            for value in values:
                self._check_value(section, by, value)
                if value in seen:
                    what = f"{value!r} stands in the groups twice"
                    raise section.bad("groups", what, "keep one of them")
                seen.add(value)
            found.append(tuple(values))
        return tuple(found) or None

    def _check_value(self, section: Section, by: str, value: object) -> None:
        allowed = self.fields.choices.get(by)
        kind = {"string": str, "bool": bool}.get(self.fields.dtypes[by], int)
        if type(value) is not kind or (allowed is not None and value not in allowed):
            hint = ", ".join(allowed) if allowed else f"values of {by}, a {self.fields.dtypes[by]}"
            raise section.bad("groups", f"{by} is never {value!r:.60}", f"allowed: {hint}")


@dataclass
class _TopKeys:
    """What a recipe may say of `top`."""

    by: str = ""
    rows: int = 0
    order: str = ""


@dataclass
class _GroupedKeys:
    """What a recipe may say of `balance` and `at_most`."""

    by: str = ""
    rows: int = 0
    groups: list[list[object]] = field(default_factory=list)
    best: str = ""
