"""Calls that the server saw, and faults that a test puts into their way."""

import asyncio
import fnmatch
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from aiohttp import web

from hub.refusals import RefusalError


@dataclass
class Call:
    """A call.

    Args:
        number: From 0, in order of arrival, over the life of the server.
        name: What is asked for, in a word: `commit`, `tag`, `lfs-upload`, `xorb`.
        method: HTTP method.
        path: Path with its query, still encoded.
        token: What the caller showed.
        received: Bytes of the body.
        status: Of the answer; null while there is none, and for a connection that was cut.
        refusal: What a refusal said.
        fault: The fault that it met.
    """

    number: int
    name: str
    method: str
    path: str
    token: str | None = None
    received: int = 0
    status: int | None = None
    refusal: str | None = None
    fault: "Fault | None" = None

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@dataclass
class Fault:
    """Something that goes wrong with a call.

    Args:
        call: Name of the call, a pattern for names, or a pattern for "METHOD /path" with
            a slash in it; null is any call.
        nth: The first call that meets it, from 0, counted among those that match since the fault
            was set.
        times: How many calls in a row meet it.
        when: `before` the server acts, so that nothing has changed, or `after`.
        status: Answer with this status in place of the right one.
        retry_after_s: With a status, the headers `Retry-After` and `RateLimit`.
        message: With a status, the message.
        lost: CutError the connection in place of an answer.
        hang_s: Seconds before the connection is cut; a client that waits less gives up.
        expires: The caller's token is worth nothing from here on. With `before` this call is the
            first that it fails, with `after` the next.
        runs: Called at that moment, on the server's thread: to kill the client, to make
            somebody else's commit. The call goes on afterwards unless something else is set.
    """

    call: str | None = None
    nth: int = 0
    times: int = 1
    when: Literal["before", "after"] = "before"
    status: int | None = None
    retry_after_s: int | None = None
    message: str = "a fault of the test"
    lost: bool = False
    hang_s: float | None = None
    expires: bool = False
    runs: Callable[[], object] | None = None
    met: int = field(default=0, init=False)

    def matches(self, call: Call) -> bool:
        """Tell whether it means this call, and count it."""
        subject = str(call) if "/" in (self.call or "") else call.name
        if self.call is not None and not fnmatch.fnmatchcase(subject, self.call):
            return False
        self.met += 1
        return self.nth < self.met <= self.nth + self.times

    async def strike(self, request: web.Request, expire: Callable[[str | None], None]) -> None:
        """Go wrong: return where the call is to go on, raise a refusal, or cut the connection."""
        if self.runs is not None and inspect.isawaitable(result := self.runs()):
            await result
        if self.expires:
            expire(token(request))
        if self.hang_s is not None:
            await asyncio.sleep(self.hang_s)
        if self.hang_s is not None or self.lost:
            if request.transport is not None:
                request.transport.abort()
            raise CutError
        if self.status is not None:
            headers = {}
            if self.retry_after_s is not None:
                headers = {
                    "Retry-After": str(self.retry_after_s),
                    "RateLimit": f'"api";r=0;t={self.retry_after_s}',
                }
            raise RefusalError(self.status, self.message, headers=headers)


class CutError(Exception):
    """The connection was cut: nobody hears an answer."""


def token(request: web.Request) -> str | None:
    """Return the bearer token of a request."""
    scheme, _, value = request.headers.get("Authorization", "").partition(" ")
    return value if scheme.lower() == "bearer" else None
