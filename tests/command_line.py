"""`prequery` on the command line, in a process that starts at once: its parent has the imports."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from fork_server import fork_server


class Run(Protocol):
    """Runs a command with a home of its own, where it also works."""

    def __call__(self, *words: str, home: Path) -> "subprocess.CompletedProcess[str]": ...


@contextmanager
def commands(**variables: str) -> Iterator[Run]:
    """Yield what runs a command, with these environment variables besides the tests' own."""
    # Not the command line itself, whose modules read the environment.
    with fork_server("prequery.magpie", "prequery.simulation", "aiohttp") as processes:

        def run(*words: str, home: Path) -> "subprocess.CompletedProcess[str]":
            environment = {**os.environ, "PREQUERY_HOME": str(home), **variables}
            with tempfile.TemporaryDirectory() as said:
                process = processes.Process(
                    target=_main, args=(words, environment, home, Path(said))
                )
                process.start()
                process.join()
                assert process.exitcode is not None
                out, err = (Path(said, name).read_text() for name in ("out", "err"))
            return subprocess.CompletedProcess(words, process.exitcode, out, err)

        yield run


def _main(words: tuple[str, ...], environment: Mapping[str, str], home: Path, said: Path) -> None:
    """Be the command."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(home)
    for number, name in ((1, "out"), (2, "err")):
        with (said / name).open("w") as file:
            os.dup2(file.fileno(), number)
    sys.argv = ["prequery", *words]
    from prequery.cli import main

    main()
