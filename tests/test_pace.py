"""The pace of an endpoint, from latencies and lengths."""

import random

import pytest

from prequery.pace import KNOWN, Fit, Pace


def test_a_wait_and_a_time_for_each_token_are_told_apart() -> None:
    chance, fit = random.Random(1), Fit()
    for _ in range(500):
        tokens = round(chance.lognormvariate(4, 1)) + 1
        fit.add(tokens, 3.0 + 0.02 * tokens * chance.uniform(0.9, 1.1))

    line = fit.line()

    assert line.wait_s == pytest.approx(3.0, rel=0.1)
    assert line.token_s == pytest.approx(0.02, rel=0.1)


def test_answers_of_one_length_are_taken_to_wait_for_nothing() -> None:
    fit = Fit()
    for _ in range(20):
        fit.add(50, 2.0)

    line = fit.line()

    assert line.wait_s == 0.0
    assert line.token_s == pytest.approx(0.04)


def test_the_deadline_follows_from_the_pace_and_what_is_asked_for() -> None:
    chance, pace = random.Random(1), Pace()
    for _ in range(KNOWN - 1):
        pace.note(100, 2.0)
    assert pace.deadline_s(2048) is None
    for _ in range(500):
        tokens = chance.randint(4, 400)
        pace.note(tokens, 0.5 + 0.02 * tokens * chance.uniform(0.8, 1.2))

    short, long = pace.deadline_s(64), pace.deadline_s(2048)

    assert short is not None
    assert long is not None
    # A whole answer takes 1.8 and 41.5 s here; the slowest are a fifth slower.
    assert 1.8 * 1.2 < short < 10
    assert 41.5 * 1.2 < long < 41.5 * 1.7
