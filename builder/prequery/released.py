"""Open a release, wherever it is: a folder, any fsspec URL, or `org/repo@tag` on the Hub.

Nothing is believed here but that the lock is one of ours; `verification` looks closer.
"""

import hashlib
import json
import posixpath
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol
from urllib.parse import urlsplit

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs

from prequery import shards
from prequery.errors import RebuildError
from prequery.lock import LOCK, Lock, recipe_of
from prequery.recipe import AnyRecipe

_REPO = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[^@\s]+))?")


class _Config(msgspec.Struct):
    name: str
    version: str
    fingerprint: str
    build_hash: str


class _Build(msgspec.Struct):
    accepted: int
    attempts: int
    rejected: dict[str, int]


class _File(msgspec.Struct):
    rows: int
    sha256: str


class _Hashed(msgspec.Struct):
    sha256: str


class _Column(msgspec.Struct):
    version: int
    pins: dict[str, str]


class _Model(msgspec.Struct):
    model_id: str
    revision: str
    weights_sha256: str | None = None


class _Prefix(msgspec.Struct):
    text: str


class _Endpoint(msgspec.Struct):
    exact: bool | None = None


class _Voice(msgspec.Struct):
    generator: _Model
    prefix: _Prefix


class _Judge(msgspec.Struct):
    model: _Model


class _Dataset(msgspec.Struct):
    dtypes: dict[str, str]


class _Whole(msgspec.Struct):
    """What is read of a lock; somebody may have edited it."""

    config: _Config
    build: _Build
    files: dict[str, _File]
    columns: dict[str, _Column] = {}
    packages: dict[str, str] = {}
    generator: _Model | None = None
    endpoint: _Endpoint | None = None
    prefix: _Prefix | None = None
    responder: _Voice | None = None
    judges: dict[str, _Judge] = {}
    dataset: _Dataset | msgspec.UnsetType = msgspec.UNSET  # it decides what kind of recipe it is
    recipe: _Hashed | None = None
    rows: _Hashed | None = None
    digest: str | None = None


class Source(Protocol):
    """Files of one commit, folder or prefix."""

    @property
    def where(self) -> str:
        """Where it is, for messages; no credentials."""

    def names(self) -> list[str]:
        """Return the path of every file in it."""

    def open(self, name: str) -> IO[bytes]:
        """Open a file; a FileNotFoundError when there is none."""


@dataclass(frozen=True)
class FolderSource:
    """A folder on any file system."""

    fs: AbstractFileSystem
    root: str

    @property
    def where(self) -> str:
        """Its path, or its URL."""
        return str(self.fs.unstrip_protocol(self.root)).removeprefix("file://")

    def names(self) -> list[str]:
        """Return every path under the root."""
        root = self.root.rstrip("/") + "/"
        return sorted(str(path).removeprefix(root) for path in self.fs.find(self.root))

    def open(self, name: str) -> IO[bytes]:
        """Open a file."""
        file: IO[bytes] = self.fs.open(posixpath.join(self.root, name), "rb")
        return file


@dataclass(frozen=True)
class HubSource:
    """One commit of a dataset repository; what is read of it is kept in the Hub's cache.

    Args:
        repo: `org/name`.
        revision: As it was asked for: a tag, a branch, a commit.
        commit: What that is now, 40 hexadecimal digits.
        files: Every path in it.
    """

    repo: str
    revision: str
    commit: str
    files: Sequence[str]

    @property
    def where(self) -> str:
        """Repository, revision and commit."""
        return f"datasets/{self.repo}@{self.revision}, commit {self.commit[:7]}"

    def names(self) -> list[str]:
        """Return every path in the commit."""
        return sorted(self.files)

    def open(self, name: str) -> IO[bytes]:
        """Open a file, fetched once."""
        from huggingface_hub import hf_hub_download

        if name not in self.files:
            raise FileNotFoundError(name)
        with _hub_errors(self.where):
            path = hf_hub_download(self.repo, name, repo_type="dataset", revision=self.commit)
        return Path(path).open("rb")

    def titles(self) -> dict[str, str]:
        """Return the title of every commit up to this one and of the main branch, newest first.

        Raises:
            RebuildError: The Hub does not tell.
        """
        from huggingface_hub import HfApi

        found = {}
        for revision in (self.commit, "main"):
            with _hub_errors(self.where):
                commits = HfApi().list_repo_commits(
                    self.repo, repo_type="dataset", revision=revision
                )
            found.update({str(one.commit_id): str(one.title) for one in commits})
        return found


