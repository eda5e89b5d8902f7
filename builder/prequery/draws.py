"""How a slot draws: which setting it uses, and the seed of each request.

Every draw is a pure function of what it is for. Nothing depends on the order in which answers
arrive, on how many requests are in flight, on the number of workers, or on the clock.
"""

from collections.abc import Sequence
from hashlib import blake2b
from itertools import accumulate
from typing import Literal

Purpose = Literal["setting", "item", "turns", "opening", "instruction", "response"]

SCHEME = "prequery-draw-1"
"""Raised whenever a draw could come out differently, because every answer then does."""


def draw(fingerprint: str, slot: int, purpose: Purpose, turn: int = 0, attempt: int = 0) -> int:
    """Draw one number.

    Args:
        fingerprint: The recipe's fingerprint.
        slot: The attempt at a row that this is for, 0 or more.
        purpose: What the number decides.
        turn: The user turn, 0 for the first.
        attempt: Raised only by a deliberate resample; a retry after a fault keeps its seed.

    Returns:
        In [1, 2**63): 63 bits, because TGI's seed fits a signed column that way, and never 0,
        because some servers read 0 as "no seed".
    """
    key = f"{SCHEME}|{fingerprint}|{slot}|{purpose}|{turn}|{attempt}".encode()
    return (int.from_bytes(blake2b(key, digest_size=8).digest()) >> 1) or 1


def fold(seed: int) -> int:
    """Cut a seed of 64 bits to the 32 that llama.cpp has.

    Both halves count, seeds below 2**32 - 1 stay as they are, and the one value that means "draw a
    seed" to llama.cpp is avoided.
    """
    folded = (seed ^ (seed >> 32)) & 0xFFFFFFFF
    return folded if folded != 0xFFFFFFFF else 0xFFFFFFFE


def choose(
    fingerprint: str, slot: int, weights: Sequence[float], purpose: Purpose = "setting"
) -> int:
    """Choose one of several weighted things.

    Args:
        fingerprint: The recipe's fingerprint.
        slot: The slot that chooses.
        weights: One weight for each, not all 0; they need not sum to 1.
        purpose: What is chosen.

    Returns:
        An index into `weights`.
    """
    bounds = list(accumulate(weights))
    point = draw(fingerprint, slot, purpose) / 2**63 * bounds[-1]
    return next((index for index, bound in enumerate(bounds) if point < bound), len(bounds) - 1)
