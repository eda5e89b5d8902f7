"""Continuous batching: slots, a queue before them, and what it takes to leave both."""

import asyncio
from collections import deque
from collections.abc import Callable

from prequery.simulation.settings import Counters, Machine


class Job:
    """One answer that is waiting or being decoded."""

    __slots__ = ("done", "over", "service_s", "started", "timer")

    def __init__(self, service_s: float, done: Callable[[], None]) -> None:
        self.service_s = service_s
        self.done = done
        self.over = False
        self.started = False
        self.timer: asyncio.TimerHandle | None = None


class Batch:
    """The slots of one endpoint.

    Args:
        machine: How many there are.
        counters: Where use is counted.
    """

    def __init__(self, machine: Machine, counters: Counters) -> None:
        self.machine = machine
        self.counters = counters
        self._loop = asyncio.get_running_loop()
        self._queue: deque[Job] = deque()
        self._busy = 0
        self._inside = 0
        self._changed_at = 0.0

    @property
    def is_full(self) -> bool:
        """Whether one more gets a 429."""
        return self._inside >= self.machine.takes

    def submit(self, service_s: float, done: Callable[[], None]) -> Job:
        """Take a job; `done` is called when a slot has worked on it for so long."""
        job = Job(service_s, done)
        self._inside += 1
        self.counters.crowd = max(self.counters.crowd, self._inside)
        now = self._add_up()
        self.counters.fed_busy_s, self.counters.fed_until = self.counters.busy_s, now
        if self._inside == 2 and not self.counters.crowded_at:
            self.counters.crowded_at = now
        if self._busy < self.machine.slots:
            self._start(job)
        else:
            self._queue.append(job)
        return job

    def drop(self, job: Job) -> None:
        """Free the place of a job whose client went away."""
        if job.over:
            return
        if job.timer is not None:
            job.timer.cancel()
        self._leave(job)

    def _add_up(self) -> float:
        """Count the slot seconds since the number of busy slots changed; return the time."""
        now = self._loop.time()
        self.counters.busy_s += self._busy * (now - self._changed_at)
        self._changed_at = now
        return now

    def _start(self, job: Job) -> None:
        self._add_up()
        job.started = True
        self._busy += 1
        self.counters.peak = max(self.counters.peak, self._busy)
        service_s = job.service_s * (1 + self.machine.slowdown * (self._busy - 1))
        job.timer = self._loop.call_later(service_s, self._finish, job)

    def _finish(self, job: Job) -> None:
        self._leave(job)
        job.done()

    def _leave(self, job: Job) -> None:
        job.over = True
        self._inside -= 1
        if not job.started:
            return  # still in the queue, where it is passed over
        self._add_up()
        self._busy -= 1
        while self._queue and self._busy < self.machine.slots:
            waiting = self._queue.popleft()
            if not waiting.over:
                self._start(waiting)