@dataclass(frozen=True)
class Released:
    """One config of a release.

    Args:
        source: Its files.
        config: Its name.
        lock: What its lock says, edited or not.
    """

    source: Source
    config: str
    lock: Lock

    @property
    def where(self) -> str:
        """Where it is, for messages."""
        return self.source.where

    @property
    def title(self) -> str:
        """Config and version."""
        return f"{self.config} {self.lock['config']['version']}"

    @property
    def shards(self) -> list[str]:
        """Paths of its Parquet files, as the lock names them, in order."""
        return sorted(self.lock["files"])

    def here(self) -> list[str]:
        """Return the paths of the Parquet files that are there, in the lock or not."""
        names = self.source.names()
        return [n for n in names if n.startswith(f"{self.config}/") and n.endswith(".parquet")]

    def read(self, name: str) -> bytes:
        """Return a file's content.

        Raises:
            FileNotFoundError: There is none.
            RebuildError: It cannot be fetched.
        """
        with _readable(self.where), self.source.open(name) as file:
            return file.read()

    def sha256(self, name: str) -> str:
        """Return a file's SHA-256, in hexadecimal."""
        with _readable(self.where), self.source.open(name) as file:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()

    def recipe_text(self) -> str:
        """Return the released recipe, letter by letter.

        Raises:
            RebuildError: There is none.
        """
        name = f"{self.config}.yaml"
        try:
            return self.read(name).decode()
        except (FileNotFoundError, UnicodeDecodeError):
            raise RebuildError(
                "the release has no recipe that can be read",
                f"{self.where}, {name}",
                "take a release that is whole: it was not finished, or files were removed",
            ) from None

    def recipe(self) -> AnyRecipe:
        """Return the released recipe, checked; files that it names need not be here.

        Raises:
            RebuildError: There is none.
            RecipeError: This prequery does not take it, or lacks a column or a file of it.
        """
        source = posixpath.join(self.where, f"{self.config}.yaml")
        return recipe_of(self.lock, self.recipe_text(), source)

    def tables(self, names: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Yield the rows of all shards, a row group at a time; of some fields or of all."""
        for shard in self.shards:
            with self.opened(shard) as file:
                yield from shards.read(file, names)

    def ids(self) -> pa.ChunkedArray:
        """Return the id of every row, in order."""
        chunks = [chunk for table in self.tables(["id"]) for chunk in table["id"].chunks]
        return pa.chunked_array(chunks, pa.string())

    def schema(self) -> pa.Schema:
        """Return the schema of the rows."""
        with self.opened(self.shards[0]) as file:
            return pq.read_schema(file)

    @contextmanager
    def opened(self, shard: str) -> Iterator[IO[bytes]]:
        """Open a shard of the lock.

        Raises:
            RebuildError: It is missing, or no Parquet file.
        """
        try:
            with _readable(self.where), self.source.open(shard) as file:
                yield file
        except (FileNotFoundError, pa.ArrowInvalid) as error:
            missing = isinstance(error, FileNotFoundError)
            raise RebuildError(
                f"the shard {shard} {'is missing' if missing else 'is damaged'}",
                self.where,
                "see what else is wrong: prequery verify",
            ) from None


def open_release(reference: str, config: str | None = None) -> Released:
    """Open one config of a release.

    Args:
        reference: A folder, an fsspec URL, or `org/repo`, with `@tag`, `@branch` or `@commit`
            behind it where it is not the main branch. The Hub is the one that `HF_ENDPOINT` names.
        config: Its name; null where the release has one only.

    Raises:
        RebuildError: There is no such folder, repository, revision or config, it cannot be read,
            or its lock is damaged or not there.
    """
    source = _source(reference)
    with _readable(source.where):
        names = source.names()
    found = sorted(n.removesuffix(LOCK) for n in names if n.endswith(LOCK) and "/" not in n)
    if config is None and len(found) > 1:
        raise RebuildError(
            f"there are several configs: {', '.join(found)}", source.where, "name one of them"
        )
    chosen = config or (found[0] if found else None)
    if chosen is None or chosen not in found:
        raise _no_config(chosen, found, names, source.where)
    with _readable(source.where), source.open(f"{chosen}{LOCK}") as file:
        content = file.read()
    return Released(source, chosen, _lock(content, chosen, source.where))


def _source(reference: str) -> Source:
    if "://" in reference:
        if urlsplit(reference).password:
            raise RebuildError(
                "the address holds credentials",
                "the release's URL",
                "take them out: the store's own client reads them from the environment",
            )
        with _readable(reference):
            return FolderSource(*url_to_fs(reference))
    if Path(reference).is_dir():
        return FolderSource(*url_to_fs(str(Path(reference).resolve())))
    found = _REPO.fullmatch(reference)
    if found is None or reference.startswith((".", "/")):
        raise RebuildError(
            f"there is no folder {reference!r}",
            "the release",
            "name a folder, an fsspec URL, or org/repo@tag",
        )
    return _hub(found["repo"], found["revision"] or "main")


def _hub(repo: str, revision: str) -> HubSource:
    from huggingface_hub import HfApi

    with _hub_errors(f"datasets/{repo}@{revision}"):
        info = HfApi().dataset_info(repo, revision=revision)
    files = tuple(each.rfilename for each in info.siblings or ())
    return HubSource(repo, revision, str(info.sha), files)


def _no_config(
    config: str | None, found: Sequence[str], names: Sequence[str], where: str
) -> RebuildError:
    """Return the error of a config that is not there, or not whole."""
    begun = config is None or any(n.startswith((f"{config}/", f"{config}.")) for n in names)
    if begun and not found and names:
        return RebuildError(
            "there is no lock: what is here was not finished, or is no release of prequery",
            where,
            "run the build or the release once more to its end: the lock is written last",
        )
    known = ", ".join(found) or "there are none"
    told = "no release of prequery is here" if config is None else f"there is no config {config!r}"
    return RebuildError(told, where, f"configs here: {known}")


def _lock(content: bytes, config: str, where: str) -> Lock:
    try:
        lock: Any = json.loads(content)
        named = msgspec.convert(lock, _Whole).config.name
    except ValueError:
        raise RebuildError(
            "the lock is damaged, or was pinned and never built",
            f"{where}, {config}{LOCK}",
            "take a release that is whole",
        ) from None
    outside = [n for n in lock["files"] if posixpath.dirname(n) != config]
    if named != config or outside or not lock["files"]:
        raise RebuildError(
            f"the lock is not that of the config {config!r}",
            f"{where}, {config}{LOCK}",
            "the lock was edited or copied: take a release that is whole",
        )
    assert isinstance(lock, dict)
    return lock


@contextmanager
def _readable(where: str) -> Iterator[None]:
    """Name what went wrong when a file cannot be read; what is not there is for the caller."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (OSError, ImportError, ValueError) as error:
        if isinstance(error, pa.ArrowInvalid):
            raise
        raise RebuildError(
            f"the release cannot be read: {error}",
            where,
            "check the address, the permissions and the connection",
        ) from None


@contextmanager
def _hub_errors(where: str) -> Iterator[None]:
    """Say what the Hub refuses, and what to do."""
    from huggingface_hub import errors, get_token

    try:
        yield
    except errors.GatedRepoError:
        what, fix = "the repository is gated", "ask for access on its page, then log in"
    except errors.RepositoryNotFoundError:
        what = "there is no such dataset repository, or it is private"
        token = "this token may not see it" if get_token() else "log in to see private ones"
        fix = f"check the name; {token}: hf auth login"
    except errors.RevisionNotFoundError:
        what = "the repository has no such tag, branch or commit"
        fix = "a release's tag is CONFIG-vVERSION; its page lists them"
    except errors.HFValidationError:
        what, fix = "this is no name of a repository", "write org/repo, or org/repo@tag"
    except (errors.LocalEntryNotFoundError, OSError) as error:
        what = f"the Hub gave no answer that can be used: {error}"
        fix = "check the connection and the token, then run the same command"
    except errors.HTTPError as error:  # type: ignore[attr-defined]
        what = f"the Hub cannot be reached: {error}"
        fix = "check the connection and HF_ENDPOINT, then run the same command"
    else:
        return
    raise RebuildError(what, where, fix) from None
