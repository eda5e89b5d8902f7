"""HTTP to one endpoint, whatever protocol it speaks: patience, faults, bounded answers."""

import asyncio
import json
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import TracebackType
from typing import Annotated, Any, ClassVar, Self, TypeVar

import aiohttp
import msgspec

from prequery.errors import EndpointError, RefusalError

T = TypeVar("T")

MAX_BODY_BYTES = 32 << 20
CONNECT_TIMEOUT_S = 10.0

# What an endpoint may count: the journal keeps whole numbers of 64 bits and adds them up.
Count = Annotated[int, msgspec.Meta(ge=0, lt=10**9)]

encode = msgspec.json.Encoder().encode


@dataclass(frozen=True)
class Patience:
    """How long faults are borne. Waits are drawn between 0 and a doubling bound (full jitter).

    Args:
        tries: Faulty answers to one request before the build stops.
        first_wait_s: Bound of the first wait.
        longest_wait_s: No wait is longer.
        overloaded_s: An endpoint that answers 429 for so long stops the build. A 429 is no
            faulty answer: TGI sends it, without Retry-After, when it has enough to do.
        down_s: No endpoint works for so long: the build stops.
        request_s: A request without an answer after this time is a faulty one, unless the
            measured pace says so earlier.
        least_s: The measured pace does not say so before this time.
        look_s: Between two looks at an endpoint that is away, or has been quiet for as long.
    """

    tries: int = 6
    first_wait_s: float = 1.0
    longest_wait_s: float = 30.0
    overloaded_s: float = 900.0
    down_s: float = 600.0
    request_s: float = 600.0
    least_s: float = 10.0
    look_s: float = 1.0

    def wait_s(self, waits: int) -> float:
        """Draw how long to wait after so many earlier waits."""
        return random.uniform(0, min(self.first_wait_s * 2**waits, self.longest_wait_s))


class FaultError(Exception):
    """No answer, or one that cannot be used; asking again may help.

    Args:
        said: What came, in a few words.
        lost: The connection was lost or never made: the endpoint may be gone.
        late: Nothing was wrong but the time.
    """

    def __init__(self, said: str, lost: bool = False, late: bool = False) -> None:
        super().__init__(said)
        self.lost = lost
        self.late = late


class OverloadError(Exception):
    """429."""


class AbsentError(EndpointError):
    """What was asked for is not there: another kind of server, or another path."""


class RefusedError(Exception):
    """This request will never be answered; says why in the endpoint's words."""


