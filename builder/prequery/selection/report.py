"""What each filter was given, what it let pass, and a few of the rows that it did not."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from typing import Any, Generic, TypeVar

from prequery.births import Flat

T = TypeVar("T")

EXAMPLES = 3
EXAMPLE_CHARS = 160
"""A text of an example is cut behind so many characters."""


@dataclass(frozen=True)
class Example:
    """A row that a filter rejected, as far as it is shown.

    Args:
        id: Its `id`.
        instruction: Cut; null where the filter is about what should not be shown.
        response: The same.
        values: Of the fields that the filter reads; texts are cut.
    """

    id: str
    instruction: str | None
    response: str | None
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Step:
    """One filter of a build, in the order of going through them.

    Args:
        step: The filter.
        rows_in: Rows that no earlier one rejected.
        rows_out: Rows of these that it let pass.
        examples: Of those it rejected, the `EXAMPLES` with the smallest SHA-256 of their id: an
            id begins with the recipe's fingerprint, so nobody chose them.
    """

    step: str
    rows_in: int
    rows_out: int
    examples: tuple[Example, ...] = ()

    def told(self) -> dict[str, Any]:
        """Return it as a lock holds it."""
        return asdict(self) | {"examples": [asdict(one) for one in self.examples]}


class Draw(Generic[T]):
    """Draws a few of every reason, by the smallest SHA-256 of their ids: nobody chooses."""

    def __init__(self) -> None:
        self._held: dict[str, list[tuple[bytes, T]]] = {}

    def offer(self, reason: str, row_id: str, make: Callable[[], T]) -> None:
        """Hold what `make` gives, if it is among the few."""
        digest = sha256(row_id.encode()).digest()
        held = self._held.setdefault(reason, [])
        if len(held) < EXAMPLES or digest < held[-1][0]:
            held.append((digest, make()))
            held.sort(key=lambda one: one[0])
            del held[EXAMPLES:]

    def of(self, reason: str) -> tuple[T, ...]:
        """Return those of one reason."""
        return tuple(one for _, one in self._held.get(reason, ()))

    def all(self) -> list[T]:
        """Return those of all reasons."""
        return [one for held in self._held.values() for _, one in held]


@dataclass(frozen=True)
class Examples:
    """A few rejected rows of every filter; what is held does not grow with the rows.

    Args:
        reads: Reason of a filter to the fields that it reads.
        hidden: Reasons whose rows are not shown.
    """

    reads: Mapping[str, Iterable[str]]
    hidden: frozenset[str]
    _drawn: Draw[Example] = field(default_factory=lambda: Draw[Example]())

    def note(self, reason: str, flat: Flat) -> None:
        """Take a rejected row into account; one without a filter's reason is none of these."""
        if reason in self.reads:
            self._drawn.offer(reason, flat["id"], lambda: self._example(reason, flat))

    def of(self, reason: str) -> tuple[Example, ...]:
        """Return the rows of a reason."""
        return self._drawn.of(reason)

    def _example(self, reason: str, flat: Flat) -> Example:
        shows = reason not in self.hidden
        return Example(
            flat["id"],
            _cut(flat["instruction"]) if shows else None,
            _cut(flat["response"]) if shows else None,
            {name: _cut(flat[name]) for name in sorted(self.reads[reason])},
        )


def report(
    steps: Sequence[tuple[str, str]], accepted: int, rejected: Mapping[str, int], shown: Examples
) -> tuple[Step, ...]:
    """Return what each filter did.

    Args:
        steps: Filter and its reason, in the order of going through them.
        accepted: Rows that all of them let pass.
        rejected: Reason to number of rows.
        shown: Rejected rows.
    """
    found: list[Step] = []
    left = accepted
    first = {reason: at for at, (_, reason) in reversed(list(enumerate(steps)))}
    for at, (text, reason) in reversed(list(enumerate(steps))):
        # What stands twice rejects nothing the second time.
        gone = rejected.get(reason, 0) if first[reason] == at else 0
        found.append(Step(text, left + gone, left, shown.of(reason) if gone else ()))
        left += gone
    return tuple(reversed(found))


def _cut(value: Any) -> Any:
    if not isinstance(value, str) or len(value) <= EXAMPLE_CHARS:
        return value
    return value[: EXAMPLE_CHARS - 1] + "…"
