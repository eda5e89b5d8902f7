"""Ask an endpoint and record what it answers, through faults of one endpoint or of all."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from prequery.budget import FREE, Budget, Price
from prequery.endpoint import Answer, Asks, Request
from prequery.errors import EndpointError
from prequery.journal import Key, Pass
from prequery.judging import Keeps

MOST_UNANSWERED_RATIO = 0.01


@dataclass
class Asking:
    """Asks, and records each answer before anything else happens to it.

    Args:
        answered: Is told of every answer that came.
        budget: Is charged for it.
        timed: Answers bear how long was waited for them.
    """

    answered: Callable[[Pass, Answer], None]
    budget: Budget
    timed: bool = True
    _doubtful: list[tuple[Asks, Keeps, Key, Answer]] = field(default_factory=list)
    _in_flight: int = 0
    _counted_s: float = 0.0

    async def ask(
        self,
        endpoint: Asks,
        journal: Keeps,
        key: Key,
        request: Request,
        where: str,
        urgent: bool = False,
        price: Price = FREE,
    ) -> Answer:
        """Return the endpoint's answer.

        Args:
            endpoint: Whom to ask.
            journal: Where the answer goes.
            key: What it is for.
            request: What to ask.
            where: For errors.
            urgent: It goes before what is not.
            price: Of its tokens.
        """
        if not self._in_flight:
            self._counted_s = time.monotonic()
        self._in_flight += 1
        try:
            answer = await endpoint.generate(request, where, urgent)
        finally:
            self._in_flight -= 1
        if self.timed:
            answer = msgspec.structs.replace(answer, waited_ms=self._waited_ms())
        if answer.failed:
            self._doubtful.append((endpoint, journal, key, answer))
        else:
            self.believe(endpoint)
            journal.record(key, answer)
            self.answered(key.made, answer)
            self.budget.spend(answer, price)
        return answer

    def _waited_ms(self) -> int:
        """Return the time since the last answer, or since something is in flight again.

        A monotonic clock: setting the machine's own does not matter. What is cut off of a
        millisecond goes to the next answer, so that a thousand answers a second add up.
        """
        waited_ms = int((time.monotonic() - self._counted_s) * 1000)
        self._counted_s += waited_ms / 1000
        return waited_ms

    def believe(self, works: Asks | None = None) -> None:
        """Record failures of an endpoint once a later answer shows that it works; null: of all.

        Otherwise a build that stops with its endpoint would leave rows failed for good.
        """
        if not self._doubtful:
            return
        believed = [one for one in self._doubtful if works is None or one[0] is works]
        self._doubtful = [
            one for one in self._doubtful if works is not None and one[0] is not works
        ]
        for _, journal, key, answer in believed:
            journal.record(key, answer)


def bear(unanswered: int, seen: int, answer: Answer, where: str) -> None:
    """Stop when more than 1 % of the attempts, and more than two, got no answer.

    Args:
        unanswered: Attempts without an answer.
        seen: Finished attempts.
        answer: The last that is none.
        where: For the error.

    Raises:
        EndpointError: They are too many.
    """
    if unanswered >= 3 and unanswered > MOST_UNANSWERED_RATIO * seen:
        verb, fix = (
            ("failed to answer", "see that the endpoint works, then run the same command")
            if answer.failed
            else ("refused", "correct the recipe's sampling, or the limits of the endpoint")
        )
        raise EndpointError(
            f"the endpoint {verb} {unanswered} of {seen} attempts: {answer.error}",
            where,
            f"{fix}; finished answers are kept",
        )
