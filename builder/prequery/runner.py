"""Run a stream to its end, through Ctrl-C and inside of notebooks."""

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from prequery.budget import Budget
from prequery.errors import BudgetError, BuildError, StoppedError
from prequery.synthesis import Observer

DRAIN_S = 30.0

T = TypeVar("T")


class Stream(Protocol):
    """What runs until it is stopped; `synthesis.Synthesis` is one."""

    async def run(self) -> bool:
        """Run; say whether all rows are there."""

    def stop(self) -> None:
        """Start nothing more: `run` returns when what is in flight is finished."""

    @property
    def stopping(self) -> bool:
        """Whether `stop` was called."""

    @property
    def in_flight(self) -> int:
        """Rows that are being asked for now."""


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, also where an event loop runs already, as in a notebook."""
    if not _loop_is_running():
        return asyncio.run(work)
    result: list[T] = []
    error: list[BaseException] = []

    def run() -> None:
        try:
            result.append(asyncio.run(work))
        except BaseException as raised:  # noqa: BLE001 - raised again in the caller's thread
            error.append(raised)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if error:
        raise error[0]
    return result[0]


def _loop_is_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def until_interrupted(stream: Stream, observer: Observer) -> bool:
    """Run the stream; the first Ctrl-C or SIGTERM lets finish what is in flight.

    Returns:
        Whether the judge has all rows; false when it was stopped before.
    """
    running = asyncio.ensure_future(stream.run())
    with _signals(lambda: _stop(stream, running, observer)):
        try:
            return await running
        except asyncio.CancelledError:
            if stream.stopping:
                return False
            raise


def cut_short(work: str, budget: Budget, where: str, resume: str) -> BuildError:
    """Return the error of a stream that was stopped before its end.

    Args:
        work: What it was part of: build or annotation.
        budget: May have stopped it; otherwise the user did.
        where: For the error.
        resume: The command that carries on.
    """
    spent = budget.spent()
    if spent:
        return BudgetError(
            f"the budget of this run is at its end: {spent}; every finished answer is kept",
            where,
            f"carry on with another budget: {resume}",
        )
    return StoppedError(
        f"the {work} was stopped; every finished answer is kept", where, f"carry on: {resume}"
    )


def _stop(stream: Stream, running: "asyncio.Future[Any]", observer: Observer) -> None:
    if stream.stopping:
        running.cancel()
        return
    observer.said(
        f"stopping: {stream.in_flight} rows are in flight and get {DRAIN_S:.0f} s to finish; "
        "once more stops at once"
    )
    stream.stop()
    asyncio.get_running_loop().call_later(DRAIN_S, running.cancel)


@contextmanager
def _signals(on_signal: Callable[[], None]) -> Iterator[None]:
    """Take SIGINT and SIGTERM over, where this is possible: in the main thread."""
    loop = asyncio.get_running_loop()
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
