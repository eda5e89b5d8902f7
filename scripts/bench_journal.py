#!/usr/bin/env python3
"""What the journal costs: scripts/bench_journal.py [ROWS ...] prints two Markdown tables.

A row is an instruction and its response, two answers, with the texts of drawn_texts.py. Every
measurement is a process of its own. CPU is of all threads, with sealing; a peak is what the work
added to the process that had imported everything.

The second table is of a build that carries on: the journal holds a quarter of its rows, columns
and gates are on, and a simulated endpoint of 256 slots answers. The first request counts from the
call of the build, behind those that prove the prefix.
"""

import contextlib
import itertools
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pyarrow as pa

from drawn_texts import Texts
from prequery import pipeline, recipe
from prequery.conversation import Candidate
from prequery.endpoint import Answer
from prequery.errors import StoppedError
from prequery.journal import Journal, Key, folder_for
from prequery.options import Options
from prequery.recipe import Recipe
from prequery.simulation import Machine, Settings, SimulatedFleet, simulate
from prequery.simulation.settings import MODEL, REVISION

SLOTS = 256
RECIPE = """
name: carried-on
version: 1.0.0
rows: {rows}
seed: 1
generator: {{model: {model}, revision: '{revision}'}}
instructions: [{{temperature: 1.0, max_new_tokens: 256}}]
responses: {{temperature: null, max_new_tokens: 1024}}
columns: [length, likelihood, repetition]
filters: [instruction_words > 1]
"""
POOL = 3_000  # pairs of texts; far more than a segment holds, and each is compressed alone
SYNC_ROWS = 1_000  # a second's worth at a thousand rows a second


def pool() -> list[tuple[Answer, Answer]]:
    """Return pairs of answers with the lengths that Magpie's releases have."""
    texts, chance = Texts(), random.Random(1)

    def answer(text: str, sampled: bool) -> Answer:
        tokens = len(text) // 4
        return Answer(
            text=text,
            finish_reason="eos_token",
            generated_tokens=tokens,
            prompt_tokens=chance.randrange(20, 200),
            seed=chance.getrandbits(63) if sampled else None,
            logprob_sum=-chance.random() * len(text),
            logprob_squares=chance.random() * len(text),
            logprob_min=-chance.random() * 9,
            logprob_count=tokens,
        )

    return [
        (answer(texts.instruction(), sampled=True), answer(texts.response(), sampled=False))
        for _ in range(POOL)
    ]


def wanted(rows: int) -> Recipe:
    """Return the recipe of so many rows; its fingerprint is the same for any number."""
    text = RECIPE.format(rows=rows, model=MODEL, revision=REVISION)
    return recipe.read(text, "scripts/bench_journal.py")


def place(root: Path) -> Path:
    """Return the folder of the recipe's journal."""
    made = wanted(1)
    return Path(folder_for(made.name, made.fingerprint, root))


def keys(rows: int) -> Iterator[tuple[Key, Key]]:
    """Yield the two keys of each row."""
    for slot in range(rows):
        yield Key(slot, "instruction"), Key(slot, "response")


def peak_mb() -> float:
    """Return the most memory that this process had."""
    pa.array([1])  # imports pandas when it is installed, as a build has long done by then
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def record(root: Path, rows: int) -> dict[str, float]:
    """Record and seal rows."""
    folder, pairs, text_bytes = place(root), pool(), 0
    before_mb, cpu_s, wall_s = peak_mb(), time.process_time(), time.monotonic()
    with Journal(folder, wanted(1).fingerprint) as journal:
        for (first, second), (one, two) in zip(keys(rows), _cycle(pairs), strict=False):
            journal.record(first, one)
            journal.record(second, two)
            if first.slot % SYNC_ROWS == 0:
                journal.sync()
    cpu_s, wall_s = time.process_time() - cpu_s, time.monotonic() - wall_s
    for (_, _), (one, two) in zip(keys(rows), _cycle(pairs), strict=False):
        text_bytes += len(one.text.encode()) + len(two.text.encode())
    kept_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return {
        "cpu_us": cpu_s / rows * 1e6,
        "wall_us": wall_s / rows * 1e6,
        "bytes": kept_bytes / rows,
        "text_bytes": text_bytes / rows,
        "peak_mb": peak_mb() - before_mb,
    }


def _cycle(pairs: list[tuple[Answer, Answer]]) -> Iterator[tuple[Answer, Answer]]:
    """Yield pairs for ever; no instruction comes again."""
    for number in itertools.count():
        for one, two in pairs:
            yield msgspec.structs.replace(one, text=f"{number} {one.text}"), two


