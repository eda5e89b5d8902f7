"""Real builds that are killed (-9) at random moments, alone and beside others on one journal.

Processes, HTTP, journal and Parquet are real, and the simulated fleet outlives the builders and
counts what it answered. `scripts/soak.py` does the same for as long as one likes, through faults.
"""

import hashlib
import random
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

import timeless
from fork_server import fork_server
from killable import BALANCE, MACHINES, PRELOAD, ROWS, SLOTS, TEXT, TOP, start
from prequery import recipe, shards
from prequery.journal import Journal, Key, folder_for
from prequery.simulation import Settings, SimulatedFleet, simulate

PROOF_TOKENS = 32  # of the requests that prove the prefix at every start: they are no rows


def digest(out: Path) -> str:
    """Hash the Parquet files, their names and the lock but for its time."""
    found = hashlib.sha256()
    for path in [*sorted((out / "killed").glob("*.parquet")), out / "killed.lock.json"]:
        found.update(f"{path.name}{timeless.digest(path)}".encode())
    return found.hexdigest()


@pytest.fixture(scope="module")
def processes() -> Iterator[ForkServerContext]:
    with fork_server(*PRELOAD) as context:
        yield context


@contextmanager
def whole(
    processes: ForkServerContext, tmp_path: Path, text: str = TEXT
) -> Iterator[tuple[str, float]]:
    """Yield what an undisturbed build makes, and how long it takes."""
    with simulate(Settings(machines=MACHINES)) as fleet:
        warm = start(processes, tmp_path / "warm", fleet.urls, tmp_path / "warm-out", text)
        warm.join()
        started = time.monotonic()
        process = start(processes, tmp_path / "whole", fleet.urls, tmp_path / "whole-out", text)
        process.join()
        assert process.exitcode == 0
        yield digest(tmp_path / "whole-out"), time.monotonic() - started


def answers(fleet: SimulatedFleet) -> tuple[int, int]:
    """Return how many answers for rows were given, and how many of them again."""
    given = again = 0
    for one in fleet.counters():
        proofs = one.answered_again.get(PROOF_TOKENS, 0)
        given += one.answered - proofs
        again += sum(one.answered_again.values()) - proofs
    return given - 4, again  # the first proof is nobody's repetition


def held(home: Path, copy: Path, text: str = TEXT) -> tuple[int, int]:
    """Return how many answers a journal has, and to how many different requests."""
    made = recipe.read(text, "killed.yaml")
    shutil.rmtree(copy, ignore_errors=True)
    if not (home / "journal").exists():
        return 0, 0
    shutil.copytree(home / "journal", copy)
    with Journal(folder_for(made.name, made.fingerprint, copy), made.fingerprint) as journal:
        keys = [
            Key(slot, made_by)
            for slot in range(journal.end("instruction"))
            for made_by in ("instruction", "response")
        ]
        return len(journal), sum(journal.get(key) is not None for key in keys)


def slots_of(out: Path) -> list[int]:
    (shard,) = (out / "killed").glob("*.parquet")
    return [
        int(one.rpartition("-")[2])
        for table in shards.read_part(str(shard), ["id"])
        for one in table["id"].to_pylist()
    ]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [(TEXT, 20), (TOP, 10), (BALANCE, 10)],
    ids=["plain", "top", "balance"],
)
def test_a_build_that_is_killed_at_random_moments_pays_for_nothing_twice(
    processes: ForkServerContext, tmp_path: Path, text: str, wanted: int
) -> None:
    """From the first look at the endpoint to the last file, several times in each build."""
    chance, kills, number = random.Random(20), 0, 0
    rows = recipe.read(text, "killed.yaml").rows
    with whole(processes, tmp_path, text) as (expected, whole_s):
        pass

    while kills < wanted:
        number += 1
        home, out = tmp_path / f"home{number}", tmp_path / f"out{number}"
        killed_now = lost = 0
        with simulate(Settings(machines=MACHINES)) as fleet:
            while True:
                process = start(processes, home, fleet.urls, out, text)
                # Where the end alone takes as long, it would never be reached.
                process.join(chance.uniform(0.02, whole_s / 2) if killed_now < 7 else None)
                if process.exitcode is not None:
                    assert process.exitcode == 0
                    break
                process.kill()
                process.join()
                kills, killed_now = kills + 1, killed_now + 1
                recorded, _ = held(home, tmp_path / "copy", text)
                now_lost = answers(fleet)[0] - recorded
                # An answer that had not reached the journal was in flight.
                assert now_lost - lost <= 2 * SLOTS
                lost = now_lost
            given, again = answers(fleet)
        recorded, different = held(home, tmp_path / "copy", text)

        assert digest(out) == expected
        assert len(set(slots_of(out))) == rows
        assert recorded == different
        # What the last kill or the end of the build interrupted, the server may count later.
        assert max(lost, again) <= given - recorded <= lost + 2 * SLOTS


@pytest.mark.parametrize("builders", [2, 4])
def test_builders_on_one_journal_that_are_killed_ten_times_make_the_same_files(
    processes: ForkServerContext, tmp_path: Path, builders: int
) -> None:
    """A killed one is started again at once; the others go on."""
    chance, kills, number = random.Random(builders), 0, 0
    with whole(processes, tmp_path) as (expected, whole_s):
        pass

    while kills < 10:
        number += 1
        home, killed_now = tmp_path / f"home{number}", 0
        outs = [tmp_path / f"out{number}-{index}" for index in range(builders)]
        with simulate(Settings(machines=MACHINES)) as fleet:
            running = [start(processes, home, fleet.urls, out) for out in outs]
            while any(process.exitcode is None for process in running):
                victim = chance.randrange(builders)
                running[victim].join(chance.uniform(0.02, whole_s / 2))
                if running[victim].exitcode is None and killed_now < 5:
                    running[victim].kill()
                    running[victim].join()
                    killed_now += 1
                    running[victim] = start(processes, home, fleet.urls, outs[victim])
            _, again = answers(fleet)
        kills += killed_now
        recorded, different = held(home, tmp_path / "copy")

        assert [process.exitcode for process in running] == [0] * builders
        assert [digest(out) for out in outs] == [expected] * builders
        assert all(len(set(slots_of(out))) == ROWS for out in outs)
        assert recorded == different
        assert again <= 2 * SLOTS * killed_now
