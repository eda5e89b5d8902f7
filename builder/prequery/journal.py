"""The journal: every finished answer, on disk before it is used.

One folder for each fingerprint, outside of any output folder. It holds `header.json`, which says
what the answers were made with, and one log for each process that ever wrote: a JSON line for
each answer with its CRC-32 as last member. A log is created exclusively and never reopened for
writing, so a torn last line stays what it is and nothing is written behind it. Every line is
verified alone: damage costs the answers on the damaged lines, which are then asked for again.
"""

import json
import os
import secrets
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

import msgspec
from filelock import FileLock, Timeout

from prequery.endpoint import Answer
from prequery.errors import JournalError

FORMAT = 1
_CHECKSUM = b',"crc":"%08x"}\n'
_CHECKSUM_BYTES = len(_CHECKSUM % 0)

Pass = Literal["instruction", "response"]


class Key(NamedTuple):
    """What an answer is for."""

    slot: int
    made: Pass
    turn: int = 0
    attempt: int = 0


class _Line(msgspec.Struct):
    slot: int
    made: Pass
    turn: int
    attempt: int
    answer: Answer


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Line).decode


def home() -> Path:
    """Return the folder of all journals.

    `PREQUERY_HOME`, or `prequery` in the user's data folder. Not a cache: answers cost money.
    """
    if chosen := os.environ.get("PREQUERY_HOME"):
        return Path(chosen)
    data = os.environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "prequery"


def folder_for(name: str, fingerprint: str, root: Path | None = None) -> Path:
    """Return the journal folder of a recipe."""
    return (root or home() / "journals") / f"{name}-{fingerprint[:12]}"


