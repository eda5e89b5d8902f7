"""Choose among rows by what is known of all of them together."""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prequery import filters
from prequery.births import Births, Flat
from prequery.columns.base import Batch, Values
from prequery.columns.kept import Kept
from prequery.columns.run import survey
from prequery.filters import Filter, Pick
from prequery.selection.alone import filter_reason
from prequery.selection.steps import Steps
from prequery.shards import Parts

if TYPE_CHECKING:
    from datasets import Features


@dataclass(frozen=True)
class Judged:
    """What is known of all candidates together.

    Args:
        measured: Of the columns that see every candidate: field to one value a candidate.
        reasons: Why a filter that leads rejects each; null: none does.
    """

    measured: Values
    reasons: list[str | None]


@dataclass
class Together:
    """The candidates on disk: the rows of all slots taken that passed the gates, released or not.

    A candidate's place is its position among them.

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

    def judge(self) -> Judged:
        """Measure the columns that see every candidate, and apply the filters that lead."""
        if not self.slots:
            return Judged({}, [])
        reads = {"id"}.union(*(column.inputs() for column in self.steps.corpus))
        batches = _Batches(self._parts, sorted(reads))
        measured = survey(self.steps.corpus, batches, self.kept)
        steps, reasons = self.steps.leading, []
        for batch in self._batches(measured, {"id"}.union(*(step.reads for step in steps))):
            reasons += [text and filter_reason(text) for text in filters.apply(steps, batch)]
        return Judged(measured, reasons)

    def choose(self, judged: Judged, places: Sequence[int]) -> dict[int, str]:
        """Choose among candidates, filter by filter, from the first that needs all of them on.

        Args:
            judged: From `judge`.
            places: Of the candidates to choose from, in order.

        Returns:
            Place to reason, of those that do not stay.
        """
        left = list(range(len(places)))
        gone: dict[int, str] = {}
        kept, values = self._read_for(judged, places)
        for at, step in enumerate(self.steps.following):
            if isinstance(step, Pick):
                stays = step.keep(
                    {name: [values[name][one] for one in left] for name in step.reads}
                )
            else:
                stays = [bool(kept[at][one]) for one in left]
            pairs = list(zip(left, stays, strict=True))
            gone |= {places[one]: filter_reason(step.text) for one, stay in pairs if not stay}
            left = [one for one, stay in pairs if stay]
        return gone

    def rows(self, judged: Judged, places: Sequence[int]) -> Iterator[tuple[int, Flat]]:
        """Yield place and row of some candidates, given in order, with all their columns."""
        start, at = 0, 0
        for table in self._parts.tables():
            stop = start + len(table)
            wanted = []
            while at < len(places) and places[at] < stop:
                wanted.append(places[at])
                at += 1
            # An empty list has no type that Arrow could take by.
            flats = table.take([place - start for place in wanted]).to_pylist() if wanted else []
            for place, flat in zip(wanted, flats, strict=True):
                yield place, flat | {name: judged.measured[name][place] for name in judged.measured}
            start = stop
            if at == len(places):
                return

    def ids(self) -> Iterator[str]:
        """Yield the id of every candidate."""
        for batch in _Batches(self._parts, ["id"]):
            yield from batch["id"]

    def _read_for(
        self, judged: Judged, places: Sequence[int]
    ) -> tuple[dict[int, bytearray], dict[str, list[Any]]]:
        """Read once what `choose` needs of these candidates, and no text more often than once.

        Returns:
            For each filter over one row whether it keeps each candidate, and what choices read.
        """
        following = self.steps.following
        reads = {name for step in following if isinstance(step, Pick) for name in step.reads}
        kept = {at: bytearray() for at, step in enumerate(following) if isinstance(step, Filter)}
        values: dict[str, list[Any]] = {name: [] for name in reads}
        texts: dict[str, str] = {}
        start, at = 0, 0
        for batch in self._batches(judged.measured, {"id"}.union(*(s.reads for s in following))):
            stop, first = start + len(batch["id"]), at
            while at < len(places) and places[at] < stop:
                at += 1
            here = [place - start for place in places[first:at]]
            part = {name: [given[one] for one in here] for name, given in batch.items()}
            for number, step in enumerate(following):
                if isinstance(step, Filter):
                    kept[number] += bytes(step.keep(part))
            for name in reads:
                values[name] += [
                    texts.setdefault(one, one) if isinstance(one, str) else one
                    for one in part[name]
                ]
            start = stop
        return kept, values

    def _batches(self, measured: Values, reads: "set[str]") -> Iterator[Batch]:
        """Yield some fields of all candidates, with what was measured of all together."""
        start = 0
        for batch in _Batches(self._parts, sorted(reads - measured.keys())):
            stop = start + len(batch["id"])
            whole = {name: measured[name][start:stop] for name in reads & measured.keys()}
            yield {**batch, **whole}
            start = stop

    @cached_property
    def kept(self) -> Kept:
        """What columns worked out of the candidates so far."""
        return Kept(self.folder / "kept")

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
