#!/usr/bin/env python3
"""Build through mixed faults and kill -9, and compare: scripts/soak.py [MINUTES] [SEED].

A clean build is made once. Then, round after round, the same build is made through faults on a new
journal, by one, two or four builders at a time. At random moments one of them is killed and started
again, so many times in a round; then all come to their end. Every builder of every round must end
in the very bytes of the clean build, each slot must be in the journal once, and the simulated
server, which outlives the builders, counts what it answered twice: at most what was in flight at a
kill. The last line is the verdict; exit code 0 means kept, 1 broken.
"""

import hashlib
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from prequery import Magpie, recipe
from prequery.journal import Journal, Key, folder_for
from prequery.options import Options
from prequery.simulation import Faults, Machine, Settings, simulate
from prequery.simulation.settings import MODEL, REVISION
from prequery.transport import Patience

ROWS = 500
SLOTS = 64
ENDPOINTS = 2
BUILDERS = (1, 2, 4)  # on one journal, round after round
MOST_KILLS = 12  # in a round; then its builders come to their end
PROOF_TOKENS = 32  # of the requests that prove the prefix at every start: they are no rows
FAULTS = Faults(
    overloaded=0.02,
    unhealthy=0.01,
    failed=0.01,
    reset=0.01,
    truncated=0.01,
    malformed=0.005,
    stall=0.002,
    drip=0.005,
    stall_s=1.0,
    drip_s=0.5,
)
RECIPE = f"""
name: soak
version: 1.0.0
rows: {ROWS}
seed: 1
generator: {{model: {MODEL}, revision: '{REVISION}'}}
instructions: [{{temperature: 1.0, max_new_tokens: 256}}]
responses: {{temperature: null, max_new_tokens: 1024}}
columns: [length, likelihood, repetition]
filters: [instruction_words > 3]
endpoint: {{url: 'http://127.0.0.1', concurrency: {SLOTS * ENDPOINTS}}}
"""
# Builders are forked from one process that has imported everything, and start at once.
processes = multiprocessing.get_context("forkserver")


def build(home: Path, urls: Sequence[str], out: Path) -> None:
    """Build in this process."""
    os.environ["PREQUERY_HOME"] = str(home)
    with (home / f"{out.name}.said").open("a") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
    # Faults come a hundred times as often as in life, so their waits are a hundredth.
    patience = Patience(first_wait_s=0.05, longest_wait_s=0.5)
    options = Options(endpoints=tuple(urls), journal=home / "journal", patience=patience)
    builder = Magpie(recipe.read(RECIPE, "soak.yaml"), options=options)
    builder.download_and_prepare(out, file_format="parquet")


@dataclass
class Round:
    """Builders on one journal that got through.

    Args:
        builders: How many.
        wall_s: Until the last one was through.
        kills: How often one was killed.
        again: Answers that the server gave twice.
        twice: Answers that the journal has twice.
        digests: Of the Parquet files of each.
        faults: Kind to how often it was played.
        error: What a builder said when it ended with an error.
    """

    builders: int
    wall_s: float = 0.0
    kills: int = 0
    again: int = 0
    twice: int = 0
    digests: list[str] = field(default_factory=list)
    faults: dict[str, int] = field(default_factory=dict)
    error: str = ""


def soak(builders: int, faults: Faults, chance: random.Random | None) -> Round:
    """Make the build once, through faults, and through kills where there is chance."""
    machines = (Machine(slots=SLOTS, token_s=0.001, max_concurrent_requests=4 * SLOTS),) * ENDPOINTS
    done, started = Round(builders), time.monotonic()
    with (
        tempfile.TemporaryDirectory() as name,
        simulate(Settings(machines=machines, faults=faults)) as fleet,
    ):
        home = Path(name)
        outs = [home / f"out{number}" for number in range(builders)]
        _run(fleet.urls, home, outs, done, chance)
        done.digests = [_digest(out / "soak") for out in outs if out.exists()]
        done.twice = _recorded_twice(home)
        for one in fleet.counters():
            done.again += sum(n for most, n in one.answered_again.items() if most != PROOF_TOKENS)
            for kind, count in one.faults.items():
                done.faults[kind] = done.faults.get(kind, 0) + count
    done.wall_s = time.monotonic() - started
    return done


