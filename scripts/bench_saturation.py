#!/usr/bin/env python3
"""Print how busy a build keeps its endpoints: scripts/bench_saturation.py [ROWS] [CASE...].

Cases: 256, 1024 (slots of one endpoint), 4 (endpoints of different speed), 16 (equal ones), real
(256 slots at the speed of a real server: seven minutes); queue (takes four times what it decodes at
once, known and unknown), faults (mixed ones), death (of one endpoint in four), asked (requests of
small builds).

A build runs whole, with gates, journal and cheap columns, against prequery's simulated fleet. In
the same run a bare aiohttp loop asks for the same slots, a row's two requests one after the other,
with constant concurrency and nothing else. Lengths are lognormal: medians of 25 and 350 tokens.

All but `real` is scaled, so that a run takes less than a minute: a token takes 3 ms. A real server
under load takes some 20 ms, so what a client does weighs six times as much here as it would there.
"""

import asyncio
import heapq
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import msgspec

from prequery import gates, instructions, pipeline, recipe, responses, slots
from prequery.endpoint import Answer, Request, read_answer
from prequery.firsts import Firsts
from prequery.fleet import Fleet
from prequery.options import Options
from prequery.pipeline import Build
from prequery.prefix import Prefix, derive
from prequery.recipe import Recipe
from prequery.simulation import Counters, Faults, Machine, Settings, simulate
from prequery.simulation.settings import MODEL, REVISION
from prequery.synthesis import Silent
from prequery.transport import Patience

TOKEN_S = 0.003
CASES = {
    "256": (Machine(slots=256, token_s=TOKEN_S),),
    "1024": (Machine(slots=1024, token_s=TOKEN_S * 4),),
    "4": tuple(
        Machine(slots=slots, token_s=TOKEN_S * times)
        for slots, times in ((128, 0.5), (64, 1), (64, 1), (32, 2))
    ),
    "16": (Machine(slots=32, token_s=TOKEN_S * 2),) * 16,
    "real": (Machine(slots=256, token_s=0.020),),
}
QUEUE = Machine(slots=64, token_s=TOKEN_S, max_concurrent_requests=256)
QUEUES = {
    "says that it takes 256": QUEUE,
    "does not say": msgspec.structs.replace(QUEUE, tells_limit=False),
}
# A real token takes 20 ms or more, so waits are scaled as tokens are.
PATIENCE = Patience(
    first_wait_s=0.15, longest_wait_s=4.5, least_s=1.5, look_s=0.15, overloaded_s=60, request_s=90
)
NO_FAULTS = Faults()
FAULTS = Faults(
    overloaded=0.02,
    unhealthy=0.01,
    failed=0.002,
    reset=0.01,
    truncated=0.01,
    malformed=0.002,
    stall=0.001,
    drip=0.002,
    drip_s=0.5,
)
RECIPE = """
name: saturation
version: 1.0.0
rows: {rows}
seed: 1
generator: {{model: {model}, revision: '{revision}'}}
instructions: [{{temperature: 1.0, max_new_tokens: {most}}}]
responses: {{temperature: null, max_new_tokens: 2048}}
columns: [length, likelihood, repetition]
filters: [{kept}]
max_attempts: {attempts}
"""
SMALL = 200
PROOFS = 4  # requests that prove the prefix at every start
# Instructions of so many tokens at most are some 70 and 20 % of all. They differ in nothing else,
# so what is cut off or filtered out says nothing of the response.
REJECTING: dict[str, dict[str, Any]] = {
    "nothing": {},
    "30 % of the instructions, cut off": {"most": 38},
    "80 % of the instructions, cut off": {"most": 13},
    "a filter, 30 % of the rows": {"kept": "instruction_tokens <= 38"},
    "a filter, 80 % of the rows": {"kept": "instruction_tokens <= 13"},
    "a filter, 30 % of the rows: the shortest responses": {"kept": "response_tokens > 230"},
}


