"""The process that serves a simulated fleet: one port for each endpoint, on the loopback only.

It takes commands as JSON lines from the process that started it, answers each with a line, and
ends with that process.
"""

import asyncio
import contextlib
import os
import signal
import sys

import msgspec

from prequery.simulation.protocols import speaking
from prequery.simulation.settings import Settings
from prequery.simulation.template import ChatTemplate
from prequery.simulation.wire import Connection, Endpoint
from prequery.simulation.words import Writer

HOST = "127.0.0.1"
PARENT_CHECK_S = 0.5


class Command(msgspec.Struct):
    """What the fleet is told to do: `counters`, `kill`, `drain` or `revive`."""

    do: str
    endpoint: int = 0


class _Listener:
    """An endpoint and its port, which stays its own while nobody listens there."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.port = 0
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Listen, healthy."""
        self.endpoint.draining = False
        if self._server is not None:
            return
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Connection(self.endpoint), HOST, self.port, backlog=4096
        )
        self.port = self._server.sockets[0].getsockname()[1]

    def die(self) -> None:
        """Refuse connections, and reset those that are open."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for connection in list(self.endpoint.connections):
            connection.abort()


async def _serve(settings: Settings) -> None:
    template = ChatTemplate(settings)
    token = speaking(settings, settings.machines[0], template).token
    writer = Writer(settings.seed, token, template.end, template.thought_end)
    fleet = [
        _Listener(Endpoint(settings, machine, template, writer, number))
        for number, machine in enumerate(settings.machines)
    ]
    for listener in fleet:
        await listener.open()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    commands = asyncio.create_task(_obey(fleet, stop))
    watch = asyncio.create_task(_end_with_parent(os.getppid(), stop))
    _say([f"http://{HOST}:{listener.port}" for listener in fleet])
    await stop.wait()
    for task in (commands, watch):
        task.cancel()
    for listener in fleet:
        listener.die()


async def _obey(fleet: list[_Listener], stop: asyncio.Event) -> None:
    """Do what the lines of the standard input say, until it ends."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        command = msgspec.json.decode(line, type=Command)
        listener = fleet[command.endpoint]
        match command.do:
            case "kill":
                listener.die()
            case "drain":
                listener.endpoint.draining = True
            case "revive":
                await listener.open()
        _say([one.endpoint.counters for one in fleet] if command.do == "counters" else [])
    stop.set()


async def _end_with_parent(parent: int, stop: asyncio.Event) -> None:
    """End when the parent is gone: its forks hold the standard input open."""
    while os.getppid() == parent:
        await asyncio.sleep(PARENT_CHECK_S)
    stop.set()


def _say(what: object) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(what) + b"\n")
    sys.stdout.buffer.flush()


def main() -> None:
    """Serve the settings that the first argument holds, as JSON."""
    # Ctrl-C belongs to whoever asks; the fleet goes on answering what is in flight.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(BrokenPipeError):
        asyncio.run(_serve(msgspec.json.decode(sys.argv[1], type=Settings)))
