"""Texts that repeat themselves."""

from collections.abc import Mapping
from functools import lru_cache
from math import ceil
from typing import ClassVar

from prequery.columns.base import Batch, RowColumn, Values, each

GRAM_WORDS = 8
LOOP_RATIO = 0.15
LOOP_TIMES = 3
# Three times "ha" is laughter; three times a short sentence is a loop.
LOOP_CHARS = 40
# Longer periods than a third of this show in the ratio; the bound keeps hostile text cheap.
TAIL_CHARS = 6000
# The shortest stretch that still has to come back one period before the end of a loop.
_SUFFIX_CHARS = LOOP_CHARS * (LOOP_TIMES - 1) // LOOP_TIMES


class Repetition(RowColumn):
    """Repetition within the instruction and within the response.

    `*_repetition_ratio` is a share in [0, 1), see `repetition_ratio`; `*_loop` tells a runaway
    text, see `is_loop`. Null only where the text is.
    """

    name = "repetition"
    version = 1
    reads = ("instruction", "response")
    features: ClassVar[Mapping[str, str]] = {
        "instruction_repetition_ratio": "float64",
        "instruction_loop": "bool",
        "response_repetition_ratio": "float64",
        "response_loop": "bool",
    }

    def compute(self, batch: Batch) -> Values:
        """Look for repeated runs of words and for a tail that goes round."""
        return {
            "instruction_repetition_ratio": each(repetition_ratio, batch["instruction"]),
            "instruction_loop": each(is_loop, batch["instruction"]),
            "response_repetition_ratio": each(repetition_ratio, batch["response"]),
            "response_loop": each(is_loop, batch["response"]),
        }


@lru_cache(maxsize=8)  # a gate and two fields ask for it, one row at a time
def repetition_ratio(text: str) -> float:
    """Share of a text's runs of 8 words that occurred earlier in the same text.

    Words are separated by whitespace. Text of fewer than 9 words has at most one such run, so
    nothing can repeat and the share is 0; so it is for a script that is written without spaces.

    Returns:
        A share in [0, 1).
    """
    words = text.split()
    grams = len(words) - GRAM_WORDS + 1
    if grams < 2:
        return 0.0
    distinct = set(zip(*(words[offset:] for offset in range(GRAM_WORDS)), strict=False))
    return 1 - len(distinct) / grams


def is_loop(text: str) -> bool:
    """Tell whether a text ran away into repeating itself.

    It did where more than 0.15 of its runs of 8 words are repeats, or where it ends in a stretch
    of at least 40 characters that is one period at least 3 times over, whatever the script:
    the last 6,000 characters are looked at, trailing whitespace is not. A text that is mostly one
    paragraph pasted twice, or a table of equal lines, counts as a loop too.
    """
    return repetition_ratio(text) > LOOP_RATIO or _tail_repeats(text.rstrip()[-TAIL_CHARS:])


def _tail_repeats(tail: str) -> bool:
    """Try each distance at which the end of the text occurred before, nearest first."""
    if len(tail) < LOOP_CHARS:
        return False
    suffix = tail[-_SUFFIX_CHARS:]
    start = tail.rfind(suffix, 0, len(tail) - 1)
    while start != -1:
        period = len(tail) - len(suffix) - start
        times = max(LOOP_TIMES, ceil(LOOP_CHARS / period))
        if tail.endswith(tail[-period:] * times):
            return True
        start = tail.rfind(suffix, 0, start + len(suffix) - 1)
    return False
