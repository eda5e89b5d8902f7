"""What a disk may hold after the power failed at any moment of a real journal recording.

The recording runs on a real folder through a `Disk` that notes every call. From the notes, states
are drawn that a file system is allowed to leave behind, harsher than any single one is:

- a file's bytes are certain up to its last `sync`; of later ones any number is there, and any of
  them may be what stood on the disk before;
- a name is certain up to the folder's last `sync_folder`; each later creation, link, rename and
  deletion happened or not, on its own.

Every state is opened with the real code. Run as a program for more states:
`python tests/crash_simulator.py 20000`.
"""

import errno
import os
import random
import string
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from prequery.endpoint import Answer
from prequery.errors import JournalError
from prequery.journal import Journal, Key, Limits
from prequery.journal.disk import Disk

PRINT = "a" * 64
LIMITS = Limits(rows=9)

Answers = dict[Key, Answer]


@dataclass(frozen=True)
class Write:
    """Bytes were added to a file."""

    inode: int
    data: bytes


@dataclass(frozen=True)
class Sync:
    """A file was brought to the disk."""

    inode: int


@dataclass(frozen=True)
class Names:
    """Names changed in one step: each now leads to this inode, or to nothing."""

    step: str
    changes: tuple[tuple[Path, int | None], ...]


@dataclass(frozen=True)
class SyncFolder:
    """The names in a folder were brought to the disk."""

    folder: Path


@dataclass(frozen=True)
class Promise:
    """From here on these answers must be there: after a kill, or even after power loss."""

    answers: Mapping[Key, Answer]
    without_power: bool


Event = Write | Sync | Names | SyncFolder | Promise


class NotingDisk(Disk):
    """A disk that notes what was done to it."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.paths: dict[int, Path] = {}
        self._names: dict[Path, int] = {}
        self._inodes: dict[int, int] = {}

    def create(self, path: Path) -> int:
        file = super().create(path)
        inode = len(self.paths)
        self.paths[inode] = path
        self._inodes[file] = inode
        self._name("create", {path: inode})
        return file

    def write(self, file: int, data: bytes) -> None:
        super().write(file, data)
        self.events.append(Write(self._inodes[file], data))

    def sync(self, file: int) -> None:
        super().sync(file)
        self.events.append(Sync(self._inodes[file]))

    def link(self, old: Path, new: Path) -> None:
        super().link(old, new)
        self._name("link", {new: self._names[old]})

    def rename(self, old: Path, new: Path) -> None:
        super().rename(old, new)
        self._name("rename", {new: self._names[old], old: None})

    def unlink(self, path: Path) -> None:
        super().unlink(path)
        self._name("unlink", {path: None})

    def sync_folder(self, folder: Path) -> None:
        super().sync_folder(folder)
        self.events.append(SyncFolder(folder))

    def inode_of(self, file: int) -> int:
        """Return what a descriptor leads to."""
        return self._inodes[file]

    def _name(self, step: str, changes: dict[Path, int | None]) -> None:
        for path, inode in changes.items():
            if inode is None:
                self._names.pop(path, None)
            else:
                self._names[path] = inode
        self.events.append(Names(step, tuple(changes.items())))


class NoHardLinks(NotingDisk):
    """A file system without hard links, as some that are mounted from elsewhere."""

    def link(self, old: Path, new: Path) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")


class LogsGoFirst(NotingDisk):
    """Seeded bug: a log is deleted before the name of its segment is on the disk."""

    def __init__(self) -> None:
        super().__init__()
        self._late: Path | None = None

    def sync_folder(self, folder: Path) -> None:
        self._late = folder

    def unlink(self, path: Path) -> None:
        super().unlink(path)
        if self._late and path.suffix == ".jsonl":
            super().sync_folder(self._late)
            self._late = None


class SegmentsAreNotSynced(NotingDisk):
    """Seeded bug: a segment gets its name before its content is on the disk."""

    def __init__(self) -> None:
        super().__init__()
        self._segments: set[int] = set()

    def write(self, file: int, data: bytes) -> None:
        super().write(file, data)
        if data.startswith(b"PAR1"):
            self._segments.add(self.inode_of(file))

    def sync(self, file: int) -> None:
        if self.inode_of(file) not in self._segments:
            super().sync(file)


class LogsAreNotSynced(NotingDisk):
    """Seeded bug: `sync` returns without having brought the log to the disk."""

    def sync(self, file: int) -> None:
        if self.paths[self.inode_of(file)].suffix != ".jsonl":
            super().sync(file)


class NewLogsAreNotNamed(NotingDisk):
    """Seeded bug: a log's content is on the disk and its name is not."""

    def sync_folder(self, folder: Path) -> None:
        last = self.events[-1] if self.events else None
        if isinstance(last, Sync) and self.paths[last.inode].suffix == ".jsonl":
            return
        super().sync_folder(folder)


@dataclass
class Recording:
    """What happened on a disk, and what was promised when.

    Args:
        root: The journal's folder.
        events: In order.
        truth: Every answer that was ever recorded.
    """

    root: Path
    events: list[Event]
    truth: Answers = field(default_factory=dict)


