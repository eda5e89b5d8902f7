"""Choose among rows by what is known of all of them together."""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from prequery import filters
from prequery.births import Births, Flat
from prequery.columns.base import Batch, Values
from prequery.columns.run import survey
from prequery.selection.alone import filter_reason
from prequery.selection.steps import Steps
from prequery.shards import Parts

if TYPE_CHECKING:
    from datasets import Features


@dataclass
class Together:
    """The candidates on disk: the rows of all slots taken that passed the gates, released or not.

    Args:
        births: Made these rows.
        steps: Of the recipe.
        folder: For the rows; its content is replaced.
    """

    births: Births
    steps: Steps
    folder: Path
    slots: "array[int]" = field(default_factory=lambda: array("q"))

    def append(self, slot: int, flat: Flat) -> None:
        """Take a row with the columns that need no others."""
        self.slots.append(slot)
        self._parts.append({name: flat[name] for name in self._fields})

    def judge(self) -> tuple[Values, list[str | None]]:
        """Measure the columns that see every candidate, and apply all filters.

        Returns:
            What these columns measured, and why each candidate is rejected; null: it is not.
        """
        if not self.slots:
            return {}, []
        reads = {"id"}.union(*(column.reads for column in self.steps.corpus))
        measured = survey(self.steps.corpus, _Batches(self._parts, sorted(reads)))
        return measured, self._reasons(measured)

    def chosen(self, reasons: Sequence[str | None], most: int) -> Iterator[tuple[int, Flat]]:
        """Yield place and row of the first so many that are not rejected."""
        start = 0
        for table in self._parts.tables():
            stop = start + len(table)
            places = [at for at in range(start, stop) if reasons[at] is None][:most]
            most -= len(places)
            flats = table.take([at - start for at in places]).to_pylist()
            yield from zip(places, flats, strict=True)
            start = stop
            if not most:
                return

    def _reasons(self, measured: Values) -> list[str | None]:
        """Apply all filters to all candidates."""
        steps = self.steps.filters
        reads = {"id"}.union(*(step.reads for step in steps))
        reasons: list[str | None] = []
        for batch in _Batches(self._parts, sorted(reads - measured.keys())):
            start, stop = len(reasons), len(reasons) + len(batch["id"])
            whole = {name: values[start:stop] for name, values in measured.items()}
            judged = filters.apply(steps, {**batch, **whole})
            reasons += [None if text is None else filter_reason(text) for text in judged]
        return reasons

    @cached_property
    def _parts(self) -> Parts:
        return Parts(self.folder / "candidates", self._features.arrow_schema)

    @cached_property
    def _features(self) -> "Features":
        return self.births.features(self.steps.alone)

    @cached_property
    def _fields(self) -> list[str]:
        return list(self._features)


@dataclass(frozen=True)
class _Batches:
    """Some fields of rows on disk, a row group at a time, as often as they are gone through."""

    parts: Parts
    names: Sequence[str]

    def __iter__(self) -> Iterator[Batch]:
        for table in self.parts.tables(self.names):
            yield {name: table[name].to_pylist() for name in self.names}
