#!/usr/bin/env python3
"""Print the figures of the README: scripts/measure.py determinism|demo|install.

Every figure comes from a run on this machine; nothing is kept. Machines are noisy: compare only
what one run prints.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

SEEDS = 64
RESPONSES = 16
BUSY = 8


def determinism() -> None:
    """Ask the embedded endpoint the same things alone and under load, in both modes."""
    from prequery.endpoint import Answer, Request
    from prequery.fleet import Fleet
    from prequery.local.process import start
    from prequery.prefix import derive
    from prequery.recipe import Sampling, load

    recipe = load("smollm2-demo")

    async def ask(
        endpoint: Fleet, requests: Sequence[Request], in_flight: int
    ) -> tuple[list[Answer], float]:
        places, started = asyncio.Semaphore(in_flight), time.monotonic()

        async def one(request: Request) -> Answer:
            async with places:
                return await endpoint.generate(request, "measure")

        answers = await asyncio.gather(*map(one, requests))
        return answers, time.monotonic() - started

    async def compare(address: str, mode: str) -> None:
        async with Fleet([address]) as endpoint:
            prefix = await derive(endpoint)
            sampling = recipe.instructions[0]
            sampled = [
                Request(prompt=prefix.text, sampling=sampling, seed=seed, stop=prefix.stop)
                for seed in range(1, SEEDS + 1)
            ]
            alone, slow = await ask(endpoint, sampled, 1)
            loaded, fast = await ask(endpoint, sampled[::-1], BUSY)
            row(mode, "instructions, sampled", SEEDS, _same(alone, loaded[::-1]), slow, fast)
            greedy = [
                Request(
                    prompt=prefix.ask_response(answer.text.strip()),
                    sampling=Sampling(max_new_tokens=96),
                    stop=prefix.stop,
                )
                for answer in alone[:RESPONSES]
            ]
            alone, slow = await ask(endpoint, greedy, 1)
            loaded, fast = await ask(endpoint, greedy[::-1], BUSY)
            row(mode, "responses, greedy", RESPONSES, _same(alone, loaded[::-1]), slow, fast)

    def _same(some: Sequence[Answer], others: Sequence[Answer]) -> int:
        return sum(a.text == b.text for a, b in zip(some, others, strict=True))

    def row(mode: str, what: str, count: int, same: int, slow: float, fast: float) -> None:
        cells = [mode, what, f"{same} of {count}", f"{slow:.0f} s", f"{fast:.0f} s"]
        print("|", " | ".join(cells), "|", flush=True)

    print(f"| mode | what | same text, alone and {BUSY} at a time in reverse | alone | at a time |")
    print("|---|---|---|---|---|")
    for exact in (False, True):
        with start(exact=exact, say=lambda text: None) as address:
            asyncio.run(compare(address, "`--exact`" if exact else "default"))


def demo() -> None:
    """Build the demo from nothing, and once more from its journal."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"PREQUERY_HOME": folder}
        command = [str(Path(sys.executable).with_name("prequery")), "build", "smollm2-demo"]
        times = []
        for out in ("first", "second"):
            started = time.monotonic()
            place = str(Path(folder, out))
            subprocess.run([*command, "--out", place], env=environment, check=True)
            times.append(time.monotonic() - started)
        build = json.loads(Path(folder, "first/smollm2-demo.lock.json").read_text())["build"]
    print("| figure | value |")
    print("|---|---|")
    for name, value in (
        ("rows accepted of attempts", f"{build['accepted']} of {build['attempts']}"),
        ("acceptance", f"{build['accepted'] / build['attempts']:.0%}"),
        ("wall time of the build", f"{times[0]:.0f} s"),
        ("rows/s", f"{build['accepted'] / times[0]:.2f}"),
        ("generated tokens/s", f"{build['generated_tokens'] / times[0]:.0f}"),
        ("requests", build["requests"]),
        ("the same build from its journal, without a model", f"{times[1]:.1f} s"),
    ):
        print(f"| {name} | {value} |")


def install() -> None:
    """Install into fresh environments, and print time and size of each."""
    root = Path(__file__).resolve().parents[1]
    print("| what | time | size |")
    print("|---|---|---|")
    for what in (".", ".[local]"):
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([sys.executable, "-m", "venv", folder], check=True)
            empty = _megabytes(folder)
            started = time.monotonic()
            pip = [str(Path(folder, "bin/python")), "-m", "pip", "install", "--quiet"]
            subprocess.run([*pip, "--disable-pip-version-check", what], cwd=root, check=True)
            spent = time.monotonic() - started
            size = _megabytes(folder) - empty
            print(f"| `pip install {what}` | {spent:.0f} s | {size:.0f} MB |", flush=True)


def _megabytes(folder: str) -> float:
    files = (path for path in Path(folder).rglob("*") if path.is_file() and not path.is_symlink())
    return sum(path.stat().st_size for path in files) / 1e6


if __name__ == "__main__":
    measurements = {"determinism": determinism, "demo": demo, "install": install}
    if len(sys.argv) != 2 or sys.argv[1] not in measurements:
        sys.exit(__doc__)
    measurements[sys.argv[1]]()
