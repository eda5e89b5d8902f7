"""Processes that start at once: forked from one that has imported everything, and no test's before.

The fork server of `multiprocessing` is one for the whole test run, and starts with the first
process that anybody asks for: its imports and environment would be another test's.
"""

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext


@contextmanager
def fork_server(*modules: str) -> Iterator[ForkServerContext]:
    """Yield a context whose server begins and ends with the block.

    Args:
        modules: Imported once, by the server, in the environment of this moment.
    """
    _end()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*modules])
    try:
        yield context
    finally:
        _end()


def _end() -> None:
    # What CPython's own tests call; there is no public way.
    forkserver._forkserver._stop()  # type: ignore[attr-defined]
