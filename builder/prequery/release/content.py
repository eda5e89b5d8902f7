"""What an output folder holds of one config: read once, proved whole and unchanged."""

import hashlib
import json
import os
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from io import BytesIO
from pathlib import Path
from typing import IO, Any

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs

from prequery import judge_check, lock
from prequery.card import Card, sections
from prequery.errors import BuildError, ReleaseError
from prequery.folder import Folder, finished_configs
from prequery.lock import LOCK, Lock
from prequery.recipe import AnyRecipe

README = sections.README
JOURNALS = "journals/"


@dataclass(frozen=True)
class File:
    """One file of a release.

    Args:
        size: Bytes.
        sha256: Of its content, in hexadecimal.
        data: The content of a small one; null: it is read when needed.
        local: Where it is read from; null: the output folder.
    """

    size: int
    sha256: str
    data: bytes | None = None
    local: Path | None = None


@dataclass(frozen=True)
class Content:
    """One config, ready to be released.

    Args:
        fs: The output folder's file system.
        root: Path on it.
        recipe: What was built.
        lock: The lock, checked against recipe and files.
        card: YAML block and text, rendered from the data.
        files: Path in the release to file: shards, recipe, lock, plots, a user's card
            template. Not the README, which is shared.
    """

    fs: AbstractFileSystem
    root: str
    recipe: AnyRecipe
    lock: Lock
    card: str
    files: Mapping[str, File]

    @property
    def config(self) -> str:
        """Name that consumers load."""
        return self.recipe.name

    @property
    def version(self) -> str:
        """SemVer of the config."""
        return self.recipe.version

    @property
    def tag(self) -> str:
        """Name of the tag: it never moves."""
        return f"{self.config}-v{self.version}"

    @cached_property
    def section(self) -> str:
        """The config's text in a README, between its marks."""
        return section_of(self.readme(None), self.config) or ""

    @cached_property
    def build_id(self) -> str:
        """SHA-256 of all that is released, in hexadecimal: the same content, the same id.

        Answers that are published beside it are left out: it is the same release without them.
        """
        content = [
            self.tag,
            sorted(
                (path, file.sha256)
                for path, file in self.files.items()
                if not path.startswith(JOURNALS)
            ),
            hashlib.sha256(self.section.encode()).hexdigest(),
        ]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def readme(self, existing: str | None) -> str:
        """Return the README of a place with this config's part in it.

        Raises:
            CardError: The README that is there is broken.
        """
        return _merged(existing, self.card, self.config)

    def path(self, name: str) -> str:
        """Return where a file of the release is in the output folder."""
        return posixpath.join(self.root, name)

    def beside(self, folder: Path) -> "Content":
        """Return this with files of another folder, each at its path in the release.

        Args:
            folder: Local; its files are read when they are released.
        """
        more = {}
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                with path.open("rb") as file:
                    sha256 = hashlib.file_digest(file, "sha256").hexdigest()
                size = path.stat().st_size
                more[path.relative_to(folder).as_posix()] = File(size, sha256, local=path)
        return replace(self, files={**self.files, **more})

    def timed_as(self, held: bytes) -> "Content":
        """Return this with the time that a lock at the place tells, where only that is another.

        Whoever writes the same rows anew waits for another time, and it is the same release. Not
        so with recorded answers beside it: each of them tells its own time.

        Args:
            held: The lock's file.
        """
        try:
            told = json.loads(held)
        except ValueError:
            return self
        recorded = any(path.startswith(JOURNALS) for path in self.files)
        if recorded or not isinstance(told, dict) or told == self.lock:
            return self
        if lock.timeless(told) != lock.timeless(self.lock):
            return self
        seconds = told["build"].get("seconds")
        if seconds is not None and not (type(seconds) is int and 0 <= seconds < 2**53):
            return self
        made = Folder(self.fs, self.root, self.recipe).card(told)
        files = dict(self.files) | {path: _small(text) for path, text in made.files.items()}
        files[f"{self.config}{LOCK}"] = _small(lock.dump(told))
        return replace(self, lock=told, card=made.readme, files=files)

    def open(self, name: str) -> IO[bytes]:
        """Open a file of the release."""
        file = self.files[name]
        if file.data is not None:
            return BytesIO(file.data)
        opened: IO[bytes] = (
            file.local.open("rb") if file.local else self.fs.open(self.path(name), "rb")
        )
        return opened

    def read(self, name: str) -> bytes:
        """Return the content of a file of the release."""
        with self.open(name) as file:
            return file.read()