@dataclass
class Journal:
    """The answers of one fingerprint; a context manager that holds the folder for one process.

    Args:
        folder: Where it is or will be.
        fingerprint: Of the recipe. Another one in the same folder is refused.
    """

    folder: Path
    fingerprint: str
    answers: dict[Key, Answer] = field(default_factory=dict, repr=False)
    header: dict[str, Any] = field(default_factory=dict)
    damaged: int = 0
    _lock: FileLock | None = field(default=None, repr=False)
    _log: int | None = field(default=None, repr=False)
    _written: int = 0
    _synced: int = 0

    def __enter__(self) -> Self:
        """Take the folder and read what is in it.

        Raises:
            JournalError: Another process holds it, it is another recipe's, or it cannot be used.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(self.folder / "lock", mode=0o600)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise JournalError(
                "another build is writing this journal",
                str(self.folder),
                "wait for it to end, or stop it; then run the same command",
            ) from None
        except OSError as error:
            raise self._unusable(error) from None
        try:
            self._read_header()
            for log in sorted(self.folder.glob("*.jsonl")):
                self._read_log(log)
        except OSError as error:
            self._lock.release()
            raise self._unusable(error) from None
        except JournalError:
            self._lock.release()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Bring everything to the disk and give the folder back."""
        try:
            if self._log is not None:
                self.sync()
                os.close(self._log)
                self._log = None
        finally:
            if self._lock:
                self._lock.release()

    def __len__(self) -> int:
        """Return how many answers are held."""
        return len(self.answers)

    def get(self, key: Key) -> Answer | None:
        """Return an answer; null when it is not held."""
        return self.answers.get(key)

    def agree(self, made_with: Mapping[str, Any], notes: Mapping[str, Any]) -> None:
        """Note what the answers are made with, or compare with what was noted.

        Args:
            made_with: What decides an answer besides the recipe: model, weights, prefix, mode.
            notes: What else is worth keeping of the first session; never compared.

        Raises:
            JournalError: The answers in the journal were made with something else.
        """
        if not self.header:
            header = {
                "format": FORMAT,
                "fingerprint": self.fingerprint,
                "made_with": made_with,
                "notes": notes,
            }
            self._write_header(json.loads(json.dumps(header)))
            return
        noted = self.header["made_with"]
        now = json.loads(json.dumps(made_with))
        changed = sorted(k for k in noted.keys() | now.keys() if noted.get(k) != now.get(k))
        if changed:
            shown = "; ".join(f"{k}: {noted.get(k)!r:.60} -> {now.get(k)!r:.60}" for k in changed)
            raise JournalError(
                f"the answers in this journal were made with something else: {shown}",
                str(self.folder),
                "serve what it was made with, or choose another --journal to start anew",
            )

    def record(self, key: Key, answer: Answer) -> None:
        """Add an answer. It counts as soon as this returns: a killed process loses nothing of it.

        Raises:
            JournalError: The disk is full or cannot be written. What was recorded before stays.
        """
        body = _encode(_Line(key.slot, key.made, key.turn, key.attempt, answer))[:-1]
        line = body + _CHECKSUM % zlib.crc32(body)
        try:
            if self._log is None:
                self._log = self._new_log()
            if os.write(self._log, line) != len(line):
                raise OSError(28, "No space left on device")
        except OSError as error:
            raise self._unusable(error) from None
        self._written += 1
        self.answers[key] = answer

    def sync(self) -> None:
        """Bring what was recorded to the disk itself, so that power loss cannot take it."""
        if self._log is None or self._written == self._synced:
            return
        written = self._written
        try:
            os.fdatasync(self._log)
        except OSError as error:
            raise self._unusable(error) from None
        self._synced = written

    def _new_log(self) -> int:
        # The time only sorts the logs for a human eye; equal names are impossible by the rest.
        name = f"{time.time_ns():020d}-{os.getpid()}-{secrets.token_hex(4)}.jsonl"
        log = os.open(self.folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self._sync_folder()
        return log

    def _read_log(self, log: Path) -> None:
        with log.open("rb") as lines:
            for line in lines:
                found = _verified(line)
                if found is None:
                    self.damaged += 1
                    continue
                key = Key(found.slot, found.made, found.turn, found.attempt)
                held = self.answers.get(key)
                # Two processes can have answered the same request. Which one counts must not
                # depend on the names of their logs.
                if held is None or _encode(found.answer) < _encode(held):
                    self.answers[key] = found.answer

    def _read_header(self) -> None:
        path = self.folder / "header.json"
        if not path.exists():
            return
        try:
            self.header = json.loads(path.read_bytes())
            noted = (self.header["format"], self.header["fingerprint"], self.header["made_with"])
        except (ValueError, KeyError, TypeError):
            raise JournalError(
                "the header of this journal is damaged",
                str(path),
                "restore it, or choose another --journal to start anew",
            ) from None
        if noted[:2] != (FORMAT, self.fingerprint):
            raise JournalError(
                f"this is the journal of another recipe: {str(noted[1])[:12]}, "
                f"this recipe is {self.fingerprint[:12]}",
                str(self.folder),
                "choose another --journal",
            )

    def _write_header(self, header: dict[str, Any]) -> None:
        path = self.folder / "header.json"
        draft = self.folder / f"header.json.{secrets.token_hex(4)}"
        try:
            with draft.open("x", encoding="utf-8") as file:
                json.dump(header, file, indent=1, sort_keys=True)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
            self._sync_folder()
        except OSError as error:
            raise self._unusable(error) from None
        self.header = header

    def _sync_folder(self) -> None:
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _unusable(self, error: OSError) -> JournalError:
        return JournalError(
            f"the journal cannot be used: {error.strerror}",
            str(self.folder),
            "make room or correct the permissions, then run the same command: "
            "recorded answers are kept",
        )


def _verified(line: bytes) -> _Line | None:
    """Return the line's content, or nothing if one bit of it is not as it was written."""
    body = line[:-_CHECKSUM_BYTES]
    if line[len(body) :] != _CHECKSUM % zlib.crc32(body):
        return None
    try:
        return _decode(body + b"}")
    except msgspec.DecodeError:
        return None
