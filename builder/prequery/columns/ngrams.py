"""Runs of n numbers, by hash."""

import numpy as np
from numpy.typing import NDArray

_ODD = np.uint64(0x9E3779B97F4A7C15)


def mix(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scatter numbers over 64 bits: different ones stay different."""
    mixed: NDArray[np.uint64] = numbers * _ODD
    return mixed ^ (mixed >> np.uint64(29))


def hashes(numbers: NDArray[np.uint64], width: int) -> NDArray[np.uint64]:
    """Return the hash of every run of `width` numbers; none where there are fewer."""
    count = max(0, len(numbers) - width + 1)
    hashed = np.zeros(count, np.uint64)
    for at in range(width):
        hashed = mix(hashed + numbers[at : at + count] + np.uint64(1))
    return hashed
