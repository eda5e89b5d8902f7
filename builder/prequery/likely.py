"""Log-probabilities of tokens, added up: of those that were written, or of a text that was read."""

import math
import operator
from collections.abc import Sequence
from typing import NamedTuple

MOST_JOINED = 4
"""Tokens at the end of a prompt that may be others once a text stands behind it."""


class Likely(NamedTuple):
    """The log-probabilities of some tokens in four numbers; see `endpoint.Answer`."""

    total: float | None = None
    squares: float | None = None
    lowest: float | None = None
    tokens: int = 0


def summed(logprobs: Sequence[float | None]) -> Likely:
    """Return sum, sum of squares, least and count of those that are there.

    `fsum`, because `sum` of floats gives other last digits from Python 3.12 on.

    Raises:
        ValueError: One is no number, or so far from any logarithm that its square is none.
    """
    known: Sequence[float] = logprobs  # type: ignore[assignment]
    try:
        # Almost always none is null, and then nothing is looked at one by one.
        return _likely(known)
    except (TypeError, ValueError):  # a null among them; none at all
        known = [one for one in logprobs if one is not None]
        return _likely(known) if known else Likely()


def behind(
    prompt: Sequence[int], whole: Sequence[int], logprobs: Sequence[float | None]
) -> Likely | None:
    """Add up the log-probabilities of the tokens that stand behind a prompt.

    A token that begins in the prompt and ends behind it counts: only tokens that both have in
    common, from the first on, are the prompt's. The very first token of all follows on nothing, has
    no probability, and is left out.

    Args:
        prompt: Ids of the prompt alone.
        whole: Ids of the prompt and what stands behind it.
        logprobs: Of each of `whole`; null: not told.

    Returns:
        Null where one of them is not told, where there is none, or where the prompt's tokens are
        not found at the beginning of the whole.
    """
    if len(logprobs) != len(whole):
        return None
    pairs = enumerate(zip(prompt, whole, strict=False))
    start = next((at for at, (one, other) in pairs if one != other), min(len(prompt), len(whole)))
    if start < len(prompt) - MOST_JOINED:
        return None
    span = logprobs[max(start, 1) :]
    return summed(span) if span and None not in span else None


def _likely(known: Sequence[float]) -> Likely:
    try:
        squares = math.fsum(map(operator.mul, known, known))
    except OverflowError:
        squares = math.inf
    if not math.isfinite(squares):
        raise ValueError("log-probabilities that no model gives")
    return Likely(math.fsum(known), squares, min(known), len(known))
