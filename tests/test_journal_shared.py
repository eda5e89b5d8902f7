"""Several builders on one journal, and builders that are killed."""

import contextlib
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from prequery.endpoint import Answer
from prequery.errors import JournalError
from prequery.journal import Journal, Key, Limits
from prequery.journal.leases import BLOCK_SLOTS, EXPIRES_S

PRINT = "a" * 64
SLOTS = 640
NOBODY = 65534

# A builder in a process of its own: every answer is printed once it counts. Others' answers show.
# After the most that it may answer it waits to be killed.
BUILDER = """
import sys, time
from prequery.endpoint import Answer
from prequery.journal import Journal, Key, Limits

folder, slots, most, pause_s = sys.argv[1], *map(int, sys.argv[2:4]), float(sys.argv[4])
with Journal(folder, "a" * 64, Limits(rows=50)) as journal:
    left = set(range(slots))
    while left:
        for slot in sorted(left):
            key = Key(slot, "instruction")
            if journal.get(key) is None and journal.claim(slot) and journal.get(key) is None:
                journal.record(key, Answer(text=f"text {slot}", finish_reason="eos_token"))
                print(slot, flush=True)
                most -= 1
                time.sleep(pause_s if most else 600)
            if slot % 40 == 0:
                journal.sync()
        journal.refresh()
        left = {slot for slot in left if journal.get(Key(slot, "instruction")) is None}
        if left:
            time.sleep(0.05)
"""


def build(
    folder: Path, pause_s: float, slots: int = SLOTS, most: int = SLOTS + 1
) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", BUILDER, str(folder), str(slots), str(most), str(pause_s)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(builder: "subprocess.Popen[str]") -> list[int]:
    """Wait for a builder's end; return the slots that it answered."""
    said, errors = builder.communicate(timeout=120)
    assert builder.returncode == 0, errors
    return [int(line) for line in said.splitlines()]


def killed(builder: "subprocess.Popen[str]") -> list[int]:
    """Kill a builder; return the slots that it had printed and nobody has read.

    Not by `communicate`, which leaves out what a `readline` before it had read ahead.
    """
    with builder:
        builder.kill()
        assert builder.stdout is not None
        return [int(line) for line in builder.stdout]


def answered(folder: Path) -> dict[int, str]:
    with Journal(folder, PRINT) as journal:
        found = ((slot, journal.get(Key(slot, "instruction"))) for slot in range(SLOTS))
        return {slot: answer.text for slot, answer in found if answer}


@pytest.mark.parametrize("count", [2, 4])
def test_builders_that_start_together_share_the_slots_and_answer_each_once(
    tmp_path: Path, count: int
) -> None:
    builders = [build(tmp_path, 0.0005) for _ in range(count)]

    shares = [finished(builder) for builder in builders]

    everything = sorted(slot for share in shares for slot in share)
    assert everything == list(range(SLOTS))
    assert answered(tmp_path) == {slot: f"text {slot}" for slot in range(SLOTS)}
    assert not list(tmp_path.glob("*.jsonl"))
    assert not list(tmp_path.glob("leases/*"))


