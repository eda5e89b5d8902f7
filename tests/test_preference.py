"""Which response is chosen and which rejected."""

import pytest

from prequery.preference import NARROW, TIE, UNSCORED, Pair, choose


@pytest.mark.parametrize(
    ("scores", "min_margin", "found"),
    [
        ([1.0, 3.0, 2.0], 0.0, Pair(1, 0, 2.0)),
        ([3.0, 3.0, 1.0, 1.0], 0.0, Pair(0, 2, 2.0)),
        ([None, -1.0, None, -4.0], 0.0, Pair(1, 3, 3.0)),
        ([1.0, 1.5], 0.5, Pair(1, 0, 0.5)),
        ([1.0, 1.5], 0.6, NARROW),
        ([2.0, 2.0], 0.0, TIE),
        ([2.0, None], 0.0, UNSCORED),
        ([], 0.0, UNSCORED),
    ],
)
def test_the_best_is_chosen_and_the_worst_rejected(
    scores: list[float | None], min_margin: float, found: Pair | str
) -> None:
    assert choose(scores, min_margin) == found
