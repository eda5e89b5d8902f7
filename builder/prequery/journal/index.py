"""Which segments can hold an answer, and the few of them that are in memory.

Slots are asked for in increasing order, so a handful of decoded segments serves all of a replay,
and memory does not grow with the journal.
"""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from itertools import accumulate

from prequery.endpoint import Answer
from prequery.journal.lines import PASSES, Key, Pass
from prequery.journal.segments import Segment

DECODED = 8


class Index:
    """The segments of a journal by pass and slot."""

    def __init__(self) -> None:
        self._by_name: dict[str, Segment] = {}
        self._sorted: dict[Pass, list[Segment]] = {made: [] for made in PASSES}
        self._firsts: dict[Pass, list[int]] = {made: [] for made in PASSES}
        self._lasts: dict[Pass, list[int]] = {made: [] for made in PASSES}
        self.row_count = 0

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def __iter__(self) -> Iterator[Segment]:
        return iter(self._by_name.values())

    def add(self, segments: Iterable[Segment]) -> None:
        """Add segments; those that are here already are left out."""
        changed = set()
        for segment in segments:
            if segment.name not in self._by_name:
                self._by_name[segment.name] = segment
                self._sorted[segment.made].append(segment)
                self.row_count += segment.rows
                changed.add(segment.made)
        for made in changed:
            self._arrange(made)

    def remove(self, segment: Segment) -> bool:
        """Forget a segment; false when it was forgotten already."""
        if self._by_name.pop(segment.name, None) is None:
            return False
        self._sorted[segment.made].remove(segment)
        self.row_count -= segment.rows
        self._arrange(segment.made)
        return True

    def end(self, made: Pass) -> int:
        """Return the slot behind the highest one of a pass."""
        return self._lasts[made][-1] + 1 if self._lasts[made] else 0

    def find(self, slot: int, made: Pass) -> list[Segment]:
        """Return every segment that may hold the slot."""
        lasts = self._lasts[made]
        at = bisect_right(self._firsts[made], slot) - 1
        found = []
        # `lasts` is the highest slot so far: below it, nothing further left reaches this slot.
        while at >= 0 and lasts[at] >= slot:
            segment = self._sorted[made][at]
            if segment.may_hold(slot):
                found.append(segment)
            at -= 1
        return found

    def _arrange(self, made: Pass) -> None:
        ordered = self._sorted[made]
        ordered.sort(key=lambda segment: segment.first)
        self._firsts[made] = [segment.first for segment in ordered]
        self._lasts[made] = list(accumulate((segment.last for segment in ordered), max))


class Decoded:
    """The segments that were read last."""

    def __init__(self) -> None:
        self._answers: OrderedDict[str, dict[Key, Answer]] = OrderedDict()

    def get(self, segment: Segment) -> dict[Key, Answer] | None:
        """Return a segment's answers when they are in memory."""
        found = self._answers.get(segment.name)
        if found is not None:
            self._answers.move_to_end(segment.name)
        return found

    def put(self, segment: Segment, answers: dict[Key, Answer]) -> None:
        """Hold a segment's answers in place of those that were unused for longest."""
        self._answers[segment.name] = answers
        while len(self._answers) > DECODED:
            self._answers.popitem(last=False)