def test_twenty_kills_lose_no_answer_and_repeat_none(tmp_path: Path) -> None:
    """What was printed counted: it is neither lost nor recorded again by a later builder."""
    chance, counted = random.Random(7), list[int]()
    for _ in range(20):
        builder = build(tmp_path, 0.001, most=SLOTS // 21)
        assert builder.stdout is not None
        for _ in range(chance.randrange(1, 25)):
            counted.append(int(builder.stdout.readline()))
        time.sleep(chance.random() / 100)
        counted += killed(builder)

    counted += finished(build(tmp_path, 0))

    # An answer that was recorded and not yet printed when the kill came is in the journal only.
    assert len(set(counted)) == len(counted) >= SLOTS - 20
    assert answered(tmp_path) == {slot: f"text {slot}" for slot in range(SLOTS)}


def test_a_builder_that_is_killed_beside_others_hands_its_slots_to_them(tmp_path: Path) -> None:
    doomed = build(tmp_path, 0.01)
    assert doomed.stdout is not None
    mine = [int(doomed.stdout.readline()) for _ in range(5)]
    other = build(tmp_path, 0.0005)
    time.sleep(0.3)
    mine += killed(doomed)

    others = finished(other)

    assert not set(mine) & set(others)
    assert answered(tmp_path) == {slot: f"text {slot}" for slot in range(SLOTS)}


def test_kills_among_three_builders_lose_no_answer_and_repeat_none(tmp_path: Path) -> None:
    chance, counted = random.Random(9), list[int]()
    builders = [build(tmp_path, 0.002) for _ in range(3)]
    for _ in range(8):
        time.sleep(0.2 + chance.random() / 5)
        victim = chance.randrange(3)
        counted += killed(builders[victim])
        builders[victim] = build(tmp_path, 0.002)

    for builder in builders:
        counted += finished(builder)

    assert len(set(counted)) == len(counted) >= SLOTS - 8
    assert answered(tmp_path) == {slot: f"text {slot}" for slot in range(SLOTS)}


def test_a_block_belongs_to_one_builder_until_it_leaves(tmp_path: Path) -> None:
    with Journal(tmp_path, PRINT) as other:
        with Journal(tmp_path, PRINT) as first:
            assert first.claim(0)
            assert first.claim(BLOCK_SLOTS - 1)
            assert not other.claim(0)
            assert other.claim(BLOCK_SLOTS)
            assert not first.claim(BLOCK_SLOTS)
        assert not other.claim(1)  # it is looked at again only after a refresh
        other.refresh()
        assert other.claim(1)


def test_a_builder_that_slept_claims_its_blocks_again(tmp_path: Path) -> None:
    with Journal(tmp_path, PRINT) as sleeper, Journal(tmp_path, PRINT) as other:
        assert sleeper.claim(0)
        sleeper._leases._beat_s -= EXPIRES_S + 1

        sleeper.sync()

        assert sleeper._leases._mine == set()
        assert not other.claim(0)  # its lock is still held: on this machine it is not dead
        assert sleeper.claim(0)


def test_a_builder_of_another_machine_is_dead_when_its_heart_stands_still(tmp_path: Path) -> None:
    """No lock of it can be seen from here: the age of its heartbeat decides."""
    leases = tmp_path / "leases"
    leases.mkdir()
    writer = "00000000000000000001-elsewhere-1-00000000"
    (leases / "00000000.0").write_text(writer)
    heart = leases / f"{writer}.alive"
    heart.touch()

    with Journal(tmp_path, PRINT) as journal:
        alive = journal.claim(0)
        os.utime(heart, (time.time() - EXPIRES_S - 1,) * 2)
        journal.refresh()
        dead = journal.claim(0)

    assert (alive, dead) == (False, True)
    assert heart.exists()  # whether it will wake up is not for this machine to say


def test_a_log_of_another_machine_is_left_alone_while_its_heart_beats(tmp_path: Path) -> None:
    with Journal(tmp_path / "there", PRINT) as journal:
        journal.record(Key(0, "instruction"), Answer(text="far away"))
        (log,) = (tmp_path / "there").glob("*.jsonl")
        content = log.read_bytes()
    writer = "00000000000000000001-elsewhere-1-00000000"
    foreign = tmp_path / f"{writer}-000000.jsonl"
    foreign.write_bytes(content)
    (tmp_path / "leases").mkdir()
    heart = tmp_path / "leases" / f"{writer}.alive"
    heart.touch()

    with Journal(tmp_path, PRINT) as journal:
        assert journal.get(Key(0, "instruction")) == Answer(text="far away")
    assert foreign.exists()
    os.utime(heart, (time.time() - EXPIRES_S - 1,) * 2)
    with Journal(tmp_path, PRINT) as journal:
        assert journal.get(Key(0, "instruction")) == Answer(text="far away")
    assert not foreign.exists()


def test_what_a_living_builder_records_is_seen_before_and_after_it_is_sealed(
    tmp_path: Path,
) -> None:
    with Journal(tmp_path, PRINT, Limits(rows=2)) as one, Journal(tmp_path, PRINT) as other:
        for slot in range(3):
            one.record(Key(slot, "instruction"), Answer(text=str(slot)))
            other.refresh()
            assert other.get(Key(slot, "instruction")) == Answer(text=str(slot))
        one.sync()
        other.refresh()
        assert [other.get(Key(slot, "instruction")) for slot in range(3)] == [
            Answer(text=str(slot)) for slot in range(3)
        ]
        assert len(other) == 3


def test_a_builder_that_was_taken_for_dead_loses_nothing(tmp_path: Path) -> None:
    """It slept, and a builder on a machine that sees no locks sealed and deleted its log."""
    with Journal(tmp_path, PRINT) as sleeper:
        sleeper.record(Key(0, "instruction"), Answer(text="0"))
        (log,) = tmp_path.glob("*.jsonl")
        log.unlink()
        sleeper.record(Key(1, "instruction"), Answer(text="1"))
        sleeper.sync()

        assert len(list(tmp_path.glob("*.parquet"))) == 1
        assert len(sleeper) == 2


def test_a_journal_is_not_frozen_while_another_builder_writes(tmp_path: Path) -> None:
    with Journal(tmp_path, PRINT) as one, Journal(tmp_path, PRINT) as other:
        one.record(Key(0, "instruction"), Answer(text="0"))
        with pytest.raises(JournalError) as caught:
            other.freeze()

    assert caught.value.what == "another build is writing this journal"
    with Journal(tmp_path, PRINT) as journal:
        journal.freeze()


def fill_under_a_limit(folder: Path, limit_bytes: int) -> None:
    """Record until a limit on the size of files is met, as a full disk does it."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))
    try:
        with Journal(folder, PRINT) as journal:
            for slot in range(1000):
                journal.record(Key(slot, "instruction"), Answer(text=f"text {slot}"))
                (folder / "count").write_text(str(slot + 1))
    except JournalError as error:
        (folder / "error").write_text(error.what)


@pytest.mark.parametrize("limit_bytes", [400, 3_000, 12_000])
def test_a_disk_that_fills_up_stops_the_builder_and_keeps_everything(
    tmp_path: Path, limit_bytes: int
) -> None:
    context = multiprocessing.get_context("spawn")
    builder = context.Process(target=fill_under_a_limit, args=(tmp_path, limit_bytes))
    builder.start()
    builder.join(60)

    kept = answered(tmp_path)

    what = (tmp_path / "error").read_text()
    assert what == "the journal cannot be used: File too large"
    count = int((tmp_path / "count").read_text())
    assert kept == {slot: f"text {slot}" for slot in range(count)}


def record_until_refused(folder: Path, said: "Connection[str]") -> None:
    """Record and lose the permission on the way; as root nothing is refused, so be nobody."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    try:
        with Journal(folder, PRINT, Limits(rows=50)) as journal:
            for slot in range(SLOTS):
                if slot == 120:
                    folder.chmod(0o500)
                journal.record(Key(slot, "instruction"), Answer(text=f"text {slot}"))
                said.send(str(slot))
    except JournalError as error:
        said.send(error.what)


@pytest.fixture
def nobodys(tmp_path: Path) -> Iterator[Path]:
    """A folder that nobody can reach, which pytest's own are not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        folder = Path(name, "journal")
        folder.mkdir()
        if os.geteuid() == 0:
            os.chown(folder, NOBODY, NOBODY)
        yield folder


@pytest.mark.parametrize(("mode", "kept"), [(0o700, 150), (0o500, 0)])
def test_a_permission_that_is_missing_or_withdrawn_stops_the_builder_and_keeps_everything(
    nobodys: Path, mode: int, kept: int
) -> None:
    """The log that is open can still be written; the next one cannot be created."""
    nobodys.chmod(mode)
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    builder = context.Process(target=record_until_refused, args=(nobodys, sender))
    builder.start()
    sender.close()
    told = []
    with contextlib.suppress(EOFError):
        while True:
            told.append(receiver.recv())
    builder.join()
    nobodys.chmod(0o700)

    assert told == [
        *map(str, range(kept)),
        "the journal cannot be used: Permission denied",
    ]
    assert answered(nobodys) == {slot: f"text {slot}" for slot in range(kept)}
