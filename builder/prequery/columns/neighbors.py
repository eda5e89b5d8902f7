"""Nearest neighbours among vectors: exact for few, by buckets for many."""

from dataclasses import dataclass, field
from math import isqrt

import numpy as np
from numpy.typing import NDArray

from prequery.columns.centroids import centroids
from prequery.columns.vectors import SCALE, Targets, Whole, squares

EXACT_ROWS = 100_000
"""Above so many vectors each is compared with those near it alone."""

PROBES = 64
"""Buckets of 2 sqrt(vectors) that each vector is compared with."""

_BLOCK_ROWS = 2048  # their table of distances is 16 MiB: larger ones wait for the memory

_FAR = np.iinfo(np.int32).max


@dataclass(frozen=True)
class Neighbors:
    """What the search found, one entry a vector.

    Attributes:
        distance: Squared L2 distance to the nearest other vector, in [0, 4]; NaN where there
            is no other.
        count: How many others are nearer than the threshold.
        first: Lowest position among itself and those others.
    """

    distance: NDArray[np.float64]
    count: NDArray[np.int64]
    first: NDArray[np.int64]


@dataclass
class Begun:
    """What an exact search found so far, in whole numbers; to go on from when vectors come.

    Attributes:
        least: Least distance of each, less its own square.
        count: As of `Neighbors`.
        first: As of `Neighbors`.
    """

    least: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    count: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    first: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))


def nearest(
    vectors: Whole,
    threshold: float,
    exact_rows: int = EXACT_ROWS,
    block_rows: int | None = None,
    begun: Begun | None = None,
) -> Neighbors:
    """Find every vector's nearest other one.

    Up to `exact_rows` every vector is compared with every other. Above, vectors are put into the
    buckets of 2 sqrt(rows) centroids, and each is compared with all in the `PROBES` buckets
    whose centroids are nearest to it: what is said of a pair is exact, but a pair may be missed,
    unless the two are equal. Nothing depends on threads, BLAS or the machine.

    Args:
        vectors: None of them 0.
        threshold: Squared L2 distance, over 0.
        exact_rows: Above so many the search is by buckets.
        block_rows: Vectors that are compared at a time; it changes no value.
        begun: What an exact search for the first of these vectors found, by the same threshold: the
            others alone are compared then. It takes what this one finds, where this one is exact.
    """
    search = _Search(vectors, threshold)
    if len(vectors) <= exact_rows:
        first = search.go_on(begun) if begun else 0
        search.compare_all(block_rows or _BLOCK_ROWS, first)
        if begun:
            search.leave(begun)
    else:
        for members, others in buckets(vectors, 2 * isqrt(len(vectors)), PROBES):
            search.compare(members, others, block_rows)
    return search.found()


def recall(vectors: Whole, found: Neighbors, sample: int = 1_000) -> float:
    """Return the share of some vectors whose nearest other one was found.

    Args:
        vectors: That were searched.
        found: By `nearest`.
        sample: So many, evenly spaced, are compared with all.
    """
    rows = np.unique(np.linspace(0, len(vectors) - 1, min(sample, len(vectors))).astype(np.int64))
    own = squares(vectors[rows]).astype(np.int64)
    least = np.full(len(rows), _FAR, np.int64)
    for start in range(0, len(vectors), 10_000):
        block = np.arange(start, min(start + 10_000, len(vectors)))
        distances = Targets(vectors[block]).compare(vectors[rows])
        itself = np.flatnonzero((rows >= block[0]) & (rows <= block[-1]))
        distances[itself, rows[itself] - start] = _FAR
        least = np.minimum(least, distances.min(axis=1))
    hits = (least + own) / SCALE**2 == found.distance[rows]
    return float(np.count_nonzero(hits)) / len(rows)


