"""Both passes as one stream: a row's response is asked for as soon as its instruction is in.

Slots start in order, as many rows are in flight as the endpoint takes, and nothing waits for
anything but its own row. Slots that another builder of the same journal works on are left to it.
Which rows a build has does not depend on any of that: the judge takes all slots in order, and
decides from their answers alone.

A build that carries on asks for new slots at once, behind all that the journal has, and reads
that beside the requests. What is finished long before its turn is not kept: the journal has it,
and it is read again when its turn comes. So memory grows neither with the journal nor with what
one slow row holds up.
"""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Protocol, cast

from prequery import gates
from prequery.acceptance import Started
from prequery.asking import Asking, bear
from prequery.budget import Budget, Price
from prequery.conversation import Ask, Attempt, Candidate, Script, advance, script
from prequery.endpoint import Answer, Asks
from prequery.errors import AcceptanceError
from prequery.firsts import Firsts
from prequery.journal import Journal, Pass
from prequery.judging import Bench, Keeps
from prequery.recipe import Recipe
from prequery.voices import Voices

SYNC_INTERVAL_S = 1.0
READ_S = 0.01  # the journal is read for so long, then the event loop has its turn
MOST_AHEAD = 8_192  # finished slots that wait in memory for a lower one, with their texts


class Observer(Protocol):
    """Who is told how the build gets on. It cannot change anything."""

    def said(self, text: str) -> None:
        """Something that the user should read."""

    def answered(self, made: Pass, answer: Answer) -> None:
        """An answer came from the endpoint."""

    def attempted(self, attempt: Candidate, reason: str | None) -> None:
        """A slot is finished, and as far as can be told now it is accepted or not."""


class Silent:
    """An observer that tells nobody."""

    def said(self, text: str) -> None:
        """Tell nobody."""

    def answered(self, made: Pass, answer: Answer) -> None:
        """Tell nobody."""

    def attempted(self, attempt: Candidate, reason: str | None) -> None:
        """Tell nobody."""


class Selects(Protocol):
    """Who decides on rows; `selection.Selector` does."""

    def look(self, attempt: Attempt) -> str | None:
        """Say why this attempt is rejected, as far as its own row tells."""

    def judged(self, attempt: Attempt) -> Script:
        """Ask what judges must say of it before that, and return it with what they said."""

    def take(self, attempt: Attempt) -> bool:
        """Take the next attempt in slot order; say whether its own row speaks for it."""

    def enough(self) -> int:
        """Return how many rows of all slots taken so far are accepted."""


class _NotHeldError(Exception):
    """The journal lacks an answer and there is no endpoint to ask."""