class Told(Silent):
    """An observer that notes when attempts are finished.

    Args:
        count: After so many attempts it does something.
        act: What it does then.
    """

    def __init__(self, count: int = 0, act: Callable[[], None] | None = None) -> None:
        self.finished_at: list[float] = []
        self._count, self._act = count, act

    def said(self, text: str) -> None:
        """Show what went wrong; a clean run says nothing."""
        print(text, file=sys.stderr)

    def attempted(self, attempt: object, reason: object) -> None:
        """Note the time."""
        self.finished_at.append(time.perf_counter())
        if self._act and len(self.finished_at) == self._count:
            self._act()

    def rate(self, start: float, end: float) -> float:
        """Return attempts a second between two shares of all attempts."""
        first, last = (int(len(self.finished_at) * share) for share in (start, end))
        return (last - first) / (self.finished_at[last] - self.finished_at[first])

    def middle_s(self) -> float:
        """Return the time between a tenth and nine tenths of the attempts: without the tail."""
        at, count = self.finished_at, len(self.finished_at)
        return at[count * 9 // 10] - at[count // 10]


class Run(NamedTuple):
    """One way to ask for the rows.

    Args:
        wall_s: From the first two requests at once to the last answer, on the server's clock.
        whole_s: With start, columns and Parquet.
        middle_s: Between a tenth and nine tenths of the attempts; 0 where it is not measured.
        needed: Generated tokens of the attempts that count.
        asked: Generated tokens of all answers.
        cpu_s: Of the client.
        counters: Of each endpoint.
    """

    wall_s: float
    whole_s: float
    middle_s: float
    needed: int
    asked: int
    cpu_s: float
    counters: Sequence[Counters]


@contextmanager
def timed() -> Iterator[list[float]]:
    """Measure wall and CPU of a block."""
    spent: list[float] = []
    wall, cpu = time.perf_counter(), time.process_time()
    yield spent
    spent += [time.perf_counter() - wall, time.process_time() - cpu]


def run_build(
    made: Recipe, machines: tuple[Machine, ...], faults: Faults = NO_FAULTS
) -> tuple[Run, Build]:
    """Build, and say what it took."""
    with (
        simulate(Settings(machines=machines, faults=faults)) as fleet,
        tempfile.TemporaryDirectory() as folder,
    ):
        options = Options(
            endpoints=tuple(fleet.urls), journal=Path(folder, "journal"), patience=PATIENCE
        )
        told = Told()
        with timed() as spent:
            built = pipeline.build(made, options, told, Path(folder, "work"))
        counters = fleet.counters()
    run = _run(counters, spent, built.selection.generated_tokens)
    return run._replace(middle_s=told.middle_s()), built


def run_bare(made: Recipe, attempts: int, machines: tuple[Machine, ...]) -> tuple[Run, list[float]]:
    """Ask for as many slots in a bare loop; also return each slot's service time."""

    async def loop(urls: Sequence[str]) -> list[float]:
        async with Fleet(urls) as endpoint:
            prefix = await derive(endpoint)
        service = [0.0] * attempts
        numbers = iter(range(attempts))
        firsts = Firsts()
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:

            async def worker(url: str, machine: Machine) -> None:
                async def ask(request: Request) -> Answer:
                    body = {"inputs": request.prompt, "parameters": request.parameters()}
                    data = msgspec.json.encode(body)
                    async with session.post(f"{url}/generate", data=data) as response:
                        return read_answer(await response.read(), request, None)

                for slot in numbers:
                    service[slot] = await _row(made, prefix, slot, machine, ask, firsts)

            await asyncio.gather(
                *(
                    worker(url, machine)
                    for url, machine in zip(urls, machines, strict=True)
                    for _ in range(machine.slots)
                )
            )
        return service

    with simulate(Settings(machines=machines)) as fleet:
        with timed() as spent:
            service = asyncio.run(loop(fleet.urls))
        counters = fleet.counters()
    tokens = sum(one.generated_tokens for one in counters)
    return _run(counters, spent, tokens), service


async def _row(
    made: Recipe,
    prefix: Prefix,
    slot: int,
    machine: Machine,
    ask: Callable[[Request], Awaitable[Answer]],
    firsts: Firsts,
) -> float:
    """Ask for the answers that a build asks for; return how long a slot worked on them."""
    drawn = slots.draw(made, slot)
    first = await ask(instructions.request(made, prefix, drawn))
    spent = machine.service_s(first.generated_tokens)
    words = first.text.strip()
    is_first = firsts.note(words, slot) == slot
    if is_first and gates.instruction_reason(first, prefix.stop) is None:
        second = await ask(responses.request(made, prefix, drawn, words))
        spent += machine.service_s(second.generated_tokens)
    return spent


def _run(counters: Sequence[Counters], spent: list[float], needed: int) -> Run:
    began = min(one.crowded_at for one in counters if one.crowded_at)
    wall_s = max(one.last_at for one in counters) - began
    asked = sum(one.generated_tokens for one in counters)
    return Run(wall_s, spent[0], 0.0, needed, asked, spent[1], counters)


def schedule(service: Sequence[float], slots: int) -> float:
    """Return when the last row is finished if slots take rows in order, without any delay."""
    free = [0.0] * slots
    for one in service:
        heapq.heapreplace(free, free[0] + one)
    return max(free)


def bench(rows: int, case: str) -> None:
    """Run one case and print it."""
    machines = CASES[case]
    made = _recipe(rows)
    run, built = run_build(made, machines)
    bare, service = run_bare(made, built.selection.attempts, machines)
    places = sum(machine.slots for machine in machines)
    # Slots of different speed: what counts is how many tokens all of them write.
    tokens_per_s = sum(machine.slots / machine.token_s for machine in machines)
    name = f"{len(machines)} endpoint{'s' * (len(machines) > 1)}, {places} slots"
    mine, theirs = (one.needed / tokens_per_s / one.wall_s for one in (run, bare))
    perfect = schedule(service, places)
    print(f"| {name} | {rows} of {built.selection.attempts} |", end="")
    print(f" {run.wall_s:.2f} | {run.whole_s:.2f} | {bare.wall_s:.2f} |", end="")
    print(f" {run.needed / tokens_per_s:.2f} | {perfect:.2f} |", end="")
    print(f" {mine:.3f} | {theirs:.3f} | {mine / theirs:.3f} |", end="")
    print(f" {run.needed / run.asked:.3f} | {run.cpu_s / rows * 1000:.2f} |", end="")
    print(
        " " + " ".join(f"{share:.2f}" for share in _fed(run.counters, machines)) + " |", flush=True
    )


def bench_queue(rows: int) -> None:
    """Print what the limit that finds itself brings, beside the best that could be set."""
    print(f"\n{QUEUE.slots} slots behind a queue; {rows} rows\n")
    print("| endpoint | limit set to | wall s | most in flight | tokens/s, of the best limit's |")
    print("|---|---|---|---|---|")
    best = 0.0
    for name, machine, limit in (
        ("says that it takes 256", QUEUE, QUEUE.slots + 6),
        *((name, machine, None) for name, machine in QUEUES.items()),
    ):
        made = _recipe(rows, limit)
        run, _ = run_build(made, (machine,))
        (counters,) = run.counters
        rate = counters.fed_busy_s / (counters.fed_until - counters.crowded_at)
        best = best or rate
        at_once = f"{limit or 'finds itself'}"
        print(f"| {name} | {at_once} | {run.wall_s:.2f} | {counters.crowd} |", end="")
        print(f" {rate / best:.3f} |", flush=True)


def bench_faults(rows: int) -> None:
    """Print a clean build and one through mixed faults."""
    machines = CASES["256"]
    print(f"\n{rows} rows on 256 slots, clean and through faults: {_named(FAULTS)}\n")
    print("| build | wall s | of the clean rate | from 10 to 90 % of the attempts, s |", end="")
    print(" of the clean rate | slot time not wasted by faults | tried again | 429 | CPU s |")
    print("|---|---|---|---|---|---|---|---|---|")
    clean: Run | None = None
    for name, faults in (("clean", NO_FAULTS), ("faulty", FAULTS)):
        run, _ = run_build(_recipe(rows), machines, faults)
        (counters,) = run.counters
        clean = clean or run
        refused = counters.refused + counters.faults.get("overloaded", 0)
        again = sum(counters.faults.values()) - refused - counters.faults.get("drip", 0)
        print(f"| {name} | {run.wall_s:.2f} | {clean.wall_s / run.wall_s:.3f} |", end="")
        print(f" {run.middle_s:.2f} | {clean.middle_s / run.middle_s:.3f} |", end="")
        print(f" {counters.service_s / counters.busy_s:.3f} |", end="")
        print(f" {again / counters.requests:.1%} | {refused / counters.requests:.1%} |", end="")
        print(f" {run.cpu_s / rows * 1000:.2f} |", flush=True)


def bench_death(rows: int) -> None:
    """Print what is left of the rate when one endpoint of four dies, a third of the way."""
    machines = (Machine(slots=64, token_s=TOKEN_S),) * 4
    with (
        simulate(Settings(machines=machines)) as fleet,
        tempfile.TemporaryDirectory() as folder,
    ):
        options = Options(
            endpoints=tuple(fleet.urls), journal=Path(folder, "journal"), patience=PATIENCE
        )
        told = Told(rows // 3, partial(fleet.kill, 0))
        pipeline.build(_recipe(rows), options, told, Path(folder, "work"))
    at = told.finished_at
    # From the death on: the longest time without a finished attempt, and the rate that is left.
    gap_s = max(b - a for a, b in pairwise(at[rows // 3 : len(at) * 9 // 10]))
    before, after = told.rate(0.1, 0.3), told.rate(0.4, 0.9)
    print(f"\n{rows} rows on 4 endpoints of 64 slots; one dies after {rows // 3} attempts\n")
    print("| attempts/s before | after | of three quarters of the former | longest gap s |")
    print("|---|---|---|---|")
    print(f"| {before:.1f} | {after:.1f} | {after / (before * 3 / 4):.3f} | {gap_s:.2f} |")


def bench_asked() -> None:
    """Print how many requests small builds make, whose slots could all be in flight at once."""
    print(
        f"\n{SMALL} rows; requests of the slots up to the last row, and requests that were made\n"
    )
    print(
        "| what rejects | rows of attempts | slots of the endpoint | needed | made | ratio |",
        end="",
    )
    print(" wall s |\n|---|---|---|---|---|---|---|")
    for name, rejecting in REJECTING.items():
        for case in ("256", "1024"):
            run, built = run_build(_recipe(SMALL, **rejecting), CASES[case])
            needed = built.selection.requests
            made = sum(one.requests for one in run.counters) - PROOFS
            print(f"| {name} | {SMALL} of {built.selection.attempts} | {case} |", end="")
            print(f" {needed} | {made} | {made / needed:.3f} | {run.wall_s:.2f} |", flush=True)


def _named(faults: Faults) -> str:
    return ", ".join(f"{kind} {rate:.1%}" for kind, rate in faults.rates().items() if rate)


def _recipe(rows: int, limit: int | None = None, most: int = 512, kept: str = "") -> Recipe:
    text = RECIPE.format(
        rows=rows, model=MODEL, revision=REVISION, most=most, kept=kept, attempts=20 * rows
    )
    if limit:
        text += f"endpoint: {{url: 'http://127.0.0.1', concurrency: {limit}}}\n"
    return recipe.read(text, "scripts/bench_saturation.py")


def _fed(counters: Sequence[Counters], machines: Sequence[Machine]) -> list[float]:
    """Return each endpoint's utilisation until the whole fleet's last request, without the tail."""
    began = min(one.crowded_at for one in counters)
    seconds = max(one.fed_until for one in counters) - began
    return [c.fed_busy_s / m.slots / seconds for c, m in zip(counters, machines, strict=True)]


def main(rows: int, cases: Sequence[str]) -> None:
    """Print a row for each case."""
    print(f"load of the machine before: {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")
    print(f"{rows} rows; times in s; CPU s are of the build per 1,000 rows\n")
    titles = (
        "fleet",
        "rows of attempts",
        "wall",
        "with start, columns, Parquet",
        "bare loop",
        "ideal",
        "noise-free schedule",
        "efficiency",
        "of the bare loop",
        "ratio",
        "of the tokens, needed",
        "CPU s",
        "utilisation of each until the last request",
    )
    fleets = [case for case in cases if case in CASES]
    if fleets:
        print("| " + " | ".join(titles) + " |\n|" + "---|" * len(titles))
    for case in fleets:
        bench(rows, case)
    if "queue" in cases:
        bench_queue(rows // 2)
    if "faults" in cases:
        bench_faults(rows)
    if "death" in cases:
        bench_death(rows)
    if "asked" in cases:
        bench_asked()


if __name__ == "__main__":
    given = sys.argv[1:]
    every = [*CASES, "queue", "faults", "death", "asked"]
    amount = int(given.pop(0)) if given and given[0] not in every else 4000
    main(amount, given or every)
