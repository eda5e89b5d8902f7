"""Where journals are."""

import hashlib
import os
import posixpath
from pathlib import Path
from typing import overload


def home() -> Path:
    """Return the folder of all that is kept for the user.

    `PREQUERY_HOME`, or `prequery` in the user's data folder. Not a cache: answers cost money.
    """
    if chosen := os.environ.get("PREQUERY_HOME"):
        return Path(chosen)
    data = os.environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "prequery"


@overload
def folder_for(name: str, fingerprint: str, root: Path | None = None) -> Path: ...
@overload
def folder_for(name: str, fingerprint: str, root: str) -> str: ...
def folder_for(name: str, fingerprint: str, root: Path | str | None = None) -> Path | str:
    """Return the journal folder of a recipe.

    Args:
        name: Of the recipe.
        fingerprint: Of the recipe.
        root: Folder of all journals: a path, or as text an fsspec URL; null takes the user's.
    """
    folder = f"{name}-{fingerprint[:12]}"
    if isinstance(root, str):
        return posixpath.join(root, folder)
    return (root or home() / "journals") / folder


def beside(url: str) -> Path:
    """Return the folder on this machine that belongs to a journal on an object store."""
    readable = "".join(c if c.isalnum() else "-" for c in posixpath.basename(url.rstrip("/")))
    return home() / "logs" / f"{readable}-{hashlib.sha256(url.encode()).hexdigest()[:12]}"
