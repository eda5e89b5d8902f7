"""Which attempts become rows, and why each other one does not.

The accepted rows are the first `rows` slots, by number, that pass. Attempts come in slot order, and
rows go to disk as they come: memory holds no text, and does not grow. Columns that see every row
go through them on disk, and keep what they need; each slot costs a few bytes besides.
"""

from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prequery import births, filters, judging, preference, rows
from prequery.births import Births, Flat
from prequery.columns.base import Batch, Column, CorpusColumn, JudgeColumn, Question, Values
from prequery.columns.prompted import PromptColumn
from prequery.columns.run import measure, read, survey
from prequery.conversation import Ask, Candidate
from prequery.endpoint import Request
from prequery.journal import Key
from prequery.recipe import Recipe
from prequery.shards import ROWS_PER_SHARD, Parts
from prequery.voices import Judging

if TYPE_CHECKING:
    from datasets import Features

FOLD_SLOTS = 4_096


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
    """

    parts: list[str]
    accepted: int
    attempts: int
    rejected: Mapping[str, int]
    ended: Mapping[str, int]
    requests: int
    prompt_tokens: int | None
    generated_tokens: int


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
    _ledger: "_Ledger" = field(default_factory=lambda: _Ledger())
    _accepted: Parts | None = None
    _candidates: Parts | None = None
    _slots: "array[int]" = field(default_factory=lambda: array("q"))
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
            self._looked[attempt.slot] = self._measure_alone(attempt)
        return self._looked[attempt.slot][0]

    def wants(self, attempt: Candidate) -> list[Ask]:
        """Return what judges must say of an attempt before `look` can tell.

        Nobody is asked about a row that its own columns rule out already.
        """
        if attempt.reason is not None or not self._judged:
            return []
        flats = self._measured([self.births.row(attempt, choice) for choice in attempt.choices])
        if not self.recipe.preference and self._rejected(self._cheap, flats[0]):
            return []
        return [
            Ask(Key(attempt.slot, "verdict", 0, choice), self._request(column, question), name)
            for name, column in self._judged.items()
            for choice, flat in enumerate(flats)
            if (question := column.ask({field: flat[field] for field in column.reads}))
        ]

    def _request(self, column: JudgeColumn, question: Question) -> Callable[[], Request]:
        return partial(judging.request, question, self.judges[column.judge].prefix)

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
        if self._corpus:
            if attempt.reason is None and flat:
                self._slots.append(attempt.slot)
                self._candidate_parts().append({name: flat[name] for name in self._own_fields})
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
        return self._settle() if self._corpus else self._accepted_parts().count

    @property
    def selection(self) -> Selection:
        """What the slots taken so far give."""
        parts = self._accepted_parts()
        parts.close()
        return Selection(parts.paths, parts.count, self._end, **self._ledger.until(self._end))

    @cached_property
    def _corpus(self) -> list[CorpusColumn]:
        return [c for c in self.recipe.columns if isinstance(c, CorpusColumn)]

    @cached_property
    def _own(self) -> list[Column]:
        return [c for c in self.recipe.columns if not isinstance(c, CorpusColumn | JudgeColumn)]

    @cached_property
    def _judged(self) -> dict[str, JudgeColumn]:
        return {column.name: column for column in judging.judge_columns(self.recipe)}

    @cached_property
    def _cheap(self) -> list[filters.Filter]:
        """The filters that a row's own columns decide."""
        judged = {name for column in self._judged.values() for name in column.features}
        corpus = {name for column in self._corpus for name in column.features}
        return [step for step in self.recipe.filters if step.reads.isdisjoint(judged | corpus)]

    @cached_property
    def _steps(self) -> list[filters.Filter]:
        """All filters, what is cheap to know first: the first that rejects is the reason."""
        corpus = {name for column in self._corpus for name in column.features}
        late = [step for step in self.recipe.filters if not step.reads.isdisjoint(corpus)]
        judged = [s for s in self.recipe.filters if s not in self._cheap and s not in late]
        return [*self._cheap, *judged, *late]

    @cached_property
    def _released(self) -> list[str]:
        return list(self.births.features(self.recipe.dtypes))

    @cached_property
    def _own_features(self) -> "Features":
        own = [c for c in self.recipe.columns if not isinstance(c, CorpusColumn)]
        measured = {name: dtype for c in own for name, dtype in c.features.items()}
        return self.births.features(measured)

    @cached_property
    def _own_fields(self) -> list[str]:
        return list(self._own_features)

    def _measure_alone(self, attempt: Candidate) -> tuple[str | None, Flat]:
        """Measure a row by itself and apply the filters that need no others."""
        flats = self._measured([self.births.row(attempt, choice) for choice in attempt.choices])
        for choice, flat in enumerate(flats):
            flat |= self._verdicts(attempt, choice)
        made = self._preferred(attempt, flats) if self.recipe.preference else flats[0]
        if isinstance(made, str):
            return made, {}
        known = [step for step in self._steps if step.reads <= made.keys()]
        return self._rejected(known, made), made

    def _rejected(self, steps: Sequence[filters.Filter], flat: Flat) -> str | None:
        return _named(filters.apply(steps, _columnar([flat])))[0]

    def _verdicts(self, attempt: Candidate, choice: int) -> Flat:
        """Return what judges say of one response; null where they were not asked."""
        found: Flat = {}
        for name, column in self._judged.items():
            verdict = attempt.verdicts.get((name, choice))
            said = None if verdict is None or verdict.error is not None else verdict.text
            judge = self.recipe.judges[column.judge]
            found |= read(column, f"slot {attempt.slot}", said, births.name(judge))
        return found

    def _measured(self, flats: list[Flat]) -> list[Flat]:
        """Return rows with the columns that need no others."""
        measured = measure(self._own, _columnar(flats))
        return [
            flat | {name: values[at] for name, values in measured.items()}
            for at, flat in enumerate(flats)
        ]

    def _score(self, value: Any) -> float | None:
        """Return a number as it is, and a grade as its place in its order."""
        return self._grades.index(value) if isinstance(value, str) else value

    @cached_property
    def _grades(self) -> tuple[str, ...]:
        """The labels of the field that scores, lowest first; none where it is a number."""
        score = self.recipe.preference.score if self.recipe.preference else ""
        prompted = (c for c in self._judged.values() if isinstance(c, PromptColumn))
        return next((column.labels[score] for column in prompted if score in column.ordered), ())

    def _preferred(self, attempt: Candidate, flats: list[Flat]) -> Flat | str:
        """Return the row of the chosen response, or why there is no pair."""
        assert self.recipe.preference is not None
        scores = [self._score(flat[self.recipe.preference.score]) for flat in flats]
        pair = preference.choose(scores, self.recipe.preference.min_margin)
        if isinstance(pair, str):
            return pair
        chosen, rejected = flats[pair.chosen], flats[pair.rejected]
        told = [None if score is None else float(score) for score in scores]
        return chosen | {
            "prompt": chosen["messages"][:-1],
            "chosen": chosen["messages"][-1:],
            "rejected": rejected["messages"][-1:],
            "chosen_score": told[pair.chosen],
            "rejected_score": told[pair.rejected],
            "score_margin": float(pair.margin),
            "scores": told,
            "rejected_seed": rejected["response_seed"],
        }

    def _settle(self) -> int:
        """Measure the columns that see every candidate, apply all filters, write the rows."""
        candidates = self._candidate_parts()
        if not candidates.count:
            return 0
        reads = {"id"}.union(*(column.reads for column in self._corpus))
        measured = survey(self._corpus, _Batches(candidates, sorted(reads)))
        judged = self._judged_together(candidates, measured)
        self._ledger.judge(self._slots, judged)
        self._accepted, last, start = None, None, 0
        parts = self._accepted_parts()
        for table in candidates.tables():
            stop = start + len(table)
            left = self.recipe.rows - parts.count
            accepted = [at for at in range(start, stop) if judged[at] is None][:left]
            taken = table.take([at - start for at in accepted]).to_pylist()
            for flat, at in zip(taken, accepted, strict=True):
                values = {name: measured[name][at] for name in measured}
                parts.append(self._complete(flat | values))
                last = at
            start = stop
        self._end = len(self._ledger) if last is None else self._slots[last] + 1
        return parts.count

    def _judged_together(self, candidates: Parts, measured: Values) -> list[str | None]:
        """Apply all filters to all candidates; return why each is rejected."""
        reads = {"id"}.union(*(step.reads for step in self._steps))
        judged: list[str | None] = []
        for batch in _Batches(candidates, sorted(reads - measured.keys())):
            start, stop = len(judged), len(judged) + len(batch["id"])
            whole = {name: values[start:stop] for name, values in measured.items()}
            judged += _named(filters.apply(self._steps, {**batch, **whole}))
        return judged

    def _candidate_parts(self) -> Parts:
        if self._candidates is None:
            schema = self._own_features.arrow_schema
            self._candidates = Parts(self.folder / "candidates", schema)
        return self._candidates

    def _accepted_parts(self) -> Parts:
        if self._accepted is None:
            schema = self.births.features(self.recipe.dtypes).arrow_schema
            check = partial(self.births.check, columns=self.recipe.dtypes)
            self._accepted = Parts(self.folder / "rows", schema, check, self.rows_per_shard)
        return self._accepted

    def _complete(self, flat: Flat) -> rows.Row:
        """Return one released row: every declared field, and no evidence."""
        return {name: flat[name] for name in self._released}


