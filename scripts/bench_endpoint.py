#!/usr/bin/env python3
"""Print what a request costs us: scripts/bench_endpoint.py [REQUESTS].

The server is prequery's simulated fleet without any service time, in a process of its own; every
figure of a run is from the same run, and CPU is that of this process alone. One request is what a
build does with it: a seeded `/generate` with details, parsed, gated, and in the journal.

The last table is of a whole build: answers of 25 and 350 tokens (medians, with a heavy tail),
gates, journal, columns of a row's own, Parquet, and what is imported on the way.
"""

import asyncio
import cProfile
import json
import os
import pstats
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import AsyncInferenceClient

from prequery import gates, pipeline, recipe
from prequery.endpoint import Request, read_answer
from prequery.fleet import Fleet
from prequery.journal import Journal, Key
from prequery.options import Options
from prequery.recipe import Sampling
from prequery.simulation import Lengths, Machine, Settings, simulate
from prequery.simulation.settings import MODEL, REVISION
from prequery.simulation.template import SYSTEM, USER
from prequery.synthesis import Silent

IN_FLIGHT = 64
HUB_SHARE = 10  # of the requests: one costs the Hub's client as much as ten cost us
PREFIX = f"<|im_start|>system\n{SYSTEM}<|im_end|>\n{USER}"
SIZES = {"64 tokens": 64, "34 KB": 480}
SAMPLED = Sampling(temperature=1.0, top_p=0.95, max_new_tokens=2048)
STOP = ("<|im_end|>", "<|im_start|>")
ROWS = 4000
RECIPE = f"""
name: endpoint
version: 1.0.0
rows: {ROWS}
seed: 1
generator: {{model: {MODEL}, revision: '{REVISION}'}}
instructions: [{{temperature: 1.0, max_new_tokens: 512}}]
responses: {{temperature: null, max_new_tokens: 2048}}
columns: [length, likelihood, repetition]
"""


class Cost(NamedTuple):
    """Of one way to ask."""

    wall_s: float
    cpu_s: float
    requests: int

    def cells(self) -> str:
        """Return the cells of a row of the table."""
        return (
            f"{self.requests / self.wall_s:,.0f} | {self.requests / self.cpu_s:,.0f} | "
            f"{self.cpu_s / self.requests * 1e6:,.0f}"
        )


async def keep_asking(count: int, ask: Callable[[int], Awaitable[object]]) -> Cost:
    """Ask so often, with a constant number in flight."""
    numbers = iter(range(count))

    async def worker() -> None:
        for number in numbers:
            await ask(number)

    wall, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))
    return Cost(time.perf_counter() - wall, time.process_time() - cpu, count)


def request(number: int) -> Request:
    """Return a request of pass 1."""
    return Request(prompt=PREFIX, sampling=SAMPLED, seed=number + 1, stop=STOP)


def raw_answer(url: str, asked: Request) -> bytes:
    """Return the body of an answer."""
    body = json.dumps({"inputs": asked.prompt, "parameters": asked.parameters()}).encode()
    with urllib.request.urlopen(f"{url}/generate", body) as response:
        read: bytes = response.read()
    return read


async def ours(url: str, count: int, folder: Path, profile: cProfile.Profile | None) -> Cost:
    """Ask as a build does."""
    with Journal(folder, "0" * 64) as journal:
        async with Fleet([url]) as fleet:

            async def ask(number: int) -> None:
                answer = await fleet.generate(request(number), "bench")
                assert gates.instruction_reason(answer, STOP) is None, answer
                journal.record(Key(number, "instruction"), answer)

            await keep_asking(IN_FLIGHT, lambda number: ask(number + count))  # connects
            if profile:
                profile.enable()
            cost = await keep_asking(count, ask)
            if profile:
                profile.disable()
    return cost


async def hubs(url: str, count: int) -> Cost:
    """Ask with huggingface_hub's client; its answers are neither gated nor kept."""
    async with AsyncInferenceClient(f"{url}/generate") as client:

        async def ask(number: int) -> None:
            await client.text_generation(
                PREFIX,
                details=True,
                do_sample=True,
                temperature=1.0,
                top_p=0.95,
                max_new_tokens=2048,
                seed=number + 1,
                stop=list(STOP),
            )

        await keep_asking(IN_FLIGHT, ask)
        return await keep_asking(count, ask)