def buckets(
    vectors: Whole, count: int, probes: int
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Return, for each bucket, who is in it and who is to be compared with these.

    Args:
        vectors: None of them 0.
        count: How many buckets, below 2**16; there are fewer where different vectors are.
        probes: To how many buckets each vector is compared: those of its nearest centroids.
            Centroids at the same distance as the last of them count as well.

    Returns:
        Positions in ascending order. A vector is in one bucket, and is compared with that one.
    """
    points = centroids(vectors, count)
    homes = np.zeros(len(vectors), np.uint16)
    probed: list[NDArray[np.uint16]] = []
    probing: list[NDArray[np.int32]] = []
    last = min(probes, len(points)) - 1
    for block, distances in Targets(points).blocks(vectors):
        homes[block] = distances.argmin(axis=1)
        reach = np.partition(distances, last, axis=1)[:, last, np.newaxis]
        row, bucket = np.nonzero(distances <= reach)
        probing.append((row + block.start).astype(np.int32))
        probed.append(bucket.astype(np.uint16))
    return list(
        zip(
            _groups(homes, np.arange(len(vectors)), len(points)),
            _groups(np.concatenate(probed), np.concatenate(probing), len(points)),
            strict=True,
        )
    )


def _groups(
    group: NDArray[np.uint16], values: NDArray[np.integer], count: int
) -> list[NDArray[np.int64]]:
    """Return the values of each group, in the order that they have."""
    order = np.argsort(group, kind="stable")
    bounds = np.searchsorted(group[order], np.arange(1, count))
    return np.split(values[order].astype(np.int64), bounds)


class _Search:
    """Collects what comparing finds. A pair is to be compared once in each direction."""

    def __init__(self, vectors: Whole, threshold: float) -> None:
        rows = len(vectors)
        self._vectors, self._squares = vectors, squares(vectors)
        self._limits = int(np.ceil(threshold * SCALE**2)) - self._squares.astype(np.int64)
        self._least = np.full(rows, _FAR, np.int32)
        self._count = np.zeros(rows, np.int64)
        self._first = np.arange(rows)

    def go_on(self, begun: Begun) -> int:
        """Take over what an earlier search found; return for how many vectors."""
        rows = len(begun.least)
        self._least[:rows], self._count[:rows] = begun.least, begun.count
        self._first[:rows] = begun.first
        return rows

    def leave(self, begun: Begun) -> None:
        """Hand over what this search found."""
        begun.least, begun.count, begun.first = self._least, self._count, self._first

    def compare_all(self, block_rows: int, new: int = 0) -> None:
        """Compare each with every other; a pair is multiplied once, and read in both directions.

        Args:
            block_rows: Vectors that are compared at a time.
            new: The vectors before this one have been compared with one another.
        """
        rows = len(self._squares)
        blocks = [np.arange(at, min(at + block_rows, new)) for at in range(0, new, block_rows)]
        old = len(blocks)
        blocks += [np.arange(at, min(at + block_rows, rows)) for at in range(new, rows, block_rows)]
        for at, members in enumerate(blocks):
            if new == rows:
                return
            targets = Targets(self._vectors[members])
            if at >= old:
                distances = targets.compare(self._vectors[members])
                np.fill_diagonal(distances, _FAR)
                self._note(members, distances, members)
            for others in blocks[max(at + 1, old) :]:
                distances = targets.compare(self._vectors[others])
                self._note(others, distances, members)
                # Less the members' own squares now, not the others'.
                distances -= self._squares[members]
                distances += self._squares[others, np.newaxis]
                self._note(members, distances.T, others)

    def compare(
        self,
        members: NDArray[np.int64],
        others: NDArray[np.int64],
        block_rows: int | None = None,
    ) -> None:
        """Compare each of the others with all members but itself; both are in ascending order."""
        if not len(members):
            return
        targets = Targets(self._vectors[members])
        place = np.searchsorted(members, others)
        place[place == len(members)] = 0
        is_member = members[place] == others
        for block, distances in targets.blocks(self._vectors[others], block_rows):
            itself = np.flatnonzero(is_member[block])
            distances[itself, place[block][itself]] = _FAR
            self._note(others[block], distances, members)

    def _note(
        self,
        rows: NDArray[np.int64],
        distances: NDArray[np.int32],
        members: NDArray[np.int64],
    ) -> None:
        """Note the least of each row's distances, and who is nearer than the threshold."""
        least = distances.min(axis=1)
        self._least[rows] = np.minimum(self._least[rows], least)
        # Few rows have anybody.
        some = np.flatnonzero(least < self._limits[rows])
        near = distances[some] < self._limits[rows[some], np.newaxis]
        self._count[rows[some]] += np.count_nonzero(near, axis=1)
        firsts = members[near.argmax(axis=1)]
        self._first[rows[some]] = np.minimum(self._first[rows[some]], firsts)

    def found(self) -> Neighbors:
        """Return what was found."""
        distance = (self._least.astype(np.int64) + self._squares) / SCALE**2
        distance[self._least == _FAR] = np.nan
        return Neighbors(distance, self._count, self._first)
