"""Who is alive on this machine: a file that is locked belongs to a process that runs.

The kernel gives a lock back when its process ends, however it ends, so there is no stale lock.
"""

import fcntl
import os
import re
import secrets
import socket
import time
from collections.abc import Callable
from pathlib import Path

_WRITER = re.compile(r"\d{20}-(\w+)-\d+-[0-9a-f]{8}")


def this_host() -> str:
    """Return this machine's name, as it may stand in a file's name."""
    return re.sub(r"\W", "_", socket.gethostname())[:32]


def new_writer() -> str:
    """Return a name for one builder. The time sorts for a human eye; the rest makes it unique."""
    return f"{time.time_ns():020d}-{this_host()}-{os.getpid()}-{secrets.token_hex(4)}"


def host_of(writer: str) -> str:
    """Return the machine that a builder, or a log of it, is from; this one when it is unnamed."""
    found = _WRITER.match(writer)
    return found[1] if found else this_host()


def create_locked(create: Callable[[], tuple[Path, int]]) -> tuple[Path, int]:
    """Create a file and lock it for this process.

    Between the two steps another process may take the file for a dead one's and delete it. Then
    the name is given up and the next one taken.

    Args:
        create: Creates a file with a new name; returns its path and descriptor.
    """
    while True:
        path, file = create()
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(file).st_nlink:
                return path, file
        except BlockingIOError:
            pass
        os.close(file)


def take(path: Path) -> int | None:
    """Lock a file that a dead process left; null when its process lives or the file is gone."""
    try:
        file = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(file).st_nlink:
            return file
    except BlockingIOError:
        pass
    os.close(file)
    return None


def is_locked(path: Path) -> bool | None:
    """Say whether a living process holds this file; null when there is no such file."""
    try:
        file = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        # Shared, so that two who ask at the same time do not take one another for the holder.
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False
