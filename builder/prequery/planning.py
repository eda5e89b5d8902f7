"""Estimate what a build needs before it is paid for, from a few attempts at it.

The attempts are the build's own first ones, through both passes and into its journal, so nothing
of them is paid for twice.
"""

import math
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from prequery.budget import cost_usd
from prequery.columns.base import CorpusColumn
from prequery.conversation import Candidate
from prequery.endpoint import Answer
from prequery.journal import Pass
from prequery.options import Options
from prequery.pipeline import build
from prequery.recipe import Recipe
from prequery.rows import FIELDS, PREFERENCE
from prequery.selection import Selection
from prequery.synthesis import Observer


@dataclass(frozen=True)
class Quantity:
    """What a number of attempts needs.

    Args:
        attempts: Slots.
        requests: Of both passes.
        prompt_tokens: Null where the endpoint does not count them.
        generated_tokens: Of both passes.
        seconds: At the speed of the probe; where its answers were in the journal already, as long
            as they took then, and null where that does not tell.
        usd: By the prices of the recipe's endpoint; null where it names none.
    """

    attempts: int
    requests: int
    prompt_tokens: int | None
    generated_tokens: int
    seconds: float | None
    usd: float | None

    def times(self, factor: float) -> "Quantity":
        """Return what so many times the attempts need."""

        def scaled(amount: int) -> int:
            return math.ceil(amount * factor)

        return Quantity(
            scaled(self.attempts),
            scaled(self.requests),
            None if self.prompt_tokens is None else scaled(self.prompt_tokens),
            scaled(self.generated_tokens),
            None if self.seconds is None else self.seconds * factor,
            None if self.usd is None else self.usd * factor,
        )


@dataclass(frozen=True)
class Plan:
    """An estimate, and what it rests on.

    Args:
        rows: That the recipe wants, or chooses from.
        probe: What the first rows needed, up to the last accepted attempt.
        accepted: Its attempts that gates and row filters let through.
        rejected: Reason to number of its attempts, most frequent first.
        expected: What the build needs if all goes on like that.
        cautious: The same with an acceptance two standard errors lower.
    """

    rows: int
    probe: Quantity
    accepted: int
    rejected: dict[str, int]
    expected: Quantity
    cautious: Quantity


def plan(recipe: Recipe, options: Options, rows: int, observer: Observer) -> Plan:
    """Attempt a few rows of a recipe, and estimate the rest.

    Filters that need all rows at once are not in the estimate: what they reject comes on top.

    Args:
        recipe: What will be built.
        options: As for the build.
        rows: Rows to attempt; more tell more, and show a large endpoint's full speed.
        observer: Is told.

    Raises:
        BuildError: As a build. Everything answered is in the journal.
    """
    watch = _Watch(observer)
    with tempfile.TemporaryDirectory() as work:
        built = build(_shortened(recipe, min(rows, recipe.goal)), options, watch, Path(work))
    spent = built.selection
    usd = cost_usd(recipe, spent.prompt_tokens, spent.generated_tokens)
    return estimate(recipe.goal, spent, watch.seconds_per_answer, usd)


def _shortened(recipe: Recipe, rows: int) -> Recipe:
    """Return the recipe with fewer rows and without what needs all rows at once.

    Its fingerprint is the same, so its answers are in the same journal.
    """
    own = tuple(column for column in recipe.columns if not isinstance(column, CorpusColumn))
    known = FIELDS.keys() | PREFERENCE.keys() | {name for column in own for name in column.features}
    return replace(
        recipe,
        rows=rows,
        candidates=None,
        columns=own,
        filters=tuple(step for step in recipe.leading if step.reads <= known),
        max_attempts=min(recipe.max_attempts, max(100, 10 * rows)),
    )


def estimate(
    rows: int, small: Selection, seconds_per_answer: float | None, usd: float | None
) -> Plan:
    """Estimate a build of so many rows from a small one.

    Args:
        rows: That are wanted.
        small: What came of the small one.
        seconds_per_answer: Time between two of its answers; null when it asked nobody.
        usd: That its tokens cost; null where they have no price.
    """
    if seconds_per_answer is None:
        seconds: float | None = small.seconds or None  # below one it tells nothing of speed
    else:
        seconds = seconds_per_answer * small.requests
    probe = Quantity(
        small.attempts,
        small.requests,
        small.prompt_tokens,
        small.generated_tokens,
        seconds,
        usd,
    )
    share = small.accepted / small.attempts
    # Wilson's lower bound: 32 of 32 is no promise of 100 %.
    least = _lower_bound(small.accepted, small.attempts)
    return Plan(
        rows=rows,
        probe=probe,
        accepted=small.accepted,
        rejected=dict(small.rejected),
        expected=probe.times(rows / share / small.attempts),
        cautious=probe.times(rows / least / small.attempts),
    )


def _lower_bound(hits: int, of: int, z: float = 2.0) -> float:
    share = hits / of
    middle = share + z * z / (2 * of)
    spread = z * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    return (middle - spread) / (1 + z * z / of)


@dataclass
class _Watch:
    """Passes everything on, and takes the time in which answers came."""

    observer: Observer
    _first: float = 0.0
    _last: float = 0.0
    _count: int = 0

    @property
    def seconds_per_answer(self) -> float | None:
        """Counted from the first answer on, so that the start of a server does not."""
        if self._count < 2:
            return None
        return (self._last - self._first) / (self._count - 1)

    def said(self, text: str) -> None:
        self.observer.said(text)

    def answered(self, made: Pass, answer: Answer) -> None:
        self._last = time.monotonic()
        self._first = self._first or self._last
        self._count += 1
        self.observer.answered(made, answer)

    def attempted(self, attempt: Candidate, reason: str | None) -> None:
        self.observer.attempted(attempt, reason)
