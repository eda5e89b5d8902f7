"""Which of several responses is chosen, and which is rejected."""

from collections.abc import Sequence
from typing import NamedTuple

UNSCORED = "preference: fewer than two responses with a score"
TIE = "preference: best and worst score are equal"
NARROW = "preference: margin below min_margin"


class Pair(NamedTuple):
    """Two responses, by their place among all of them, and how far apart their scores are."""

    chosen: int
    rejected: int
    margin: float


def choose(scores: Sequence[float | None], min_margin: float) -> Pair | str:
    """Choose the response with the highest score, and reject the one with the lowest.

    Args:
        scores: One for each response; null takes it out.
        min_margin: 0 or more.

    Returns:
        The pair, of equal scores the first; or one of the reasons above.

    Source:
        MAGPIE, arXiv 2406.08464, 4.1: five responses, the highest and the lowest reward. We differ:
        ties make no pair, and a margin can be asked for.
    """
    scored = [(score, at) for at, score in enumerate(scores) if score is not None]
    if len(scored) < 2:
        return UNSCORED
    best = max(scored, key=lambda one: (one[0], -one[1]))
    worst = min(scored)
    margin = best[0] - worst[0]
    if margin <= 0:
        return TIE
    if margin < min_margin:
        return NARROW
    return Pair(best[1], worst[1], margin)
