"""HTTP/1.1 on a bare asyncio protocol: requests, queueing and faults.

A web framework would cost several times as much, of the two cores that benchmarks share with it.
"""

import asyncio
from collections.abc import Callable
from hashlib import blake2b

import msgspec

from prequery.simulation import words
from prequery.simulation.batch import Batch, Job
from prequery.simulation.protocols import Asked, speaking
from prequery.simulation.settings import Counters, Machine, Settings
from prequery.simulation.template import ChatTemplate, RefusedError
from prequery.simulation.words import Writer

MAX_HEAD_BYTES = 1 << 16
DRIPS = 20
_REASONS = {
    200: b"OK",
    400: b"Bad Request",
    404: b"Not Found",
    422: b"Unprocessable Entity",
    424: b"Failed Dependency",
    429: b"Too Many Requests",
    500: b"Internal Server Error",
    503: b"Service Unavailable",
}


class Endpoint:
    """One endpoint of the fleet: what it knows and counts, apart from any connection.

    Args:
        settings: Of the fleet.
        machine: This endpoint.
        template: Shared by all, as the writer is.
        writer: Of its words.
        number: In the fleet. A request meets other faults at another endpoint.
    """

    def __init__(
        self,
        settings: Settings,
        machine: Machine,
        template: ChatTemplate,
        writer: Writer,
        number: int = 0,
    ) -> None:
        self.settings = settings
        self.template = template
        self.number = number
        self.machine = machine
        self.writer = writer
        self.speaks = speaking(settings, machine, template)
        self.counters = Counters(answered_again={}, faults={})
        self.batch = Batch(machine, self.counters)
        self.draining = False
        self.connections: set[Connection] = set()
        self._came: dict[int, int] = {}
        self._answered: dict[int, int] = {}
        self._rates = [(kind, rate) for kind, rate in settings.faults.rates().items() if rate]

    @property
    def is_full(self) -> bool:
        """Whether one more gets a 429."""
        unlimited = self.settings.protocol == "completions"
        return self.batch.is_full and not (unlimited and not self.machine.max_concurrent_requests)

    def digest(self, asked: Asked) -> bytes:
        """Return what everything about the answer to this request follows from."""
        key = f"{self.settings.seed}|{asked.seed}|{asked.prompt}"
        return blake2b(key.encode("utf-8", "replace"), digest_size=24).digest()

    def fault(self, digest: bytes) -> str | None:
        """Return the fault that this request meets, now that it comes once more."""
        if not self._rates:
            return None
        key = int.from_bytes(digest[:8])
        before = self._came.get(key, 0)
        self._came[key] = before + 1
        met = digest + before.to_bytes(4) + self.number.to_bytes(4)
        again = blake2b(met, digest_size=8).digest()
        point = int.from_bytes(again) / 2**64
        for kind, rate in self._rates:
            point -= rate
            if point < 0:
                self.counters.faults[kind] = self.counters.faults.get(kind, 0) + 1
                return kind
        return None

    def note_answer(self, digest: bytes, most: int, prompt: int, generated: int) -> None:
        """Count a whole answer."""
        counters, key = self.counters, int.from_bytes(digest[:8]) ^ most
        before = self._answered.get(key, 0)
        self._answered[key] = before + 1
        if before:
            counters.answered_again[most] = counters.answered_again.get(most, 0) + 1
        counters.answered += 1
        counters.prompt_tokens += prompt
        counters.generated_tokens += generated
        counters.service_s += self.machine.service_s(generated)
        counters.last_at = asyncio.get_running_loop().time()


