"""The manifest of a frozen journal: every segment by name, hash and count, written once."""

import json
from collections.abc import Iterable

from prequery.errors import JournalError
from prequery.journal.segments import Segment

NAME = "MANIFEST.json"


def dump(fingerprint: str, segments: Iterable[Segment]) -> bytes:
    """Return the manifest of these segments."""
    ordered = sorted(segments, key=lambda each: each.name)
    content = {
        "fingerprint": fingerprint,
        "rows": sum(each.rows for each in ordered),
        "segments": [
            {
                "name": each.name,
                "made": each.made,
                "first": each.first,
                "last": each.last,
                "rows": each.rows,
                "sha256": each.sha256,
            }
            for each in ordered
        ],
    }
    return (json.dumps(content, indent=1) + "\n").encode()


def check(manifest: bytes, here: Iterable[Segment], logs: Iterable[str], where: str) -> None:
    """See that a frozen journal has exactly the segments that it was frozen with.

    Their content is held against their names when they are read.

    Raises:
        JournalError: The manifest is damaged, or something came or went.
    """
    try:
        listed = {str(each["name"]) for each in json.loads(manifest)["segments"]}
    except (ValueError, KeyError, TypeError):
        raise JournalError(
            "the manifest of this frozen journal is damaged", where, "restore it from a copy"
        ) from None
    names = {each.name for each in here}
    missing, added = sorted(listed - names), sorted((names - listed) | set(logs))
    told = [
        f"{len(found)} {what}, as {found[0]!r}"
        for what, found in (("missing", missing), ("added", added))
        if found
    ]
    if told:
        raise changed("; ".join(told), where)


def changed(what: str, where: str) -> JournalError:
    """Return the error of a journal that was changed after it was frozen."""
    return JournalError(
        f"this journal was changed after it was frozen: {what}",
        where,
        "restore it from a copy, or choose another --journal to start anew",
    )
