"""Object names as git computes them: SHA-1 over a kind, a length and the content."""

import hashlib
from collections.abc import Mapping

Oids = Mapping[str, str]
"""Path of a file to the name of its blob."""


def name(kind: str, content: bytes) -> str:
    """Return the name of an object: 40 hex digits."""
    return hashlib.sha1(f"{kind} {len(content)}\0".encode() + content).hexdigest()


def pointer(sha256: str, size: int) -> bytes:
    """Return what git holds in place of a large file."""
    return (
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
    )


def folders(files: Oids) -> dict[str, str]:
    """Return the name of each folder's tree, with "" for the root."""
    children: dict[str, dict[str, tuple[str, str]]] = {"": {}}
    for path, oid in files.items():
        *parents, leaf = path.split("/")
        for depth in range(len(parents) + 1):
            children.setdefault("/".join(parents[:depth]), {})
        children["/".join(parents)][leaf] = ("100644", oid)
    found: dict[str, str] = {}
    for folder in sorted(children, key=lambda path: -len(path.split("/")) if path else 1):
        entries = children[folder]
        # git sorts a folder as if its name ended with a slash
        order = sorted(entries, key=lambda leaf: leaf + "/" * (entries[leaf][0] == "40000"))
        body = b"".join(
            f"{entries[leaf][0]} {leaf}\0".encode() + bytes.fromhex(entries[leaf][1])
            for leaf in order
        )
        found[folder] = name("tree", body)
        if folder:
            parent, _, leaf = folder.rpartition("/")
            children[parent][leaf] = ("40000", found[folder])
    return found


def commit(tree: str, parent: str | None, author: str, seconds: int, message: str) -> str:
    """Return the name of a commit."""
    who = f"{author} <{author}@users.noreply.hub> {seconds} +0000"
    lines = [f"tree {tree}", *([f"parent {parent}"] if parent else [])]
    lines += [f"author {who}", f"committer {who}", "", message]
    return name("commit", "\n".join(lines).encode())