@dataclass
class HttpEndpoint:
    """The part of a client that all protocols share; an async context manager.

    Args:
        address: http(s)://host[:port][/path], without credentials.
        token: Bearer token. It goes to this address only: redirects are not followed.
        patience: How long faults are borne.
    """

    protocol: ClassVar[str]
    """Name of what is spoken, for messages."""
    server: ClassVar[str]
    """Name of what speaks it, for messages."""
    refusals: ClassVar[frozenset[int]]
    """Statuses that say: this request is wrong and will never be answered."""

    address: str
    token: str | None = field(default=None, repr=False)
    patience: Patience = Patience()
    _session: aiohttp.ClientSession | None = field(default=None, repr=False)

    async def __aenter__(self) -> Self:
        """Open the connections."""
        headers = {"Content-Type": "application/json"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        # No limit here: how many requests are in flight is decided by who asks. No endpoint's
        # cookies are wanted, and looking for them costs at every request.
        self._session = aiohttp.ClientSession(
            headers=headers,
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connections."""
        if self._session:
            await self._session.close()

    async def is_healthy(self, timeout_s: float) -> bool:
        """Ask once whether it works."""
        try:
            await self._once("GET", "/health", None, timeout_s)
        except (FaultError, OverloadError, RefusedError, EndpointError):
            return False
        return True

    async def _ask_json(
        self, method: str, path: str, body: Mapping[str, Any] | None, kind: type[T], where: str
    ) -> T:
        payload = None if body is None else encode(body)
        try:
            raw = await self._insist(method, path, payload, where)
            return msgspec.json.decode(raw, type=kind)
        except RefusedError as refusal:
            raise RefusalError(
                f"{method} {path} was refused: {refusal}",
                f"{self.address}, {where}",
                "serve a chat model whose template takes a user message",
            ) from None
        except msgspec.DecodeError as error:
            raise EndpointError(
                f"{method} {path} answered with something foreign to {self.protocol}: {error}",
                self.address,
                f"point the recipe's endpoint.url, or --endpoint, at {self.server}",
            ) from None

    async def _insist(self, method: str, path: str, body: bytes | None, where: str) -> bytes:
        """Ask until there is an answer, or the patience is at its end."""
        patience, started, faults, waits = self.patience, time.monotonic(), 0, 0
        while True:
            try:
                return (await self._once(method, path, body, patience.request_s))[0]
            except OverloadError:
                spent = time.monotonic() - started
                if spent > patience.overloaded_s:
                    raise self._gave_up("429", "every try", spent, where) from None
            except FaultError as fault:
                faults += 1
                if faults >= patience.tries:
                    tries = f"{faults} of {faults} tries"
                    spent = time.monotonic() - started
                    raise self._gave_up(str(fault), tries, spent, where) from None
            await asyncio.sleep(patience.wait_s(waits))
            waits += 1

    async def _once(
        self, method: str, path: str, body: bytes | None, timeout_s: float | None
    ) -> tuple[bytes, Mapping[str, str]]:
        """Ask once; without a timeout whoever asks keeps the time."""
        if self._session is None:
            raise RuntimeError("an endpoint is used outside of `async with`")
        try:
            async with self._session.request(
                method,
                self.address + path,
                data=body,
                allow_redirects=False,
                timeout=_timeout(timeout_s),
            ) as response:
                raw = await _bounded(response)
        except TimeoutError:
            raise FaultError("nothing in time", late=True) from None
        except aiohttp.ClientError as error:
            raise FaultError(_in_words(error), lost=True) from None
        status = response.status
        if status == 200:
            return raw, response.headers
        if status == 429:
            raise OverloadError
        if status in self.refusals:
            raise RefusedError(_error_text(raw))
        if status == 424 or status >= 500:
            said = _said(raw)
            raise FaultError(f"{status} ({said})" if said else str(status))
        raise self._hopeless(status, method, path, raw)

    def _hopeless(self, status: int, method: str, path: str, raw: bytes) -> EndpointError:
        what = f"{method} {path} answered {status}"
        if status in (401, 403):
            fix = "export a valid token and name its variable in endpoint.token_env"
            return EndpointError(f"the endpoint does not let us in: {what}", self.address, fix)
        if 300 <= status < 400:
            fix = "use the address that it redirects to; a token must not follow a redirect"
            return EndpointError(f"the endpoint redirects: {what}", self.address, fix)
        fix = f"point the recipe's endpoint.url, or --endpoint, at {self.server}"
        what += f" ({said})" if (said := _said(raw)) else ""
        return AbsentError(f"this is no {self.protocol} endpoint: {what}", self.address, fix)

    def _gave_up(self, fault: str, tries: str, spent_s: float, where: str) -> EndpointError:
        return EndpointError(
            f"the endpoint answered {fault} to {tries} over {spent_s:.0f} s",
            f"{self.address}, {where}",
            "see that the endpoint is up, then run the same command: finished answers are kept",
        )


@lru_cache(maxsize=16)
def _timeout(timeout_s: float | None) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=timeout_s, sock_connect=CONNECT_TIMEOUT_S)


def counted(header: str | None) -> int | None:
    """Return the tokens that a header tells; null where it is absent or no count."""
    try:
        return msgspec.convert(header, Count, strict=False)
    except msgspec.ValidationError:
        return None


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise FaultError(f"more than {MAX_BODY_BYTES >> 20} MiB")
    return bytes(body)


def _error_text(raw: bytes) -> str:
    """Return the endpoint's own words, short and printable."""
    return _said(raw) or _printable(raw.decode("utf-8", "replace"))


def _said(raw: bytes) -> str:
    """Return the words of an error body: TGI's, OpenAI's or FastAPI's; empty when it has none."""
    try:
        body = json.loads(raw)
        said = body.get("error") or body.get("message") or body.get("detail") or ""
        return _printable(str(said["message"] if isinstance(said, dict) else said))
    except (ValueError, LookupError, AttributeError):
        return ""


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)[:300]


def _in_words(error: aiohttp.ClientError) -> str:
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"no connection ({error.os_error.strerror or type(error.os_error).__name__})"
    return f"a broken connection ({type(error).__name__})"
