"""The answers that a release rests on, published beside it, so that anybody can rebuild it.

A recording is a root of frozen journals, as `--journal` takes it, with an index over all files::

    recording.json                             the index, written last
    <config>-<fingerprint>/header.json         what the answers were made with
    <config>-<fingerprint>/MANIFEST.json
    <config>-<fingerprint>/<segment>.parquet
    <config>-<column>-<fingerprint>/...        the same of a column that asks a judge
    judge-check-<judge>-<fingerprint>/...      the same of a judge's check

The same answers give the same bytes, whoever built and however often a build was killed: what
nobody reads in a replay is left out, and segments are cut by their number of answers.
"""

import hashlib
import json
import posixpath
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec
from fsspec import AbstractFileSystem

from prequery import judging, models
from prequery.conversation import Attempt, script
from prequery.endpoint import Answer
from prequery.errors import JournalError, RebuildError
from prequery.firsts import Firsts
from prequery.journal import Journal, Key, Pass, folder_for, manifest, segments
from prequery.journal.journal import HEADER
from prequery.lock import Lock
from prequery.options import Options
from prequery.pipeline import Journals, journals_of
from prequery.recipe import Recipe
from prequery.synthesis import proceed

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
    slots = lock["build"].get("looked")
    if lock["config"]["build_hash"] != recipe.build_hash or not slots:
        raise RebuildError(
            "the lock is not one of this recipe's, or is from before recordings",
            f"{recipe.name}.lock.json",
            f"build again, into a new --out: prequery build {recipe.source}",
        )
    files: dict[str, dict[str, Any]] = {}

    def write(name: str, content: bytes) -> None:
        path = posixpath.join(root, name)
        fs.makedirs(posixpath.dirname(path), exist_ok=True)
        fs.pipe_file(path, content)
        digest = hashlib.sha256(content).hexdigest()
        files[name] = {"bytes": len(content), "sha256": digest}

    with journals_of(recipe, options) as journals:
        writers = {name: _Writer(name, one) for name, one in _by_folder(recipe, journals).items()}
        for writer in writers.values():
            if not writer.journal.header:
                raise _lacking(writer.journal, "it is empty")
        for name, key, answer in _rested_on(recipe, journals, slots):
            for path, content in writers[name].add(key, answer):
                write(path, content)
        for writer in writers.values():
            for path, content in writer.finish():
                write(path, content)
        count = sum(writer.count for writer in writers.values())
    index = {
        "format": FORMAT,
        "config": dict(lock["config"]),
        "slots": slots,
        "answers": count,
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


def _by_folder(recipe: Recipe, journals: Journals) -> Mapping[str, Journal]:
    """Return the journals by the name of what they hold, which `_rested_on` uses too."""
    verdicts = {f"{recipe.name}-{name}": one for name, one in journals.verdicts.items()}
    checks = {f"judge-check-{name}": one for name, one in journals.checks.items()}
    return {recipe.name: journals.answers, **verdicts, **checks}


def _rested_on(recipe: Recipe, journals: Journals, slots: int) -> Iterator[tuple[str, Key, Answer]]:
    """Yield every answer that a replay reads, with the journal's name.

    What a build may have asked too much, as the response to an instruction that turned out to be
    a repetition, is left out: it depends on the order in which answers came.

    Raises:
        JournalError: An answer is missing.
    """
    headers = {c.judge: journals.verdicts[c.name].header for c in judging.judge_columns(recipe)}
    voices = models.noted(journals.answers.header, headers)
    firsts = Firsts()
    choices = recipe.preference.responses if recipe.preference else 1
    for slot in range(slots):
        running = script(recipe, voices, slot, firsts.note)
        asked = proceed(running, None)
        while not isinstance(asked, Attempt):
            answers = []
            for one in asked:
                answer = journals.answers.get(one.key)
                if answer is None:
                    what = f"it lacks slot {slot}, {one.key.made}"
                    raise _lacking(journals.answers, what)
                answers.append(answer)
                yield recipe.name, one.key, answer
            asked = proceed(running, answers)
        if asked.reason is not None:
            continue
        for name, journal in journals.verdicts.items():
            for key in (Key(slot, "verdict", 0, choice) for choice in range(choices)):
                answer = journal.get(key)
                if answer is not None:
                    yield f"{recipe.name}-{name}", key, answer
    for name, journal in journals.checks.items():
        for slot in range(journal.end("verdict")):
            answer = journal.get(Key(slot, "verdict"))
            if answer is not None:
                yield f"judge-check-{name}", Key(slot, "verdict"), answer


class _Writer:
    """Cuts the answers of one journal into segments, in the order of their slots."""

    def __init__(self, name: str, journal: Journal) -> None:
        self.journal = journal
        self.count = 0
        self._folder = str(folder_for(name, journal.fingerprint, ""))
        self._waiting: dict[Pass, dict[Key, Answer]] = {}
        self._sealed: list[segments.Segment] = []

    def add(self, key: Key, answer: Answer) -> Iterator[tuple[str, bytes]]:
        """Take an answer; yield the segment that it fills."""
        waiting = self._waiting.setdefault(key.made, {})
        waiting[key] = _silent(answer)
        self.count += 1
        if len(waiting) >= ANSWERS_PER_SEGMENT:
            yield self._seal(key.made)

    def finish(self) -> Iterator[tuple[str, bytes]]:
        """Yield what is left, the header and the manifest."""
        for made in list(self._waiting):
            yield self._seal(made)
        fingerprint = self.journal.fingerprint
        header = json.dumps(self.journal.header, indent=1, sort_keys=True).encode()
        yield posixpath.join(self._folder, HEADER), header
        yield (
            posixpath.join(self._folder, manifest.NAME),
            manifest.dump(fingerprint, self._sealed),
        )

    def _seal(self, made: Pass) -> tuple[str, bytes]:
        answers = self._waiting.pop(made)
        segment, content = segments.pack(answers, made, self.journal.fingerprint, "release")
        self._sealed.append(segment)
        return posixpath.join(self._folder, segment.name), content


def _silent(answer: Answer) -> Answer:
    """Return an answer without an endpoint's own words: an error may name hosts."""
    if answer.error is None:
        return answer
    return msgspec.structs.replace(answer, error="failed" if answer.failed else "refused")


def _dump(index: Index) -> bytes:
    return (json.dumps(index, indent=1, sort_keys=True) + "\n").encode()


def _lacking(journal: Journal, what: str) -> JournalError:
    return JournalError(
        f"this journal does not hold the answers of the build: {what}",
        str(journal.folder),
        "name the journal of the build with --journal",
    )


def _changed(what: str, where: str) -> RebuildError:
    return RebuildError(
        f"the recorded answers were changed: {what}",
        where,
        "fetch the release again; if it stays so, tell who released it",
    )
