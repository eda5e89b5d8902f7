"""Nearest neighbours among vectors, by exact search."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Vectors are rounded to whole numbers of this length. A product of two is then below 2**24, up
# to which float32 counts without rounding: the fast matrix product is exact in any order of
# adding, so block size, threads and BLAS library cannot change a distance. A distance of 0.05
# moves by less than 0.0003.
SCALE = 4000
_BLOCK_ENTRIES = 2**23
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


def nearest(
    vectors: NDArray[np.float32], threshold: float, block_rows: int | None = None
) -> Neighbors:
    """Compare every vector with every other.

    Args:
        vectors: Shape (rows, dim), each row of length 1, dim at most 30,000.
        threshold: Squared L2 distance, over 0.
        block_rows: Vectors that are compared at a time; null takes what keeps a block's two
            tables at 64 MiB. It changes no value.
    """
    rows = len(vectors)
    whole = np.rint(vectors * np.float32(SCALE))
    squares = (whole * whole).sum(axis=1, dtype=np.float64).astype(np.int32)
    limit = int(np.ceil(threshold * SCALE**2))
    found = Neighbors(np.full(rows, np.nan), np.zeros(rows, np.int64), np.arange(rows))
    step = block_rows or max(1, _BLOCK_ENTRIES // max(rows, 1))
    for start in range(0, rows, step):
        block = slice(start, min(start + step, rows))
        distance = (whole[block] @ whole.T).astype(np.int32)
        distance *= -2
        distance += squares
        distance += squares[block, np.newaxis]
        near = distance < limit
        found.count[block] = np.count_nonzero(near, axis=1) - 1
        found.first[block] = near.argmax(axis=1)
        if rows > 1:
            distance[np.arange(len(distance)), np.arange(rows)[block]] = _FAR
            found.distance[block] = distance.min(axis=1) / SCALE**2
    return found
