"""Start a simulated fleet in a process of its own, command it, and stop it."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import msgspec

from prequery.simulation.server import Command
from prequery.simulation.settings import Counters, Settings

STOP_TIMEOUT_S = 5.0
SOURCE_ROOT = Path(__file__).parents[2]
DEFAULT = Settings()

T = TypeVar("T")


@dataclass
class SimulatedFleet:
    """A running fleet.

    Args:
        settings: What it simulates.
        urls: Address of each endpoint.
    """

    settings: Settings
    urls: list[str]
    _child: "subprocess.Popen[bytes]" = field(repr=False)

    @property
    def process_id(self) -> int:
        """Of the process that serves, for those who measure what it costs."""
        return self._child.pid

    def counters(self) -> list[Counters]:
        """Return what each endpoint did so far."""
        return self._do(Command("counters"), list[Counters])

    def kill(self, endpoint: int) -> None:
        """Reset all connections of an endpoint and refuse new ones."""
        self._do(Command("kill", endpoint), list[None])

    def drain(self, endpoint: int) -> None:
        """Answer new requests with 503 and finish the others."""
        self._do(Command("drain", endpoint), list[None])

    def revive(self, endpoint: int) -> None:
        """End a `drain`, or listen again at the same address after a `kill`."""
        self._do(Command("revive", endpoint), list[None])

    def _do(self, command: Command, kind: type[T]) -> T:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(msgspec.json.encode(command) + b"\n")
        self._child.stdin.flush()
        return msgspec.json.decode(self._child.stdout.readline(), type=kind)


@contextmanager
def simulate(settings: Settings = DEFAULT) -> Iterator[SimulatedFleet]:
    """Run a simulated fleet as long as the block, in a process of its own.

    ```python
    with simulate(Settings(machines=(Machine(slots=64),) * 4)) as fleet:
        builder = Magpie(recipe, options=Options(endpoints=tuple(fleet.urls)))
    ```
    """
    # As in prequery.local.process: neither this package's folder nor the working directory may
    # hide another module.
    code = (
        f"import sys; sys.path.append({str(SOURCE_ROOT)!r}); "
        "from prequery.simulation.server import main; main()"
    )
    with subprocess.Popen(
        [sys.executable, "-P", "-c", code, msgspec.json.encode(settings).decode()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as child:
        try:
            assert child.stdout is not None
            urls = msgspec.json.decode(child.stdout.readline(), type=list[str])
            yield SimulatedFleet(settings, urls, child)
        finally:
            child.terminate()
            try:
                child.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                child.kill()
