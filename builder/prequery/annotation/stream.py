"""The rows of a dataset as one stream: read, judged and taken in their order.

A few hundred rows are read ahead of the slowest judge's answer, so memory grows neither with the
dataset nor with what one slow row holds up. Every answer is in its column's journal before it is
used, under what was asked: the same text costs one answer, in whatever row or dataset it stands.
"""

import asyncio
import hashlib
import json
from collections import deque
from collections.abc import Awaitable, Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from prequery.asking import Asking, bear
from prequery.budget import FREE, Budget, Price
from prequery.conversation import Ask, Candidate, advance
from prequery.endpoint import Answer, Asks, Request
from prequery.journal import Journal, Key
from prequery.selection import Selector
from prequery.synthesis import SYNC_INTERVAL_S, Observer

MOST_AHEAD = 1_024
"""So many rows wait in memory for a lower one, with their texts."""


_Judged = Generator[Sequence[Ask], Sequence[Answer], Candidate]


@dataclass
class Stream:
    """The rows of a dataset on their way through the judges.

    Args:
        batches: The rows in order; read in another thread.
        selector: Measures them and decides.
        observer: Is told.
        journals: Of each judge column, by its name.
        connect: Returns the judges' endpoints by column; called when the first answer is missing.
        rows: Rows that pass and are enough.
        budget: Ends the stream when it is spent.
        prices: Of the tokens of each judge column's judge, by the column's name.
    """

    batches: Iterator[Sequence[Mapping[str, Any]]]
    selector: Selector
    observer: Observer
    journals: Mapping[str, Journal]
    connect: Callable[[], Awaitable[Mapping[str, Asks]]]
    rows: int
    budget: Budget = field(default_factory=Budget)
    prices: Mapping[str, Price] = field(default_factory=dict)
    _endpoints: Mapping[str, Asks] = field(default_factory=dict)
    _connecting: asyncio.Lock = field(default_factory=asyncio.Lock)
    _waiting: deque[tuple[Candidate, "asyncio.Task[Candidate] | None"]] = field(
        default_factory=deque
    )
    _judging: set["asyncio.Task[Candidate]"] = field(default_factory=set)
    _asked: dict[tuple[str, Key], "asyncio.Task[Answer]"] = field(default_factory=dict)
    _read: int = 0
    _passed: int = 0
    _finished: int = 0
    _unanswered: int = 0
    _stopping: bool = False

    async def run(self) -> bool:
        """Take rows until there are no more, or enough.

        Returns:
            Whether all are taken; false when it was stopped before.

        Raises:
            DatasetError: A row cannot be read.
            EndpointError: A judge is gone, or gives no answer to over 1 % of the rows.
            JournalError: The disk is full or cannot be written.
        """
        self.budget.start()
        syncing = asyncio.create_task(self._sync_now_and_then())
        try:
            done = await self._take_all()
            if done:
                self._asking.believe()
            return done
        finally:
            left = [syncing, *self._judging, *self._asked.values()]
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    def stop(self) -> None:
        """Start nothing more; `run` returns when what is in flight is finished."""
        self._stopping = True

    @property
    def stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._stopping

    @property
    def in_flight(self) -> int:
        """Rows that are being asked for now."""
        return len(self._judging)

    @cached_property
    def _asking(self) -> Asking:
        # Rows with the same text share an answer, so times would not add up over rows.
        return Asking(self.observer.answered, self.budget, timed=False)

    async def _take_all(self) -> bool:
        while not self._has_enough():
            batch = await asyncio.to_thread(next, self.batches, None)
            if batch is None:
                break
            for row in batch:
                self._admit(row)
                while len(self._waiting) >= MOST_AHEAD or len(self._judging) >= self._room():
                    await self._wait_for_one()
                self._take_ready()
                if self._stopping:
                    await self._drain()
                    return False
                if self._has_enough():
                    return True
        while self._waiting and not self._has_enough():
            await self._wait_for_one()
            if self._stopping:
                await self._drain()
                return False
            self._take_ready()
        return True

    def _has_enough(self) -> bool:
        return not self.selector.sees_all and self._passed >= self.rows

    def _admit(self, row: Mapping[str, Any]) -> None:
        """Measure a row by itself, and have it judged where that can matter."""
        candidate = Candidate(slot=self._read, choices=(row,))
        self._read += 1
        running = self.selector.judged(candidate)
        asked = advance(running, None)
        task = None
        if isinstance(asked, Candidate):
            candidate = asked
        else:
            task = asyncio.create_task(self._judged(running, asked, candidate.slot))
            self._judging.add(task)
            task.add_done_callback(self._judging.discard)
        self._waiting.append((candidate, task))

    async def _wait_for_one(self) -> None:
        """Wait until a row is judged, and take those whose turn it is."""
        if self._judging:
            done, _ = await asyncio.wait(self._judging, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()  # an error of any row ends the stream now
        self._take_ready()

    def _take_ready(self) -> None:
        """Hand over in order what is finished."""
        while self._waiting and not self._has_enough():
            candidate, task = self._waiting[0]
            if task is not None and not task.done():
                return
            self._waiting.popleft()
            self._take(candidate if task is None else task.result())

    def _take(self, candidate: Candidate) -> None:
        reason = self.selector.look(candidate)
        self._finished += 1
        self.observer.attempted(candidate, reason)
        if candidate.unanswered is not None:
            self._unanswered += 1
            where = f"the judges, row {candidate.slot}"
            bear(self._unanswered, self._finished, candidate.unanswered, where)
        self._passed += self.selector.take(candidate)

    async def _drain(self) -> None:
        """Let finish what is in flight, so that its answers are recorded."""
        await asyncio.gather(*self._judging, return_exceptions=True)

    def _room(self) -> int:
        """Return how many rows may be in flight: at least one, which connects the others."""
        fleets = {id(one): one for one in self._endpoints.values()}
        return sum(one.capacity for one in fleets.values()) or 1

    async def _judged(self, running: _Judged, asked: Sequence[Ask], slot: int) -> Candidate:
        """Return a row with what judges say of it, round after round."""
        now: Sequence[Ask] | Candidate = asked
        while not isinstance(now, Candidate):
            now = advance(running, await asyncio.gather(*(self._answer(one, slot) for one in now)))
        return now

    async def _answer(self, asked: Ask, slot: int) -> Answer:
        """Return the recorded answer to this very question, or ask and record."""
        column, request = asked.column or "", asked.request()
        key = key_of(request)
        held = self.journals[column].get(key)
        if held is not None:
            return held
        task = self._asked.get((column, key))
        if task is None:
            task = asyncio.create_task(self._ask(column, key, request, slot))
            self._asked[column, key] = task
            task.add_done_callback(lambda _: self._asked.pop((column, key), None))
        return await task

    async def _ask(self, column: str, key: Key, request: Request, slot: int) -> Answer:
        async with self._connecting:
            if not self._endpoints:
                self._endpoints = await self.connect()
        endpoint, journal = self._endpoints[column], self.journals[column]
        where, price = f"row {slot}, {column}", self.prices.get(column, FREE)
        answer = await self._asking.ask(endpoint, journal, key, request, where, price=price)
        if self.budget.spent():
            self.stop()
        return answer

    async def _sync_now_and_then(self) -> None:
        """Bring the journals to the disk once a second, beside the event loop."""
        while True:
            await asyncio.sleep(SYNC_INTERVAL_S)
            if self.budget.spent():
                self.stop()
            for journal in self.journals.values():
                await asyncio.to_thread(journal.sync)


def key_of(request: Request) -> Key:
    """Return under what an answer is recorded: 63 bits of a hash of what is asked.

    Among a million questions the chance that any two share a hash is below one in ten million.
    """
    asked = [request.prompt, request.pair, request.reads, list(request.stop), request.plain]
    text = json.dumps([*asked, request.sampling.max_new_tokens])
    digest = hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest()
    return Key(int.from_bytes(digest) >> 1, "verdict")
