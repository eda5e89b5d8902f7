"""The versions of a config, and what changed in the data of each.

They stand in `<config>.history.json` beside the card, newest first: no other file of a release
knows of the versions before it.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from prequery.errors import CardError
from prequery.lock import Lock


@dataclass(frozen=True)
class Version:
    """One version of a config.

    Args:
        version: Its three numbers.
        rows: Of the release.
        changes: What is different from the version before, each in one sentence.
    """

    version: str
    rows: int
    changes: tuple[str, ...]


def read(text: str | None, where: str) -> tuple[Version, ...]:
    """Read a history, newest first; null is none.

    Raises:
        CardError: It is not one.
    """
    if text is None:
        return ()
    try:
        found = [_version(one) for one in json.loads(text)]
    except (ValueError, TypeError, KeyError):
        raise CardError(
            "the history of versions is damaged",
            where,
            "take it from the release before this one, or remove it",
        ) from None
    return tuple(found)


def _version(content: Any) -> Version:
    version, rows, changes = content["version"], content["rows"], content["changes"]
    if not isinstance(version, str) or type(rows) is not int or not isinstance(changes, list):
        raise TypeError
    if not all(isinstance(change, str) for change in changes):
        raise TypeError
    return Version(version, rows, tuple(changes))


def dump(versions: Sequence[Version]) -> str:
    """Return a history's file."""
    return json.dumps([asdict(one) for one in versions], indent=1, ensure_ascii=True) + "\n"


def extended(
    earlier: Sequence[Version], old: Lock, new: Lock, notes: Sequence[str]
) -> tuple[Version, ...]:
    """Put a version behind those before it.

    Args:
        earlier: The history of the release before; it need not name that release itself.
        old: The lock of that release.
        new: The lock of this one.
        notes: What else is to be said of the change.

    Returns:
        The history with this version first. One that is there already is replaced.
    """
    before, now = old["config"]["version"], new["config"]["version"]
    kept = [one for one in earlier if one.version != now]
    if before not in [one.version for one in kept] and before != now:
        kept.insert(0, Version(before, old["build"]["accepted"], ()))
    told = (*notes, *_changes(old, new))
    return (Version(now, new["build"]["accepted"], told), *kept)


def _changes(old: Lock, new: Lock) -> Iterator[str]:
    """Return what two locks differ in, as far as it can change a row."""
    if old["config"]["fingerprint"] != new["config"]["fingerprint"]:
        yield "every answer is new: model, prompts, sampling or seed changed, and so did all ids"
    for part, name in (("generator", "generator"), ("responder", "responder")):
        one, other = (_model(lock, part) for lock in (old, new))
        if one != other:
            yield f"{name}: {one} -> {other}"
    columns = [lock.get("columns", {}) for lock in (old, new)]
    for column in sorted({*columns[0], *columns[1]}):
        one, other = (held.get(column, {}) for held in columns)
        if not one:
            yield f"column {column} is new, version {other['version']}"
        elif not other:
            yield f"column {column} is gone"
        elif one["version"] != other["version"]:
            yield f"column {column}: version {one['version']} -> {other['version']}"
        elif (one["fingerprint"], one["pins"]) != (other["fingerprint"], other["pins"]):
            yield f"column {column} measures with other parameters, files or packages"


def _model(lock: Lock, part: str) -> str:
    model = lock["responder"]["generator"] if part == "responder" and part in lock else None
    model = lock["generator"] if model is None else model
    return f"{model['model_id']}@{model['revision']}"