class Connection(asyncio.Protocol):
    """One connection: reads a request, answers it, reads the next."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._buffer = b""
        self._busy = False
        self._job: Job | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the connection."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.endpoint.connections.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        """Free the slot of a client that went away."""
        self.endpoint.connections.discard(self)
        self._transport = None
        if self._job is not None and not self._job.over:
            self.endpoint.counters.left += 1
            self.endpoint.batch.drop(self._job)
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Take bytes in, and answer when they are a whole request."""
        self._buffer = self._buffer + data if self._buffer else data
        if not self._busy:
            self._read()

    def abort(self) -> None:
        """Reset the connection."""
        if self._transport is not None:
            self._transport.abort()

    def _read(self) -> None:
        """Answer the requests that are in the buffer, until one takes time."""
        while not self._busy and (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end]
            length = _content_length(head)
            if len(self._buffer) < end + 4 + length:
                break
            body = self._buffer[end + 4 : end + 4 + length]
            self._buffer = self._buffer[end + 4 + length :]
            self._busy = True
            method, _, rest = head.partition(b" ")
            self._route(method, rest.partition(b" ")[0], body)
        if len(self._buffer) > MAX_HEAD_BYTES and b"\r\n\r\n" not in self._buffer:
            self.abort()

    def _route(self, method: bytes, path: bytes, body: bytes) -> None:
        endpoint = self.endpoint
        if (method, path) == (b"GET", b"/health"):
            self._unhealthy() if endpoint.draining else self._send(200, b"")
            return
        try:
            found = endpoint.speaks.route(method, path, body)
        except msgspec.DecodeError as error:
            said = f"Input validation error: {error}"
            self._refuse(endpoint.speaks.invalid, said, "validation")
            return
        except RefusedError as error:
            self._refuse(endpoint.speaks.invalid, f"Template error: {error}", "template_error")
            return
        if found is None:
            self._refuse(404, "not found", "not_found")
        elif isinstance(found, bytes):
            self._send(200, found)
        else:
            self._generate(found)

    def _generate(self, asked: Asked) -> None:
        endpoint, counters = self.endpoint, self.endpoint.counters
        counters.requests += 1
        counters.first_at = counters.first_at or asyncio.get_running_loop().time()
        if endpoint.draining:
            self._unhealthy()
            return
        if endpoint.is_full:
            counters.refused += 1
            self._refuse(429, "Model is overloaded", "overloaded")
            return
        digest = endpoint.digest(asked)
        fault = endpoint.fault(digest)
        if fault == "overloaded":
            self._refuse(429, "Model is overloaded", "overloaded")
            return
        if fault == "unhealthy":
            self._unhealthy()
            return
        asking = endpoint.template.asks(asked.prompt)
        drawn = words.length(int.from_bytes(digest[8:16]), asking, endpoint.settings.lengths)
        service_s = endpoint.machine.service_s(min(drawn, asked.most))

        def done() -> None:
            self._answer(asked, digest, drawn, asking, fault)

        if fault == "stall":
            self._later(endpoint.settings.faults.stall_s, self.abort)
        elif fault == "reset":
            self._job = endpoint.batch.submit(service_s / 2, self.abort)
        elif service_s > 0:
            self._job = endpoint.batch.submit(service_s, done)
        else:
            done()

    def _answer(
        self, asked: Asked, digest: bytes, drawn: int, asking: bool, fault: str | None
    ) -> None:
        """Send the answer of a generation that is finished, or what the fault makes of it."""
        endpoint = self.endpoint
        if fault == "failed":
            said = "Request failed during generation: Server error: simulated"
            self._refuse(endpoint.speaks.failed, said, "generation")
            return
        draw, prompt = int.from_bytes(digest[16:24]), endpoint.template.count(asked.prompt)
        written = endpoint.writer.write(draw, drawn, asked.most, asking)
        body = endpoint.speaks.answer(written, asked, prompt)
        if fault == "malformed":
            self._send(200, b"<" * len(body))
            return
        # TGI counts in a header, raw completions in the body.
        tgi = endpoint.settings.protocol == "tgi"
        extra = b"x-prompt-tokens: %d\r\n" % prompt if tgi else b""
        if fault == "truncated":
            self._write(_head(200, len(body), extra) + body[: len(body) // 2])
            self._close()
            return
        endpoint.note_answer(digest, asked.most, prompt, written.generated)
        if fault == "drip":
            self._write(_head(200, len(body), extra))
            self._drip(body, len(body) // DRIPS + 1)
            return
        self._send(200, body, extra)

    def _drip(self, body: bytes, size: int) -> None:
        if not body:
            self._next()
            return
        self._write(body[:size])
        pause_s = self.endpoint.settings.faults.drip_s / DRIPS
        self._later(pause_s, lambda: self._drip(body[size:], size))

    def _later(self, wait_s: float, then: Callable[[], None]) -> None:
        self._timer = asyncio.get_running_loop().call_later(wait_s, then)

    def _unhealthy(self) -> None:
        self._refuse(503, "unhealthy", "healthcheck")

    def _refuse(self, status: int, error: str, kind: str) -> None:
        self._send(status, self.endpoint.speaks.error(status, error, kind))

    def _send(self, status: int, body: bytes, extra: bytes = b"") -> None:
        self._write(_head(status, len(body), extra) + body)
        self._next()

    def _next(self) -> None:
        """Be ready for the next request; it may have come already."""
        self._busy, self._job = False, None
        if self._buffer:
            asyncio.get_running_loop().call_soon(self._read)

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.close()


def _head(status: int, length: int, extra: bytes) -> bytes:
    return (b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\n%bcontent-length: %d\r\n\r\n") % (
        status,
        _REASONS[status],
        extra,
        length,
    )


def _content_length(head: bytes) -> int:
    """Return the length of the body that follows; clients that send in chunks are not read."""
    at = head.lower().find(b"content-length:")
    return int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
