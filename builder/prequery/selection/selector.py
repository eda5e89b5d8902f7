"""Attempts in slot order become rows on disk."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from prequery import rows
from prequery.births import Births, Flat
from prequery.conversation import Ask, Candidate
from prequery.endpoint import Answer
from prequery.errors import AcceptanceError
from prequery.recipe import AnyRecipe
from prequery.selection.alone import Alone, C, filter_reason
from prequery.selection.ledger import Ledger
from prequery.selection.report import Draw, Examples, Step, report
from prequery.selection.steps import Steps
from prequery.selection.together import Judged, Together
from prequery.shards import ROWS_PER_SHARD, Parts
from prequery.voices import Judging

SPARE = "not needed: the rows before it are enough"
"""Of candidates that no filter rejects, behind the last row that is wanted."""


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
        seconds: In which builders waited for their answers, added up over builders; null where an
            answer does not tell.
        steps: What each filter did, in the order of going through them.
        measuring: Column to what should be known of its measurement, besides the values.
    """

    parts: list[str]
    accepted: int
    attempts: int
    rejected: Mapping[str, int]
    ended: Mapping[str, int]
    requests: int
    prompt_tokens: int | None
    generated_tokens: int
    seconds: int | None = None
    steps: tuple[Step, ...] = ()
    measuring: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass
class Selector:
    """Judges attempts, one by one as they finish and all together at the end.

    Args:
        recipe: Whose columns and filters decide.
        births: Makes rows of attempts.
        judges: The models that judge, by name.
        folder: For the rows; its content is replaced.
        rows_per_shard: At most so many rows in a file.
        settles_for_less: Tell what there is, also where it is too little: no build does.
    """

    recipe: AnyRecipe
    births: Births
    judges: Mapping[str, Judging]
    folder: Path
    rows_per_shard: int = ROWS_PER_SHARD
    settles_for_less: bool = False
    _looked: dict[int, tuple[str | None, Flat]] = field(default_factory=dict)
    _ledger: Ledger = field(default_factory=Ledger)
    _accepted: Parts | None = None
    _judged: Judged | None = None
    _passed: int = 0
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
        self._passed += reason is None
        self._judged = None
        _, flat = self._looked.pop(attempt.slot, (None, {}))
        if self._steps.together:
            if attempt.reason is None and flat:
                self._together.append(attempt.slot, flat)
        elif self._accepted_parts().count < self.recipe.rows:
            if reason is None:
                self._end = attempt.slot + 1
                self._ledger.fold()
                self._accepted_parts().append(self._complete(flat))
            elif flat:
                self._examples.note(reason, flat)
        return reason is None

    def enough(self) -> int:
        """Return how many of all slots taken so far pass, at most the recipe's goal.

        With columns that see every row this measures them, over all candidates: the rows of all
        slots taken that passed the gates, released or not.
        """
        if not self._steps.together:
            return self._accepted_parts().count
        if self._steps.corpus:
            self._judged = self._together.judge()
            passed = self._judged.reasons.count(None)
        else:
            passed = self._passed
        return min(passed, self.recipe.goal)

    @property
    def sees_all(self) -> bool:
        """Whether a column sees every row, so that none is accepted before all are there."""
        return bool(self._steps.corpus)

    @property
    def selection(self) -> Selection:
        """What the slots taken so far give.

        Raises:
            AcceptanceError: Filters that choose among all rows leave too few.
        """
        if self._steps.together:
            self._settle()
        parts = self._accepted_parts()
        parts.close()
        if self.settles_for_less and self._passed < self.recipe.goal:
            self._end = len(self._ledger)
        counts = self._ledger.until(self._end)
        steps = report(
            [(step.text, filter_reason(step.text)) for step in self._steps.all],
            parts.count + counts["rejected"].get(SPARE, 0),
            counts["rejected"],
            self._examples,
        )
        return Selection(parts.paths, parts.count, self._end, **counts, steps=steps)

    def _settle(self) -> None:
        """Judge all candidates together, and write the rows."""
        judged = self._judged or self._together.judge()
        slots, reasons = self._together.slots, list(judged.reasons)
        passed = [at for at, reason in enumerate(reasons) if reason is None][: self.recipe.goal]
        full = passed if len(passed) == self.recipe.goal or not self.settles_for_less else []
        self._end = slots[full[-1]] + 1 if full else len(self._ledger)
        gone = self._together.choose(judged, passed) if self._steps.following else {}
        kept = [at for at in passed if at not in gone]
        if self._steps.following and len(kept) < self.recipe.rows and not self.settles_for_less:
            raise self._too_few(len(passed), len(kept))
        gone |= dict.fromkeys(kept[self.recipe.rows :], SPARE)
        for at, reason in gone.items():
            reasons[at] = reason
        self._ledger.judge(slots, reasons)
        self._note_examples(judged, reasons)
        self._accepted = None
        parts = self._accepted_parts()
        for _, flat in self._together.rows(judged, kept[: self.recipe.rows]):
            parts.append(self._complete(flat))

    def _too_few(self, chosen_from: int, left: int) -> AcceptanceError:
        names = ", ".join(f"`{step.text}`" for step in self._steps.following)
        return AcceptanceError(
            f"of {chosen_from} candidates the filters leave {left} rows: {self.recipe.rows} are "
            "wanted",
            f"{self.recipe.source}, filters: {names}",
            "raise candidates, loosen these filters, or lower rows; all answers are kept",
        )

    def _note_examples(self, judged: Judged, reasons: Sequence[str | None]) -> None:
        """Find the examples by their ids first, then read these few rows."""
        ids = zip(self._together.slots, reasons, self._together.ids(), strict=True)
        drawn = Draw[int]()
        for at, (slot, reason, row_id) in enumerate(ids):
            if reason is not None and slot < self._end:
                drawn.offer(reason, row_id, partial(int, at))
        for at, flat in self._together.rows(judged, sorted(drawn.all())):
            self._examples.note(reasons[at] or "", flat)

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
    def _examples(self) -> Examples:
        hiding = {name for c in self.recipe.columns if c.hides for name in c.features}
        reads = {filter_reason(step.text): step.reads for step in self._steps.all}
        return Examples(reads, frozenset(name for name in reads if reads[name] & hiding))

    @cached_property
    def _released(self) -> list[str]:
        return list(self.births.features(self.recipe.dtypes))

    def _accepted_parts(self) -> Parts:
        if self._accepted is None:
            schema = self.births.features(self.recipe.dtypes).arrow_schema
            check = self.births.check(self.recipe.dtypes)
            self._accepted = Parts(self.folder / "rows", schema, check, self.rows_per_shard)
        return self._accepted

    def _complete(self, flat: Flat) -> rows.Row:
        """Return one released row: every declared field, and no evidence."""
        return {name: flat[name] for name in self._released}
