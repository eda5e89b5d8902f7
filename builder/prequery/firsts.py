"""Which slot first had an instruction, in 12 bytes each and no text."""

from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

_START = 1 << 12


class Firsts:
    """The lowest slot of every text, by a 64-bit hash of it: a table of two flat arrays.

    A dictionary of the texts would hold a build's whole first pass in memory. Among 4 million
    texts the chance that any two share a hash is below one in a million.
    """

    def __init__(self) -> None:
        self._hashes = np.zeros(_START, dtype=np.uint64)
        # Four billion slots are enough for nearly everybody.
        self._slots: NDArray[np.uint32 | np.int64] = np.zeros(_START, dtype=np.uint32)
        self._count = 0

    def note(self, text: str, slot: int) -> int:
        """Note that a slot has a text.

        Returns:
            The lowest slot that was noted for it, this one included.
        """
        hashed = int.from_bytes(blake2b(text.encode(), digest_size=8).digest()) or 1
        if slot >> 32 and self._slots.dtype == np.uint32:
            self._slots = self._slots.astype(np.int64)
        at = self._find(hashed)
        if self._hashes[at] == 0:
            self._hashes[at], self._slots[at] = hashed, slot
            self._count += 1
            if self._count * 3 > len(self._hashes) * 2:
                self._grow()
            return slot
        lowest = min(int(self._slots[at]), slot)
        self._slots[at] = lowest
        return lowest

    def _find(self, hashed: int) -> int:
        """Return where a hash stands, or the free place where it would."""
        mask = len(self._hashes) - 1
        at = hashed & mask
        while self._hashes[at] not in (0, hashed):
            at = (at + 1) & mask
        return at

    def _grow(self) -> None:
        hashes, slots = self._hashes, self._slots
        self._hashes = np.zeros(len(hashes) * 2, dtype=np.uint64)
        self._slots = np.zeros(len(hashes) * 2, dtype=slots.dtype)
        for place in np.flatnonzero(hashes):
            at = self._find(int(hashes[place]))
            self._hashes[at], self._slots[at] = hashes[place], slots[place]
