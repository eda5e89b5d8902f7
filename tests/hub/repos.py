"""A repo as the Hub keeps it: commits, refs, small files in git and large ones beside it."""

import base64
import fnmatch
import hashlib
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hub import cards, git
from hub.refusals import RefusalError, no_entry, no_revision

LARGE = Path(__file__).with_name("large.txt").read_text().split()
"""What the first commit of a dataset's `.gitattributes` sends to large storage."""

LARGE_BYTES = 10 * 1024 * 1024
"""A file above it is large whatever it is called."""

FIRST_PATH = ".gitattributes"


@dataclass(frozen=True)
class File:
    """A file of a commit.

    Args:
        oid: git's name of the blob, or of the pointer to a large file.
        size: Bytes of the content.
        sha256: Of the content of a large file; null for a small one.
        xet: Name that xet gave a large file; null where it came by LFS.
    """

    oid: str
    size: int
    sha256: str | None = None
    xet: str | None = None

    @property
    def pointer_size(self) -> int:
        """Bytes of the pointer to a large file."""
        return len(git.pointer(self.sha256 or "", self.size))


@dataclass(frozen=True)
class Commit:
    """A commit and the whole tree that it left."""

    oid: str
    parent: str | None
    files: Mapping[str, File]
    title: str
    message: str
    author: str
    date: datetime


@dataclass(frozen=True)
class Stored:
    """A large file that was uploaded."""

    content: bytes
    xet: str | None = None


@dataclass
class Pull:
    """A pull request.

    Args:
        branch: Where it is to go.
        base: Commit that it started from.
        merged: Commit that merged it.
    """

    number: int
    title: str
    description: str
    author: str
    branch: str
    base: str
    status: str
    merged: str | None = None

    @property
    def ref(self) -> str:
        """Full name of the ref that its commits go to."""
        return f"refs/pr/{self.number}"


@dataclass
class Repo:
    """A repo.

    Args:
        kind: `models`, `datasets`, `spaces` or `kernels`.
        name: Namespace and name.
        private: Only those of the namespace see it.
        refs: Full name of each ref to a commit.
        tag_messages: Of annotated tags.
        blobs: Small files by git's name.
        large: Large files by SHA-256, uploaded but perhaps in no commit yet.
    """

    kind: str
    name: str
    private: bool
    commits: dict[str, Commit] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    tag_messages: dict[str, str] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    large: dict[str, Stored] = field(default_factory=dict)
    pulls: list[Pull] = field(default_factory=list)

    def __post_init__(self) -> None:
        lines = [f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in LARGE]
        files = {FIRST_PATH: self.small("".join(lines).encode())}
        self.write("refs/heads/main", None, files, "initial commit", "", "system")

    def small(self, content: bytes) -> File:
        """Keep a small file."""
        oid = git.name("blob", content)
        self.blobs[oid] = content
        return File(oid, len(content))

    def content(self, file: File) -> bytes:
        """Return the bytes of a file."""
        return self.large[file.sha256].content if file.sha256 else self.blobs[file.oid]

    def ref(self, revision: str) -> str | None:
        """Return the full name of the ref that a revision names, if it names one."""
        candidates = (revision, f"refs/tags/{revision}", f"refs/heads/{revision}")
        return next((ref for ref in candidates if ref in self.refs), None)

    def at(self, revision: str) -> Commit:
        """Return the commit of a branch, tag, pull request, or (beginning of a) commit name."""
        if ref := self.ref(revision):
            return self.commits[self.refs[ref]]
        if re.fullmatch("[0-9a-f]{7,40}", revision):
            found = [oid for oid in self.commits if oid.startswith(revision)]
            if len(found) == 1:
                return self.commits[found[0]]
        raise no_revision(revision)

    def history(self, revision: str) -> list[Commit]:
        """Return the commits that lead to a revision, newest first."""
        found = [self.at(revision)]
        while found[-1].parent:
            found.append(self.commits[found[-1].parent])
        return found

    def last_change(self, commit: Commit, path: str) -> Commit:
        """Return the commit that gave a file, or anything in a folder, what it holds."""

        def seen(at: Commit) -> list[tuple[str, str]]:
            return sorted(
                (name, file.oid)
                for name, file in at.files.items()
                if name == path or name.startswith(path + "/")
            )

        held = seen(commit)
        while commit.parent and seen(self.commits[commit.parent]) == held:
            commit = self.commits[commit.parent]
        return commit

    def write(
        self,
        ref: str,
        parent: str | None,
        files: Mapping[str, File],
        title: str,
        message: str,
        author: str,
    ) -> Commit:
        """Make a commit and move a ref to it."""
        now = time.time()
        tree = git.folders({path: file.oid for path, file in files.items()})[""]
        text = f"{title}\n\n{message}" if message else title
        oid = git.commit(tree, parent, author, int(now), text)
        date = datetime.fromtimestamp(now, UTC)
        made = Commit(oid, parent, dict(files), title, message, author, date)
        self.commits[oid] = made
        self.refs[ref] = oid
        return made

    def open(
        self, title: str, description: str, author: str, branch: str, base: Commit, status: str
    ) -> Pull:
        """Open a pull request that has no commit yet."""
        number = len(self.pulls) + 1
        pull = Pull(number, title, description, author, branch, base.oid, status)
        self.pulls.append(pull)
        return pull

    def is_large(self, path: str, size: int, sample: bytes) -> bool:
        """Tell whether a new file belongs into large storage."""
        leaf = path.rpartition("/")[2]
        named = any(fnmatch.fnmatchcase(leaf, pattern) for pattern in LARGE)
        return size > 0 and (named or size > LARGE_BYTES or b"\0" in sample)

    def changed(
        self, files: Mapping[str, File], lines: Iterable[dict[str, Any]]
    ) -> dict[str, File]:
        """Return the files after the operations of a commit's body.

        Deletions come first, then additions, in whichever order they stand.
        """
        lines = list(lines)
        left = dict(files)
        for line in lines:
            key, value = line["key"], line["value"]
            if key == "deletedFile":
                if left.pop(value["path"], None) is None:
                    raise no_entry("A file with this name doesn't exist")
            elif key == "deletedFolder":
                inside = [path for path in left if path.startswith(value["path"].rstrip("/") + "/")]
                if not inside:
                    raise no_entry("A folder with this name doesn't exist")
                for path in inside:
                    del left[path]
        for line in lines:
            key, value = line["key"], line["value"]
            if key == "file":
                content = base64.b64decode(value["content"])
                if value["path"] == "README.md" and (wrong := cards.errors(content.decode())):
                    raise RefusalError(400, "\n".join(wrong))
                left[value["path"]] = self.small(content)
            elif key == "lfsFile":
                left[value["path"]] = self._pointed(value)
        return left

    def _pointed(self, value: dict[str, Any]) -> File:
        sha256, path = value["oid"], value["path"]
        stored = self.large.get(sha256)
        if stored is None or value.get("size", len(stored.content)) != len(stored.content):
            raise RefusalError(
                400, f"LFS pointer pointed to a file that does not exist. Offending file: - {path}"
            )
        size = len(stored.content)
        oid = git.name("blob", git.pointer(sha256, size))
        return File(oid, size, sha256, stored.xet)

    def store(self, content: bytes, xet: str | None = None) -> str:
        """Keep a large file and return its SHA-256."""
        sha256 = hashlib.sha256(content).hexdigest()
        if sha256 not in self.large or xet:
            self.large[sha256] = Stored(content, xet)
        return sha256
