"""Attempts in slot order become rows on disk."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

from prequery import rows
from prequery.births import Births, Flat
from prequery.conversation import Ask, Candidate
from prequery.endpoint import Answer
from prequery.recipe import Recipe
from prequery.selection.alone import Alone, C
from prequery.selection.ledger import Ledger
from prequery.selection.steps import Steps
from prequery.selection.together import Together
from prequery.shards import ROWS_PER_SHARD, Parts
from prequery.voices import Judging


@dataclass(frozen=True)
class Selection:
    """What came of the attempts.

    Args:
        parts: Parquet files with the accepted rows, complete, in slot order.
        accepted: How many rows these are.
        attempts: Slots up to the last accepted one; what lies behind it is discarded.
        rejected: Reason to number of attempts, most frequent first. Adds up, with the accepted
            ones, to `attempts`.
        ended: Why conversations of accepted rows are shorter than was drawn, to their number.
        requests: Answered requests of those attempts.
        prompt_tokens: Of those requests; null if the endpoint does not count.
        generated_tokens: Of those requests.
        looked: Slots that it took to be certain of the rows, the discarded ones included.
    """

    parts: list[str]
    accepted: int
    attempts: int
    rejected: Mapping[str, int]
    ended: Mapping[str, int]
    requests: int
    prompt_tokens: int | None
    generated_tokens: int
    looked: int = 0


@dataclass
class Selector:
    """Judges attempts, one by one as they finish and all together at the end.

    Args:
        recipe: Whose columns and filters decide.
        births: Makes rows of attempts.
        judges: The models that judge, by name.
        folder: For the rows; its content is replaced.
        rows_per_shard: At most so many rows in a file.
    """

    recipe: Recipe
    births: Births
    judges: Mapping[str, Judging]
    folder: Path
    rows_per_shard: int = ROWS_PER_SHARD
    _looked: dict[int, tuple[str | None, Flat]] = field(default_factory=dict)
    _ledger: Ledger = field(default_factory=Ledger)
    _accepted: Parts | None = None
    _end: int = 0

    def look(self, attempt: Candidate) -> str | None:
        """Say why an attempt is rejected, as far as its own row tells.

        Returns:
            A gate's reason or a filter; null when neither speaks against it. Filters that need
            all rows are not applied, so fewer attempts may be accepted in the end.
        """
        if attempt.reason is not None:
            return attempt.reason
        if attempt.slot not in self._looked:
            self._looked[attempt.slot] = self._alone.look(attempt)
        return self._looked[attempt.slot][0]

    def judged(self, attempt: C) -> Generator[Sequence[Ask], Sequence[Answer], C]:
        """Have judges asked what they must say of a candidate before `look` can tell."""
        return self._alone.judged(attempt)

    def take(self, attempt: Candidate) -> bool:
        """Take the next attempt in slot order.

        Returns:
            Whether its own row speaks for it, as `look` says.

        Raises:
            ColumnError: A column breaks its own contract.
            ShardError: The rows cannot be written.
        """
        reason = self.look(attempt)
        self._ledger.add(attempt, reason)
        _, flat = self._looked.pop(attempt.slot, (None, {}))
        if self._steps.corpus:
            if attempt.reason is None and flat:
                self._together.append(attempt.slot, flat)
        elif reason is None and self._accepted_parts().count < self.recipe.rows:
            self._end = attempt.slot + 1
            self._ledger.fold()
            self._accepted_parts().append(self._complete(flat))
        return reason is None

    def enough(self) -> int:
        """Return how many rows of all slots taken so far are accepted, at most the recipe's.

        With columns that see every row this measures them, over all candidates: the rows of all
        slots taken that passed the gates, released or not.
        """
        return self._settle() if self._steps.corpus else self._accepted_parts().count

    @property
    def selection(self) -> Selection:
        """What the slots taken so far give."""
        parts = self._accepted_parts()
        parts.close()
        told = self._ledger.until(self._end)
        return Selection(parts.paths, parts.count, self._end, **told, looked=len(self._ledger))

    def _settle(self) -> int:
        """Judge all candidates together, and write the rows."""
        measured, reasons = self._together.judge()
        slots = self._together.slots
        self._ledger.judge(slots, reasons)
        self._accepted, self._end = None, len(self._ledger)
        parts = self._accepted_parts()
        for at, flat in self._together.chosen(reasons, self.recipe.rows):
            parts.append(self._complete(flat | {name: measured[name][at] for name in measured}))
            self._end = slots[at] + 1
        return parts.count

    @cached_property
    def _steps(self) -> Steps:
        return Steps(self.recipe)

    @cached_property
    def _alone(self) -> Alone:
        return Alone(self.recipe, self.births, self.judges, self._steps)

    @cached_property
    def _together(self) -> Together:
        return Together(self.births, self._steps, self.folder)

    @cached_property
    def _released(self) -> list[str]:
        return list(self.births.features(self.recipe.dtypes))

    def _accepted_parts(self) -> Parts:
        if self._accepted is None:
            schema = self.births.features(self.recipe.dtypes).arrow_schema
            check = partial(self.births.check, columns=self.recipe.dtypes)
            self._accepted = Parts(self.folder / "rows", schema, check, self.rows_per_shard)
        return self._accepted

    def _complete(self, flat: Flat) -> rows.Row:
        """Return one released row: every declared field, and no evidence."""
        return {name: flat[name] for name in self._released}
