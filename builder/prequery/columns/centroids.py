"""Centroids of vectors, by k-means in whole numbers."""

from math import isqrt

import numpy as np
from numpy.typing import NDArray

from prequery.columns.vectors import SCALE, Targets, Whole, squares

ROUNDS = 10
SAMPLED = 64
"""Vectors for each centroid that a round looks at."""

# A mean is kept in this part of a whole number: its squares still add up in 64 bits.
_FINE = 256


def centroids(vectors: Whole, count: int) -> Whole:
    """Return points that are spread as the vectors are.

    Spherical k-means: it begins at vectors that are evenly spaced in slot order, which is a random
    choice because a slot's content is, and takes `ROUNDS` rounds over `SAMPLED` vectors a centroid,
    evenly spaced as well. No step rounds in an order that a machine chooses: the same vectors give
    the same centroids everywhere.

    Args:
        vectors: At least one, none of them 0.
        count: How many centroids, at least 1. There are fewer where the vectors are.
    """
    sample = vectors[_spaced(len(vectors), SAMPLED * count)]
    starts = sample[_spaced(len(sample), count)]
    centres = starts[np.sort(np.unique(starts, axis=0, return_index=True)[1])]
    for _ in range(ROUNDS):
        nearest = assign(sample, centres)[0]
        order = np.argsort(nearest, kind="stable")
        bounds = np.searchsorted(nearest[order], np.arange(len(centres) + 1))
        moved = np.stack(
            [
                _centre(sample[order[start:stop]], old)
                for old, start, stop in zip(centres, bounds, bounds[1:], strict=False)
            ]
        )
        if (moved == centres).all():
            break
        centres = moved
    return centres


def assign(vectors: Whole, centres: Whole) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Return each vector's nearest centroid, the first where several are, and its distance.

    Returns:
        Position among the centroids, and squared distance in units of 1 / `SCALE` ** 2.
    """
    nearest = np.zeros(len(vectors), np.int64)
    distance = np.zeros(len(vectors), np.int32)
    for block, distances in Targets(centres).blocks(vectors):
        nearest[block] = distances.argmin(axis=1)
        distance[block] = distances.min(axis=1)
    return nearest, distance + squares(vectors)


def _spaced(rows: int, count: int) -> NDArray[np.int64]:
    """Return positions of at most so many rows, evenly spaced."""
    taken = min(rows, count)
    return np.arange(taken) * rows // taken


def _centre(members: Whole, old: Whole) -> Whole:
    """Return the point of length `SCALE` in the direction of the members' mean."""
    if not len(members):
        return old
    mean = members.sum(axis=0, dtype=np.int64) * _FINE // len(members)
    length = isqrt(int((mean * mean).sum()))
    if not length:
        return old
    centre: Whole = np.rint(mean * (SCALE / length)).astype(np.int16)
    return centre
