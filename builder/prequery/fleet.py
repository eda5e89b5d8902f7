"""Several endpoints that serve one model, asked as one.

Work flows to whoever has room, the faster ones first. Each member's limit follows what it can
take: it falls on 429 and grows by one for every round of answers (AIMD), up to what `/info` says. A
member that is gone is left at once, looked after every second, and taken back when it is healthy
and still serves the same model. Urgent requests, those of pass 2, go first, so that few rows are
open at a time.
"""

import asyncio
import os
import random
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Self

from prequery.endpoint import Answer, Client, Info, Rendering, Request
from prequery.errors import EndpointError
from prequery.handshake import connect
from prequery.recipe import EndpointProtocol
from prequery.transport import FaultError, OverloadError, Patience

PROBE_INTERVAL_S = 1.0
PROBE_TIMEOUT_S = 5.0
FAULTS_IN_A_ROW = 3
"""So many faulty answers, and no good one between, and a member is looked after."""
SLOWEST = 5.0
"""A request may take so many times the slowest of the last answers."""
LEAST_TIMEOUT_S = 30.0
UNKNOWN_CEILING = 4096
"""Requests that a member is given at most that does not say how many it takes."""
AT_FIRST = 16
"""Requests that such a member is given at first."""
RETRY_RATIO = 0.1
RETRIES_AT_FIRST = 20.0


@dataclass
class Member:
    """One endpoint and what is known of it.

    Args:
        endpoint: The client.
        ceiling: Requests that it says it takes.
        limit: Requests that it is given now.
        in_flight: Requests that it has.
        healthy: Whether it is given any.
        answered: Good answers so far.
        overloaded: 429 so far.
        faulty: Faulty answers so far.
    """

    endpoint: Client
    ceiling: int
    limit: float
    in_flight: int = 0
    healthy: bool = True
    answered: int = 0
    overloaded: int = 0
    faulty: int = 0
    _faults_in_a_row: int = 0
    _latencies_s: deque[float] = field(default_factory=lambda: deque(maxlen=256))
    _outcomes: deque[int] = field(default_factory=lambda: deque(maxlen=64))
    _pace_s: float = 0.0
    _last_cut: float = 0.0

    @property
    def room(self) -> float:
        """Share of its limit that is free; 0 or less when it has enough."""
        return (int(self.limit) - self.in_flight) / self.limit if self.healthy else 0.0

    @property
    def cost(self) -> float:
        """How long a token takes here, more the fuller it is: to compare members that have room."""
        return self._pace_s * (0.5 + self.in_flight / self.limit)

    def timeout_s(self, longest_s: float) -> float:
        """Return how long an answer may take, from those that came."""
        if len(self._latencies_s) < 32:
            return longest_s
        return min(longest_s, max(LEAST_TIMEOUT_S, SLOWEST * max(self._latencies_s)))

    def note_answer(self, latency_s: float, tokens: int, level: int) -> None:
        """Grow the limit by one for every round of good answers.

        Args:
            latency_s: From sending to the answer.
            tokens: Of the answer.
            level: Requests in flight when it was sent, this one included.
        """
        self.answered += 1
        self._faults_in_a_row = 0
        self._latencies_s.append(latency_s)
        self._outcomes.append(level)
        pace_s = latency_s / max(tokens, 1)
        self._pace_s = 0.95 * self._pace_s + 0.05 * pace_s if self._pace_s else pace_s
        self.limit = min(self.ceiling, self.limit + 1 / self.limit)

    def note_overload(self, sent_at: float, level: int) -> None:
        """Lower the limit, once for all requests that were sent before the last time.

        It halves where a tenth of the requests are refused. Where fewer are, it falls below the
        level that was refused if nothing was answered at that level lately; if something was,
        the refusal had another cause, and a limit that fell for it would never recover. It never
        falls to nothing: an endpoint that others keep busy would be left idle by us.
        """
        self.overloaded += 1
        self._outcomes.append(0)
        if sent_at <= self._last_cut:
            return
        if self._outcomes.count(0) * 10 > len(self._outcomes):
            self.limit = max(1.0, min(self.limit, level) / 2)
        elif level > max(self._outcomes):
            self.limit = max(1.0, (level - 1) * 0.9)
        else:
            return
        self._last_cut = time.monotonic()

    def note_fault(self, lost: bool) -> bool:
        """Count a faulty answer; true when the member may be gone."""
        self.faulty += 1
        self._faults_in_a_row += 1
        return self._faults_in_a_row >= FAULTS_IN_A_ROW or (lost and not self._latencies_s)

    def back(self) -> None:
        """Take it back, carefully."""
        self.healthy = True
        self._faults_in_a_row = 0
        self.limit = max(1.0, self.limit / 2)


