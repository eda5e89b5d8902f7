"""Which attempts become rows, and why each other one does not.

The accepted rows are the first `rows` slots, by number, that pass. Attempts come in slot order, and
rows go to disk as they come: memory holds no text, and does not grow. Only columns that see every
row need all of them at once: just the fields that they read, and a few bytes for each slot.
"""

from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from prequery import filters, instructions, rows
from prequery.columns.base import Column, CorpusColumn
from prequery.columns.run import measure
from prequery.endpoint import Answer
from prequery.recipe import Recipe
from prequery.shards import ROWS_PER_SHARD, Parts
from prequery.synthesis import Attempt

FOLD_SLOTS = 4_096

Flat = dict[str, Any]
"""A row's flat fields with its evidence, before columns."""


@dataclass(frozen=True)
class Selection:
    """What came of the attempts.

    Args:
        parts: Parquet files with the accepted rows, complete, in slot order.
        accepted: How many rows these are.
        attempts: Slots up to the last accepted one; what lies behind it is discarded.
        rejected: Reason to number of attempts, most frequent first. Adds up, with the accepted
            ones, to `attempts`.
        requests: Answered requests of those attempts.
        prompt_tokens: Of those requests; null if the endpoint does not count.
        generated_tokens: Of those requests.
    """

    parts: list[str]
    accepted: int
    attempts: int
    rejected: Mapping[str, int]
    requests: int
    prompt_tokens: int | None
    generated_tokens: int


@dataclass
class Selector:
    """Judges attempts, one by one as they finish and all together at the end.

    Args:
        recipe: Whose columns and filters decide.
        system_prompt: That every row was made with.
        folder: For the rows; its content is replaced.
        rows_per_shard: At most so many rows in a file.
    """

    recipe: Recipe
    system_prompt: str | None
    folder: Path
    rows_per_shard: int = ROWS_PER_SHARD
    _looked: dict[int, tuple[str | None, Flat]] = field(default_factory=dict)
    _ledger: "_Ledger" = field(default_factory=lambda: _Ledger())
    _accepted: Parts | None = None
    _candidates: Parts | None = None
    _slots: "array[int]" = field(default_factory=lambda: array("q"))
    _end: int = 0

    def look(self, attempt: Attempt) -> str | None:
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

    def take(self, attempt: Attempt) -> bool:
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
            if attempt.reason is None:
                self._slots.append(attempt.slot)
                self._candidate_parts().append({name: flat[name] for name in self._own_dtypes})
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
    def _corpus(self) -> list[Column]:
        return [c for c in self.recipe.columns if isinstance(c, CorpusColumn)]

    @cached_property
    def _own(self) -> list[Column]:
        return [c for c in self.recipe.columns if not isinstance(c, CorpusColumn)]

    @cached_property
    def _released(self) -> dict[str, str]:
        return rows.dtypes(self.recipe.dtypes)

    @cached_property
    def _own_dtypes(self) -> dict[str, str]:
        measured = {name: dtype for c in self._own for name, dtype in c.features.items()}
        return rows.dtypes(measured)

    def _measure_alone(self, attempt: Attempt) -> tuple[str | None, Flat]:
        """Measure a row by itself and apply the filters that need no others."""
        flat = self._row(attempt)
        flat |= {name: values[0] for name, values in measure(self._own, _columnar(flat)).items()}
        steps = [step for step in self.recipe.filters if step.reads <= flat.keys()]
        return _named(filters.apply(steps, _columnar(flat)))[0], flat

    def _settle(self) -> int:
        """Measure the columns that see every candidate, apply all filters, write the rows."""
        tables = list(self._candidate_parts().tables())
        if not tables:
            return 0
        table = pa.concat_tables(tables)
        reads = {"id"}.union(
            *(column.reads for column in self._corpus), *(f.reads for f in self.recipe.filters)
        )
        known = {name: table[name].to_pylist() for name in table.column_names if name in reads}
        known |= measure(self._corpus, known)
        judged = _named(filters.apply(self.recipe.filters, known))
        self._ledger.judge(self._slots, judged)
        accepted = [at for at, reason in enumerate(judged) if reason is None][: self.recipe.rows]
        self._accepted = None
        parts = self._accepted_parts()
        measured = [name for column in self._corpus for name in column.features]
        for flat, at in zip(table.take(accepted).to_pylist(), accepted, strict=True):
            parts.append(self._complete(flat | {name: known[name][at] for name in measured}))
        self._end = self._slots[accepted[-1]] + 1 if accepted else len(self._ledger)
        return len(accepted)

    def _candidate_parts(self) -> Parts:
        if self._candidates is None:
            schema = rows.flat_features(self._own_dtypes).arrow_schema
            self._candidates = Parts(self.folder / "candidates", schema)
        return self._candidates

    def _accepted_parts(self) -> Parts:
        if self._accepted is None:
            dtypes = self.recipe.dtypes
            schema = rows.features(dtypes).arrow_schema
            folder = self.folder / "rows"
            self._accepted = Parts(folder, schema, dtypes, self.rows_per_shard)
        return self._accepted

    def _row(self, attempt: Attempt) -> Flat:
        assert attempt.response is not None
        recipe, slot = self.recipe, attempt.slot
        setting = instructions.setting(recipe, slot)
        instruction, response = attempt.instruction, attempt.response
        return {
            "id": f"{recipe.fingerprint[:12]}-{slot}",
            "instruction": instruction.text.strip(),
            "response": response.text.strip(),
            "generator": f"{recipe.generator.model}@{recipe.generator.revision}",
            "system_prompt": self.system_prompt,
            "instruction_temperature": setting.temperature,
            "instruction_top_p": setting.top_p,
            "instruction_seed": instruction.seed,
            "response_seed": response.seed,
            "instruction_tokens": instruction.generated_tokens,
            "response_tokens": response.generated_tokens,
            "instruction_finish_reason": instruction.finish_reason,
            "response_finish_reason": response.finish_reason,
            **_evidence("instruction", instruction),
            **_evidence("response", response),
        }

    def _complete(self, flat: Flat) -> rows.Row:
        """Return one released row: every declared field, and no evidence."""
        row = {name: flat[name] for name in self._released}
        return row | {"messages": rows.messages(row["instruction"], row["response"])}


