"""One endpoint of a fleet: what is known of it, and how long it may take over a request."""

import asyncio
import time
from dataclasses import dataclass, field
from typing import NamedTuple

from prequery.endpoint import Answer, Client, Request
from prequery.limit import Limit
from prequery.pace import Pace
from prequery.transport import FaultError, OverloadError, Patience

FAULTS_IN_A_ROW = 5
"""So many faulty answers, and no good one between or lately, and a member is looked after."""
LATELY_LOOKS = 0.25
RESET_RATIO = 1.2
"""Deadlines of open requests are only moved when they change by more."""


class _Open(NamedTuple):
    """A request without an answer yet."""

    sent_at: float
    max_new_tokens: int
    patient: int


@dataclass
class Member:
    """One endpoint and what is known of it.

    Args:
        endpoint: The client.
        limit: How many requests it is given.
        patience: How long it may take.
        in_flight: Requests that it has.
        healthy: Whether it is given any.
        answered: Good answers so far.
        overloaded: 429 so far.
        faulty: Faulty answers so far.
        absences: How often it was left since its last good answer.
        heard_at: When it last said anything, of the monotonic clock.
    """

    endpoint: Client
    limit: Limit
    patience: Patience
    in_flight: int = 0
    healthy: bool = True
    answered: int = 0
    overloaded: int = 0
    faulty: int = 0
    absences: int = 0
    heard_at: float = field(default_factory=time.monotonic)
    _faults_in_a_row: int = 0
    _left_at: float = 0.0
    _pace: Pace = field(default_factory=Pace)
    _open: dict[asyncio.Timeout, _Open] = field(default_factory=dict)

    @property
    def takes(self) -> int:
        """Requests that it is given now."""
        return int(self.limit.value) if self.healthy else 0

    @property
    def room(self) -> float:
        """Share of its limit that is free; 0 or less when it has enough."""
        return (int(self.limit.value) - self.in_flight) / self.limit.value if self.healthy else 0.0

    @property
    def cost(self) -> float:
        """How long a token takes here, more the fuller it is: to compare members that have room."""
        return self._pace.token_s * (0.5 + self.in_flight / self.limit.value)

    @property
    def is_quiet(self) -> bool:
        """Whether it has had requests for some time and said nothing."""
        return self.in_flight > 0 and time.monotonic() - self.heard_at > 2 * self.patience.look_s

    @property
    def is_gone(self) -> bool:
        """Whether it is quiet for so long that what it has will hardly be answered."""
        usual_s = 2 * self._pace.mean_latency_s + 5 * self.patience.look_s
        return self.is_quiet and time.monotonic() - self.heard_at > usual_s

    async def ask(self, request: Request, patient: int) -> Answer:
        """Send a request, once, and learn from what comes of it.

        Args:
            request: What to continue and how.
            patient: It may take so many times what it should.

        Raises:
            FaultError: No answer, or one that cannot be used.
            OverloadError: It has enough to do.
            EndpointError: It will not answer any request.
        """
        sent_at, sent_in, level = time.monotonic(), self.limit.note_sent(), self.in_flight
        sent = _Open(sent_at, request.sampling.max_new_tokens, patient)
        try:
            async with asyncio.timeout(self._timeout_s(sent)) as scope:
                self._open[scope] = sent
                try:
                    answer = await self.endpoint.generate(request, None)
                finally:
                    del self._open[scope]
        except OverloadError:
            self.overloaded += 1
            self.heard_at = time.monotonic()
            self.limit.note_overload(sent_in, level)
            raise
        except TimeoutError:
            self._note_fault()
            raise FaultError("nothing in time", late=True) from None
        except FaultError:
            self._note_fault()
            raise
        self.answered += 1
        self.absences = self._faults_in_a_row = 0
        self.heard_at = time.monotonic()
        if answer.error is None:
            tokens, latency_s = max(1, answer.generated_tokens), self.heard_at - sent_at
            self._pace.note(tokens, latency_s)
            self.limit.note_answer(sent_in, level, tokens, latency_s, self._pace.mean_tokens)
        return answer

    def may_be_gone(self, lost: bool) -> bool:
        """Say whether its last fault is reason to look after it.

        Args:
            lost: The connection was lost or never made.
        """
        # Those that break come in before those that are well where both were ready at once.
        silent = time.monotonic() - self.heard_at > LATELY_LOOKS * self.patience.look_s
        return (self._faults_in_a_row >= FAULTS_IN_A_ROW and silent) or (lost and not self.answered)

    def move_deadlines(self) -> None:
        """Hold open requests to the pace as it is known now."""
        loop, now = asyncio.get_running_loop(), time.monotonic()
        for scope, sent in self._open.items():
            ends = scope.when()
            left_s = self._timeout_s(sent) - (now - sent.sent_at)
            had_s = ends - loop.time() if ends is not None else 0.0
            if not scope.expired() and abs(left_s - had_s) > (RESET_RATIO - 1) * max(had_s, 0.0):
                scope.reschedule(loop.time() + left_s)

    def give_up_open(self) -> None:
        """End all that it has, as if it had not answered in time."""
        now = asyncio.get_running_loop().time()
        for scope in self._open:
            if not scope.expired():
                scope.reschedule(now)

    def leave(self) -> None:
        """Give it nothing more."""
        self.healthy = False
        self.absences += 1
        self._left_at = time.monotonic()

    def back(self) -> None:
        """Take it back: carefully, if it was away for long or again."""
        self.healthy = True
        self._faults_in_a_row = 0
        self.heard_at = time.monotonic()
        if self.absences > 1 or self.heard_at - self._left_at > self.patience.look_s:
            self.limit.start_again()

    def _note_fault(self) -> None:
        self.faulty += 1
        self._faults_in_a_row += 1

    def _timeout_s(self, sent: _Open) -> float:
        """Return how long a request may take: its tokens at the slowest pace, and the queue."""
        most_s = self.patience.request_s
        known_s = self._pace.deadline_s(sent.max_new_tokens)
        if known_s is None:
            return most_s
        return min(most_s, max(self.patience.least_s, known_s) * sent.patient)
