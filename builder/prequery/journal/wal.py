"""The write-ahead log: answers that are not in a segment yet.

A log is created exclusively and never reopened for writing, so a torn last line stays what it is
and nothing is written behind it. Its writer holds a lock on it for as long as it lives.
"""

import contextlib
import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path

from prequery.endpoint import Answer
from prequery.journal import locks
from prequery.journal.disk import Disk
from prequery.journal.lines import Key, decoded, encode, verified

SUFFIX = ".jsonl"

Lines = dict[Key, bytes]


def keep(lines: Lines, key: Key, line: bytes) -> None:
    """Hold a line; of two to one key the smaller, as `lines.the_one` decides on answers.

    No encoded answer is the beginning of another one, so whole lines compare as answers do.
    """
    held = lines.get(key)
    if held is None or line < held:
        lines[key] = line


class Wal:
    """One log of this process.

    Lines are kept as they were written until the log is sealed: what is sealed from memory is then
    what a recovery would seal from the file, byte for byte.

    Args:
        folder: Where it is created.
        writer: This builder.
        numbers: Of its logs.
        disk: The system calls.
    """

    def __init__(
        self, folder: Path, writer: str, numbers: "itertools.count[int]", disk: Disk
    ) -> None:
        def create() -> tuple[Path, int]:
            path = folder / f"{writer}-{next(numbers):06d}{SUFFIX}"
            return path, disk.create(path)

        self.path, self._file = locks.create_locked(create)
        self.lines: Lines = {}
        self.row_count = 0
        self.size_bytes = 0
        self.born_s = time.monotonic()
        self._disk = disk
        self._synced_bytes = 0
        self._is_named = False

    def append(self, key: Key, answer: Answer) -> None:
        """Write an answer. A killed process loses nothing of it once this returned."""
        line = encode(key, answer)
        self._disk.write(self._file, line)
        self.size_bytes += len(line)
        self.row_count += 1
        keep(self.lines, key, line)

    def sync(self) -> None:
        """Bring what was written to the disk itself. May run beside `append`."""
        size = self.size_bytes
        if size > self._synced_bytes:
            self._disk.sync(self._file)
            if not self._is_named:
                self._disk.sync_folder(self.path.parent)
                self._is_named = True
            self._synced_bytes = size

    @property
    def is_gone(self) -> bool:
        """Whether somebody took this process for dead and deleted its log."""
        return os.fstat(self._file).st_nlink == 0

    def answers(self) -> Iterator[tuple[Key, Answer]]:
        """Yield what is in it."""
        for key, line in self.lines.items():
            yield key, decoded(line)

    def delete(self) -> None:
        """Take it away: everything in it is in segments that are on the disk."""
        self._disk.unlink(self.path)
        self.close()

    def close(self) -> None:
        """Let go of it, and leave it to the next builder."""
        os.close(self._file)


class Tail:
    """What can be read of another builder's log while it grows.

    Args:
        path: The log.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: Lines = {}
        self._read_bytes = 0

    def read(self) -> None:
        """Take in the lines that were completed since the last time."""
        with contextlib.suppress(FileNotFoundError), self.path.open("rb") as file:
            file.seek(self._read_bytes)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._read_bytes += len(line)
                if found := verified(line):
                    keep(self.lines, found[0], line)


class Left:
    """A log whose writer is dead; nobody else takes it while this holds it.

    Args:
        path: The log.
        file: Its descriptor, locked.
    """

    def __init__(self, path: Path, file: int) -> None:
        self.path = path
        self.damaged = 0
        self._file = file

    def batches(self, rows: int) -> Iterator[dict[Key, Answer]]:
        """Yield its verified answers, from at most so many lines at a time."""
        # Not closed with the reader: the lock would go before the log is deleted.
        with os.fdopen(self._file, "rb", closefd=False) as file:
            while chunk := list(itertools.islice(file, rows)):
                lines: Lines = {}
                for line in chunk:
                    if found := verified(line):
                        keep(lines, found[0], line)
                    else:
                        self.damaged += 1
                yield {key: decoded(line) for key, line in lines.items()}

    def delete(self, disk: Disk) -> None:
        """Take it away: everything in it is in segments that are on the disk."""
        disk.unlink(self.path)

    def close(self) -> None:
        """Let go of it."""
        os.close(self._file)
