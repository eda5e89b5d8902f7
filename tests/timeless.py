"""Releases without the time that was waited for their answers: no two builds share it."""

import hashlib
import json
import re
from pathlib import Path

from prequery import lock


def digests(out: Path) -> dict[str, str]:
    """Hash every file of a release, as it would be whatever time its answers took."""
    return {
        str(path.relative_to(out)): digest(path)
        for path in sorted(out.rglob("*"), key=str)
        if path.is_file()
    }


def digest(path: Path) -> str:
    """Hash a file of a release; of lock and card all but that time."""
    content = path.read_bytes()
    if path.name.endswith(".lock.json"):
        content = lock.dump(lock.timeless(json.loads(content))).encode()
    elif path.name == "README.md":
        content = re.sub(rb"(?m)^\| hours .*$", b"", content)
    return hashlib.sha256(content).hexdigest()
