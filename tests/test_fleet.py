"""Several endpoints as one, over real connections that break, stall and come back."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack

import pytest
from aiohttp import web

from prequery.endpoint import Answer, Request
from prequery.errors import EndpointError
from prequery.fleet import Fleet
from prequery.recipe import Sampling
from prequery.transport import Patience
from scripted_tgi import Json, ScriptedTgi

AT_ONCE = Patience(
    first_wait_s=0, longest_wait_s=0.05, overloaded_s=20, down_s=0.5, request_s=5, look_s=0.05
)


def asked(seed: int) -> Request:
    sampling = Sampling(temperature=1.0, max_new_tokens=9)
    return Request(prompt="<|im_start|>user\n", sampling=sampling, seed=seed)


def run(
    servers: list[ScriptedTgi],
    work: Callable[[Fleet], Awaitable[None]],
    patience: Patience = AT_ONCE,
    limit: int | None = None,
) -> tuple[Fleet, list[str]]:
    said: list[str] = []

    async def main() -> Fleet:
        urls = [server.url for server in servers]
        async with Fleet(urls, None, patience, limit, said.append) as fleet:
            await work(fleet)
        return fleet

    with ExitStack() as stack:
        for server in servers:
            stack.enter_context(server.serving())
        return asyncio.run(main()), said


async def keep_full(fleet: Fleet, count: int) -> list[Answer]:
    """Ask for `count` answers, with as many in flight as the fleet takes."""
    answers: list[Answer] = []
    seeds = iter(range(1, count + 1))
    open_: set[asyncio.Task[Answer]] = set()
    while True:
        while len(open_) < fleet.capacity and (seed := next(seeds, None)):
            open_.add(asyncio.create_task(fleet.generate(asked(seed), f"slot {seed}")))
        if not open_:
            return answers
        done, open_ = await asyncio.wait(open_, return_when=asyncio.FIRST_COMPLETED)
        answers += [task.result() for task in done]


def limited(server: ScriptedTgi, most: int) -> ScriptedTgi:
    """Let a server answer 429 whenever it has more than `most` requests, whatever it says."""
    busy = 0

    async def fault(request: web.Request, body: Json, before: int) -> web.StreamResponse | None:
        nonlocal busy
        if busy >= most:
            return web.json_response({"error": "Model is overloaded"}, status=429)
        busy += 1
        try:
            await asyncio.sleep(0.02)
        finally:
            busy -= 1
        return None

    server.fault = fault
    return server


def test_work_flows_to_whoever_has_room() -> None:
    # Far longer than a busy machine takes to send and read an answer.
    slow, fast = ScriptedTgi(delay_s=1), ScriptedTgi(delay_s=0.1)

    async def work(fleet: Fleet) -> None:
        assert fleet.capacity == 32
        answers = await keep_full(fleet, 400)
        assert all(answer.text for answer in answers)

    fleet, _ = run([slow, fast], work)

    shares = [member.answered for member in fleet.members]
    assert sum(shares) == 400
    assert shares[1] > 4 * shares[0]


def test_the_limit_settles_below_what_answers_429_and_never_falls_to_idle() -> None:
    server = limited(ScriptedTgi(), 6)
    server.info["max_concurrent_requests"] = 128

    async def work(fleet: Fleet) -> None:
        await keep_full(fleet, 800)
        assert 3 <= fleet.capacity <= 12

    fleet, _ = run([server], work)

    (member,) = fleet.members
    assert member.answered == 800
    assert member.overloaded < 0.35 * 800


def test_a_429_now_and_then_costs_no_concurrency() -> None:
    async def fault(request: web.Request, body: Json, before: int) -> web.StreamResponse | None:
        await asyncio.sleep(0.01)
        chosen = body["parameters"]["seed"] % 50 == 0 and not before
        return web.json_response({"error": "Model is overloaded"}, status=429) if chosen else None

    async def work(fleet: Fleet) -> None:
        await keep_full(fleet, 800)
        assert fleet.capacity >= 12

    fleet, _ = run([ScriptedTgi(fault=fault)], work)

    assert fleet.members[0].overloaded == 16


def test_an_explicit_limit_is_honoured() -> None:
    most = 0
    busy = 0

    async def fault(request: web.Request, body: Json, before: int) -> web.StreamResponse | None:
        nonlocal most, busy
        busy += 1
        most = max(most, busy)
        await asyncio.sleep(0.01)
        busy -= 1
        return None

    run([ScriptedTgi(fault=fault)], lambda fleet: _discard(keep_full(fleet, 50)), limit=3)

    assert most == 3


def test_an_explicit_limit_is_for_all_endpoints_together_and_exact() -> None:
    busy = most = 0

    async def fault(request: web.Request, body: Json, before: int) -> web.StreamResponse | None:
        nonlocal most, busy
        busy += 1
        most = max(most, busy)
        await asyncio.sleep(0.05)
        busy -= 1
        return None

    async def work(fleet: Fleet) -> None:
        assert fleet.capacity == 10
        await asyncio.gather(*(fleet.generate(asked(seed), "x") for seed in range(1, 61)))
        assert sum(member.answered > 0 for member in fleet.members) == 3

    run([ScriptedTgi(fault=fault) for _ in range(3)], work, limit=10)

    assert most == 10


class Unhurried(Patience):
    """Waits for the whole of the time from which others draw, and no less by chance."""

    def wait_s(self, waits: int) -> float:
        return self.first_wait_s


def test_a_request_that_waits_to_be_sent_again_makes_room_for_another() -> None:
    async def fault(request: web.Request, body: Json, before: int) -> web.StreamResponse | None:
        chosen = body["parameters"]["seed"] <= 2 and not before
        return web.Response(status=503) if chosen else None

    async def work(fleet: Fleet) -> None:
        waiting = [asyncio.create_task(fleet.generate(asked(seed), "x")) for seed in (1, 2)]
        while fleet.capacity < 18:
            await asyncio.sleep(0.01)
        assert fleet.members[0].in_flight == 0
        assert all(answer.text for answer in await asyncio.gather(*waiting))
        assert fleet.capacity == 16

    patience = Unhurried(first_wait_s=3, longest_wait_s=0.05, look_s=0.05)
    run([ScriptedTgi(fault=fault)], work, patience)


def test_a_stalled_connection_is_given_up_in_the_time_that_its_tokens_would_take() -> None:
    stalled: list[int] = []

    async def fault(request: web.Request, body: Json, before: int) -> web.StreamResponse | None:
        if body["parameters"]["seed"] == 60 and not before:
            stalled.append(1)
            await asyncio.sleep(60)
        return None

    async def work(fleet: Fleet) -> None:
        started = time.monotonic()
        assert all(answer.text for answer in await keep_full(fleet, 100))
        assert time.monotonic() - started < 15  # of request_s, 600

    patience = Patience(first_wait_s=0, longest_wait_s=0.05, least_s=3, look_s=0.1)
    fleet, said = run([ScriptedTgi(fault=fault, delay_s=0.02)], work, patience)

    assert (stalled, fleet.members[0].faulty) == ([1], 1)
    assert said == []


def test_a_member_that_says_nothing_any_more_is_left_and_its_requests_go_elsewhere() -> None:
    silent = ScriptedTgi(delay_s=0.01)
    gone = False

    async def fault(request: web.Request, body: Json, before: int) -> web.StreamResponse | None:
        if gone:
            await asyncio.sleep(60)
        return None

    silent.fault = fault

    async def work(fleet: Fleet) -> None:
        nonlocal gone
        await keep_full(fleet, 60)
        gone, silent.healthy = True, False
        started = time.monotonic()
        assert all(answer.text for answer in await keep_full(fleet, 200))
        # Neither request_s nor least_s has passed.
        assert time.monotonic() - started < 15
        assert not fleet.members[0].healthy

    patience = Patience(first_wait_s=0, longest_wait_s=0.05, least_s=100, look_s=0.1)
    _, said = run([silent, ScriptedTgi(delay_s=0.01)], work, patience)

    assert said == [f"{silent.url} is left: it answered nothing"]


def test_faults_that_come_together_cost_a_healthy_member_nothing() -> None:
    async def fault(request: web.Request, body: Json, before: int) -> web.StreamResponse | None:
        await asyncio.sleep(0.02)
        # A generation that fails takes its whole batch with it.
        chosen = 40 < body["parameters"]["seed"] <= 56 and not before
        return web.Response(status=424) if chosen else None

    async def work(fleet: Fleet) -> None:
        assert all(answer.text for answer in await keep_full(fleet, 200))
        assert fleet.capacity == 16

    patience = Patience(first_wait_s=0.01, longest_wait_s=0.05)
    _, said = run([ScriptedTgi(fault=fault)], work, patience)

    assert said == []


async def _discard(work: Awaitable[object]) -> None:
    await work


def test_two_models_are_refused_naming_both() -> None:
    other = ScriptedTgi()
    other.info["model_sha"] = "6" * 40

    with pytest.raises(EndpointError) as caught:
        run([ScriptedTgi(), other], lambda fleet: _discard(keep_full(fleet, 1)))

    assert caught.value.what == (
        f"two endpoints serve two models: acme/scripted@{'5' * 40} and acme/scripted@{'6' * 40}"
    )


def test_a_member_that_goes_is_left_and_taken_back_when_it_is_healthy() -> None:
    gone = ScriptedTgi(delay_s=0.01)
    down = False

    async def fault(request: web.Request, body: Json, before: int) -> web.StreamResponse | None:
        return web.Response(status=503) if down else None

    gone.fault = fault

    async def work(fleet: Fleet) -> None:
        nonlocal down
        await keep_full(fleet, 50)
        down, gone.healthy = True, False
        before = fleet.members[0].answered
        assert not any(answer.failed for answer in await keep_full(fleet, 100))
        assert not fleet.members[0].healthy
        assert fleet.members[0].answered - before <= 16
        down, gone.healthy = False, True
        while not fleet.members[0].healthy:
            await asyncio.sleep(0.01)
        before = fleet.members[0].answered
        await keep_full(fleet, 100)
        assert fleet.members[0].answered > before

    _, said = run([gone, ScriptedTgi(delay_s=0.01)], work)

    assert said == [f"{gone.url} is left: it answered 503", f"{gone.url} is back"]


def test_a_member_that_comes_back_with_another_model_is_not_taken_back() -> None:
    changed = ScriptedTgi()
    down = True

    async def fault(request: web.Request, body: Json, before: int) -> web.StreamResponse | None:
        return web.Response(status=503) if down else None

    changed.fault = fault

    async def work(fleet: Fleet) -> None:
        nonlocal down
        changed.info = changed.info | {"model_id": "acme/other"}
        await keep_full(fleet, 100)
        down = False
        await asyncio.sleep(0.2)
        assert not fleet.members[0].healthy

    run([changed, ScriptedTgi()], work)


def test_a_stalled_request_frees_its_place_and_is_answered_elsewhere() -> None:
    async def hang(request: web.Request, body: Json, before: int) -> web.StreamResponse | None:
        await asyncio.sleep(60)
        return None

    async def work(fleet: Fleet) -> None:
        started = time.monotonic()
        answers = await keep_full(fleet, 40)
        assert all(answer.text for answer in answers)
        assert time.monotonic() - started < 15  # of the 60 that it hangs

    patience = Patience(first_wait_s=0, longest_wait_s=0.05, request_s=1, down_s=5)
    run([ScriptedTgi(fault=hang), ScriptedTgi()], work, patience)


def test_all_endpoints_down_ends_every_request_after_the_patience() -> None:
    async def refuse(request: web.Request, body: Json, before: int) -> web.StreamResponse | None:
        return web.Response(status=500)

    async def work(fleet: Fleet) -> None:
        results = await asyncio.gather(
            *(fleet.generate(asked(seed), "x") for seed in range(1, 40)), return_exceptions=True
        )
        assert {type(result) for result in results} <= {EndpointError, Answer}
        assert any(isinstance(result, EndpointError) for result in results)

    run([ScriptedTgi(fault=refuse, healthy=False)], work)


def test_urgent_requests_go_first() -> None:
    order: list[str] = []

    async def work(fleet: Fleet) -> None:
        async def one(seed: int, urgent: bool) -> None:
            await fleet.generate(asked(seed), "x", urgent)
            order.append("urgent" if urgent else "patient")

        first = asyncio.create_task(one(1, urgent=False))
        await asyncio.sleep(0.01)
        later = [asyncio.create_task(one(seed, urgent=seed % 2 == 0)) for seed in range(2, 10)]
        await asyncio.gather(first, *later)

    run([ScriptedTgi(delay_s=0.02)], work, limit=1)

    assert order == ["patient"] + ["urgent"] * 4 + ["patient"] * 4


def test_a_cancelled_request_gives_its_place_back() -> None:
    async def work(fleet: Fleet) -> None:
        tasks = [asyncio.create_task(fleet.generate(asked(seed), "x")) for seed in range(1, 9)]
        await asyncio.sleep(0.02)
        for task in tasks[::2]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert fleet.members[0].in_flight == 0
        assert (await fleet.generate(asked(99), "x")).text

    run([ScriptedTgi(delay_s=0.05)], work, limit=2)
