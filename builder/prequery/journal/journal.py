"""The journal of one fingerprint: logs, segments and leases put together."""

import contextlib
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from fsspec.core import url_to_fs

from prequery.endpoint import Answer
from prequery.errors import JournalError
from prequery.journal import locks, manifest, segments, wal
from prequery.journal.disk import Disk
from prequery.journal.index import Decoded, Index
from prequery.journal.leases import Leases
from prequery.journal.lines import PASSES, Key, Pass, decoded, the_one
from prequery.journal.places import beside
from prequery.journal.segments import DamagedError, Segment
from prequery.journal.store import LocalStore, Store, UrlStore, commit
from prequery.journal.wal import Left, Tail, Wal

FORMAT = 2
READABLE = (1, FORMAT)  # 1 had no segments; its logs are the same
HEADER = "header.json"


@dataclass(frozen=True)
class Limits:
    """When a log is full and gets sealed: whichever comes first.

    Args:
        rows: So many answers.
        size_bytes: So many bytes of the log.
        age_s: So long after its first answer, at the next `sync`.
    """

    rows: int = 2_000
    size_bytes: int = 4 << 20
    age_s: float = 30.0


@dataclass
class Journal:
    """The answers of one fingerprint; a context manager. Several processes may have it open.

    `get`, `record` and `claim` are for one thread, `sync` and `refresh` for that or any other.

    Args:
        folder: Where it is or will be: a path, or as text any fsspec URL.
        fingerprint: Of the recipe. Another one in the same folder is refused.
        limits: When a log is sealed.
        disk: The system calls; tests note them here.
        heard: Is told of every answer that `get` gives.

    Attributes:
        header: What `agree` noted; empty in a new journal.
        damaged: Answers that damage took, as far as it was met: segments are looked at when an
            answer of theirs is asked for. They are asked for again.
        local: Folder on this machine for what is only used while the build runs.
    """

    folder: Path | str
    fingerprint: str
    limits: Limits = field(default_factory=Limits, repr=False)
    disk: Disk = field(default_factory=Disk, repr=False)
    heard: Callable[[Key, Answer], None] | None = field(default=None, repr=False)
    header: dict[str, Any] = field(default_factory=dict, init=False)
    damaged: int = field(default=0, init=False)
    local: Path = field(init=False)
    _store: Store = field(init=False, repr=False)
    _leases: Leases = field(init=False, repr=False)
    _writer: str = field(init=False, repr=False)
    _manifest: bytes | None = field(default=None, init=False, repr=False)
    _index: Index = field(default_factory=Index, init=False, repr=False)
    _decoded: Decoded = field(default_factory=Decoded, init=False, repr=False)
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count, init=False)
    # The log that is filled, the full ones that wait for their seal, and those of other builders.
    _log: Wal | None = field(default=None, init=False, repr=False)
    _full: list[Wal] = field(default_factory=list, init=False, repr=False)
    _tails: dict[str, Tail] = field(default_factory=dict, init=False, repr=False)
    # What `get` and `record` touch; held for microseconds. `_sealing` is held during disk work
    # and taken first: a sync that outlives its caller must not meet another one.
    _state: threading.RLock = field(default_factory=threading.RLock, init=False, repr=False)
    _sealing: threading.RLock = field(default_factory=threading.RLock, init=False, repr=False)

    def __enter__(self) -> Self:
        """Seal what dead builders left, and look at what is there.

        Raises:
            JournalError: It is another recipe's, was changed after it was frozen, or cannot be
                used.
        """
        try:
            self._open_store()
            self._read_header()
            with contextlib.suppress(FileNotFoundError):
                self._manifest = self._store.read(manifest.NAME)
            self._read_names()
            if self._manifest is None:
                self._recover()
            self.refresh()
        except OSError as error:
            raise self._unusable(error) from None
        if self._manifest is not None:
            manifest.check(self._manifest, self._index, self._tails, str(self.folder))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Seal everything and let go. What cannot be sealed stays in its log for the next one."""
        try:
            self._seal_all()
        except JournalError:
            if kind is None:  # else the first error is the one to show; nothing is lost by this
                raise
        finally:
            with self._sealing, self._state:
                for log in self._logs():
                    log.close()
                self._full, self._log = [], None
            with contextlib.suppress(OSError):
                self._leases.release()

    def __len__(self) -> int:
        """Return how many answers are held. One that two builders brought counts twice."""
        with self._state:
            return self._index.row_count + sum(len(lines) for lines in self._lines())

    def end(self, made: Pass) -> int:
        """Return the slot behind the highest one that has an answer of this pass."""
        with self._state:
            logged = (key.slot + 1 for lines in self._lines() for key in lines if key.made == made)
            return max(self._index.end(made), max(logged, default=0))

    def get(self, key: Key) -> Answer | None:
        """Return an answer; null when it is not held.

        Raises:
            JournalError: A segment cannot be read.
        """
        found = []
        with self._state:
            # A replay asks for millions: it has no open log, and nothing is built for one.
            if self._log or self._full or self._tails:
                found = [decoded(lines[key]) for lines in self._lines() if key in lines]
            places = self._index.find(key.slot, key.made)
        for segment in places:
            answer = self._answers(segment).get(key)
            if answer is not None:
                found.append(answer)
        if not found:
            return None
        answer = found[0] if len(found) == 1 else the_one(found)
        if self.heard:
            self.heard(key, answer)
        return answer

    def agree(self, made_with: Mapping[str, Any], notes: Mapping[str, Any]) -> None:
        """Note what the answers are made with, or compare with what was noted.

        Args:
            made_with: What decides an answer besides the recipe: model, weights, prefix, mode.
            notes: What else is worth keeping of the first run; never compared.

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
            content = json.dumps(header, indent=1, sort_keys=True).encode()
            try:
                self._store.create(HEADER, content)
                self._read_header()  # another builder's, where that was faster
            except OSError as error:
                raise self._unusable(error) from None
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
            JournalError: The disk is full or cannot be written, the journal is frozen, or a
                number is beyond 64 bits. What was recorded before stays.
        """
        if self._manifest is not None:
            raise JournalError(
                "this journal is frozen: it takes no answer any more",
                str(self.folder),
                "choose another --journal",
            )
        if too_large := segments.unstorable(answer):
            raise JournalError(
                f"an answer holds a number beyond 64 bits: {too_large}",
                f"{self.folder}, slot {key.slot}, {key.made}",
                "no tokenizer counts so far: see what answers at the endpoint's address",
            )
        with self._state:
            try:
                if self._log is None:
                    self._leases.announce()
                    self._log = Wal(self.local, self._writer, self._numbers, self.disk)
                self._log.append(key, answer)
            except OSError as error:
                self._retire()  # half a line may stand at its end: nothing is written behind it
                raise self._unusable(error) from None
            log, limits = self._log, self.limits
            if log.row_count >= limits.rows or log.size_bytes >= limits.size_bytes:
                self._retire()

    def sync(self) -> None:
        """Bring what was recorded to the disk itself, and seal what is full.

        For about once a second, beside the event loop. What was recorded before the call is safe
        from power loss after it.

        Raises:
            JournalError: The disk or the store cannot be written. What was recorded stays.
        """
        with self._sealing:
            try:
                self._leases.beat()
                with self._state:
                    log = self._log
                    if log and (log.is_gone or time.monotonic() - log.born_s >= self.limits.age_s):
                        self._retire()
                        log = None
                if log:
                    log.sync()
                while self._full:
                    self._seal(self._full[0])
            except OSError as error:
                raise self._unusable(error) from None

    def claim(self, slot: int) -> bool:
        """Say whether this builder is the one to ask for a slot.

        Slots go by blocks. The answer to a slot of a known block is a look into a set; a new
        block costs a few calls to the store. A refused block is looked at again after `refresh`.
        Granting a block shows what an earlier holder recorded, so `get` comes after `claim`.

        Raises:
            JournalError: The store cannot be written.
        """
        try:
            return self._leases.claim(slot)
        except OSError as error:
            raise self._unusable(error) from None

    def refresh(self) -> None:
        """See what other builders recorded since the last time.

        On a folder that is every line that they wrote, on an object store what they sealed.

        Raises:
            JournalError: The store cannot be read.
        """
        with self._sealing:
            try:
                tails = self._read_tails()
                # After the logs: one that is sealed and deleted in between is in the list now.
                self._read_names()
            except OSError as error:
                raise self._unusable(error) from None
            with self._state:
                self._tails = tails
            self._leases.forget_others()

    def freeze(self) -> None:
        """Seal everything and write down what there is: from now on nothing comes or goes.

        Raises:
            JournalError: Another build is writing, or a segment is damaged.
        """
        with self._sealing:
            self._seal_all()
            self.refresh()
            if self._tails:
                raise JournalError(
                    "another build is writing this journal",
                    str(self.folder),
                    "wait for it to end, or stop it; then run the same command",
                )
            try:
                for segment in list(self._index):
                    if not segments.is_whole(segment, self._store.read(segment.name)):
                        raise JournalError(
                            f"a segment of this journal is damaged: {segment.name}",
                            str(self.folder),
                            "run the build once more: its answers are asked for again",
                        )
                content = manifest.dump(self.fingerprint, self._index)
                self._store.create(manifest.NAME, content)
                self._manifest = self._store.read(manifest.NAME)
            except OSError as error:
                raise self._unusable(error) from None
            manifest.check(self._manifest, self._index, (), str(self.folder))

    def _open_store(self) -> None:
        if isinstance(self.folder, str) and "://" in self.folder:
            if urlsplit(self.folder).username:
                raise JournalError(
                    "the address of the journal holds credentials",
                    "--journal",
                    "take them out: the store's own client reads them from the environment",
                )
            self._store = UrlStore(*url_to_fs(self.folder))
            self.local = beside(self.folder)
            self.disk.make_folder(self.local)
        else:
            self.local = Path(self.folder)
            self.disk.make_folder(self.local)
            self._store = store = LocalStore(self.local, self.disk)
            store.collect()
        self._writer = locks.new_writer()
        self._leases = Leases(self._store, self.local, self._writer, self.disk.create, self.refresh)

    def _read_header(self) -> None:
        try:
            content = self._store.read(HEADER)
        except FileNotFoundError:
            return
        where = f"{self.folder}/{HEADER}"
        try:
            header = json.loads(content)
            noted = (header["format"], header["fingerprint"], header["made_with"])
        except (ValueError, KeyError, TypeError):
            raise JournalError(
                "the header of this journal is damaged",
                where,
                "restore it, or choose another --journal to start anew",
            ) from None
        if noted[0] not in READABLE:
            raise JournalError(
                f"this journal has format {noted[0]!r}, this prequery reads up to {FORMAT}",
                where,
                "install the newer prequery that wrote it, or choose another --journal",
            )
        if noted[1] != self.fingerprint:
            raise JournalError(
                f"this is the journal of another recipe: {str(noted[1])[:12]}, "
                f"this recipe is {self.fingerprint[:12]}",
                str(self.folder),
                "choose another --journal",
            )
        self.header = header

    def _logs(self) -> list[Wal]:
        return [*self._full, *([self._log] if self._log else [])]

    def _lines(self) -> Iterable[wal.Lines]:
        if self._log:
            yield self._log.lines
        yield from (log.lines for log in self._full)
        yield from (tail.lines for tail in self._tails.values())

    def _retire(self) -> None:
        """Write nothing more into the log; the next `sync` seals it."""
        if self._log:
            self._full.append(self._log)
            self._log = None

    def _seal_all(self) -> None:
        with self._sealing:
            with self._state:
                self._retire()
            self.sync()

    def _seal(self, log: Wal) -> None:
        """Make segments of a log. In every moment its answers are in one or the other, or both."""
        sealed = self._commit(dict(log.answers()), log.path.stem)
        with self._state:
            self._index.add(sealed)
            self._full.remove(log)
        log.delete()

    def _commit(self, answers: Mapping[Key, Answer], log: str) -> list[Segment]:
        """Put answers on the disk for good, a segment for each pass."""
        sealed = []
        for made in PASSES:
            chosen = {key: answer for key, answer in answers.items() if key.made == made}
            if chosen:
                segment, data = segments.pack(chosen, made, self.fingerprint, log)
                commit(self._store, segment.name, data)
                sealed.append(segment)
        return sealed

    def _recover(self) -> None:
        """Seal the logs of builders that are dead."""
        for path in self._log_paths():
            host = locks.host_of(path.name)
            writer = path.stem.rpartition("-")[0]
            # A lock may not reach over to other machines; a heartbeat does.
            if host != locks.this_host() and self._leases.is_alive(writer):
                continue
            file = locks.take(path)
            if file is None:
                continue
            left = Left(path, file)
            try:
                for answers in left.batches(self.limits.rows):
                    # Its builder may have been killed after it sealed, and before it deleted it.
                    new = {k: answer for k, answer in answers.items() if self.get(k) != answer}
                    self._index.add(self._commit(new, path.stem))
                left.delete(self.disk)
            finally:
                left.close()
            self.damaged += left.damaged

    def _log_paths(self) -> list[Path]:
        return sorted(self.local.glob(f"*{wal.SUFFIX}"))

    def _read_names(self) -> None:
        names = self._store.names()
        with self._state:
            new = (name for name in names if name not in self._index)
            found = (segments.parse(name, self.fingerprint) for name in new)
            self._index.add(segment for segment in found if segment)

    def _read_tails(self) -> dict[str, Tail]:
        """Return what other builders' logs hold now."""
        tails = {}
        for path in self._log_paths():
            if not path.name.startswith(self._writer):
                tail = self._tails.get(path.name) or Tail(path)
                tail.read()
                tails[path.name] = tail
        return tails

    def _answers(self, segment: Segment) -> Mapping[Key, Answer]:
        """Return a segment's answers; none of a damaged one."""
        answers = self._decoded.get(segment)
        if answers is not None:
            return answers
        try:
            answers = segments.unpack(segment, self._store.read(segment.name))
        except (DamagedError, FileNotFoundError):
            self._lose(segment)
            return {}
        except OSError as error:
            raise self._unusable(error) from None
        if segment.slots is None and segment.listed is None:
            segment.know(answers)
        self._decoded.put(segment, answers)
        return answers

    def _lose(self, segment: Segment) -> None:
        """Do without a damaged segment: what it held is asked for again."""
        if self._manifest is not None:
            raise manifest.changed(f"{segment.name} is damaged", str(self.folder))
        with self._state:
            if self._index.remove(segment):
                self.damaged += segment.rows
        with contextlib.suppress(OSError):
            self._store.set_aside(segment.name)

    def _unusable(self, error: OSError) -> JournalError:
        return JournalError(
            f"the journal cannot be used: {error.strerror or error}",
            str(self.folder),
            "make room or correct the permissions, then run the same command: "
            "recorded answers are kept",
        )
