"""Where sealed segments, header, manifest and leases are: a local folder or an object store.

Nothing is ever overwritten except heartbeats: a name is created once, with all of its content.
"""

import contextlib
import errno
import itertools
import os
import posixpath
import random
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from fsspec import AbstractFileSystem

from prequery.journal.disk import Disk

DRAFT = ".draft-"
DRAFT_IS_STALE_S = 600.0
PUT_TRIES = 6

# What a file system that has no hard links says: FAT, some FUSE and network ones.
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


class Store(Protocol):
    """A flat set of names; one level of folders may stand before a name."""

    def names(self, folder: str = "") -> list[str]:
        """Return the names in a folder, without the folder; none when there is no such folder."""

    def read(self, name: str) -> bytes:
        """Return the content; a FileNotFoundError when there is none."""

    def create(self, name: str, data: bytes, durable: bool = True) -> bool:
        """Create a name with all of its content at once.

        Args:
            name: What to create.
            data: Its content.
            durable: It must survive power loss from now on.

        Returns:
            Whether it was created; false when the name is taken, whatever it holds.
        """

    def touch(self, name: str) -> None:
        """Set the time at which it was changed to now; an absent name is created empty."""

    def changed_s(self, name: str) -> float | None:
        """Return when it was changed, on the store's own clock; null when there is no such name."""

    def delete(self, name: str) -> None:
        """Take a name away; nothing happens when it is gone already."""

    def set_aside(self, name: str) -> None:
        """Move something damaged out of the way, and keep it."""


def commit(store: Store, name: str, data: bytes) -> None:
    """Have this content under this name, whoever put it there.

    The same content under the same name is success: it comes from a builder that was killed after
    it sealed a log, or from a PUT whose reply was lost.
    """
    while not store.create(name, data):
        with contextlib.suppress(FileNotFoundError):
            if store.read(name) == data:
                return
            store.set_aside(name)


class LocalStore:
    """A folder on this machine, or on a file system that several machines share.

    Args:
        folder: It exists.
        disk: Its system calls.
    """

    def __init__(self, folder: Path, disk: Disk) -> None:
        self.folder = folder
        self._disk = disk

    def names(self, folder: str = "") -> list[str]:
        """Return the names in a folder."""
        try:
            with os.scandir(self.folder / folder) as entries:
                return [e.name for e in entries if not e.name.startswith(DRAFT)]
        except FileNotFoundError:
            return []

    def read(self, name: str) -> bytes:
        """Return the content."""
        return (self.folder / name).read_bytes()

    def create(self, name: str, data: bytes, durable: bool = True) -> bool:
        """Create a name: a draft first, which gets its name when it is whole on the disk."""
        path = self.folder / name
        draft = path.parent / f"{DRAFT}{secrets.token_hex(8)}"
        try:
            file = self._disk.create(draft)
            try:
                self._disk.write(file, data)
                if durable:
                    self._disk.sync(file)
            finally:
                os.close(file)
            try:
                self._link(draft, path)
            except FileExistsError:
                return False
            # Only now the name itself is safe, and what it replaces may be deleted.
            if durable:
                self._disk.sync_folder(path.parent)
        finally:
            self._disk.unlink(draft)
        return True

    def _link(self, draft: Path, path: Path) -> None:
        """Name the draft, create-only. A link never replaces; a rename would."""
        try:
            self._disk.link(draft, path)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            # The gap between the two lines is harmless: equal names hold equal content, except
            # for a lease, where two holders cost one block of slots asked for twice.
            if path.exists():
                raise FileExistsError(errno.EEXIST, "File exists", str(path)) from None
            self._disk.rename(draft, path)

    def touch(self, name: str) -> None:
        """Set the time of a name to the file system's now."""
        (self.folder / name).touch(mode=0o600)

    def changed_s(self, name: str) -> float | None:
        """Return when it was changed."""
        try:
            return (self.folder / name).stat().st_mtime
        except FileNotFoundError:
            return None

    def delete(self, name: str) -> None:
        """Take a name away."""
        self._disk.unlink(self.folder / name)

    def set_aside(self, name: str) -> None:
        """Rename something damaged."""
        with contextlib.suppress(FileNotFoundError):
            self._disk.rename(self.folder / name, self.folder / f"{name}.damaged")

    def collect(self) -> None:
        """Delete drafts that a killed process left. A living one needs seconds at most."""
        for draft in [*self.folder.glob(DRAFT + "*"), *self.folder.glob(f"leases/{DRAFT}*")]:
            with contextlib.suppress(FileNotFoundError):
                if time.time() - draft.stat().st_mtime > DRAFT_IS_STALE_S:
                    draft.unlink()


@contextlib.contextmanager
def _as_os_error() -> Iterator[None]:
    """Raise what a store's client raises as the one kind of error that the journal expects.

    s3fs lets botocore's own errors through when there is no connection or no credential.
    """
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # each client has its own, without a common base
        raise OSError(errno.EIO, f"{type(error).__name__}: {error}") from error


class UrlStore:
    """A prefix on an object store: any file system of fsspec.

    Args:
        fs: The file system.
        root: Path on it.
        longest_wait_s: Between two tries of one PUT.
    """

    def __init__(self, fs: AbstractFileSystem, root: str, longest_wait_s: float = 10.0) -> None:
        self._fs = fs
        self._root = root
        self._longest_wait_s = longest_wait_s

    def _path(self, name: str) -> str:
        return posixpath.join(self._root, name)

    @_as_os_error()
    def names(self, folder: str = "") -> list[str]:
        """Return the names in a folder."""
        path = self._path(folder).rstrip("/")
        self._fs.invalidate_cache(path)
        try:
            found = self._fs.ls(path, detail=False)
        except FileNotFoundError:
            return []
        return [posixpath.basename(each) for each in found]

    @_as_os_error()
    def read(self, name: str) -> bytes:
        """Return the content."""
        content = self._fs.cat_file(self._path(name))
        assert isinstance(content, bytes)
        return content

    def create(self, name: str, data: bytes, durable: bool = True) -> bool:
        """Create a name with one PUT that the store refuses when the name is taken.

        Any error may hide a PUT that arrived, so what is there decides, not what was said: the
        same name is tried again until it is there.
        """
        for attempt in itertools.count(1):
            try:
                self._put_new(name, data)
                return True
            except FileExistsError:
                return False
            except PermissionError:
                raise
            except OSError:
                with contextlib.suppress(OSError):
                    return self.read(name) == data
                if attempt == PUT_TRIES:
                    raise
            time.sleep(random.uniform(0, min(2.0**attempt, self._longest_wait_s)))
        raise AssertionError("the last try returns or raises")

    @_as_os_error()
    def _put_new(self, name: str, data: bytes) -> None:
        self._fs.pipe_file(self._path(name), data, mode="create")

    @_as_os_error()
    def touch(self, name: str) -> None:
        """Write an empty object."""
        self._fs.pipe_file(self._path(name), b"")

    @_as_os_error()
    def changed_s(self, name: str) -> float | None:
        """Return when it was changed, as the store says."""
        path = self._path(name)
        self._fs.invalidate_cache(posixpath.dirname(path))
        try:
            return float(self._fs.modified(path).timestamp())
        except FileNotFoundError:
            return None

    @_as_os_error()
    def delete(self, name: str) -> None:
        """Take a name away."""
        with contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(self._path(name))

    @_as_os_error()
    def set_aside(self, name: str) -> None:
        """Copy something damaged to another name, and delete it."""
        with contextlib.suppress(FileNotFoundError):
            self._fs.copy(self._path(name), self._path(f"{name}.damaged"))
            self._fs.rm_file(self._path(name))
