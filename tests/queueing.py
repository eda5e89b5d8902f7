"""A queueing server in virtual time: an hour of serving takes a second, and is the same each time.

It stands in for no part of the product; it is the world that `prequery.limit` has to find its way
in. The same over real sockets and real time is `scripts/bench_saturation.py`.
"""

import heapq
import math
import random
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

from prequery.limit import Limit
from prequery.pace import Pace

MEDIANS = (25, 350)
MOST = (512, 2048)


@dataclass
class Server:
    """An endpoint.

    Args:
        slots: Answers decoded at the same time; more requests wait in a queue.
        takes: Decoded and queued; more are refused.
        token_s: Seconds a token.
        slowdown: Share of `token_s` that each answer beside it adds to it.
        prefill_s: Work before the first token.
        refuses_ratio: Share of requests that are refused for no reason.
        sigma: Standard deviation of the logarithm of lengths.
    """

    slots: int
    takes: int = 1 << 30
    token_s: float = 0.02
    slowdown: float = 0.0
    prefill_s: float = 0.0
    refuses_ratio: float = 0.0
    sigma: float = 0.8


class Job(NamedTuple):
    """A request: which pass, its tokens, and what the limit is told of it."""

    made: int
    tokens: int
    sent_at: float
    sent_in: int
    level: int


@dataclass
class World:
    """A server and a client that keeps as many requests in flight as a limit allows.

    Rows have two requests, and the second ones go first, as in a build.

    Args:
        server: Who serves. A test may change it between two calls of `run`.
        limit: Who decides.
        seed: Of all chance.
    """

    server: Server
    limit: Limit
    seed: int = 1
    now: float = 0.0
    answered: int = 0
    tokens: int = 0
    refused: int = 0
    in_flight: int = 0
    _pace: Pace = field(default_factory=Pace)
    _busy: int = 0
    _responses: int = 0
    _asleep: int = 0
    _events: list[tuple[float, int, Job | None]] = field(default_factory=list)
    _queue: deque[Job] = field(default_factory=deque)
    _order: int = 0

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)

    def run(self, answers: int) -> float:
        """Go on until so many more answers are in; return the tokens per second of this time."""
        began, tokens, until = self.now, self.tokens, self.answered + answers
        self._fill()
        while self.answered < until:
            self.now, _, job = heapq.heappop(self._events)
            if job is None:
                self._asleep -= 1
            else:
                self._finish(job)
            self._fill()
        return (self.tokens - tokens) / (self.now - began)

    def _finish(self, job: Job) -> None:
        self._busy -= 1
        self.in_flight -= 1
        self.answered += 1
        self.tokens += job.tokens
        self._responses += job.made == 0
        while self._queue and self._busy < self.server.slots:
            self._start(self._queue.popleft())
        latency_s = self.now - job.sent_at
        self._pace.note(job.tokens, latency_s)
        self.limit.note_answer(
            job.sent_in, job.level, job.tokens, latency_s, self._pace.mean_tokens
        )

    def _fill(self) -> None:
        while self.in_flight < int(self.limit.value):
            sent_in, level = self.limit.note_sent(), self.in_flight + 1
            full = len(self._queue) + self._busy >= self.server.takes
            if full or self._chance.random() < self.server.refuses_ratio:
                self.refused += 1
                self.limit.note_overload(sent_in, level)
                if self._sleep() > self.limit.value / 4:
                    return
                continue
            self.in_flight += 1
            made = int(self._responses > 0)
            self._responses -= made
            job = Job(made, self._length(made), self.now, sent_in, level)
            if self._busy < self.server.slots:
                self._start(job)
            else:
                self._queue.append(job)

    def _start(self, job: Job) -> None:
        self._busy += 1
        server = self.server
        token_s = server.token_s * (1 + server.slowdown * (self._busy - 1))
        self._push(server.prefill_s + token_s * job.tokens, job)

    def _sleep(self) -> int:
        self._asleep += 1
        self._push(self._chance.uniform(0, 1), None)
        return self._asleep

    def _push(self, wait_s: float, job: Job | None) -> None:
        self._order += 1
        heapq.heappush(self._events, (self.now + wait_s, self._order, job))

    def _length(self, made: int) -> int:
        drawn = MEDIANS[made] * math.exp(self.server.sigma * self._chance.gauss(0, 1))
        return max(4, min(MOST[made], round(drawn)))
