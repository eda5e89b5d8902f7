"""Start and stop the embedded endpoint around a build."""

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from prequery.errors import LocalError
from prequery.local import weights as embedded
from prequery.local.server import READY
from prequery.local.settings import DEFAULT_SLOTS, Settings, settings_to_json
from prequery.local.weights import Weights

START_TIMEOUT_S = 60.0
# Longer than the server lets answers in flight finish.
STOP_TIMEOUT_S = 10.0
SOURCE_ROOT = Path(__file__).parents[2]


@contextmanager
def start(
    *,
    exact: bool = False,
    weights: Weights | None = None,
    slots: int | None = None,
    say: Callable[[str], None],
) -> Iterator[str]:
    """Run the embedded endpoint in a process of its own; yield its address.

    It is no part of the terminal's foreground, so Ctrl-C does not take it away while the build
    finishes what is in flight. It ends with the block, or with this process, however that ends.

    Args:
        exact: One answer at a time, so that greedy answers repeat too.
        weights: The model; None takes the embedded one, and brings it when it is not there.
        slots: How many answers at the same time; None takes the measured best.
        say: Takes one line at a time for the user to read.

    Raises:
        LocalError: The weights cannot be had, or the server does not start.
    """
    settings = Settings(
        weights=weights or embedded.install(say), exact=exact, slots=slots or DEFAULT_SLOTS
    )
    with tempfile.TemporaryFile() as log:
        child = _spawn(settings, log)
        try:
            url = _wait_until_ready(child, log)
            mode = "exact, 1 slot" if exact else f"{settings.slots} slots"
            say(f"endpoint: started {settings.weights.model_id} at {url} ({mode})")
            yield url
            say("endpoint: stopping")
        finally:
            _stop(child)


def _spawn(settings: Settings, log: IO[bytes]) -> subprocess.Popen[bytes]:
    # This package's own folder comes last on the path, and the working directory (-P) not at all:
    # neither may hide a module of the standard library or an installed one.
    code = (
        f"import sys; sys.path.append({str(SOURCE_ROOT)!r}); "
        "from prequery.local.server import main; main()"
    )
    arguments = ["--settings", settings_to_json(settings), "--parent", str(os.getpid())]
    return subprocess.Popen(
        [sys.executable, "-P", "-c", code, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=log,
        start_new_session=True,
    )


def _wait_until_ready(child: subprocess.Popen[bytes], log: IO[bytes]) -> str:
    """Wait for the line with the address, which the server writes once it answers."""
    assert child.stdout is not None
    # The timer ends a server that hangs, which ends the reading below.
    timer = threading.Timer(START_TIMEOUT_S, child.kill)
    timer.start()
    try:
        for line in child.stdout:
            if line.startswith(READY.encode()):
                return line.decode().removeprefix(READY).strip()
        code = child.wait()
    finally:
        timer.cancel()
    log.seek(0)
    last_lines = log.read().decode(errors="replace").strip().splitlines()[-15:]
    raise LocalError(
        f"the embedded endpoint did not start (exit code {code})",
        "\n         ".join(last_lines) or "it wrote nothing",
        "see the lines above; `prequery serve` starts it alone",
    )


def _stop(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    if child.stdout is not None:
        child.stdout.close()