# A README is read and merged several times in a release, and most of that is its YAML block.
_merged = lru_cache(maxsize=16)(sections.merged)
section_of = lru_cache(maxsize=16)(sections.section_of)


def read(out: str, config: str | None = None, *, allow_chance_labels: bool = False) -> Content:
    """Read an output folder, and hold lock, recipe, shards and card against one another.

    Args:
        out: Local folder or fsspec URL, as `build --out` takes it.
        config: Which one, where the folder holds several.
        allow_chance_labels: Release labels of judges that `judge-check` did not find good.

    Raises:
        ReleaseError: The folder is not whole, was edited, or holds labels that mean nothing.
    """
    fs, root = url_to_fs(out)
    name = config or _only_config(fs, root, out)
    text = _text(fs, posixpath.join(root, name + LOCK), "the build is not finished: no lock", out)
    held = _lock(text, posixpath.join(out, name + LOCK))
    built = _recipe(fs, root, name, out, held)
    _agree(held, built, posixpath.join(out, name + LOCK))
    files = _shards(fs, root, held, name, out)
    files |= {f"{name}.yaml": _small(built.text), f"{name}{LOCK}": _small(text)}
    _refuse_chance(held, built, posixpath.join(out, name + LOCK), allow_chance_labels)
    made = _card(Folder(fs, root, built), held, out)
    for path, small in made.files.items():
        files[path] = _small(small)
    return Content(fs, root, built, held, made.readme, files)


def _small(text: str) -> File:
    data = text.encode()
    return File(len(data), hashlib.sha256(data).hexdigest(), data)


def _only_config(fs: AbstractFileSystem, root: str, out: str) -> str:
    names = finished_configs(fs, root)
    if len(names) == 1:
        return names[0]
    if names:
        raise ReleaseError(
            f"the folder holds several configs: {', '.join(names)}",
            out,
            f"name one: --config {names[0]}",
        )
    raise ReleaseError(
        "there is no finished build: no lock, which is written last",
        out,
        "run `prequery build` to its end with this --out, or name the folder that it wrote",
    )


def _text(fs: AbstractFileSystem, path: str, what: str, out: str) -> str:
    try:
        with fs.open(path, "rb") as file:
            data: bytes = file.read()
        text = data.decode()
    except FileNotFoundError:
        fix = "run the same `prequery build` again: no request that was answered is made again"
        raise ReleaseError(what, f"{out}: {posixpath.basename(path)}", fix) from None
    except UnicodeDecodeError:
        raise _edited("a file is not UTF-8", f"{out}: {posixpath.basename(path)}") from None
    return text


def _edited(what: str, where: str) -> ReleaseError:
    return ReleaseError(
        what,
        where,
        "restore it, or remove the lock and run the same `prequery build` again: no request that "
        "was answered is made again",
    )


