"""Judge one row by what it says itself: its own columns, and what judges say of it."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, TypeVar

from prequery import filters, judging, preference
from prequery.births import Births, Flat
from prequery.columns.base import Column
from prequery.columns.prompted import PromptColumn
from prequery.columns.run import conclude, measure
from prequery.conversation import Ask, Candidate
from prequery.endpoint import Answer
from prequery.recipe import AnyRecipe
from prequery.selection.steps import Steps
from prequery.voices import Judging

C = TypeVar("C", bound=Candidate)

MOST_REMEMBERED = 1_024
"""Rows that were measured to ask their judges, and wait for the answers."""


@dataclass(frozen=True)
class Alone:
    """Measures attempts one by one.

    Args:
        recipe: Whose columns and filters decide.
        births: Makes rows of attempts.
        judges: The models that judge, by name.
        steps: Of the recipe.
    """

    recipe: AnyRecipe
    births: Births
    judges: Mapping[str, Judging]
    steps: Steps
    _remembered: dict[int, list[Flat]] = field(default_factory=dict)

    def judged(self, attempt: C) -> Generator[Sequence[Ask], Sequence[Answer], C]:
        """Have judges asked about a candidate, round after round, before `look` can tell.

        Nobody is asked about a row that its own columns rule out already.

        Returns:
            The candidate with what they said.
        """
        if attempt.reason is not None or not self.steps.judged:
            return attempt
        flats = self._measured(attempt)
        # `look` comes soon; an attempt that is let go and read again later is measured again.
        self._remembered[attempt.slot] = flats
        if len(self._remembered) > MOST_REMEMBERED:
            del self._remembered[next(iter(self._remembered))]
        if not self.recipe.preference and rejected(self.steps.cheap, flats[0]):
            return attempt
        inquiries = (
            (column.inquire(_read_by(column, flat)), choice)
            for column in self.steps.judged.values()
            for choice, flat in enumerate(flats)
        )
        verdicts = yield from judging.hear(self.recipe, self.judges, attempt.slot, inquiries)
        return replace(attempt, verdicts=verdicts)

    def look(self, attempt: Candidate) -> tuple[str | None, Flat]:
        """Measure a row by itself and apply the leading filters that need no others.

        Returns:
            Why it is rejected, null where nothing speaks against it; and the row with its
            measurements, empty where it was not comparable.
        """
        flats = self._remembered.pop(attempt.slot, None) or self._measured(attempt)
        flats = [flat | self._verdicts(attempt, at, flat) for at, flat in enumerate(flats)]
        flats = _with(self.steps.told, flats)
        made = self._preferred(attempt, flats) if self.recipe.preference else flats[0]
        if isinstance(made, str):
            return made, {}
        known = [step for step in self.steps.leading if step.reads <= made.keys()]
        return rejected(known, made), made

    def _measured(self, attempt: Candidate) -> list[Flat]:
        """Return its rows, one for each choice, with the columns that need no others."""
        flats = [self.births.row(attempt, choice) for choice in attempt.choices]
        return _with(self.steps.own, flats)

    def _verdicts(self, attempt: Candidate, choice: int, flat: Flat) -> Flat:
        """Return what judges say of one response; null where they were not asked."""
        found: Flat = {}
        for column in self.steps.judged.values():
            find = partial(judging.told, self.recipe, attempt.verdicts, choice=choice)
            row = _read_by(column, flat)
            found |= conclude(column, row, f"slot {attempt.slot}", find)
        return found

    def _preferred(self, attempt: Candidate, flats: list[Flat]) -> Flat | str:
        """Return the row of the chosen response, or why there is no pair."""
        assert self.recipe.preference is not None
        scores = [self._score(flat[self.recipe.preference.score]) for flat in flats]
        pair = preference.choose(scores, self.recipe.preference.min_margin)
        if isinstance(pair, str):
            return pair
        chosen, rejected = flats[pair.chosen], flats[pair.rejected]
        told = [None if score is None else float(score) for score in scores]
        return chosen | {
            "prompt": chosen["messages"][:-1],
            "chosen": chosen["messages"][-1:],
            "rejected": rejected["messages"][-1:],
            "chosen_score": told[pair.chosen],
            "rejected_score": told[pair.rejected],
            "score_margin": float(pair.margin),
            "scores": told,
            "rejected_seed": rejected["response_seed"],
        }

    def _score(self, value: Any) -> float | None:
        """Return a number as it is, and a grade as its place in its order."""
        return self._grades.index(value) if isinstance(value, str) else value

    @cached_property
    def _grades(self) -> tuple[str, ...]:
        """The labels of the field that scores, lowest first; none where it is a number."""
        score = self.recipe.preference.score if self.recipe.preference else ""
        prompted = (c for c in self.steps.judged.values() if isinstance(c, PromptColumn))
        return next((column.labels[score] for column in prompted if score in column.ordered), ())


def _with(columns: Sequence[Column], flats: list[Flat]) -> list[Flat]:
    """Return rows with what columns of one row measure of them."""
    if not columns:
        return flats
    measured = measure(columns, _columnar(flats))
    return [
        flat | {name: values[at] for name, values in measured.items()}
        for at, flat in enumerate(flats)
    ]


def _read_by(column: Column, flat: Flat) -> Flat:
    """Return the fields that a column reads."""
    return {name: flat[name] for name in column.inputs()}


def rejected(steps: Sequence[filters.Filter], flat: Flat) -> str | None:
    """Return the filter that rejects a row, as a reason; null where none does."""
    text = filters.apply(steps, _columnar([flat]))[0]
    return None if text is None else filter_reason(text)


def filter_reason(text: str) -> str:
    """Return a filter as a reason, told apart from those of the gates."""
    return f"filter: {text}"


def _columnar(flats: Sequence[Flat]) -> dict[str, list[Any]]:
    return {name: [flat[name] for flat in flats] for name in flats[0]}