@dataclass
class Synthesis:
    """The stream of attempts.

    Args:
        recipe: What to build.
        voices: The models that write.
        journal: Where every answer goes before anything else happens to it.
        selector: Decides on rows.
        observer: Is told.
        endpoint: Whom to ask; null replays the journal and asks nobody.
        responder: Whom to ask for responses; null: the same.
        benches: The judge columns by name.
        concurrency: Rows in flight at the same time, at most; null takes what the endpoint takes.
        budget: Ends the stream when it is spent.
        hopeful: Read the journal to its end, however few rows it seems to have.
    """

    recipe: Recipe
    voices: Voices
    journal: Journal
    selector: Selects
    observer: Observer
    endpoint: Asks | None = None
    responder: Asks | None = None
    benches: Mapping[str, Bench] = field(default_factory=dict)
    concurrency: int | None = None
    budget: Budget = field(default_factory=Budget)
    hopeful: bool = False
    _finished: int = 0
    _responded: int = 0
    _passed: int = 0
    _unanswered: int = 0
    _reasons: Counter[str] = field(default_factory=Counter)
    _ahead: dict[int, Attempt] = field(default_factory=dict)
    _frontier: int = 0
    _passed_below: int = 0
    _look_at: int = 0
    # Slots below `_read` are finished, in flight or another builder's; those from there to `_next`
    # are in the journal, in flight, or gaps that a killed build left.
    _read: int = 0
    _next: int = 0
    _proceeds: bool = False
    _firsts: Firsts = field(default_factory=Firsts)
    _elsewhere: set[int] = field(default_factory=set)
    _in_flight: dict[int, asyncio.Task[Attempt]] = field(default_factory=dict)
    _responding: set[int] = field(default_factory=set)
    _over: "asyncio.Future[bool] | None" = None
    _stopping: bool = False

    @cached_property
    def _asking(self) -> Asking:
        return Asking(self.observer.answered, self.budget)

    async def run(self) -> bool:
        """Attempt slots until there are enough.

        Returns:
            Whether the judge has all rows; false when it was stopped before, or when the journal
            alone does not have enough.

        Raises:
            AcceptanceError: The model does not yield the rows within `max_attempts`.
            EndpointError: The endpoint is gone, or over 1 % of the attempts get no answer.
            JournalError: The disk is full or cannot be written.
        """
        self._look_at = self.recipe.goal
        self._over = asyncio.get_running_loop().create_future()
        self._next = min(held_slots(self.journal), self.recipe.max_attempts)
        syncing = asyncio.create_task(self._sync_now_and_then())
        self.budget.start()
        try:
            self._proceed()
            enough = await self._over
            if enough:
                self._asking.believe()
            return enough
        finally:
            syncing.cancel()
            in_flight = list(self._in_flight.values())
            for task in in_flight:
                task.cancel()
            await asyncio.gather(syncing, *in_flight, return_exceptions=True)

    def stop(self) -> None:
        """Start nothing more; `run` returns when what is in flight is finished."""
        self._stopping = True
        self._end_if_idle()

    @property
    def stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._stopping

    @property
    def in_flight(self) -> int:
        """Rows that are being asked for now."""
        return len(self._in_flight)

    @property
    def window(self) -> int:
        """Slots between two looks at whether there are enough.

        A function of the recipe alone, because the rows of a release depend on it.
        """
        return math.ceil(self.recipe.goal / 256)

    def _target(self) -> int:
        """Return how many slots are worth starting, as far as the finished ones tell."""
        responding = len(self._responding)
        started = Started(
            gated=self._finished - self._responded,
            responded=self._responded,
            passed=self._passed,
            opening=len(self._in_flight) + len(self._elsewhere) - responding,
            responding=responding,
        )
        wanted = started.wanted(self._look_at - self._passed, unread=self._read < self._next)
        # The next look is always worth reaching: corpus filters may have taken rows away.
        least = self._frontier + self.window
        windows = math.ceil(max(wanted, least) / self.window)
        return min(windows * self.window, self.recipe.max_attempts)

    def _proceed(self) -> None:
        """Read on in the journal for a moment, then start what there is room for."""
        self._proceeds = False
        if self._over_now() or self._stopping:
            self._end_if_idle()
            return
        try:
            more = self._read_on()
            self._launch()
        except Exception as error:  # noqa: BLE001 - a callback's error would vanish in the loop
            self._fail(error)
            return
        if more:
            self._proceed_soon()
        else:
            self._end_if_idle()

    def _proceed_soon(self) -> None:
        """Call `_proceed` once the event loop had its turn."""
        if not self._proceeds:
            self._proceeds = True
            asyncio.get_running_loop().call_soon(self._proceed)

    def _read_on(self) -> bool:
        """Take slots from the journal, for a moment; true when there is more to take now."""
        end_s = time.monotonic() + READ_S
        while self._is_behind() and self._read_slot():
            if time.monotonic() >= end_s:
                return self.endpoint is not None or self.hopeful or not self._lacks_rows()
        return False

    def _is_behind(self) -> bool:
        end = min(self._next, self._frontier + MOST_AHEAD, self._target())
        return self._read < end and not self._over_now()

    def _read_slot(self) -> bool:
        """Take the next slot from the journal; false when it is a gap that cannot be filled now."""
        slot = self._read
        if slot not in self._ahead and slot not in self._in_flight:
            held = self._held(slot)
            if held is None and (self.endpoint is None or len(self._in_flight) >= self._room()):
                return False
            if held is None:
                self._start(slot)
            else:
                self._elsewhere.discard(slot)
                self._finish(held)
        self._read += 1
        return True

    def _lacks_rows(self) -> bool:
        """Say whether what is read so far leaves no hope that the journal alone has the rows."""
        likely = self._passed + 2 * math.sqrt(self._passed) + 2
        return self._finished >= 100 and self.recipe.goal * self._finished > likely * self._next

    def _launch(self) -> None:
        """Start new slots while there is room."""
        if self.endpoint is None or self._over_now():
            return
        while self._next < self._target() and len(self._in_flight) < self._room():
            slot = self._next
            self._next += 1
            if slot == self._read and slot < self._frontier + MOST_AHEAD:
                self._read += 1
            self._start(slot)

    def _start(self, slot: int) -> None:
        """Ask for a slot, where no other builder does."""
        if not self.journal.claim(slot):
            self._elsewhere.add(slot)
            return
        self._elsewhere.discard(slot)
        task = asyncio.create_task(self._attempt(slot))
        self._in_flight[slot] = task
        task.add_done_callback(partial(self._landed, slot))

    def _look_elsewhere(self) -> None:
        """Take over what other builders of this journal answered, or left behind."""
        for slot in sorted(self._elsewhere):
            if self._over_now() or self._stopping:
                return
            if slot >= self._read:
                break  # its turn comes when it is read
            held = self._held(slot)
            if held is not None:
                self._elsewhere.discard(slot)
                self._finish(held)
            elif len(self._in_flight) < self._room():
                self._start(slot)
        self._proceed_soon()

    def _room(self) -> int:
        """Return how many rows may be in flight: each has one request with the endpoint."""
        takes = self.endpoint.capacity if self.endpoint else 1
        takes += self.responder.capacity if self.responder else 0
        return min(self.concurrency or takes, takes)

    def _end_if_idle(self) -> None:
        if self._over and not self._in_flight and not self._over.done():
            if self.endpoint is None or self._stopping:
                self._over.set_result(False)
            elif not self._elsewhere:
                self._over.set_exception(self._unreachable())

    def _fail(self, error: BaseException) -> None:
        if self._over and not self._over.done():
            self._over.set_exception(error)

    def _over_now(self) -> bool:
        return self._over is None or self._over.done()

    def _landed(self, slot: int, task: asyncio.Task[Attempt]) -> None:
        del self._in_flight[slot]
        self._responding.discard(slot)
        if self._over_now() or task.cancelled():
            return
        error = task.exception()
        if isinstance(error, _NotHeldError):
            self._end_if_idle()  # stopped between the passes of this row
        elif error is not None:
            self._fail(error)
        else:
            attempt = task.result()
            # Behind `_read` the journal keeps it, but for an answer that may yet come.
            if slot < self._read or attempt.unanswered is not None:
                self._finish(attempt)
            self._proceed_soon()

    def _finish(self, attempt: Attempt) -> None:
        """Count a finished slot, and hand over in order what is whole up to here."""
        assert self._over is not None
        try:
            reason = self.selector.look(attempt)
            self._finished += 1
            self._responded += attempt.responded
            self._passed += reason is None
            if reason is not None:
                self._reasons[reason] += 1
            self.observer.attempted(attempt, reason)
            if attempt.unanswered is not None:
                self._count_unanswered(attempt, attempt.unanswered)
            self._ahead[attempt.slot] = attempt
            while self._frontier in self._ahead and not self._over.done():
                self._take(self._ahead.pop(self._frontier))
        except Exception as error:  # noqa: BLE001 - as in _proceed
            self._fail(error)

    def _take(self, attempt: Attempt) -> None:
        """Hand over the attempt at the frontier, and look whether there are enough."""
        if attempt.responded:
            # All lower slots are in, so now it is certain which one was first.
            first = self._first_slot(attempt.instruction.text.strip(), attempt.slot)
            if first < attempt.slot:
                attempt = replace(attempt, reason=gates.DUPLICATE, repeats=True)
        self._passed_below += self.selector.take(attempt)
        self._frontier += 1
        if self._frontier % self.window == 0 or self._frontier == self.recipe.max_attempts:
            self._look()

    def _look(self) -> None:
        """Decide from all slots below the frontier; the same however their answers arrived."""
        assert self._over is not None
        if self._passed_below >= self._look_at:
            missing = self.recipe.goal - self.selector.enough()
            if missing <= 0:
                self._over.set_result(True)
            # Every further slot brings one row at most: looking earlier would be in vain.
            self._look_at = self._passed_below + missing
        elif self._frontier >= 100:
            # Two standard errors above what was seen: a build that cannot succeed ends early.
            likely = self._passed_below + 2 * math.sqrt(self._passed_below) + 2
            if self.recipe.goal * self._frontier > likely * self.recipe.max_attempts:
                raise self._unreachable()

    def _unreachable(self) -> AcceptanceError:
        top = sorted(self._reasons.items(), key=lambda item: (-item[1], item[0]))[:3]
        shown = "; ".join(f"{count} x {reason}" for reason, count in top)
        seen = max(self._finished, 1)
        return AcceptanceError(
            f"{self._passed} of {seen} attempts were accepted ({self._passed / seen:.0%}): "
            f"{self.recipe.goal} rows are out of reach within {self.recipe.max_attempts} attempts",
            f"{self.recipe.source}; rejected: {shown or 'by filters over all rows'}",
            "loosen the filters, lower rows, or raise max_attempts; all answers are kept",
        )

    def _count_unanswered(self, attempt: Attempt, answer: Answer) -> None:
        """Stop when more than 1 % of the attempts, and more than two, got no answer."""
        self._unanswered += 1
        where = f"{self.endpoint.address if self.endpoint else 'journal'}, slot {attempt.slot}"
        bear(self._unanswered, self._finished, answer, where)

    def _script(self, slot: int) -> Script:
        return script(self.recipe, self.voices, slot, self._first_slot)

    def _first_slot(self, instruction: str, slot: int) -> int:
        """Note an instruction, and spare the response of a repeated one.

        A lower slot may come later; then both have responses, and `_take` keeps the lower.
        """
        return self._firsts.note(instruction, slot)

    def _held(self, slot: int) -> Attempt | None:
        """Return an attempt that the journal has whole."""
        running = self._whole(slot)
        asked = advance(running, None)
        while not isinstance(asked, Attempt):
            found = [self._journal(one).get(one.key) for one in asked]
            if None in found:
                return None
            asked = advance(running, cast(list[Answer], found))
        return asked

    async def _attempt(self, slot: int) -> Attempt:
        """Have a slot's conversation, with recorded answers and with new ones."""
        running = self._whole(slot)
        asked = advance(running, None)
        while not isinstance(asked, Attempt):
            if len(asked) == 1:
                answers = [await self._ask(asked[0])]
            else:
                answers = await asyncio.gather(*map(self._ask, asked))
            asked = advance(running, answers)
        return asked

    def _whole(self, slot: int) -> Script:
        """Have a slot's conversation, and have it judged."""
        attempt = yield from self._script(slot)
        return (yield from self.selector.judged(attempt))

    def _journals(self) -> list[Keeps]:
        return [self.journal, *(bench.journal for bench in self.benches.values())]

    def _journal(self, asked: Ask) -> Keeps:
        return self.journal if asked.column is None else self.benches[asked.column].journal

    def _whom(self, asked: Ask) -> Asks | None:
        """Return the endpoint that is to answer."""
        if asked.column is not None:
            return self.benches[asked.column].endpoint
        return (self.responder if asked.key.made == "response" else None) or self.endpoint

    def _price(self, asked: Ask) -> Price:
        """Return what the tokens cost at the endpoint that is to answer."""
        if asked.column is not None:
            return self.benches[asked.column].price
        instructions, responses = self._prices
        return responses if asked.key.made == "response" else instructions

    @cached_property
    def _prices(self) -> tuple[Price, Price]:
        """What tokens of instructions and of responses cost."""
        writers = self.recipe, self.recipe.responder or self.recipe
        return Price.at(writers[0].endpoint), Price.at(writers[1].endpoint)

    async def _ask(self, asked: Ask) -> Answer:
        """Return the recorded answer, or ask and record."""
        key, journal = asked.key, self._journal(asked)
        if key.made == "response":
            self._responding.add(key.slot)
        held = journal.get(key)
        if held is not None:
            return held
        endpoint = self._whom(asked)
        if endpoint is None or self._stopping:
            raise _NotHeldError
        # What brings an open row nearer to its end goes before what opens another one.
        urgent = key.made in ("response", "verdict") or key.turn > 0
        where = f"slot {key.slot}, {asked.column or key.made}"
        answer = await self._asking.ask(
            endpoint, journal, key, asked.request(), where, urgent, self._price(asked)
        )
        if self.budget.spent():
            self.stop()
        return answer

    async def _sync_now_and_then(self) -> None:
        """Bring the journal to the disk once a second, beside the event loop."""
        while True:
            await asyncio.sleep(SYNC_INTERVAL_S)
            if self.budget.spent():
                self.stop()
            try:
                for journal in self._journals():
                    await asyncio.to_thread(journal.sync)
                    if self._elsewhere:
                        await asyncio.to_thread(journal.refresh)
                if self._elsewhere:
                    self._look_elsewhere()
            except Exception as error:  # noqa: BLE001 - as in _proceed
                self._fail(error)


def held_slots(journal: Journal) -> int:
    """Return the slot behind the highest one with an answer; an opening may be all that it has."""
    return max(journal.end("opening"), journal.end("instruction"))