def _lock(text: str, where: str) -> Lock:
    """Return a lock as this program writes it, with what a release needs of it.

    It decides which files are read and what they are called, so its paths are held to a pattern.
    """
    try:
        held = json.loads(text)
        sound = (
            isinstance(held, dict)
            and all(isinstance(held["config"][key], str) for key in ("name", "version"))
            and isinstance(held["config"]["build_hash"], str)
            and all(
                re.fullmatch(r"[^/\\]+/train-\d{5}-of-\d{5}\.parquet", path)
                and isinstance(file["bytes"], int)
                and isinstance(file["sha256"], str)
                for path, file in held["files"].items()
            )
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        sound, held = False, {}
    if not sound:
        raise _edited("the lock is damaged", where)
    assert isinstance(held, dict)
    if lock.dump(held) != text:
        raise _edited("the lock was edited: it is not what its digest says", where)
    return held


def _recipe(fs: AbstractFileSystem, root: str, name: str, out: str, held: Lock) -> AnyRecipe:
    path = posixpath.join(root, f"{name}.yaml")
    text = _text(fs, path, "the recipe is missing beside the lock", out)
    try:
        where = posixpath.join(out, f"{name}.yaml")
        return lock.recipe_of(held, text, where)
    except BuildError as error:
        raise _edited(f"the recipe cannot be read: {error.what}", error.where) from None


def _agree(held: Lock, built: AnyRecipe, where: str) -> None:
    told = held["config"]
    found = {
        "name": built.name,
        "version": built.version,
        "fingerprint": built.fingerprint,
        "build_hash": built.build_hash,
    }
    for key, value in found.items():
        if told.get(key) != value:
            what = f"lock and recipe disagree: {key} {told.get(key)!r:.80}, {value!r:.80}"
            raise _edited(what, where)


def _shards(fs: AbstractFileSystem, root: str, held: Lock, name: str, out: str) -> dict[str, File]:
    """Return the shards that the lock lists, each read and found to be what it says."""
    paths = fs.glob(posixpath.join(root, name, "train-*"))
    here = {posixpath.join(name, posixpath.basename(path)) for path in paths}
    listed = held["files"]
    for path in sorted(here ^ listed.keys()):
        what = "a shard is missing" if path in listed else "the lock does not list this file"
        raise _edited(what, posixpath.join(out, path))
    files = {}
    for path, noted in sorted(listed.items()):
        with fs.open(posixpath.join(root, path), "rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            # Hashing reads the buffer of a file in memory, and does not move in it.
            size = file.seek(0, os.SEEK_END)
        if (size, sha256) != (noted["bytes"], noted["sha256"]):
            raise _edited("a shard is not what the lock says", posixpath.join(out, path))
        files[path] = File(size, sha256)
    return files


def _refuse_chance(held: Lock, built: AnyRecipe, where: str, allowed: bool) -> None:
    """Refuse labels of judges that may as well have guessed, and of those that nobody checked.

    A judge without a check is no better known than one at chance. Guard models answer in a form of
    their own that the labelled instructions do not try; their columns say so.
    """
    if allowed:
        return
    judges = held.get("judges", {})
    for name in judge_check.checkable(built):
        check = judges.get(name, {}).get("check")
        if check and not check.get("at_chance", True):
            continue
        found = check.get("verdict") if check else "it was never checked"
        raise ReleaseError(
            f"the labels of the judge {name!r} are not worth releasing: {found}",
            where,
            "leave its columns out of the recipe, take a better judge (try it: prequery "
            "judge-check), or release them all the same, as the card says what they are worth: "
            "--allow-chance-labels",
        )


def _card(folder: Folder, held: Lock, out: str) -> Card:
    """Return the card as it follows from the data, and refuse one that was edited by hand."""
    config = folder.recipe.name
    text = _text(folder.fs, folder.path(README), "the card is missing", out)
    try:
        made = folder.card(held)
        fresh = section_of(_merged(None, made.readme, config), config)
        section = sections.section_of(text, config)
    except BuildError as error:
        raise _edited(error.what, error.where) from None
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        what = f"the card cannot be made from this lock: {type(error).__name__} {error}"
        raise _edited(what, out) from None
    for name, wanted in made.files.items():
        found = _text(folder.fs, folder.path(name), "a file of the card is missing", out)
        if found != wanted:
            raise _foreign_card(out, name)
    if section != fresh:
        raise _foreign_card(out, README)
    return made


def _foreign_card(out: str, name: str) -> ReleaseError:
    return ReleaseError(
        "the card is not what the data gives: it was edited, or another prequery wrote it",
        f"{out}: {name}",
        "write your own words into the README outside of the lines marked `prequery:`, and make "
        f"the card anew: prequery card {out}",
    )


def local_path(fs: AbstractFileSystem, path: str) -> Path | None:
    """Return a path that the operating system can open; null on a remote file system."""
    protocols: Any = fs.protocol
    names = (protocols,) if isinstance(protocols, str) else protocols
    return Path(path) if "file" in names else None
