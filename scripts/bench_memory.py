#!/usr/bin/env python3
"""What a build holds in memory: scripts/bench_memory.py [ROWS ...] prints two Markdown tables.

Whole builds, from the first request to the shards, against a simulated endpoint without service
time, 256 requests at once, with the columns that see one row: peaks of the process that builds, as
the kernel counts them, each from a process of its own.

Beside them a bare aiohttp loop that asks for as many rows: the same imports, the same client-side
decoding, 256 workers that chain a row's two requests. It has no journal, gates no repetition and
measures nothing. Once it keeps its rows and writes one Parquet file at the end, as a script does;
once it writes a thousand at a time, the least that any loop can hold.
"""

import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from prequery import Magpie, gates, instructions, recipe, responses, slots
from prequery.endpoint import Answer, Request, read_answer
from prequery.fleet import Fleet
from prequery.options import Options
from prequery.prefix import derive
from prequery.recipe import Recipe
from prequery.simulation import Machine, Settings, simulate
from prequery.simulation.settings import MODEL, REVISION
from prequery.synthesis import Silent

WORKERS = 256
GROUP = 1_000
RECIPE = """
name: memory
version: 1.0.0
rows: {rows}
seed: 1
generator: {{model: {model}, revision: '{revision}'}}
instructions: [{{temperature: 1.0, max_new_tokens: 256}}]
responses: {{temperature: null, max_new_tokens: 1024}}
columns: [length, likelihood, repetition]
"""


def peak_mb() -> float:
    """Return the most memory that this process had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Told(Silent):
    """An observer that notes the peak at the end of each stage."""

    def __init__(self, rows: int) -> None:
        self.asked_mb = 0.0

    def __enter__(self) -> "Told":
        """Begin."""
        return self

    def __exit__(self, *error: object) -> None:
        """All answers are in, and every row is in its part."""
        self.asked_mb = peak_mb()

    def said(self, text: str) -> None:
        """Show what went wrong; a clean run says nothing."""
        print(text, file=sys.stderr)


def build(made: Recipe, url: str, folder: Path) -> dict[str, float]:
    """Build whole."""
    os.environ["PREQUERY_HOME"] = str(folder / "home")
    told = Told(made.rows)
    options = Options(endpoints=(url,), journal=folder / "journal")
    builder = Magpie(made, options=options, show=lambda rows: told)
    builder.download_and_prepare(folder / "out", file_format="parquet")
    return {"asked_mb": told.asked_mb}


class Keeps:
    """Rows of the bare loop, written so many at a time."""

    def __init__(self, path: Path, at_a_time: int | None) -> None:
        self._path, self._at_a_time = path, at_a_time
        self._rows: list[dict[str, Any]] = []
        self._writer: pq.ParquetWriter | None = None

    def add(self, first: Answer, second: Answer) -> None:
        """Keep a row."""
        self._rows.append({"instruction": first.text, "response": second.text})
        if len(self._rows) == self._at_a_time:
            self.write()

    def write(self) -> None:
        """Write what is kept."""
        table = pa.Table.from_pylist(self._rows)
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._path, table.schema)
        self._writer.write_table(table)
        self._rows = []

    def close(self) -> None:
        """Finish the file."""
        if self._rows:
            self.write()
        if self._writer:
            self._writer.close()


async def bare(made: Recipe, url: str, keeps: Keeps) -> None:
    """Ask for as many rows in a bare loop."""
    async with Fleet((url,)) as endpoint:
        prefix = await derive(endpoint)
    numbers, kept = count(), iter(range(made.rows))
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def ask(request: Request) -> Answer:
            data = msgspec.json.encode(
                {"inputs": request.prompt, "parameters": request.parameters()}
            )
            async with session.post(f"{url}/generate", data=data) as response:
                return read_answer(await response.read(), request, None)

        async def worker() -> None:
            for number in numbers:
                slot = slots.draw(made, number)
                first = await ask(instructions.request(made, prefix, slot))
                if gates.instruction_reason(first, prefix.stop) is None:
                    words = first.text.strip()
                    second = await ask(responses.request(made, prefix, slot, words))
                    keeps.add(first, second)
                    if next(kept, None) is None:
                        return

        await asyncio.gather(*(worker() for _ in range(WORKERS)))
    keeps.close()


def child(what: str, rows: int, url: str) -> dict[str, float]:
    """Do one of them in this process."""
    text = RECIPE.format(rows=rows, model=MODEL, revision=REVISION)
    made = recipe.read(text, "scripts/bench_memory.py")
    imported_mb, started = peak_mb(), time.monotonic()
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if what == "build":
            found = build(made, url, folder)
        else:
            at_a_time = GROUP if what == "writes" else None
            asyncio.run(bare(made, url, Keeps(folder / "rows.parquet", at_a_time)))
    seconds = time.monotonic() - started
    return {"imported_mb": imported_mb, "peak_mb": peak_mb(), "seconds": seconds, **found}


def measured(what: str, rows: int) -> dict[str, float]:
    """Do one of them in a process of its own, against a fleet of its own."""
    settings = Settings(machines=(Machine(slots=WORKERS, token_s=0.0),))
    with simulate(settings) as fleet:
        command = [sys.executable, __file__, what, str(rows), fleet.urls[0]]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(found, dict)
    return found


def main(counts: Sequence[int]) -> None:
    """Print the table."""
    print("| what | rows | s | imports | all rows in parts | peak | growth per 1,000 rows |")
    print("|---|---|---|---|---|---|---|")
    for what, name in (("build", "build"), ("keeps", "bare loop"), ("writes", "bare, writing")):
        last: tuple[int, float] | None = None
        for rows in counts if what == "build" else [n for n in counts if n <= 20_000]:
            found = measured(what, rows)
            grown = ""
            if last is not None:
                growth_mb = (found["peak_mb"] - last[1]) / (rows - last[0]) * 1000
                grown = f"{growth_mb:.2f} MB"
            last = rows, found["peak_mb"]
            print(
                f"| {name} | {rows:,} | {found['seconds']:.0f} | {found['imported_mb']:.0f} MB "
                f"| {found.get('asked_mb', 0):.0f} MB | {found['peak_mb']:.0f} MB | {grown} |",
                flush=True,
            )


if __name__ == "__main__":
    if sys.argv[1:2] and not sys.argv[1].isdigit():
        print(json.dumps(child(sys.argv[1], int(sys.argv[2]), sys.argv[3])))
    else:
        main([int(each) for each in sys.argv[1:]] or [2_000, 20_000])
