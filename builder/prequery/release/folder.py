"""Release into a folder or any fsspec URL: the Hub's layout, the lock last.

A folder has no commits, so the order makes what a reader sees whole. The README's `data_files` is
the switch: it is closed before the first shard changes and opened behind the last one. In between
the config cannot be loaded, and its lock is missing; what can be loaded is always one version.
"""

import fcntl
import hashlib
import json
import os
import posixpath
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import IO

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs

from prequery.errors import CardError, ReleaseError
from prequery.lock import LOCK
from prequery.release.changes import Changes, Outcome, belongs, compare, disturbs, hold_version
from prequery.release.content import JOURNALS, README, Content, File, local_path, section_of

CLOSED = "being-replaced"
"""In the place of `train-*.parquet` while shards change: no file is called so."""
MERGES = 5
_CHUNK_BYTES = 2**22


def release(content: Content, target: str, *, dry_run: bool = False) -> Outcome:
    """Release into a folder or URL; a repeat changes nothing, after a fault it carries on.

    Releases of several configs into one local folder wait for each other. Elsewhere a README that
    somebody else wrote meanwhile is merged again; two that write it in the same moment are not
    seen, so configs in one bucket are better released one after the other.

    Args:
        content: What is to be there.
        target: Local folder or fsspec URL, made where it is missing.
        dry_run: Compare, and change nothing.

    Raises:
        ReleaseError: The place cannot take this release. It holds what it held.
    """
    fs, root = url_to_fs(target)
    place = _Place(fs, root, target, content)
    try:
        if fs.exists(root) and fs.unstrip_protocol(root) == content.fs.unstrip_protocol(
            content.root
        ):
            raise ReleaseError(
                "the build's own folder is no place to release into: it is loadable as it is",
                target,
                "name another folder or URL",
            )
        if dry_run:
            changes = place.timed().compare()
            return Outcome("planned" if _any(changes) else "unchanged", target, changes)
        with place.alone():
            place = place.timed()
            changes = place.compare()
            if not _any(changes):
                return Outcome("unchanged", target, changes)
            place.write(changes)
            return Outcome("released", target, changes)
    except CardError as error:
        raise ReleaseError(error.what, f"{target}: {error.where}", error.fix) from None
    except OSError as error:
        raise ReleaseError(
            f"the place cannot be written: {error.strerror or error}",
            target,
            "make room or correct the permissions, then run the same command: it carries on",
        ) from None


def _any(changes: Changes) -> bool:
    return bool(changes.added or changes.replaced or changes.removed or changes.moved)


def _data(changes: Changes) -> bool:
    """Say whether anything but the README changes."""
    return _any(replace(changes, added=_others(changes.added), replaced=_others(changes.replaced)))