def _run(
    urls: Sequence[str], home: Path, outs: Sequence[Path], done: Round, chance: random.Random | None
) -> None:
    """Run builders, one for each output, and kill one now and then."""

    def start(out: Path) -> ForkServerProcess:
        process = processes.Process(target=build, args=(home, urls, out))
        process.start()
        return process

    running = [start(out) for out in outs]
    while any(process.exitcode is None for process in running):
        number = chance.randrange(len(running)) if chance else 0
        running[number].join(chance.uniform(0.05, 2.0) if chance else 1.0)
        if chance and running[number].exitcode is None and done.kills < MOST_KILLS:
            running[number].kill()
            running[number].join()
            done.kills += 1
            running[number] = start(outs[number])
    for process, out in zip(running, outs, strict=True):
        if process.exitcode:
            done.error = (home / f"{out.name}.said").read_text()[-2000:]


def _recorded_twice(home: Path) -> int:
    """Return how many answers a journal has beyond one for each request."""
    made = recipe.read(RECIPE, "soak.yaml")
    folder = folder_for(made.name, made.fingerprint, home / "journal")
    with Journal(folder, made.fingerprint) as journal:
        slots = range(journal.end("instruction"))
        keys = [Key(slot, "instruction") for slot in slots]
        keys += [Key(slot, "response") for slot in slots]
        return len(journal) - sum(journal.get(key) is not None for key in keys)


def _digest(shards: Path) -> str:
    """Hash all Parquet files, with their names."""
    digest = hashlib.sha256()
    for path in sorted(shards.glob("*.parquet")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def _is_same(done: Round, clean: Round) -> bool:
    return not done.error and done.digests == clean.digests * done.builders


def main(minutes: float, seed: int) -> int:
    """Run rounds until the time is over; return the exit code."""
    print(f"load of the machine before: {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores\n")
    print(
        "| build | builders | kills | faults | answered twice | recorded twice | s | same bytes |"
    )
    print("|---|---|---|---|---|---|---|---|")
    clean = soak(1, Faults(), None)
    _show("clean", clean, clean)
    rounds = [soak(1, FAULTS, None)]
    _show("faults alone", rounds[0], clean)
    chance, end = random.Random(seed), time.monotonic() + minutes * 60
    for builders in cycle(BUILDERS):
        if time.monotonic() >= end:
            break
        rounds.append(soak(builders, FAULTS, chance))
        _show(f"faults and kills {len(rounds) - 1}", rounds[-1], clean)
    kills, again = sum(one.kills for one in rounds), sum(one.again for one in rounds)
    builds = 1 + sum(one.builders for one in rounds)
    differ = sum(not _is_same(one, clean) for one in (clean, *rounds))
    twice = sum(one.twice for one in (clean, *rounds))
    allowed = kills * SLOTS * ENDPOINTS
    kept = not differ and not twice and again <= allowed
    print(
        f"\n{'KEPT' if kept else 'BROKEN'}: {builds} builds in {1 + len(rounds)} rounds, "
        f"{kills} kills, {sum(sum(one.faults.values()) for one in rounds)} faults; "
        f"{differ} rounds differ, {twice} answers recorded twice, "
        f"{again} given twice ({allowed} were in flight at kills at most)"
    )
    return 0 if kept else 1


def _show(name: str, done: Round, clean: Round) -> None:
    same, faults = "yes" if _is_same(done, clean) else "NO", sum(done.faults.values())
    cells = [name, done.builders, done.kills, faults, done.again, done.twice]
    print("| " + " | ".join(map(str, [*cells, f"{done.wall_s:.0f}", same])) + " |", flush=True)
    if done.error:
        print(done.error)


if __name__ == "__main__":
    processes.set_forkserver_preload(["prequery.magpie", "prequery.simulation", "aiohttp"])
    given = sys.argv[1:]
    sys.exit(main(float(given[0]) if given else 5.0, int(given[1]) if len(given) > 1 else 1))
