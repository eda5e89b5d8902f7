"""An aiohttp application on the loopback, from a thread of its own."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web


@contextmanager
def serving(app: web.Application, ports: int = 1) -> Iterator[list[str]]:
    """Serve on free ports; yield an address for each."""
    loop, started, stopping = asyncio.new_event_loop(), threading.Event(), asyncio.Event()
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)

    async def run() -> None:
        await runner.setup()
        for _ in range(ports):
            await web.TCPSite(runner, "127.0.0.1", 0).start()
        started.set()
        await stopping.wait()
        # Connections that clients have just closed must end before aiohttp forgets them.
        await asyncio.sleep(0.02)
        await runner.cleanup()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:  # of clients that went away while they were answered
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await asyncio.sleep(0)

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    assert started.wait(60)
    try:
        yield [f"http://{host}:{port}" for host, port in runner.addresses]
    finally:
        loop.call_soon_threadsafe(stopping.set)
        thread.join()
        loop.close()
