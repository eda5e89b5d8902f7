"""Filters that need every row: which of them stay is decided among all of them together.

    top       the rows with the highest, or the lowest, value of a field
    balance   as many of each value as the rows allow, so that none outweighs another
    at_most   no more than so many of each value

Ties are broken by slot number: the lower one stays. Equal rows in equal order give equal results.
"""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

Order = Literal["highest", "lowest"]
Known = str | int | bool


@dataclass(frozen=True, kw_only=True)
class Pick(ABC):
    """A choice among all rows that came so far.

    Args:
        by: Field that decides.
        rows: How many rows stay; of `at_most`, how many of each value.
        labels: Labels of `by`, or of what ranks, lowest first; none: it holds numbers.
    """

    name: ClassVar[str]

    by: str
    rows: int
    labels: tuple[str, ...] = ()

    @property
    @abstractmethod
    def text(self) -> str:
        """The choice in words, as a reason tells it."""

    @property
    @abstractmethod
    def reads(self) -> frozenset[str]:
        """Names of the fields that it looks at."""

    @property
    def most(self) -> int | None:
        """How many rows stay at most; null: that depends on the rows."""
        return self.rows

    @abstractmethod
    def chosen(self, values: Mapping[str, Sequence[Any]]) -> Iterable[int]:
        """Return the places of the rows that stay, in any order.

        Args:
            values: Of every field that it reads, one a row, in slot order.
        """

    def keep(self, values: Mapping[str, Sequence[Any]]) -> list[bool]:
        """Tell for each row, in slot order, whether it stays."""
        kept = [False] * len(values[self.by])
        for place in self.chosen(values):
            kept[place] = True
        return kept

    def _ranked(
        self, places: Iterable[int], values: Sequence[Any], order: Order = "highest"
    ) -> list[int]:
        """Return places with the best value first, and those without one at the end."""
        sign = -1 if order == "highest" else 1

        def rank(place: int) -> tuple[bool, float, int]:
            value = values[place]
            if value is None or (self.labels and value not in self.labels):
                return True, 0, place
            return False, sign * (self.labels.index(value) if self.labels else value), place

        return sorted(places, key=rank)


@dataclass(frozen=True, kw_only=True)
class Top(Pick):
    """The rows with the highest, or the lowest, value; a row without a value never stays."""

    name = "top"

    order: Order = "highest"

    @property
    def text(self) -> str:
        """As in `top 300000 by response_chars`."""
        return f"top {self.rows} by {self.by}" + (", lowest" if self.order == "lowest" else "")

    @property
    def reads(self) -> frozenset[str]:
        """The one field."""
        return frozenset((self.by,))

    def chosen(self, values: Mapping[str, Sequence[Any]]) -> Iterable[int]:
        """Rank all rows."""
        given = values[self.by]
        known = (place for place, value in enumerate(given) if value is not None)
        return self._ranked(known, given, self.order)[: self.rows]


@dataclass(frozen=True, kw_only=True)
class _Grouped(Pick):
    """A choice in each group of rows.

    Args:
        groups: Values of `by` that count as one; a row with another value does not stay. None:
            each value is a group of its own. A row without a value never stays.
        best: Field whose highest values stay within a group; null: the first rows do.
    """

    groups: tuple[tuple[Known, ...], ...] | None = None
    best: str | None = None

    @property
    def reads(self) -> frozenset[str]:
        """What groups the rows, and what ranks them."""
        return frozenset((self.by, self.best or self.by))

    @property
    def text(self) -> str:
        """As in `balance 200 by difficulty: easy; medium, hard; highest response_chars first`."""
        groups = [", ".join(map(str, group)) for group in self.groups or ()]
        best = [f"highest {self.best} first"] if self.best else []
        told = "; ".join([*groups, *best])
        return f"{self.name} {self.rows} by {self.by}" + (f": {told}" if told else "")

    def grouped(self, values: Mapping[str, Sequence[Any]]) -> list[list[int]]:
        """Return the places of each group, those that stay first before the others."""
        found: defaultdict[Any, list[int]] = defaultdict(list)
        for place, value in enumerate(values[self.by]):
            group = self._group_of.get(value) if self.groups else value
            if value is not None and group is not None:
                found[group].append(place)
        # Declared groups in their order, others by their first row.
        groups = [found[at] for at in range(len(self.groups))] if self.groups else found.values()
        if self.best is None:
            return list(groups)
        return [self._ranked(group, values[self.best]) for group in groups]

    @cached_property
    def _group_of(self) -> dict[Any, int]:
        return {value: at for at, group in enumerate(self.groups or ()) for value in group}


@dataclass(frozen=True, kw_only=True)
class Balance(_Grouped):
    """So many rows in all, and no group has more than another unless that one has no more rows."""

    name = "balance"

    def chosen(self, values: Mapping[str, Sequence[Any]]) -> Iterable[int]:
        """Share the rows out."""
        groups = self.grouped(values)
        shares = shared_out(self.rows, [len(group) for group in groups])
        return [
            place for group, share in zip(groups, shares, strict=True) for place in group[:share]
        ]


@dataclass(frozen=True, kw_only=True)
class AtMost(_Grouped):
    """No more than so many rows of each group."""

    name = "at_most"

    @property
    def most(self) -> int | None:
        """So many of each group, where the groups are named."""
        return self.rows * len(self.groups) if self.groups else None

    def chosen(self, values: Mapping[str, Sequence[Any]]) -> Iterable[int]:
        """Cut each group off."""
        return [place for group in self.grouped(values) for place in group[: self.rows]]


PICKS: Mapping[str, type[Pick]] = {kind.name: kind for kind in (Top, Balance, AtMost)}
"""Every kind by the name that a recipe gives it."""


def shared_out(rows: int, sizes: Sequence[int]) -> list[int]:
    """Return how many rows each group gives, as evenly as their sizes allow.

    What a small group lacks is shared among the others; what cannot be shared evenly goes to the
    first ones, one each.
    """
    shares = [0] * len(sizes)
    left = min(rows, sum(sizes))
    while left:
        open_groups = [at for at, size in enumerate(sizes) if shares[at] < size]
        each, rest = divmod(left, len(open_groups))
        for turn, at in enumerate(open_groups):
            given = min(each + (turn < rest), sizes[at] - shares[at])
            shares[at] += given
            left -= given
    return shares
