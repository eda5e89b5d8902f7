"""Recompute what the lock of a release says of it: files, rows, counts, recipe, and the tag."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import pyarrow.parquet as pq

from prequery import recording, shards
from prequery.errors import RecipeError
from prequery.lock import digest
from prequery.released import HubSource, Released

Verdict = Literal["same", "differs", "unknown"]


@dataclass(frozen=True)
class Finding:
    """One thing that was held against the lock.

    Args:
        name: What it is.
        verdict: `unknown`: nothing can tell, as with a lock from before it told.
        told: What was seen, in a few words.
    """

    name: str
    verdict: Verdict
    told: str


def verify(release: Released, expected: str | None = None) -> Iterator[Finding]:
    """Hold a release against its lock, one thing after the other.

    Args:
        release: Its files are read whole.
        expected: Digest that the lock must have, from a source of its own, as a paper; it tells
            a tag that was moved to another release of the same version.

    Raises:
        RebuildError: A file cannot be fetched.
    """
    yield _digest(release, expected)
    yield from _tag(release)
    yield from _recipe(release)
    listed = release.lock["files"]
    whole = True
    for name in release.shards:
        finding = _file(release, name)
        whole = whole and finding.verdict == "same"
        yield finding
    for name in sorted(set(release.here()) - listed.keys()):
        whole = False
        yield Finding(name, "differs", "is there, and the lock does not name it")
    yield from _counts(release)
    yield _rows(release) if whole else Finding("rows", "unknown", "files differ already")
    yield from _recording(release)


def _digest(release: Released, expected: str | None) -> Finding:
    noted, now = release.lock.get("digest"), digest(release.lock)
    if expected is not None and now != expected.lower():
        return Finding("lock", "differs", f"its digest is {now}, {expected} was expected")
    if noted is None:
        return Finding("lock", "unknown", "it is from before locks bore a digest")
    if noted != now:
        return Finding("lock", "differs", "it was edited: its digest is another")
    return Finding("lock", "same", f"digest {now}")


def _tag(release: Released) -> Iterator[Finding]:
    """Hold a tag against the version, and against the commits that say that they released it."""
    source, version = release.source, release.lock["config"]["version"]
    if not isinstance(source, HubSource) or not source.revision.startswith(f"{release.config}-v"):
        return
    tag, commit = source.revision, source.commit
    if tag != f"{release.config}-v{version}":
        yield Finding("tag", "differs", f"{tag} holds version {version}: it was moved")
        return
    wanted = re.compile(
        rf"Release {re.escape(release.config)} {re.escape(version)} \[(build \w+)\]"
    )
    made = {
        one: found[1] for one, title in source.titles().items() if (found := wanted.match(title))
    }
    others = [one[:7] for one, build in made.items() if build != made.get(commit)]
    if commit not in made and not made:
        told = f"{tag} is commit {commit[:7]}, and no commit says that it released this version"
        yield Finding("tag", "unknown", told)
    elif others:
        told = f"{tag} is commit {commit[:7]}, but {', '.join(others)} released this version"
        yield Finding("tag", "differs", told)
    else:
        yield Finding("tag", "same", f"{tag} is commit {commit[:7]}, {made[commit]}")


def _recipe(release: Released) -> Iterator[Finding]:
    """Hold the recipe's text, and what it means to this prequery, against the lock."""
    name, told = f"{release.config}.yaml", release.lock.get("recipe")
    try:
        now = release.sha256(name)
    except FileNotFoundError:
        yield Finding(name, "differs", "is missing")
        return
    if told is None:
        yield Finding(name, "unknown", "the lock does not tell its hash")
    elif told["sha256"] != now:
        yield Finding(name, "differs", "was edited")
    else:
        yield Finding(name, "same", "letter by letter")
    try:
        recipe = release.recipe()
    except RecipeError as error:
        yield Finding("fingerprint", "unknown", f"the recipe cannot be read here: {error.what}")
        return
    config = release.lock["config"]
    if recipe.fingerprint != config["fingerprint"]:
        what = f"{recipe.fingerprint[:12]}, the lock says {config['fingerprint'][:12]}"
        yield Finding("fingerprint", "differs", what)
    elif recipe.build_hash != config["build_hash"]:
        told_of = "the recipe, or this prequery, would build other rows"
        yield Finding("fingerprint", "differs", told_of)
    else:
        yield Finding("fingerprint", "same", recipe.fingerprint[:12])


def _file(release: Released, name: str) -> Finding:
    told = release.lock["files"][name]
    try:
        now = release.sha256(name)
    except FileNotFoundError:
        return Finding(name, "differs", "is missing")
    if now != told["sha256"]:
        return Finding(name, "differs", f"sha256 {now[:12]}, the lock says {told['sha256'][:12]}")
    with release.opened(name) as file:
        count = pq.ParquetFile(file).metadata.num_rows
    if count != told["rows"]:
        return Finding(name, "differs", f"{count} rows, the lock says {told['rows']}")
    return Finding(name, "same", f"{count:,} rows, sha256 {now[:12]}")


def _counts(release: Released) -> Iterator[Finding]:
    """See that the lock's counts add up."""
    build, files = release.lock["build"], release.lock["files"]
    listed = sum(file["rows"] for file in files.values())
    accepted, attempts = build["accepted"], build["attempts"]
    rejected = sum(build["rejected"].values())
    if listed != accepted or accepted + rejected != attempts:
        told = f"{listed} rows in files, {accepted} accepted, {rejected} rejected of {attempts}"
        yield Finding("counts", "differs", told)
    else:
        told = f"{accepted:,} accepted and {rejected:,} rejected are {attempts:,} attempts"
        yield Finding("counts", "same", told)


def _rows(release: Released) -> Finding:
    """Hash all rows, whatever files they stand in, and see that no id comes twice."""
    told = release.lock.get("rows")
    ids = release.ids()
    if len(ids.unique()) != len(ids):
        return Finding("rows", "differs", "an id comes twice")
    if told is None:
        return Finding("rows", "unknown", "the lock does not tell their hash")
    now = shards.rows_sha256(release.tables())
    if now != told["sha256"]:
        return Finding("rows", "differs", f"sha256 {now[:12]}, the lock says {told['sha256'][:12]}")
    return Finding("rows", "same", f"{len(ids):,} rows, sha256 {now[:12]}")


def _recording(release: Released) -> Iterator[Finding]:
    """Hold the recorded answers, where there are some, against their index."""
    root = recording.place(release.config, release.lock["config"]["version"])
    try:
        content = release.read(f"{root}/{recording.INDEX}")
    except FileNotFoundError:
        return
    try:
        index = json.loads(content)
        files = {str(name): str(told["sha256"]) for name, told in index["files"].items()}
        fingerprint = index["config"]["fingerprint"]
    except (ValueError, KeyError, TypeError, AttributeError):
        yield Finding(root, "differs", "its index cannot be read")
        return
    if fingerprint != release.lock["config"]["fingerprint"]:
        yield Finding(root, "differs", "it holds the answers of another recipe")
        return
    for name, sha256 in files.items():
        try:
            same = release.sha256(f"{root}/{name}") == sha256
        except FileNotFoundError:
            same = False
        if not same:
            yield Finding(root, "differs", f"{name} is missing, or is not as it was")
            return
    yield Finding(root, "same", f"{index.get('answers', 0):,} recorded answers, {len(files)} files")