@dataclass(frozen=True)
class _Batches:
    """Some fields of rows on disk, a row group at a time, as often as they are gone through."""

    parts: Parts
    names: Sequence[str]

    def __iter__(self) -> Iterator[Batch]:
        for table in self.parts.tables(self.names):
            yield {name: table[name].to_pylist() for name in self.names}


class _Ledger:
    """Reason and cost of every slot, in 22 bytes each until it is certain that they count."""

    def __init__(self) -> None:
        self._folded = 0
        self._counts: Counter[int] = Counter()
        self._ended_counts: Counter[int] = Counter()
        self._sums = [0, 0, 0]
        self._is_counted = True
        self._names: list[str | None] = [None]
        self._reasons = array("H")
        self._ended = array("H")
        self._requests = array("H")
        self._prompt = array("l")
        self._generated = array("l")

    def __len__(self) -> int:
        return self._folded + len(self._reasons)

    def add(self, attempt: Candidate, reason: str | None) -> None:
        """Add the next slot.

        What follows a duplicate's instruction costs nothing here: whether it was asked for
        depends on which of the two instructions arrived first, and a lock must not.
        """
        answered = [answer for answer in attempt.costs if answer.error is None]
        prompt = [answer.prompt_tokens for answer in answered]
        self._reasons.append(self._code(reason))
        self._ended.append(self._code(attempt.ended))
        self._requests.append(len(answered))
        self._prompt.append(-1 if None in prompt else sum(p for p in prompt if p is not None))
        self._generated.append(sum(answer.generated_tokens for answer in answered))

    def fold(self) -> None:
        """Add up the slots so far: the end will not lie before them, nor a reason change."""
        if len(self._reasons) < FOLD_SLOTS:
            return
        self._folded += len(self._reasons)
        self._counts.update(self._reasons)
        self._ended_counts.update(self._ended_of_accepted(len(self._reasons)))
        self._is_counted = self._is_counted and -1 not in self._prompt
        for at, amounts in enumerate((self._requests, self._prompt, self._generated)):
            self._sums[at] += sum(amounts)
            del amounts[:]
        del self._reasons[:]
        del self._ended[:]

    def judge(self, slots: Sequence[int], reasons: Sequence[str | None]) -> None:
        """Replace the reasons of some slots."""
        for slot, reason in zip(slots, reasons, strict=True):
            self._reasons[slot] = self._code(reason)

    def until(self, end: int) -> dict[str, Any]:
        """Return what the slots below `end` came to; `end` is behind those that are folded."""
        slots = end - self._folded
        prompt = self._prompt[:slots]
        is_counted = self._is_counted and -1 not in prompt
        ended = Counter(self._ended_of_accepted(slots))
        return {
            "rejected": self._named(self._counts + Counter(self._reasons[:slots])),
            "ended": self._named(self._ended_counts + ended),
            "requests": self._sums[0] + sum(self._requests[:slots]),
            "prompt_tokens": self._sums[1] + sum(prompt) if is_counted else None,
            "generated_tokens": self._sums[2] + sum(self._generated[:slots]),
        }

    def _ended_of_accepted(self, slots: int) -> Iterator[int]:
        """Yield why conversations ended, of the accepted among the first slots not folded."""
        pairs = zip(self._reasons[:slots], self._ended, strict=False)
        return (ended for reason, ended in pairs if not reason)

    def _named(self, counts: Counter[int]) -> dict[str, int]:
        """Return counts by reason, most frequent first."""
        found = ((self._names[code], count) for code, count in counts.items())
        named = [(name, count) for name, count in found if name is not None]
        return dict(sorted(named, key=lambda item: (-item[1], item[0])))

    def _code(self, reason: str | None) -> int:
        if reason not in self._names:
            self._names.append(reason)
        return self._names.index(reason)


def filter_reason(text: str) -> str:
    """Return a filter as a reason, told apart from those of the gates."""
    return f"filter: {text}"


def _named(judged: Sequence[str | None]) -> list[str | None]:
    return [None if text is None else filter_reason(text) for text in judged]


def _columnar(flats: Sequence[Flat]) -> dict[str, list[Any]]:
    return {name: [flat[name] for flat in flats] for name in flats[0]}
