"""Several endpoints that serve one model, asked as one.

Work flows to whoever has room, the faster ones first; each member's limit follows what it can take.
A member that is gone is left at once, looked after every second, and taken back when it is healthy
and still serves the same model. Urgent requests, those of pass 2, go first, so that few rows are
open at a time. A request that waits to be sent again takes nobody's place.
"""

import asyncio
import os
import random
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Self

from prequery.endpoint import Answer, Info, Rendering, Request
from prequery.errors import EndpointError
from prequery.handshake import connect
from prequery.limit import Limit
from prequery.member import Member
from prequery.recipe import EndpointProtocol
from prequery.transport import FaultError, OverloadError, Patience

PROBE_TIMEOUT_S = 3.0
LEAST_LOOK_S = 0.01
LONGEST_ABSENCE_LOOKS = 8
"""A member that is left again and again is looked at less and less often, down to this."""
GENERATION_FAILED = "424"
GENERATION_TRIES = 4
"""One that fails can take its whole batch with it."""
RETRY_RATIO = 0.1
RETRIES_AT_FIRST = 20.0
MOST_RETRIES = 1000.0
ASLEEP_RATIO = 0.25
"""Requests that wait to be sent again make room for others, up to this share of the room."""
NOTHING = "nothing"


@dataclass
class Fleet:
    """Asks several endpoints as one; an async context manager.

    Args:
        addresses: http(s)://host[:port][/path], without credentials; at least one.
        token: Bearer token for all of them.
        patience: How long faults are borne.
        limit: Requests in flight altogether, at most; null lets the limits find themselves.
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
    _asleep: int = 0
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
                self.members.append(Member(endpoint, self._limit(info), self.patience))
        except BaseException:
            await self._stack.aclose()
            raise
        self._start(self._watch())
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
        """Requests that the healthy members take now, and those that wait; at least 1."""
        takes = sum(member.takes for member in self.members)
        takes += min(self._asleep, int(takes * ASLEEP_RATIO))
        return max(1, min(takes, self.limit or takes))

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
        faults, waits, busy_since, failed, late = 0, 0, 0.0, 0, 0
        avoid: Member | None = None
        self._retries_left = min(self._retries_left + RETRY_RATIO, MOST_RETRIES)
        while True:
            member = await self._place(urgent, where, avoid)
            sent_at = time.monotonic()
            try:
                answer = await member.ask(request, 2**late)
            except OverloadError:
                busy_since = busy_since or sent_at
                if sent_at - busy_since > self.patience.overloaded_s:
                    raise self._gave_up("429 to every try", busy_since, where) from None
                wait_s = min(self.patience.wait_s(waits), 1.0)
                waits += 1
            except FaultError as fault:
                faults, said = faults + 1, str(fault)
                failed += said.startswith(GENERATION_FAILED)
                # A request that came too late once gets twice the time.
                late += fault.late
                if member.may_be_gone(fault.lost):
                    self._leave(member, said)
                if faults >= self.patience.tries or failed >= GENERATION_TRIES:
                    return Answer(seed=request.seed, error=said, failed=True)
                # A retry goes to somebody else where there is somebody else, the first at once.
                avoid = member if self._others_work(member) else None
                at_once = avoid and faults == 1
                wait_s = 0.0 if at_once else self.patience.wait_s(faults - 1)
                wait_s += self._retry_toll_s()
            else:
                self._down_since = None
                return answer
            finally:
                member.in_flight -= 1
                self._serve_waiting()
            self._asleep += 1
            try:
                await asyncio.sleep(wait_s)
            finally:
                self._asleep -= 1

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
        if self.limit and sum(one.in_flight for one in self.members) >= self.limit:
            return None
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
        member.leave()
        self.say(f"{member.endpoint.address} is left: it answered {why}")
        if not any(other.healthy for other in self.members):
            self._down_since = self._down_since or time.monotonic()
        self._start(self._care(member))

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._caring.add(task)
        task.add_done_callback(self._caring.discard)

    async def _watch(self) -> None:
        """Look at the members now and then: what they have, and whether they still live."""
        while True:
            await asyncio.sleep(max(self.patience.look_s, LEAST_LOOK_S))
            for member in self.members:
                member.move_deadlines()
            quiet = [one for one in self.members if one.healthy and one.is_quiet]
            await asyncio.gather(*(self._look_at(member) for member in quiet))

    async def _look_at(self, member: Member) -> None:
        if await member.endpoint.is_healthy(PROBE_TIMEOUT_S):
            return
        if member.is_quiet:
            self._leave(member, NOTHING)

    async def _care(self, member: Member) -> None:
        """Look after a member until it is back, or until all are down for too long."""
        looks = 2 ** (member.absences - 1)
        while True:
            if looks > 1:
                # It seemed healthy, was taken back, and did not give a single answer.
                await asyncio.sleep(min(looks, LONGEST_ABSENCE_LOOKS) * self._look_s)
            looks = 1
            try:
                if await member.endpoint.is_healthy(PROBE_TIMEOUT_S):
                    info = await member.endpoint.info()
                    self._same_model(info, member.endpoint.address)
                    break
            except EndpointError as error:
                if not self._others_work(member):
                    self._give_up(error)
                    return
            if member.is_gone:
                member.give_up_open()
            since = self._down_since
            if since is not None and time.monotonic() - since > self.patience.down_s:
                self._give_up(self._gave_up("nothing that can be used", since, "all endpoints"))
                return
            await asyncio.sleep(self._look_s)
        member.back()
        self.say(f"{member.endpoint.address} is back")
        self._serve_waiting()

    @property
    def _look_s(self) -> float:
        return min(self.patience.look_s, self.patience.longest_wait_s)

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

    def _limit(self, info: Info) -> Limit:
        """Return how many requests a member is given.

        Some say how many answers they decode at once; a few more cover the way between two
        requests. TGI says how many requests it takes before it answers 429; vLLM says nothing. A
        user's limit is for all members together: whoever has room takes the next request.
        """
        says = info.max_concurrent_requests
        if info.slots:
            says = info.slots + max(2, info.slots // 16)
        if self.limit:
            return Limit(min(says or self.limit, self.limit), adapts=False)
        return Limit(says, adapts=not info.slots)


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
