"""Who works on which slots, when several builders share a journal.

Slots are leased in contiguous blocks: that keeps segments dense, and a builder that dies costs the
others at most a block. A lease is a create-only file with its holder's name. It is never deleted
while anybody works: who finds that its holder is dead creates the next generation of it, and of
two who try only one succeeds.

What an earlier holder of a block recorded is seen before the block is granted.

A lease can fail: a builder that slept for too long loses its blocks and may not know it for a
moment. Then a slot is asked for twice and `lines.the_one` decides; nothing else depends on leases.
"""

import contextlib
import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path

from prequery.journal import locks
from prequery.journal.store import Store

FOLDER = "leases"
BLOCK_SLOTS = 64
EXPIRES_S = 60.0
HEARTBEAT_S = 15.0
ALIVE = ".alive"


class Leases:
    """The leases of one builder.

    Args:
        store: Where leases and heartbeats are.
        local: Folder on this machine for the lock that tells others here at once who is alive.
        writer: This builder.
        create: Creates a private file.
        refresh: Makes seen what others recorded until now.
    """

    def __init__(
        self,
        store: Store,
        local: Path,
        writer: str,
        create: Callable[[Path], int],
        refresh: Callable[[], None],
    ) -> None:
        self._store = store
        self._locks = local / FOLDER
        self._writer = writer
        self._create = create
        self._refresh = refresh
        self._has_refreshed = False
        self._lock: int | None = None
        self._beat_s = 0.0
        self._mine: set[int] = set()
        self._others: set[int] = set()

    def announce(self) -> None:
        """Be alive, for others to see."""
        if self._lock is None:
            self._locks.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = self._locks / (self._writer + ALIVE)
            _, self._lock = locks.create_locked(lambda: (path, self._create(path)))
            self._store.touch(self._name(self._writer))
            self._beat_s = time.monotonic()

    def claim(self, slot: int) -> bool:
        """Say whether this builder works on the slot. The first of a block costs a few calls."""
        block = slot // BLOCK_SLOTS
        if block in self._mine:
            return True
        if block in self._others:
            return False
        self.announce()
        if not self._has_refreshed:
            # Until it was announced, the last other builder could leave and clear the table.
            self._refresh()
            self._has_refreshed = True
        taken = self._take(block)
        (self._mine if taken else self._others).add(block)
        return taken

    def _take(self, block: int) -> bool:
        held = False
        for generation in itertools.count():
            name = f"{FOLDER}/{block:08d}.{generation}"
            if held and self._store.changed_s(name) is None:
                # Ours, from before this builder slept, or from a PUT whose reply was lost.
                self._refresh()
                return True
            if self._store.create(name, self._writer.encode(), durable=False):
                if generation:
                    self._refresh()
                return True
            with contextlib.suppress(FileNotFoundError):
                holder = self._store.read(name).decode()
                held = holder == self._writer
                if not held and self.is_alive(holder):
                    return False
        raise AssertionError("some generation is free")

    def is_alive(self, writer: str) -> bool:
        """Say whether a builder still works.

        On this machine its lock tells at once; of another one only its heartbeat can be seen.
        """
        if locks.host_of(writer) == locks.this_host():
            locked = locks.is_locked(self._locks / (writer + ALIVE))
            if locked is not None:
                return locked
        beat_s = self._store.changed_s(self._name(writer))
        if beat_s is None:
            return False
        # Both times are the store's: clocks of two machines differ.
        self.announce()
        self._store.touch(self._name(self._writer))
        now_s = self._store.changed_s(self._name(self._writer))
        return now_s is None or now_s - beat_s <= EXPIRES_S

    def beat(self) -> None:
        """Tell others that this builder is alive."""
        if self._lock is None:
            return
        silent_s = time.monotonic() - self._beat_s
        if silent_s > EXPIRES_S:
            self._mine.clear()  # others may have taken them: every block is claimed again
        if silent_s >= HEARTBEAT_S:
            self._store.touch(self._name(self._writer))
            self._beat_s = time.monotonic()

    def forget_others(self) -> None:
        """Look again at what others held: they may be done, or dead."""
        self._others.clear()

    def release(self) -> None:
        """Give all leases back; the last to leave clears the table."""
        if self._lock is None:
            return
        self._store.delete(self._name(self._writer))
        (self._locks / (self._writer + ALIVE)).unlink(missing_ok=True)
        os.close(self._lock)
        self._lock = None
        names = self._store.names(FOLDER)
        here = {n.removesuffix(ALIVE) for n in names if n.endswith(ALIVE)}
        if not any(self._lives_on(writer) for writer in here):
            for name in names:
                self._store.delete(f"{FOLDER}/{name}")

    def _lives_on(self, writer: str) -> bool:
        if locks.host_of(writer) == locks.this_host():
            return locks.is_locked(self._locks / (writer + ALIVE)) is not False
        return True  # it may; its leases expire by themselves

    def _name(self, writer: str) -> str:
        return f"{FOLDER}/{writer}{ALIVE}"
