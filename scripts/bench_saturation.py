#!/usr/bin/env python3
"""Print how busy a build keeps its endpoints: scripts/bench_saturation.py [ROWS] [CASE...].

Cases: 256, 1024 (slots of one endpoint), 4 (endpoints of different speed), 16 (equal ones).

A build runs whole, with gates, journal and cheap columns, against prequery's simulated fleet. In
the same run a bare aiohttp loop asks for the same slots, a row's two requests one after the other,
with constant concurrency and nothing else. Lengths are lognormal: medians of 25 and 350 tokens.

Scaled, so that a run takes less than a minute: a token takes 3 ms. A real server under load
takes some 20 ms, so what a client does weighs six times as much here as it would there.
"""

import asyncio
import heapq
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import aiohttp
import msgspec

from prequery import gates, instructions, pipeline, recipe, responses, slots
from prequery.endpoint import Answer, Request, read_answer
from prequery.fleet import Fleet
from prequery.pipeline import Build, Options
from prequery.prefix import Prefix, derive
from prequery.recipe import Recipe
from prequery.simulation import Counters, Machine, Settings, simulate
from prequery.simulation.settings import MODEL, REVISION

TOKEN_S = 0.003
CASES = {
    "256": (Machine(slots=256, token_s=TOKEN_S),),
    "1024": (Machine(slots=1024, token_s=TOKEN_S * 4),),
    "4": tuple(
        Machine(slots=slots, token_s=TOKEN_S * times)
        for slots, times in ((128, 0.5), (64, 1), (64, 1), (32, 2))
    ),
    "16": (Machine(slots=32, token_s=TOKEN_S * 2),) * 16,
}
RECIPE = """
name: saturation
version: 1.0.0
rows: {rows}
seed: 1
generator: {{model: {model}, revision: '{revision}'}}
instructions: [{{temperature: 1.0, max_new_tokens: 512}}]
responses: {{temperature: null, max_new_tokens: 2048}}
columns: [length, likelihood, repetition]
"""


class Told:
    """An observer that tells nobody."""

    def said(self, text: str) -> None:
        """Show what went wrong; a clean run says nothing."""
        print(text, file=sys.stderr)

    def answered(self, made: object, answer: object) -> None:
        """Tell nobody."""

    def attempted(self, attempt: object, reason: object) -> None:
        """Tell nobody."""


class Run(NamedTuple):
    """One way to ask for the rows.

    Args:
        wall_s: From the first two requests at once to the last answer, on the server's clock.
        whole_s: With start, columns and Parquet.
        needed: Generated tokens of the attempts that count.
        asked: Generated tokens of all answers.
        cpu_s: Of the client.
        counters: Of each endpoint.
    """

    wall_s: float
    whole_s: float
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


def run_build(made: Recipe, machines: tuple[Machine, ...]) -> tuple[Run, Build]:
    """Build, and say what it took."""
    with simulate(Settings(machines=machines)) as fleet, tempfile.TemporaryDirectory() as folder:
        options = Options(endpoints=tuple(fleet.urls), journal=Path(folder, "journal"))
        with timed() as spent:
            built = pipeline.build(made, options, Told(), Path(folder, "work"))
        counters = fleet.counters()
    return _run(counters, spent, built.selection.generated_tokens), built


def run_bare(made: Recipe, attempts: int, machines: tuple[Machine, ...]) -> tuple[Run, list[float]]:
    """Ask for as many slots in a bare loop; also return each slot's service time."""

    async def loop(urls: Sequence[str]) -> list[float]:
        async with Fleet(urls) as endpoint:
            prefix = await derive(endpoint)
        service = [0.0] * attempts
        numbers = iter(range(attempts))
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:

            async def worker(url: str, machine: Machine) -> None:
                async def ask(request: Request) -> Answer:
                    body = {"inputs": request.prompt, "parameters": request.parameters()}
                    data = msgspec.json.encode(body)
                    async with session.post(f"{url}/generate", data=data) as response:
                        return read_answer(await response.read(), request, None)

                for slot in numbers:
                    service[slot] = await _row(made, prefix, slot, machine, ask)

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
) -> float:
    """Ask for a row's two answers; return how long a slot worked on them."""
    drawn = slots.draw(made, slot)
    first = await ask(instructions.request(made, prefix, drawn))
    spent = machine.service_s(first.generated_tokens)
    if gates.instruction_reason(first, prefix.stop) is None:
        words = first.text.strip()
        second = await ask(responses.request(made, prefix, drawn, words))
        spent += machine.service_s(second.generated_tokens)
    return spent


def _run(counters: Sequence[Counters], spent: list[float], needed: int) -> Run:
    began = min(one.crowded_at for one in counters if one.crowded_at)
    wall_s = max(one.last_at for one in counters) - began
    asked = sum(one.generated_tokens for one in counters)
    return Run(wall_s, spent[0], needed, asked, spent[1], counters)


def schedule(service: Sequence[float], slots: int) -> float:
    """Return when the last row is finished if slots take rows in order, without any delay."""
    free = [0.0] * slots
    for one in service:
        heapq.heapreplace(free, free[0] + one)
    return max(free)


def bench(rows: int, case: str) -> None:
    """Run one case and print it."""
    machines = CASES[case]
    text = RECIPE.format(rows=rows, model=MODEL, revision=REVISION)
    made = recipe.read(text, "scripts/bench_saturation.py")
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
    print("| " + " | ".join(titles) + " |\n|" + "---|" * len(titles))
    for case in cases:
        bench(rows, case)


if __name__ == "__main__":
    given = sys.argv[1:]
    amount = int(given.pop(0)) if given and given[0] not in CASES else 4000
    main(amount, given or list(CASES))
