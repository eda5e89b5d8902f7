#!/usr/bin/env python3
"""Build through mixed faults and kill -9, and compare: scripts/soak.py [MINUTES] [SEED].

A clean build is made once. Then, round after round, the same build is made through faults by a
process that is killed at random moments until one gets through, each time on a new journal. Every
round must end in the very bytes of the clean build, and the simulated server, which outlives the
builders, counts what it answered twice: at most what was in flight at a kill. The last line is
the verdict; exit code 0 means kept, 1 broken.
"""

import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from prequery.simulation import Counters, Faults, Machine, Settings, SimulatedFleet, simulate
from prequery.simulation.settings import MODEL, REVISION

ROWS = 500
SLOTS = 64
ENDPOINTS = 2
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
"""
# Faults come a hundred times as often as in life, so their waits are a hundredth.
BUILD = """
import sys
from pathlib import Path
from prequery import Magpie
from prequery.transport import Patience
from prequery.pipeline import Options
recipe, journal, out, *urls = sys.argv[1:]
patience = Patience(first_wait_s=0.05, longest_wait_s=0.5)
options = Options(endpoints=tuple(urls), journal=Path(journal), patience=patience)
Magpie(recipe, options=options).download_and_prepare(out, file_format="parquet")
"""


@dataclass
class Round:
    """One build that got through.

    Args:
        digest: Of its Parquet files.
        wall_s: Of all its processes.
        generation_s: From the first request to the last answer, on the server's clock.
        kills: Processes that were killed.
        again: Answers that the server gave twice.
        faults: Kind to how often it was played.
        error: What the build said when it ended with an error.
    """

    digest: str = ""
    wall_s: float = 0.0
    generation_s: float = 0.0
    kills: int = 0
    again: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    error: str = ""


def soak(faults: Faults, chance: random.Random | None) -> Round:
    """Make the build once, through faults, and through kills where there is chance."""
    machines = (Machine(slots=SLOTS, token_s=0.001),) * ENDPOINTS
    done, started = Round(), time.monotonic()
    with (
        tempfile.TemporaryDirectory() as name,
        simulate(Settings(machines=machines, faults=faults)) as fleet,
    ):
        folder = Path(name)
        (folder / "soak.yaml").write_text(RECIPE)
        while not _runs_through(fleet, folder, done, chance):
            done.kills += 1
        done.digest = _digest(folder / "out/soak") if not done.error else ""
        _count(done, fleet.counters())
    done.wall_s = time.monotonic() - started
    return done


def _runs_through(
    fleet: SimulatedFleet, folder: Path, done: Round, chance: random.Random | None
) -> bool:
    """Run a builder; false when it was killed before its end."""
    places = [str(folder / place) for place in ("soak.yaml", "journal", "out")]
    with (folder / "said").open("w") as said:
        child = subprocess.Popen(
            [sys.executable, "-c", BUILD, *places, *fleet.urls], stdout=said, stderr=said
        )
        try:
            child.wait(chance.uniform(1.0, 6.0) if chance else 300)
        except subprocess.TimeoutExpired:
            os.kill(child.pid, signal.SIGKILL)
            child.wait()
            return False
    if child.returncode:
        done.error = (folder / "said").read_text()[-2000:]
    return True


def _count(done: Round, counters: Sequence[Counters]) -> None:
    for one in counters:
        again = sum(n for most, n in one.answered_again.items() if most != PROOF_TOKENS)
        done.again += again
        for kind, count in one.faults.items():
            done.faults[kind] = done.faults.get(kind, 0) + count
    began = min(one.crowded_at for one in counters)
    done.generation_s = max(one.last_at for one in counters) - began


def _digest(shards: Path) -> str:
    """Hash all Parquet files, with their names."""
    digest = hashlib.sha256()
    for path in sorted(shards.glob("*.parquet")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def main(minutes: float, seed: int) -> int:
    """Run rounds until the time is over; return the exit code."""
    print(f"load of the machine before: {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores\n")
    print("| build | kills | faults | answered twice | generation s | same bytes |")
    print("|---|---|---|---|---|---|")
    clean = soak(Faults(), None)
    rounds = [soak(FAULTS, None)]
    _show("clean", clean, clean)
    _show("faults alone", rounds[0], clean)
    chance, end = random.Random(seed), time.monotonic() + minutes * 60
    while time.monotonic() < end:
        rounds.append(soak(FAULTS, chance))
        _show(f"faults and kills {len(rounds) - 1}", rounds[-1], clean)
    kills, again = sum(one.kills for one in rounds), sum(one.again for one in rounds)
    differ = sum(one.digest != clean.digest or bool(one.error) for one in (clean, *rounds))
    print(f"\nrate through faults: {clean.generation_s / rounds[0].generation_s:.2f} of the clean")
    allowed = kills * SLOTS * ENDPOINTS
    kept = not differ and again <= allowed
    print(
        f"{'KEPT' if kept else 'BROKEN'}: {len(rounds)} builds, {kills} kills, "
        f"{sum(sum(one.faults.values()) for one in rounds)} faults, {differ} builds differ, "
        f"{again} answers given twice ({allowed} were in flight at kills at most)"
    )
    return 0 if kept else 1


def _show(name: str, done: Round, clean: Round) -> None:
    same = "yes" if done.digest == clean.digest and not done.error else "NO"
    faults = sum(done.faults.values())
    cells = [name, done.kills, faults, done.again, f"{done.generation_s:.1f}", same]
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)
    if done.error:
        print(done.error)


if __name__ == "__main__":
    given = sys.argv[1:]
    sys.exit(main(float(given[0]) if given else 5.0, int(given[1]) if len(given) > 1 else 1))
