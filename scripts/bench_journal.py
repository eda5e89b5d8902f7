#!/usr/bin/env python3
"""What the journal costs: scripts/bench_journal.py [ROWS ...] prints a Markdown table.

A row is an instruction and its response, two answers. Texts are a random walk over the words of
Python's own manual, so they compress like English and repeat nothing; every measurement is a
process of its own. CPU is of all threads, with sealing; a peak is what the work added to the
process that had imported everything.
"""

import itertools
import json
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics

import pyarrow as pa

from prequery.endpoint import Answer
from prequery.journal import Journal, Key

PRINT = "a" * 64
POOL = 3_000  # pairs of texts; far more than a segment holds, and each is compressed alone
SYNC_ROWS = 1_000  # a second's worth at a thousand rows a second


def pool() -> list[tuple[Answer, Answer]]:
    """Return pairs of answers with the lengths that Magpie's releases have."""
    words = re.findall(r"\S+", " ".join(topics.values()))
    follows = defaultdict(list)
    for one, other in itertools.pairwise(words):
        follows[one].append(other)
    chance = random.Random(1)

    def answer(chars: int, sampled: bool) -> Answer:
        said, size = [chance.choice(words)], 0
        while size < chars:
            # One step in four starts anew: a walk alone would repeat the manual's own phrases.
            after = follows.get(said[-1]) if chance.random() < 0.75 else None
            said.append(chance.choice(after or words))
            size += len(said[-1]) + 1
        return Answer(
            text=" ".join(said),
            finish_reason="eos_token",
            generated_tokens=chars // 4,
            prompt_tokens=chance.randrange(20, 200),
            seed=chance.getrandbits(63) if sampled else None,
            logprob_sum=-chance.random() * chars,
            logprob_min=-chance.random() * 9,
            logprob_count=chars // 4,
        )

    return [
        (
            answer(int(chance.lognormvariate(4.6, 0.7)), sampled=True),
            answer(int(chance.lognormvariate(7.1, 0.5)), sampled=False),
        )
        for _ in range(POOL)
    ]


def keys(rows: int) -> Iterator[tuple[Key, Key]]:
    """Yield the two keys of each row."""
    for slot in range(rows):
        yield Key(slot, "instruction"), Key(slot, "response")


def peak_mb() -> float:
    """Return the most memory that this process had."""
    pa.array([1])  # imports pandas when it is installed, as a build has long done by then
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def record(folder: Path, rows: int) -> dict[str, float]:
    """Record and seal rows."""
    pairs, text_bytes = pool(), 0
    before_mb, cpu_s, wall_s = peak_mb(), time.process_time(), time.monotonic()
    with Journal(folder, PRINT) as journal:
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
    while True:
        yield from pairs


def resume(folder: Path, rows: int) -> dict[str, float]:
    """Open a journal, then ask for every answer in it."""
    before_mb, started = peak_mb(), time.monotonic()
    with Journal(folder, PRINT) as journal:
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


def measured(what: str, folder: Path, rows: int) -> dict[str, float]:
    """Run one of the two in a process of its own."""
    command = [sys.executable, __file__, what, str(folder), str(rows)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def main(counts: list[int]) -> None:
    """Print the table."""
    print("| rows | CPU/row | wall/row | on disk / text | peak | open | every answer | peak |")
    print("|---|---|---|---|---|---|---|---|")
    for rows in counts:
        with tempfile.TemporaryDirectory() as root:
            wrote = measured("record", Path(root) / "journal", rows)
            read = measured("resume", Path(root) / "journal", rows)
        print(
            f"| {rows:,} | {wrote['cpu_us']:.0f} us | {wrote['wall_us']:.0f} us "
            f"| {wrote['bytes']:.0f} / {wrote['text_bytes']:.0f} B = "
            f"{wrote['bytes'] / wrote['text_bytes']:.2f} | +{wrote['peak_mb']:.0f} MB "
            f"| {read['open_s'] * 1000:.0f} ms | {read['replay_s']:.1f} s "
            f"| +{read['peak_mb']:.0f} MB |",
            flush=True,
        )


if __name__ == "__main__":
    if sys.argv[1:2] in (["record"], ["resume"]):
        work = record if sys.argv[1] == "record" else resume
        print(json.dumps(work(Path(sys.argv[2]), int(sys.argv[3]))))
    else:
        main([int(each) for each in sys.argv[1:]] or [10_000, 100_000, 1_000_000])