def decoding_us(raw: bytes, logprobs: bool) -> float:
    """Return what it takes to read one answer: the best of five rounds."""
    asked, rounds = replace(request(0), logprobs=logprobs), []
    for _ in range(5):
        started = time.perf_counter()
        for _ in range(500):
            read_answer(raw, asked, "20")
        rounds.append((time.perf_counter() - started) / 500 * 1e6)
    return min(rounds)


def largest(profile: cProfile.Profile, count: int) -> list[tuple[str, float]]:
    """Return where time goes, by package, in us a request, largest first."""
    spent: Counter[str] = Counter()
    for (file, _, name), (_, _, own_s, _, _) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        spent[_part(file, name)] += own_s / count * 1e6
    return list(spent.most_common())


def _part(file: str, name: str) -> str:
    if file == "~":
        for word, part in (
            ("poll", "waiting for the server (epoll)"),
            ("msgspec", "decoding and encoding (msgspec)"),
            ("posix.write", "journal: write to the log"),
            ("socket", "sockets: send and receive"),
        ):
            if word in name:
                return part
        return "built-in functions"
    path = Path(file)
    for package in ("aiohttp", "asyncio", "yarl", "multidict"):
        if package in path.parts:
            return package
    if "prequery" in path.parts:
        return "prequery: " + "/".join(path.parts[path.parts.index("prequery") + 1 :])
    return "the rest"


async def bench(count: int) -> None:
    """Run everything and print it."""
    print(f"load of the machine before: {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores\n")
    print("| answer | client | requests/s | requests/s per core of CPU | CPU us a request |")
    print("|---|---|---|---|---|")
    profile, raw = cProfile.Profile(), b""
    for size, tokens in SIZES.items():
        lengths = Lengths(instruction_median=tokens, sigma=0)
        machine = Machine(token_s=0, slots=IN_FLIGHT)
        with (
            simulate(Settings(machines=(machine,), lengths=lengths)) as server,
            tempfile.TemporaryDirectory() as folder,
        ):
            (url,) = server.urls
            raw = raw_answer(url, request(0))
            cost = await ours(url, count, Path(folder, "a"), None)
            print(f"| {size} ({len(raw):,} B) | prequery | {cost.cells()} |", flush=True)
            cost = await hubs(url, max(count // HUB_SHARE, IN_FLIGHT))
            print(f"| {size} | AsyncInferenceClient | {cost.cells()} |", flush=True)
            if size == next(iter(SIZES)):
                await ours(url, count // 2, Path(folder, "b"), profile)
    print(f"\n| reading one answer of {len(raw):,} B | us |")
    print("|---|---|")
    print(f"| with log-probabilities | {decoding_us(raw, logprobs=True):.0f} |")
    print(f"| without | {decoding_us(raw, logprobs=False):.0f} |\n")
    print("| largest costs, 64 tokens, under cProfile (which slows Python code) | us a request |")
    print("|---|---|")
    for part, us in islice(largest(profile, count // 2), 6):
        print(f"| {part} | {us:.0f} |")


class FaultsAlone(Silent):
    """An observer that shows what went wrong; of a clean run it says nothing."""

    def said(self, text: str) -> None:
        """Show it."""
        print(text, file=sys.stderr)


def bench_build() -> None:
    """Build whole, and print it."""
    made = recipe.read(RECIPE, "scripts/bench_endpoint.py")
    with (
        simulate(Settings(machines=(Machine(token_s=0, slots=IN_FLIGHT),))) as server,
        tempfile.TemporaryDirectory() as folder,
    ):
        options = Options(endpoints=tuple(server.urls), journal=Path(folder, "journal"))
        wall, cpu = time.perf_counter(), time.process_time()
        pipeline.build(made, options, FaultsAlone(), Path(folder, "work"))
        wall_s, cpu_s = time.perf_counter() - wall, time.process_time() - cpu
    print(f"\n| a build of {ROWS:,} rows | |\n|---|---|")
    print(
        f"| rows/s | {ROWS / wall_s:,.0f} |\n| CPU s for 1,000 rows | {cpu_s / ROWS * 1000:.2f} |"
    )


if __name__ == "__main__":
    asyncio.run(bench(int(sys.argv[1]) if len(sys.argv) > 1 else 6000))
    bench_build()