def act(root: Path, disk: NotingDisk, seed: int) -> Recording:
    """Run three builders one after the other; the second is killed before it seals."""
    chance, truth = random.Random(seed), dict[Key, Answer]()
    slots = iter(range(1000))

    def record(journal: Journal) -> None:
        for slot in [next(slots) for _ in range(8)]:
            for made in ("instruction", "response"):
                text = "".join(chance.choices(string.ascii_letters + " ", k=chance.randrange(80)))
                key, answer = Key(slot, made), Answer(text=text, finish_reason="eos_token")
                journal.record(key, answer)
                truth[key] = answer
                disk.events.append(Promise({key: answer}, without_power=False))
                if chance.random() < 0.2:
                    journal.sync()
                    disk.events.append(Promise(dict(truth), without_power=True))

    with Journal(root, PRINT, LIMITS, disk) as journal:
        journal.agree({"model_sha": "1"}, {})
        record(journal)
    disk.events.append(Promise(dict(truth), without_power=True))
    killed = Journal(root, PRINT, LIMITS, disk).__enter__()
    record(killed)
    end(killed)
    with Journal(root, PRINT, LIMITS, disk) as journal:
        record(journal)
    disk.events.append(Promise(dict(truth), without_power=True))
    return Recording(root, disk.events, truth)


def end(journal: Journal) -> None:
    """Do what the kernel does when a process is killed: close its files."""
    for log in journal._logs():
        log.close()
    if journal._leases._lock is not None:
        os.close(journal._leases._lock)


class Unfailing(Disk):
    """A disk on which nothing needs to be brought to the disk: states are opened on it."""

    def sync(self, file: int) -> None:
        pass

    def sync_folder(self, folder: Path) -> None:
        pass


@dataclass(frozen=True)
class State:
    """What may be on the disk, and what must be found in it."""

    files: Mapping[Path, bytes]
    promised: Mapping[Key, Answer]


def draw(recording: Recording, moment: int, chance: random.Random) -> State:
    """Draw a state that a moment, counted in events, may leave behind."""
    events = recording.events[:moment]
    kept_ratio = chance.choice([0.0, 0.3, 0.7, 1.0])
    only_killed = chance.random() < 0.1
    written: dict[int, bytes] = {}
    synced: Counter[int] = Counter()
    names: dict[Path, int] = {}
    pending: list[Names] = []
    promised: Answers = {}

    def settle(changes: list[Names]) -> None:
        for path, inode in (change for each in changes for change in each.changes):
            if inode is None:
                names.pop(path, None)
            else:
                names[path] = inode

    for event in events:
        match event:
            case Write(inode, data):
                written[inode] = written.get(inode, b"") + data
            case Sync(inode):
                synced[inode] = len(written.get(inode, b""))
            case Names():
                pending.append(event)
            case SyncFolder(folder):
                here = [each for each in pending if each.changes[0][0].parent == folder]
                settle(here)
                pending = [each for each in pending if each not in here]
            case Promise(answers, without_power):
                if without_power or only_killed:
                    promised.update(answers)
    settle([each for each in pending if only_killed or chance.random() < kept_ratio])

    def content(inode: int) -> bytes:
        whole = written.get(inode, b"")
        return whole if only_killed else torn(whole, synced[inode], chance)

    return State({path: content(inode) for path, inode in names.items()}, promised)


def torn(whole: bytes, certain: int, chance: random.Random) -> bytes:
    """Return a file whose bytes after the certain ones are anything."""
    left = bytearray(whole[: chance.randint(certain, len(whole))])
    if len(left) > certain and chance.random() < 0.6:
        start = chance.randrange(certain, len(left))
        stop = min(start + chance.choice([1, 7, 100, 4096]), len(left))
        if chance.random() < 0.3:
            left[start:stop] = bytes(stop - start)
        else:  # an older text, the worst that a block can hold: it still reads well
            left[start:stop] = bytes(left[start:stop]).swapcase()
    return bytes(left)


def recover(state: State, recording: Recording, folder: Path) -> str | None:
    """Open a state with the real code; return what is wrong with it, or nothing."""
    for path, data in state.files.items():
        place = folder / path.relative_to(recording.root)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    # Twice, when something had to be sealed: the second time it comes out of segments.
    logs = any(path.suffix == ".jsonl" for path in state.files)
    for time in ("first", "second") if logs else ("first",):
        try:
            with Journal(folder, PRINT, LIMITS, Unfailing()) as journal:
                found = {key: journal.get(key) for key in recording.truth}
                count = len(journal)
        except JournalError as error:
            return f"refused: {error.what}"
        wrong = [k for k, a in found.items() if a is not None and a != recording.truth[k]]
        lost = [key for key in state.promised if found[key] is None]
        held = sum(answer is not None for answer in found.values())
        if wrong or lost or count > held:
            counted = f"{len(wrong)} wrong, {len(lost)} lost, {count - held} unknown"
            return f"{counted} when opened for the {time} time"
    return None


def faults(recording: Recording, states: int, seed: int, folder: Path) -> Counter[str]:
    """Draw states and count what is wrong with them; enough states have every moment in them."""
    chance, found = random.Random(seed), Counter[str]()
    moments = list(range(len(recording.events) + 1))
    chance.shuffle(moments)
    for number in range(states):
        state = draw(recording, moments[number % len(moments)], chance)
        if fault := recover(state, recording, folder / str(number)):
            found[fault] += 1
    return found


def main(states: int) -> int:
    """Try many states of several recordings; print what is wrong."""
    found = Counter[str]()
    for seed in range(0, states, 500):
        with tempfile.TemporaryDirectory() as root:
            recording = act(Path(root) / "journal", NotingDisk(), seed)
            found += faults(recording, min(500, states - seed), seed, Path(root) / "states")
    sys.stdout.write(f"{states} states, {found.total()} with faults: {dict(found)}\n")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main(int(sys.argv[1])))
