"""What columns worked out of single rows, kept while more rows come."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from prequery.columns.base import Batch

S = TypeVar("S")

Work = Callable[[Batch], NDArray[Any]]
"""Works out a row of numbers for each row of a batch: two dimensions, always the same width."""


@dataclass
class Kept:
    """Numbers of rows, in files: who looks again at more rows works out the new ones alone.

    A build looks whenever enough rows may be there. Rows only ever come behind those that were.

    Args:
        folder: For the files; of one growing number of rows.

    Attributes:
        told: Column to what a reader should know of its measurement, besides the values.
    """

    folder: Path
    told: dict[str, dict[str, Any]] = field(default_factory=dict)
    _held: dict[str, tuple[int, int, np.dtype[Any]]] = field(default_factory=dict)
    _states: dict[str, Any] = field(default_factory=dict)

    def state(self, what: str, begin: Callable[[], S]) -> S:
        """Return what a column carries from one look to the next; it is begun the first time."""
        found: S = self._states.setdefault(what, begin())
        return found

    def numbers(self, what: str, batches: Iterable[Batch], work: Work) -> NDArray[Any]:
        """Return the numbers of all rows, mapped from their file.

        Args:
            what: Says what they are, with all that decides them.
            batches: All rows.
            work: Is given the new ones.
        """
        path = self.folder / hashlib.sha256(what.encode()).hexdigest()[:16]
        self.folder.mkdir(parents=True, exist_ok=True)
        rows, width, dtype = self._held.get(what, (0, 0, np.dtype(np.int16)))
        start = 0
        with path.open("ab") as file:
            for batch in batches:
                stop = start + _rows(batch)
                if stop > rows:
                    new = {name: values[rows - start :] for name, values in batch.items()}
                    part = work(new)
                    rows, width, dtype = stop, part.shape[1], part.dtype
                    file.write(np.ascontiguousarray(part).tobytes())
                start = stop
        self._held[what] = rows, width, dtype
        if not rows * width:
            return np.zeros((rows, width), dtype)
        return np.memmap(path, dtype, mode="r", shape=(rows, width))


def kept_by(batches: Iterable[Batch]) -> Kept | None:
    """Return where what is worked out of these rows is kept; null: nowhere."""
    found = getattr(batches, "kept", None)
    return found if isinstance(found, Kept) else None


def worked_out(what: str, batches: Iterable[Batch], work: Work) -> NDArray[Any]:
    """Return the numbers of all rows, as `Kept.numbers`, kept or not."""
    kept = kept_by(batches)
    if kept is not None:
        return kept.numbers(what, batches, work)
    rows = sum(map(_rows, batches))
    numbers: NDArray[Any] = np.zeros((rows, 0), np.int16)
    start = 0
    for batch in batches:
        part = work(batch)
        if not start:
            numbers = np.zeros((rows, part.shape[1]), part.dtype)
        numbers[start : start + len(part)] = part
        start += len(part)
    return numbers


def _rows(batch: Batch) -> int:
    return len(next(iter(batch.values())))
