"""The process that serves the embedded endpoint.

It listens on the loopback interface and nowhere else: it has no authentication.
"""

import argparse
import asyncio
import errno
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from aiohttp import web

from prequery.errors import BuildError, LocalError
from prequery.local import engine as engines
from prequery.local.routes import Routes
from prequery.local.settings import DEFAULT_SLOTS, Settings, settings_from_json

__all__ = ["DEFAULT_SLOTS", "Settings", "main", "serve"]

HOST = "127.0.0.1"
READY = "listening on "
# After a signal, answers in flight have this long to finish.
DRAIN_S = 5.0


def serve(settings: Settings, ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT; then let answers in flight finish for a few seconds.

    Args:
        settings: What to serve, and how.
        ready: Called with the address once requests are answered.

    Raises:
        LocalError: The engine cannot be loaded, or the port cannot be had.
    """
    asyncio.run(_serve(_resolve(settings), ready))


def _resolve(settings: Settings) -> Settings:
    if settings.slots < 1 or settings.max_total_tokens <= settings.max_input_tokens:
        raise LocalError(
            f"these settings cannot be served: slots {settings.slots!r}, max_input_tokens "
            f"{settings.max_input_tokens!r}, max_total_tokens {settings.max_total_tokens!r}",
            "server settings",
            "take at least one slot, and more total than input tokens",
        )
    return replace(
        settings,
        slots=1 if settings.exact else settings.slots,
        threads=settings.threads or os.cpu_count() or 1,
    )


async def _serve(settings: Settings, ready: Callable[[str], None]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with engines.load(
        settings.weights,
        slots=settings.slots,
        threads=settings.threads or 1,
        max_total_tokens=settings.max_total_tokens,
        exact=settings.exact,
    ) as engine:
        runner = web.AppRunner(
            Routes(engine, settings).app(),
            access_log=None,
            # A client that hangs up frees its slot.
            handler_cancellation=True,
            shutdown_timeout=DRAIN_S,
        )
        await runner.setup()
        try:
            await _listen(runner, settings.port)
            ready(f"http://{HOST}:{runner.addresses[0][1]}")
            await stop.wait()
        finally:
            await runner.cleanup()


async def _listen(runner: web.AppRunner, port: int) -> None:
    try:
        await web.TCPSite(runner, HOST, port).start()
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        raise LocalError(
            f"port {port} is in use" if taken else f"port {port} cannot be had: {error.strerror}",
            f"http://{HOST}:{port}",
            "choose another port, or 0 for any free one",
        ) from error


def main() -> None:
    """Serve as a child of the process that gave the settings, and not a moment longer."""
    parser = argparse.ArgumentParser(prog="python -m prequery.local.server", description=__doc__)
    parser.add_argument("--settings", required=True, help="Settings, as JSON")
    parser.add_argument("--parent", type=int, required=True, help="process id to live and die with")
    arguments = parser.parse_args()
    threading.Thread(target=_die_with, args=(arguments.parent,), daemon=True).start()
    try:
        serve(settings_from_json(arguments.settings), _announce)
    except BuildError as error:
        sys.exit(str(error))


def _announce(url: str) -> None:
    sys.stdout.write(f"{READY}{url}\n")
    sys.stdout.flush()


def _die_with(parent: int) -> None:
    """End this process when its parent is gone, however that ended.

    A pipe to the parent would not tell: processes that the parent forked hold it open too.
    """
    while os.getppid() == parent:
        time.sleep(0.2)
    # Nobody is left to answer, and nothing is kept here: no need to drain.
    os._exit(0)


if __name__ == "__main__":
    main()
