"""What a release would change at its place, and which versions may follow which."""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from prequery.errors import ReleaseError
from prequery.lock import LOCK
from prequery.release.content import README, Content

Kind = Literal["released", "unchanged", "planned", "proposed"]


@dataclass(frozen=True)
class Changes:
    """What becomes of each file.

    Args:
        added: Paths that are new.
        replaced: Paths whose content changes.
        removed: Paths that go: shards of the version before.
        kept: Paths that stay as they are.
        moved: New path to the one that holds the same content now: nothing is sent for it.
        send_bytes: Of what is added and replaced.
        readme: The README's change, as a unified diff.
        steps: What happens besides: a repository, branch, commit or tag is made.
    """

    added: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    moved: Mapping[str, str] = field(default_factory=dict)
    send_bytes: int = 0
    readme: str = ""
    steps: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Return one line for each change."""
        told = [f"make     {step}" for step in self.steps]
        told += [f"add      {path}" for path in self.added]
        told += [f"replace  {path}" for path in self.replaced]
        told += [f"move     {old} -> {new}" for new, old in self.moved.items()]
        told += [f"remove   {path}" for path in self.removed]
        told += [f"keep     {len(self.kept)} files"] if self.kept else []
        return told


@dataclass(frozen=True)
class Outcome:
    """What came of a release.

    Args:
        kind: `released`: it is there now. `unchanged`: it was there before. `planned`: a dry run.
            `proposed`: as a pull request that waits to be merged.
        where: The place, as the user would name it.
        changes: What was or would be changed.
        commit: On the Hub, the commit that the tag names.
        url: Of the pull request.
    """

    kind: Kind
    where: str
    changes: Changes
    commit: str | None = None
    url: str | None = None


def belongs(path: str, config: str) -> bool:
    """Say whether a path is one that a release of this config writes, in whichever version."""
    name = re.escape(config)
    return bool(
        re.fullmatch(
            rf"{name}/train-\d{{5}}-of-\d{{5}}\.parquet"
            rf"|{name}(\.yaml|{re.escape(LOCK)}|\.card\.jinja|\.croissant\.json|\.history\.json)"
            rf"|plots/{name}/[^/]+\.svg|journals/{name}/v[^/]+/.+",
            path,
        )
    )


def disturbs(path: str, config: str) -> bool:
    """Say whether a file that no release wrote would be loaded with the config's rows."""
    found = re.fullmatch(rf"{re.escape(config)}/train-[^/]*\.parquet", path)
    return bool(found) and not belongs(path, config)


def compare(
    content: Content,
    held: Mapping[str, bool],
    by_sha256: Mapping[str, str],
    readme: str | None,
    steps: tuple[str, ...] = (),
) -> Changes:
    """Compare a place with what it is to hold.

    Args:
        content: What it is to hold.
        held: Paths of the config that are there, each with whether its content is the wanted one.
        by_sha256: Content that the place can copy to what it calls it.
        readme: The README that is there.
        steps: What will be made besides.

    Raises:
        CardError: The README that is there is broken.
    """
    missing = [path for path in content.files if not held.get(path, False)]
    moved = {
        path: by_sha256[content.files[path].sha256]
        for path in missing
        if content.files[path].sha256 in by_sha256
    }
    sent = [path for path in missing if path not in moved]
    wanted = content.readme(readme)
    return Changes(
        added=tuple(path for path in sent if path not in held) + (README,) * (readme is None),
        replaced=tuple(path for path in sent if path in held)
        + (README,) * (readme is not None and readme != wanted),
        removed=tuple(sorted(path for path in held if path not in content.files)),
        kept=tuple(path for path in content.files if held.get(path, False)),
        moved=moved,
        send_bytes=sum(content.files[path].size for path in sent),
        readme="".join(
            difflib.unified_diff(
                (readme or "").splitlines(keepends=True),
                wanted.splitlines(keepends=True),
                f"{README}, as it is",
                f"{README}, released",
            )
        ),
        steps=steps,
    )


def hold_version(content: Content, held: str | None, where: str) -> None:
    """Refuse to release a version over the same or a newer one that holds other content.

    Args:
        content: What is to be released.
        held: The version that is there; null: none.
        where: For the error.

    Raises:
        ReleaseError: It is the same or a newer one.
    """
    if held is None or _order(held) < _order(content.version):
        return
    what = (
        f"version {held} of {content.config!r} exists and holds other content"
        if held == content.version
        else f"{content.config!r} is at version {held} there, newer than {content.version}"
    )
    raise ReleaseError(what, where, f"{next_version(held)}; nothing was uploaded")


def next_version(held: str) -> str:
    """Return the advice to raise a version."""
    major, minor, _ = _order(held)
    return f"raise `version` in the recipe, as to {major}.{minor + 1}.0, build again and release"


def _order(version: str) -> tuple[int, int, int]:
    found = re.fullmatch(r"(\d{1,9})\.(\d{1,9})\.(\d{1,9})", version)
    return (int(found[1]), int(found[2]), int(found[3])) if found else (0, 0, 0)