@dataclass
class Fleet:
    """Asks several endpoints as one; an async context manager.

    Args:
        addresses: http(s)://host[:port][/path], without credentials; at least one.
        token: Bearer token for all of them.
        patience: How long faults are borne.
        limit: Requests in flight altogether; null lets each take what it says it takes.
        say: Is told when a member is left and when it is back.
        protocol: That all of them speak.
        model: The one that is meant, where an endpoint serves several.
    """

    addresses: Sequence[str]
    token: str | None = field(default=None, repr=False)
    patience: Patience = field(default_factory=Patience)
    limit: int | None = None
    say: Callable[[str], None] = field(default=lambda text: None, repr=False)
    protocol: EndpointProtocol = "auto"
    model: str | None = None
    members: list[Member] = field(default_factory=list, repr=False)
    _info: Info | None = None
    _urgent: deque["asyncio.Future[Member]"] = field(default_factory=deque, repr=False)
    _patient: deque["asyncio.Future[Member]"] = field(default_factory=deque, repr=False)
    _caring: set["asyncio.Task[None]"] = field(default_factory=set, repr=False)
    _down_since: float | None = None
    _retries_left: float = RETRIES_AT_FIRST
    _hopeless: EndpointError | None = None
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack, repr=False)

    async def __aenter__(self) -> Self:
        """Connect, and see that all members serve the same model.

        Raises:
            EndpointError: One does not answer, or is another model or kind than the first.
        """
        try:
            # An address with nothing behind it should be an error in seconds, not in a minute.
            brief = replace(self.patience, tries=min(self.patience.tries, 3))
            for address in self.addresses:
                connecting = connect(address, self.token, brief, self.protocol, self.model)
                endpoint = await self._stack.enter_async_context(connecting)
                info = await endpoint.info()
                self._info = self._info or info
                self._same_model(info, address)
                ceiling = self._ceiling(info)
                known = info.slots or info.max_concurrent_requests
                self.members.append(Member(endpoint, ceiling, ceiling if known else AT_FIRST))
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connections."""
        for task in self._caring:
            task.cancel()
        await asyncio.gather(*self._caring, return_exceptions=True)
        await self._stack.aclose()

    @property
    def address(self) -> str:
        """The members' addresses."""
        return ", ".join(self.addresses)

    @property
    def capacity(self) -> int:
        """Requests that the healthy members take now; at least 1."""
        return max(1, sum(int(member.limit) for member in self.members if member.healthy))

    async def info(self) -> Info:
        """Return what is served."""
        assert self._info is not None
        return self._info

    async def tokenize(self, text: str) -> list[int] | None:
        """Return the ids that `generate` would see for this prompt; null: none can be had."""
        return await self.members[0].endpoint.tokenize(text)

    async def render(self, messages: Sequence[Mapping[str, str]]) -> Rendering:
        """Apply the served model's chat template, with the generation prompt."""
        return await self.members[0].endpoint.render(messages)

    def check(self, request: Request) -> None:
        """Raise an `EndpointError` for what the endpoints would leave out in silence."""
        self.members[0].endpoint.check(request)

    async def generate(self, request: Request, where: str, urgent: bool = False) -> Answer:
        """Continue a text, through the faults of any member.

        Args:
            request: What to continue and how. Every try is the same, with the same seed.
            where: Pass and slot, for errors.
            urgent: Goes before the others where there is no room for all.

        Returns:
            An answer; one with `error` when the request is refused, or when all tries failed.

        Raises:
            EndpointError: No member works, or none takes requests, for longer than the patience.
        """
        faults, waits, busy_since, said = 0, 0, None, ""
        avoid: Member | None = None
        while True:
            member = await self._place(urgent, where, avoid)
            sent_at, level = time.monotonic(), member.in_flight
            try:
                timeout_s = member.timeout_s(self.patience.request_s)
                answer = await member.endpoint.generate(request, timeout_s)
            except OverloadError:
                member.note_overload(sent_at, level)
                busy_since = busy_since or sent_at
                if sent_at - busy_since > self.patience.overloaded_s:
                    raise self._gave_up("429 to every try", busy_since, where) from None
                wait_s = min(self.patience.wait_s(waits), 1.0)
                waits += 1
            except FaultError as fault:
                faults, said = faults + 1, str(fault)
                if member.note_fault(fault.lost):
                    self._leave(member, said)
                if faults >= self.patience.tries:
                    return Answer(seed=request.seed, error=said, failed=True)
                # The first retry goes to somebody else at once, where there is somebody else.
                elsewhere = faults == 1 and self._others_work(member)
                avoid = member if elsewhere else None
                wait_s = 0.0 if elsewhere else self.patience.wait_s(faults - 1)
                wait_s += self._retry_toll_s()
            else:
                latency_s = time.monotonic() - sent_at
                member.note_answer(latency_s, answer.generated_tokens, level)
                self._down_since = None
                self._retries_left = min(self._retries_left + RETRY_RATIO, 1000.0)
                return answer
            finally:
                member.in_flight -= 1
                self._serve_waiting()
            await asyncio.sleep(wait_s)

    async def _place(self, urgent: bool, where: str, avoid: Member | None) -> Member:
        """Wait for room, and take it."""
        if self._hopeless:
            raise self._hopeless
        waiting = self._urgent if urgent else self._patient
        member = self._best(avoid) if not self._urgent and (urgent or not waiting) else None
        if member is None:
            future: asyncio.Future[Member] = asyncio.get_running_loop().create_future()
            waiting.append(future)
            try:
                return await future
            except asyncio.CancelledError:
                if future.done() and not future.cancelled() and not future.exception():
                    future.result().in_flight -= 1
                    self._serve_waiting()
                raise
        member.in_flight += 1
        return member

    def _best(self, avoid: Member | None = None) -> Member | None:
        """Return the member with room where a request costs the least time."""
        free = [one for one in self.members if one is not avoid and one.room > 0]
        if free:
            return min(free, key=lambda one: (one.cost, -one.room))
        return None if avoid is None else self._best()

    def _serve_waiting(self) -> None:
        """Give room that came free to those who wait, the urgent ones first."""
        for waiting in (self._urgent, self._patient):
            while waiting:
                member = self._best()
                if member is None:
                    return
                future = waiting.popleft()
                if not future.done():
                    member.in_flight += 1
                    future.set_result(member)

    def _others_work(self, member: Member) -> bool:
        return any(other.healthy for other in self.members if other is not member)

    def _retry_toll_s(self) -> float:
        """Return an extra wait when retries are more than a tenth of the requests."""
        self._retries_left -= 1
        if self._retries_left >= 0:
            return 0.0
        return random.uniform(0, self.patience.longest_wait_s)

    def _leave(self, member: Member, why: str) -> None:
        """Give a member nothing more until it is healthy again."""
        if not member.healthy:
            return
        member.healthy = False
        self.say(f"{member.endpoint.address} is left: it answered {why}")
        if not any(other.healthy for other in self.members):
            self._down_since = self._down_since or time.monotonic()
        task = asyncio.create_task(self._care(member))
        self._caring.add(task)
        task.add_done_callback(self._caring.discard)

    async def _care(self, member: Member) -> None:
        """Look after a member until it is back, or until all are down for too long."""
        while True:
            try:
                if await member.endpoint.is_healthy(PROBE_TIMEOUT_S):
                    info = await member.endpoint.info()
                    self._same_model(info, member.endpoint.address)
                    break
            except EndpointError as error:
                if not self._others_work(member):
                    self._give_up(error)
                    return
            since = self._down_since
            if since is not None and time.monotonic() - since > self.patience.down_s:
                self._give_up(self._gave_up("nothing that can be used", since, "all endpoints"))
                return
            await asyncio.sleep(min(PROBE_INTERVAL_S, self.patience.longest_wait_s))
        member.back()
        self.say(f"{member.endpoint.address} is back")
        self._serve_waiting()

    def _give_up(self, error: EndpointError) -> None:
        """End every request that waits."""
        self._hopeless = error
        for waiting in (self._urgent, self._patient):
            while waiting:
                future = waiting.popleft()
                if not future.done():
                    future.set_exception(error)

    def _gave_up(self, what: str, since: float, where: str) -> EndpointError:
        spent = time.monotonic() - since
        return EndpointError(
            f"the endpoint answered {what} for {spent:.0f} s",
            f"{self.address}, {where}",
            "see that it is up, then run the same command: finished answers are kept",
        )

    def _same_model(self, info: Info, address: str) -> None:
        assert self._info is not None
        first, this = (_identity(one) for one in (self._info, info))
        if first != this:
            raise EndpointError(
                f"two endpoints serve two models: {first} and {this}",
                f"{self.addresses[0]} and {address}",
                "one build has one generator: name only endpoints that serve it",
            )
        if self._info.router != info.router:
            raise EndpointError(
                f"two endpoints are two kinds of server: {self._info.router} and {info.router}",
                f"{self.addresses[0]} and {address}",
                "name servers of one kind: they add BOS, and fold seeds, each in its own way",
            )

    def _ceiling(self, info: Info) -> int:
        """Return how many requests keep a member busy.

        Our own endpoint says how many slots it decodes at once; two more cover the way between
        the passes. TGI says how many requests it takes before it answers 429. Others say nothing.
        """
        says = info.slots + 2 if info.slots else info.max_concurrent_requests or UNKNOWN_CEILING
        share = self.limit and max(1, self.limit // len(self.addresses))
        return min(says, share) if share else says


def token_from(variable: str | None) -> str | None:
    """Return the bearer token that an environment variable holds; null names none.

    Raises:
        EndpointError: The variable is named but empty.
    """
    if variable is None:
        return None
    token = os.environ.get(variable, "").strip()
    if not token:
        raise EndpointError(
            f"the environment variable {variable!r} is empty",
            "endpoint.token_env",
            f"export {variable}=..., or remove token_env from the recipe",
        )
    return token


def _identity(info: Info) -> str:
    return f"{info.model_id}@{info.model_sha or 'unknown revision'}"
