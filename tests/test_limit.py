"""The limit finds itself, against a queueing server in virtual time."""

import pytest

from prequery.limit import Limit
from queueing import Server, World

SEEDS = (1, 2, 3)


class Fixed(Limit):
    """A limit that somebody knows to be the best one."""

    def note_answer(
        self, sent_in: int, level: int, tokens: int, latency_s: float, mean_tokens: float
    ) -> None:
        pass

    def note_overload(self, sent_in: int, level: int) -> None:
        pass


def best(server: Server, limit: int, answers: int, seed: int) -> float:
    """Return the throughput under the best limit."""
    return World(server, Fixed(limit), seed).run(answers)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("takes", "slots"), [(128, 32), (128, 100), (256, 256), (512, 128)])
def test_behind_a_queue_it_settles_near_the_knee_and_loses_nothing(
    takes: int, slots: int, seed: int
) -> None:
    server = Server(slots=slots, takes=takes)
    world = World(server, Limit(takes), seed)

    speed = world.run(20_000)

    assert speed >= 0.98 * best(server, min(takes, round(slots * 1.1)), 20_000, seed)
    assert slots <= world.limit.value <= slots * 1.3
    assert world.refused == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_from_a_modest_number_it_finds_256_slots_within_a_few_rounds(seed: int) -> None:
    server = Server(slots=256)
    world = World(server, Limit(None), seed)

    world.run(300)
    assert world.in_flight >= 256
    world.run(6000)

    assert 256 <= world.limit.value <= 256 * 1.3
    assert world.run(6000) >= 0.98 * best(server, 280, 6000, seed)


def test_that_each_token_takes_longer_in_a_larger_batch_is_no_reason_to_stop() -> None:
    # A batch of 256 takes twice as long for a token as one request alone, and brings 128 x more.
    world = World(Server(slots=256, slowdown=1 / 256), Limit(None))

    world.run(10_000)

    assert world.limit.value >= 256


def test_a_long_prompt_is_work_and_no_queue() -> None:
    server = Server(slots=128, takes=128, prefill_s=1.0)
    world = World(server, Limit(128))

    speed = world.run(8000)

    assert speed >= 0.98 * best(server, 128, 8000, seed=1)


@pytest.mark.parametrize(("says", "takes"), [(256, 64), (128, 6), (None, 200)])
def test_where_more_are_refused_it_stays_just_below(says: int | None, takes: int) -> None:
    world = World(Server(slots=takes, takes=takes), Limit(says))

    world.run(2000)
    before = world.refused
    world.run(6000)

    assert 0.9 * takes <= world.limit.value <= takes
    assert world.refused - before < 0.01 * 6000


def test_429_without_a_reason_costs_no_concurrency() -> None:
    world = World(Server(slots=256, takes=256, refuses_ratio=0.02), Limit(256))

    world.run(8000)

    assert world.limit.value >= 250


def test_it_never_falls_to_idle_and_is_soon_back_when_others_have_gone() -> None:
    server = Server(slots=128, takes=128)
    world = World(server, Limit(128))
    world.run(2000)

    server.takes = server.slots = 1  # others have the rest
    world.run(200)
    assert world.limit.value >= 1
    server.takes = server.slots = 128
    world.run(1500)

    assert world.in_flight >= 64
    world.run(3000)
    assert world.limit.value >= 115


def test_a_limit_that_somebody_set_is_kept() -> None:
    world = World(Server(slots=8), Limit(50, adapts=False))

    world.run(3000)

    assert world.limit.value == 50


def test_an_endpoint_that_was_away_is_full_again_within_a_few_rounds() -> None:
    world = World(Server(slots=256, takes=256), Limit(256))
    world.run(3000)

    world.limit.start_again()
    assert world.limit.value == 128
    world.run(500)

    assert world.limit.value == 256