def resume(root: Path, rows: int) -> dict[str, float]:
    """Open a journal, then ask for every answer in it."""
    before_mb, started = peak_mb(), time.monotonic()
    with Journal(place(root), wanted(1).fingerprint) as journal:
        assert len(journal) == 2 * rows
        opened = time.monotonic()
        for first, second in keys(rows):
            assert journal.get(first)
            assert journal.get(second)
        replayed = time.monotonic()
    return {
        "open_s": opened - started,
        "replay_s": replayed - opened,
        "peak_mb": peak_mb() - before_mb,
    }


class Watch:
    """An observer that stops the build when every row of the journal is read.

    Args:
        rows: So many.
        fleet: That is asked meanwhile.
    """

    def __init__(self, rows: int, fleet: SimulatedFleet) -> None:
        self.found: dict[str, float] = {}
        self._rows, self._until, self._fleet, self._answers = rows, rows, fleet, 0

    def said(self, text: str) -> None:
        """Show it."""
        print(text, file=sys.stderr)

    def answered(self, made: object, answer: object) -> None:
        """Count what is new."""
        self._answers += 1

    def attempted(self, attempt: Candidate, reason: str | None) -> None:
        """Count what is read."""
        self._rows -= attempt.slot < self._until
        if not self._rows and not self.found:
            now, (counters,) = time.monotonic(), self._fleet.counters()
            busy = counters.busy_s / SLOTS / (now - counters.crowded_at)
            self.found = {"read_at": now, "asked_at": counters.crowded_at, "busy": busy}
            self.found |= {"answers": self._answers, "peak_mb": peak_mb()}
            os.kill(os.getpid(), signal.SIGINT)


def carry_on(root: Path, rows: int) -> dict[str, float]:
    """Carry on with a build of four times as many rows, until all that is held is read."""
    made, before_mb = wanted(rows * 4), peak_mb()
    with (
        simulate(Settings(machines=(Machine(slots=SLOTS, token_s=0.005),))) as fleet,
        tempfile.TemporaryDirectory() as work,
    ):
        watch, started = Watch(rows, fleet), time.monotonic()
        options = Options(endpoints=tuple(fleet.urls), journal=root)
        with contextlib.suppress(StoppedError):
            pipeline.build(made, options, watch, Path(work))
    found = watch.found
    return {
        "first_s": found["asked_at"] - started,
        "read_s": found["read_at"] - started,
        "busy": found["busy"],
        "answers": found["answers"],
        "peak_mb": found["peak_mb"] - before_mb,
    }


def measured(what: str, root: Path, rows: int) -> dict[str, float]:
    """Run one of the three in a process of its own."""
    command = [sys.executable, __file__, what, str(root), str(rows)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def main(counts: list[int]) -> None:
    """Print the tables."""
    carried = []
    print("| rows | CPU/row | wall/row | on disk / text | peak | open | every answer | peak |")
    print("|---|---|---|---|---|---|---|---|")
    for rows in counts:
        with tempfile.TemporaryDirectory() as root:
            wrote = measured("record", Path(root), rows)
            read = measured("resume", Path(root), rows)
            carried.append((rows, measured("carry_on", Path(root), rows)))
        print(
            f"| {rows:,} | {wrote['cpu_us']:.0f} us | {wrote['wall_us']:.0f} us "
            f"| {wrote['bytes']:.0f} / {wrote['text_bytes']:.0f} B = "
            f"{wrote['bytes'] / wrote['text_bytes']:.2f} | +{wrote['peak_mb']:.0f} MB "
            f"| {read['open_s'] * 1000:.0f} ms | {read['replay_s']:.1f} s "
            f"| +{read['peak_mb']:.0f} MB |",
            flush=True,
        )
    print(
        "\n| rows held of | first request | all read | endpoint busy meanwhile | answers | peak |"
    )
    print("|---|---|---|---|---|---|")
    for rows, found in carried:
        print(
            f"| {rows:,} of {4 * rows:,} | {found['first_s']:.1f} s | {found['read_s']:.0f} s "
            f"| {found['busy']:.0%} | {found['answers']:,.0f} | +{found['peak_mb']:.0f} MB |"
        )


if __name__ == "__main__":
    works = {"record": record, "resume": resume, "carry_on": carry_on}
    if len(sys.argv) == 4 and sys.argv[1] in works:
        print(json.dumps(works[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))))
    else:
        main([int(each) for each in sys.argv[1:]] or [10_000, 100_000, 1_000_000])