class _Ledger:
    """Reason and cost of every slot, in 19 bytes each until it is certain that they count."""

    def __init__(self) -> None:
        self._folded = 0
        self._counts: Counter[int] = Counter()
        self._sums = [0, 0, 0]
        self._is_counted = True
        self._names: list[str | None] = [None]
        self._reasons = array("H")
        self._requests = array("B")
        self._prompt = array("l")
        self._generated = array("l")

    def __len__(self) -> int:
        return self._folded + len(self._reasons)

    def add(self, attempt: Attempt, reason: str | None) -> None:
        """Add the next slot.

        The response of a duplicate costs nothing here: whether it was asked for depends on which
        of the two instructions arrived first, and a lock must not.
        """
        answers = [attempt.instruction]
        if attempt.response is not None and not attempt.repeats:
            answers.append(attempt.response)
        answered = [answer for answer in answers if answer.error is None]
        prompt = [answer.prompt_tokens for answer in answered]
        self._reasons.append(self._code(reason))
        self._requests.append(len(answered))
        self._prompt.append(-1 if None in prompt else sum(p for p in prompt if p is not None))
        self._generated.append(sum(answer.generated_tokens for answer in answered))

    def fold(self) -> None:
        """Add up the slots so far: the end will not lie before them, nor a reason change."""
        if len(self._reasons) < FOLD_SLOTS:
            return
        self._folded += len(self._reasons)
        self._counts.update(self._reasons)
        self._is_counted = self._is_counted and -1 not in self._prompt
        for at, amounts in enumerate((self._requests, self._prompt, self._generated)):
            self._sums[at] += sum(amounts)
            del amounts[:]
        del self._reasons[:]

    def judge(self, slots: Sequence[int], reasons: Sequence[str | None]) -> None:
        """Replace the reasons of some slots."""
        for slot, reason in zip(slots, reasons, strict=True):
            self._reasons[slot] = self._code(reason)

    def until(self, end: int) -> dict[str, Any]:
        """Return what the slots below `end` came to; `end` is behind those that are folded."""
        slots = end - self._folded
        counts = self._counts + Counter(self._reasons[:slots])
        named = ((self._names[code], count) for code, count in counts.items())
        rejected = {name: count for name, count in named if name is not None}
        prompt = self._prompt[:slots]
        is_counted = self._is_counted and -1 not in prompt
        return {
            "rejected": dict(sorted(rejected.items(), key=lambda item: (-item[1], item[0]))),
            "requests": self._sums[0] + sum(self._requests[:slots]),
            "prompt_tokens": self._sums[1] + sum(prompt) if is_counted else None,
            "generated_tokens": self._sums[2] + sum(self._generated[:slots]),
        }

    def _code(self, reason: str | None) -> int:
        if reason not in self._names:
            self._names.append(reason)
        return self._names.index(reason)


def _evidence(part: str, answer: Answer) -> Flat:
    return {
        f"{part}_logprob_sum": answer.logprob_sum,
        f"{part}_logprob_lowest": answer.logprob_min,
        f"{part}_logprob_count": answer.logprob_count,
    }


def filter_reason(text: str) -> str:
    """Return a filter as a reason, told apart from those of the gates."""
    return f"filter: {text}"


def _named(judged: Sequence[str | None]) -> list[str | None]:
    return [None if text is None else filter_reason(text) for text in judged]


def _columnar(flat: Flat) -> dict[str, list[Any]]:
    return {name: [value] for name, value in flat.items()}