def _others(paths: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(path for path in paths if path != README)


@dataclass(frozen=True)
class _Place:
    """A release's target, and what is to be there."""

    fs: AbstractFileSystem
    root: str
    target: str
    content: Content

    def path(self, name: str) -> str:
        return posixpath.join(self.root, name)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Let one release at a time change a local folder."""
        self.fs.makedirs(self.root, exist_ok=True)
        local = local_path(self.fs, self.root)
        if local is None:
            yield
            return
        # The folder itself is what is locked: no file of ours has to be left there for it.
        held = os.open(local, os.O_RDONLY)
        try:
            fcntl.flock(held, fcntl.LOCK_EX)
            yield
        finally:
            os.close(held)

    def timed(self) -> "_Place":
        """Return this with the time that the lock here tells, where that alone is another."""
        path = self.path(f"{self.content.config}{LOCK}")
        if not self.fs.exists(path):
            return self
        return replace(self, content=self.content.timed_as(self.fs.cat_file(path)))

    def compare(self) -> Changes:
        """Compare what is here with what is to be here, and refuse what must not be replaced."""
        config = self.content.config
        names = self._names()
        lock = self._lock() if f"{config}{LOCK}" in names else None
        self._refuse_foreign(names, lock)
        if lock and lock["config"]["version"] == self.content.version:
            # Answers may be published with a release, and it is the same release without them.
            recorded = any(path.startswith(JOURNALS) for path in self.content.files)
            names = {name for name in names if recorded or not name.startswith(JOURNALS)}
        held = self._held(names, lock)
        changes = compare(self.content, held, {}, self.readme())
        if lock and _data(changes):
            hold_version(self.content, lock["config"]["version"], f"{self.target}: {config}")
        elif lock:
            self._refuse_edited()
        return changes

    def _refuse_edited(self) -> None:
        """Refuse to write over words that somebody put into the config's own section."""
        section = section_of(self.readme() or "", self.content.config)
        if section not in (None, self.content.section):
            raise ReleaseError(
                f"the section of {self.content.config!r} in the README that is there was edited",
                f"{self.target}: {README}",
                "move your words out of the lines marked `prequery:`, remove the whole section, "
                "and run the same command: the section is written anew",
            )

    def readme(self) -> str | None:
        """Return the README that is here; null: none."""
        try:
            data: bytes = self.fs.cat_file(self.path(README))
            return data.decode()
        except FileNotFoundError:
            return None
        except UnicodeDecodeError:
            what = "the README that is there is not UTF-8"
            raise ReleaseError(what, f"{self.target}: {README}", "save it as UTF-8") from None

    def write(self, changes: Changes) -> None:
        """Close the config, change its files, open it, and write the lock last."""
        if not _data(changes):
            self._write_readme(closed=False)
            return
        lock = f"{self.content.config}{LOCK}"
        self._write_readme(closed=True)
        for path in (lock, *changes.removed):
            if self.fs.exists(self.path(path)):
                self.fs.rm_file(self.path(path))
        for path in (*changes.added, *changes.replaced):
            if path not in (README, lock):
                self._write(path, self.content.files[path])
        self._write_readme(closed=False)
        self._write(lock, self.content.files[lock])

    def _names(self) -> set[str]:
        """Return the files here that belong to the config or would be loaded with it."""
        if not self.fs.exists(self.root):
            return set()
        self.fs.invalidate_cache()
        found = []
        config = self.content.config
        for folder in ("", config, f"plots/{config}", f"journals/{config}"):
            path = self.path(folder).rstrip("/")
            if self.fs.isdir(path):
                depth = None if folder.startswith("journals/") else 1
                found += self.fs.find(path, maxdepth=depth)
        names = {posixpath.relpath(path, self.root) for path in found}
        return {name for name in names if belongs(name, config) or disturbs(name, config)}

    def _lock(self) -> dict[str, dict[str, str]]:
        path = f"{self.content.config}{LOCK}"
        try:
            held = json.loads(self.fs.cat_file(self.path(path)))
            assert isinstance(held["config"]["version"], str)
        except (ValueError, KeyError, TypeError, AssertionError):
            raise ReleaseError(
                "the lock that is there is damaged: which version is there cannot be told",
                f"{self.target}: {path}",
                "restore it; or, to replace the config whatever it is, remove that lock",
            ) from None
        assert isinstance(held, dict)
        return held

    def _refuse_foreign(self, names: set[str], lock: object) -> None:
        """Refuse to write over files that no release of ours wrote, or to be loaded with them."""
        config = self.content.config
        foreign = sorted(name for name in names if disturbs(name, config))
        if not lock and not foreign and not self._is_half_written():
            foreign = sorted(name for name in names if belongs(name, config))
        if foreign:
            raise ReleaseError(
                f"the place holds files that no release wrote, as {foreign[0]!r}",
                self.target,
                f"move them away, or choose another place or name than {config!r}",
            )

    def _is_half_written(self) -> bool:
        """Say whether a release of this config was begun here: its README says so first."""
        text = self.readme()
        return text is not None and section_of(text, self.content.config) is not None

    def _held(self, names: set[str], lock: object) -> dict[str, bool]:
        """Return the config's files that are here, each with whether it is the wanted one.

        Where the wanted lock is here, sizes are enough: it is written last. Else files are read.
        """
        lock_file = self.content.files[f"{self.content.config}{LOCK}"]
        done = bool(lock) and self._sha256(f"{self.content.config}{LOCK}") == lock_file.sha256
        held = {}
        for name in names:
            file = self.content.files.get(name)
            same = file is not None and self.fs.size(self.path(name)) == file.size
            if same and file is not None and (not done or file.data is not None):
                same = self._sha256(name) == file.sha256
            held[name] = same
        return held

    def _sha256(self, name: str) -> str:
        with self.fs.open(self.path(name), "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def _write(self, name: str, file: File) -> None:
        """Write a file whole or not at all: a draft and a rename, or one PUT."""
        path = self.path(name)
        self.fs.makedirs(posixpath.dirname(path), exist_ok=True)
        local = local_path(self.fs, path) is not None
        folder, base = posixpath.split(path)
        draft = posixpath.join(folder, f".{base}.draft-{secrets.token_hex(4)}") if local else path
        try:
            with self.fs.open(draft, "wb") as out:
                if file.data is not None:
                    out.write(file.data)
                else:
                    self._copy(name, file, out)
            if local:
                self.fs.mv(draft, path)
        except BaseException:
            if local and self.fs.exists(draft):
                self.fs.rm_file(draft)
            raise

    def _copy(self, name: str, file: File, out: IO[bytes]) -> None:
        """Copy a shard, and see that it is still what was read when the release began."""
        digest = hashlib.sha256()
        with self.content.open(name) as source:
            while chunk := source.read(_CHUNK_BYTES):
                digest.update(chunk)
                out.write(chunk)
        if digest.hexdigest() != file.sha256:
            raise ReleaseError(
                "a shard changed while it was released",
                f"{self.content.root}: {name}",
                "let nothing else write into the build's folder, then run the same command",
            )

    def _write_readme(self, *, closed: bool) -> None:
        """Put the config's part into the README, and see that it stays there."""
        for _ in range(MERGES):
            existing = self.readme()
            wanted = self._readme(existing, closed=closed)
            if wanted == existing:
                return
            data = wanted.encode()
            self._write(README, File(len(data), hashlib.sha256(data).hexdigest(), data))
        raise ReleaseError(
            f"the README changed {MERGES} times while this release wrote it",
            f"{self.target}: {README}",
            "run the same command when nobody else releases there: it carries on",
        )

    def _readme(self, existing: str | None, *, closed: bool) -> str:
        if not closed:
            return self.content.readme(existing)
        path, shut = f"{self.content.config}/train-*.parquet", f"{self.content.config}/{CLOSED}"
        # In the card's own YAML block, which is the first place where its path stands.
        card = self.content.card.replace(path, shut, 1)
        return replace(self.content, card=card).readme(existing)
