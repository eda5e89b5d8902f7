"""The versions of a config, and what changed in the data of each.

They stand in `<config>.history.json` beside the card, newest first: no other file of a release
knows of the versions before it.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from prequery.errors import CardError


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


def extended(earlier: Sequence[Version], before: Version, now: Version) -> tuple[Version, ...]:
    """Put a version in front of those before it.

    Args:
        earlier: The history of the release before, which need not name that release itself.
        before: That release, as far as it tells of itself.
        now: This one. Where the history has it already, it is replaced.
    """
    kept = [one for one in earlier if one.version != now.version]
    if before.version not in [one.version for one in kept] and before.version != now.version:
        kept.insert(0, before)
    return (now, *kept)
