"""The answers that a release rests on, published beside it, so that anybody can rebuild it.

A recording is a root of frozen journals, as `--journal` takes it, with an index over all files::

    recording.json                             the index, written last
    <config>-<fingerprint>/header.json         what the answers were made with
    <config>-<fingerprint>/MANIFEST.json
    <config>-<fingerprint>/<segment>.parquet
    <config>-<column>-<fingerprint>/...        the same of a column that asks a judge
    judge-check-<judge>-<fingerprint>/...      the same of a judge's check

The same answers give the same bytes, whoever built and however often a build was killed: what
nobody reads in a replay is left out, and segments are cut by their number of answers. How long was
waited for an answer is a part of it.
"""

import hashlib
import json
import posixpath
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec
from fsspec import AbstractFileSystem

from prequery import judge_check, judging, shards
from prequery.endpoint import Answer
from prequery.errors import JournalError, RebuildError
from prequery.journal import Journal, Key, Pass, folder_for, manifest, segments
from prequery.journal.journal import HEADER
from prequery.lock import LOCK, Lock
from prequery.options import Options
from prequery.pipeline import Journals, journals_of, replay
from prequery.recipe import Recipe

INDEX = "recording.json"
FORMAT = 1
ANSWERS_PER_SEGMENT = 10_000
"""As many as a replay holds decoded several times over, in memory."""

Index = dict[str, Any]


class Reads(Protocol):
    """Somebody who brings a file of a recording."""

    def __call__(self, name: str) -> bytes:
        """Return a file's content; a FileNotFoundError when there is none."""


def place(config: str, version: str) -> str:
    """Return where a release's recording is, in its repository or folder."""
    return f"journals/{config}/v{version}"


def publish(
    recipe: Recipe, lock: Lock, options: Options, fs: AbstractFileSystem, root: str
) -> Index:
    """Write the recording of a finished build.

    Answers hold no address and no token; what an endpoint said when it failed is left out, because
    it may.

    Args:
        recipe: What was built.
        lock: Of the finished build.
        options: Say where its journals are.
        fs: The file system to write to.
        root: Folder on it, for this recording alone.

    Returns:
        What is in `recording.json`: `files` names every other file under `root`, with `bytes` and
        `sha256`.

    Raises:
        RebuildError: The journals are not those of this build, or lack answers.
        JournalError: A journal cannot be read.
    """
    if lock["config"]["build_hash"] != recipe.build_hash:
        raise RebuildError(
            "the lock is not one of this recipe's",
            f"{recipe.name}{LOCK}",
            "take recipe and lock from the folder of the build",
        )
    files: dict[str, dict[str, Any]] = {}

    def write(name: str, content: bytes) -> None:
        path = posixpath.join(root, name)
        fs.makedirs(posixpath.dirname(path), exist_ok=True)
        fs.pipe_file(path, content)
        files[name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}

    # What a build asked too much, as the response to an instruction that turned out to be a
    # repetition, depends on the order in which answers came. A replay reads none of it.
    with journals_of(recipe, options) as journals, shards.work_folder() as work:
        writers = [_Writer(name, one, write) for name, one in _named(recipe, journals).items()]
        for writer in writers:
            writer.journal.heard = writer.add
        made = replay(recipe, journals, work)
        if made is None or made.selection.attempts != lock["build"]["attempts"]:
            raise JournalError(
                "this journal does not hold the answers of the build",
                str(journals.answers.folder),
                "name the journal of the build with --journal",
            )
        for writer in writers:
            writer.finish()
    index = {
        "format": FORMAT,
        "config": dict(lock["config"]),
        "answers": sum(writer.count for writer in writers),
        "files": dict(sorted(files.items())),
    }
    fs.pipe_file(posixpath.join(root, INDEX), _dump(index))
    return index


