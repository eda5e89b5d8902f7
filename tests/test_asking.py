"""How long is asked: every answer bears its part, and the parts add up."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from prequery.asking import Asking
from prequery.budget import Budget
from prequery.endpoint import Answer, Asks, Request
from prequery.journal import Journal, Key
from prequery.recipe import Sampling

REQUEST = Request(prompt="Say it.", sampling=Sampling(max_new_tokens=8))


class Slow:
    """An endpoint that takes a tenth of a second for an answer, however many it is asked for."""

    async def generate(self, request: Request, where: str, urgent: bool = False) -> Answer:
        await asyncio.sleep(0.1)
        return Answer(text="It.", generated_tokens=1)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "journal", "f" * 64) as opened:
        yield opened


def waited_ms(
    journal: Journal, rounds: int, pause_s: float, timed: bool = True
) -> list[int | None]:
    """Ask ten at a time, with pauses in between; return what the journal's answers bear."""
    asking = Asking(lambda made, answer: None, Budget(), timed)
    endpoint = cast(Asks, Slow())
    keys = [[Key(10 * n + slot, "instruction") for slot in range(10)] for n in range(rounds)]

    async def ask() -> None:
        for ten in keys:
            await asyncio.gather(
                *(asking.ask(endpoint, journal, key, REQUEST, "here") for key in ten)
            )
            await asyncio.sleep(pause_s)

    asyncio.run(ask())
    return [answer.waited_ms for ten in keys for key in ten if (answer := journal.get(key))]


def test_what_is_asked_for_at_the_same_time_is_waited_for_once_and_a_pause_not_at_all(
    journal: Journal,
) -> None:
    waited = waited_ms(journal, rounds=3, pause_s=1.0)

    known = [ms for ms in waited if ms is not None]
    assert len(known) == 30
    assert 290 <= sum(known) < 1000


def test_answers_that_several_rows_share_bear_no_time(journal: Journal) -> None:
    assert waited_ms(journal, rounds=1, pause_s=0, timed=False) == [None] * 10