def restore(read: Reads, recipe: Recipe, where: str, root: Path) -> Index:
    """Bring a recording to this machine, every file held against the index.

    Args:
        read: Brings a file by its name in the recording.
        recipe: Whose answers they must be.
        where: The recording, for errors.
        root: For the journals; `Options(journal=root, recorded=True)` then builds from them.

    Raises:
        RebuildError: There is no recording, it is another recipe's, or a file of it was changed.
    """
    try:
        index = json.loads(read(INDEX))
        fingerprint, files = str(index["config"]["fingerprint"]), dict(index["files"])
        known = {name: str(told["sha256"]) for name, told in files.items()}
    except FileNotFoundError:
        raise RebuildError(
            "the release has no recorded answers",
            where,
            "name an endpoint with --endpoint to write its rows anew and compare",
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise _changed("its index cannot be read", where) from None
    if fingerprint != recipe.fingerprint:
        raise RebuildError(
            f"the recorded answers are those of another recipe: {fingerprint[:12]}, "
            f"this recipe is {recipe.fingerprint[:12]}",
            where,
            "take recipe and recording from the same tag",
        )
    for name, sha256 in known.items():
        if name != posixpath.normpath(name) or name.startswith(("/", "..")) or "\\" in name:
            raise _changed(f"it names the file {name!r}", where)
        try:
            content = read(name)
        except FileNotFoundError:
            raise _changed(f"{name} is missing", where) from None
        if hashlib.sha256(content).hexdigest() != sha256:
            raise _changed(f"{name} is not as it was", where)
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return dict(index)


def _named(recipe: Recipe, journals: Journals) -> Mapping[str, Journal]:
    """Return the journals by the name that their folders begin with."""
    verdicts = {n: journals.verdicts[c] for c, (n, _) in judging.journals(recipe).items()}
    checks = {n: journals.checks[c] for c, (n, _) in judge_check.journals(recipe).items()}
    return {recipe.name: journals.answers, **verdicts, **checks}


class _Writer:
    """Cuts the answers of one journal into segments, in the order in which a replay reads them.

    Args:
        name: That its folder begins with.
        journal: Whose answers.
        write: Puts a file into the recording.
    """

    def __init__(self, name: str, journal: Journal, write: Callable[[str, bytes], None]) -> None:
        self.journal = journal
        self.count = 0
        self._write = write
        self._folder = folder_for(name, journal.fingerprint, "")
        self._waiting: dict[Pass, dict[Key, Answer]] = {}
        self._sealed: list[segments.Segment] = []

    def add(self, key: Key, answer: Answer) -> None:
        """Take an answer; write the segment that it fills."""
        waiting = self._waiting.setdefault(key.made, {})
        waiting[key] = _silent(answer)
        if len(waiting) >= ANSWERS_PER_SEGMENT:
            self._seal(key.made)

    def finish(self) -> None:
        """Write what is left, the header and the manifest."""
        for made in list(self._waiting):
            self._seal(made)
        header = json.dumps(self.journal.header, indent=1, sort_keys=True).encode()
        self._write(posixpath.join(self._folder, HEADER), header)
        content = manifest.dump(self.journal.fingerprint, self._sealed)
        self._write(posixpath.join(self._folder, manifest.NAME), content)

    def _seal(self, made: Pass) -> None:
        answers = self._waiting.pop(made)
        segment, content = segments.pack(answers, made, self.journal.fingerprint, "release")
        self._sealed.append(segment)
        self.count += segment.rows
        self._write(posixpath.join(self._folder, segment.name), content)


def _silent(answer: Answer) -> Answer:
    """Return an answer without an endpoint's own words: an error may name hosts."""
    if answer.error is None:
        return answer
    return msgspec.structs.replace(answer, error="failed" if answer.failed else "refused")


def _dump(index: Index) -> bytes:
    return (json.dumps(index, indent=1, sort_keys=True) + "\n").encode()


def _changed(what: str, where: str) -> RebuildError:
    return RebuildError(
        f"the recorded answers were changed: {what}",
        where,
        "fetch the release again; if it stays so, tell who released it",
    )
