"""Which attempts become rows, and why each other one does not.

The accepted rows are the first `rows` slots, by number, that pass. Everything here is a function
of the attempts in slot order: of equal instructions the lowest slot stays, whichever came first.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prequery import filters, gates, instructions, rows
from prequery.columns.base import CorpusColumn
from prequery.columns.run import measure
from prequery.endpoint import Answer
from prequery.recipe import Recipe
from prequery.synthesis import Attempt

Flat = dict[str, Any]
"""A row's flat fields with its evidence, before columns."""


@dataclass(frozen=True)
class Selection:
    """What came of the attempts.

    Args:
        rows: Accepted rows, complete, in slot order.
        attempts: Slots up to the last accepted one; what lies behind it is discarded.
        rejected: Reason to number of attempts, most frequent first. Adds up, with the rows, to
            `attempts`.
        prompt_tokens: Of all requests of those attempts; null if the endpoint does not count.
        generated_tokens: Of all requests of those attempts.
        requests: Answered requests of those attempts.
    """

    rows: list[rows.Row]
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
    """

    recipe: Recipe
    system_prompt: str | None
    _reasons: dict[int, str | None] = field(default_factory=dict)
    _flat: dict[int, Flat] = field(default_factory=dict)
    _selection: Selection | None = None

    def look(self, attempt: Attempt) -> str | None:
        """Say why an attempt is rejected, as far as its own row tells.

        Returns:
            A gate's reason or the text of a filter; null when neither speaks against it. Filters
            that need all rows are not applied, so fewer attempts may be accepted in the end.
        """
        if attempt.slot not in self._reasons:
            self._reasons[attempt.slot] = attempt.reason or self._own_filters(attempt)
        return self._reasons[attempt.slot]

    def enough(self, attempts: list[Attempt]) -> bool:
        """Say whether these attempts, all slots from 0 on, hold all rows of the recipe."""
        self._selection = self._select(attempts)
        return len(self._selection.rows) == self.recipe.rows

    @property
    def selection(self) -> Selection:
        """What the last call of `enough` found."""
        if self._selection is None:
            raise RuntimeError("nothing was selected yet")
        return self._selection

    def _own_filters(self, attempt: Attempt) -> str | None:
        """Measure a row by itself, keep the values, and apply the filters that need no others."""
        own = [c for c in self.recipe.columns if not isinstance(c, CorpusColumn)]
        flat = self._row(attempt)
        measured = measure(own, _columnar([flat], list(flat)))
        self._flat[attempt.slot] = flat | {name: values[0] for name, values in measured.items()}
        known = self._flat[attempt.slot]
        steps = [step for step in self.recipe.filters if step.reads <= known.keys()]
        return _named(filters.apply(steps, _columnar([known], list(known))))[0]

    def _select(self, attempts: Sequence[Attempt]) -> Selection:
        candidates: list[Flat] = []
        reasons: dict[int, str | None] = {}
        seen: set[str] = set()
        for attempt in attempts:
            reason = attempt.reason
            if attempt.response is not None:
                # A repeated instruction leaves, whatever became of the first one's response, and
                # whether or not its own response was asked for before the first one was known.
                words = attempt.instruction.text.strip()
                reason = gates.DUPLICATE if words in seen else reason
                seen.add(words)
            reasons[attempt.slot] = reason
            if reason is None:
                self.look(attempt)
                candidates.append(self._flat[attempt.slot])
        table = self._measure_together(candidates)
        slots = [slot for slot, reason in reasons.items() if reason is None]
        judged = _named(filters.apply(self.recipe.filters, table)) if candidates else []
        reasons |= dict(zip(slots, judged, strict=True))
        accepted = [i for i, reason in enumerate(judged) if reason is None][: self.recipe.rows]
        end = slots[accepted[-1]] + 1 if accepted else len(attempts)
        rejected = Counter(reason for reason in list(reasons.values())[:end] if reason)
        return Selection(
            rows=[self._complete(table, index) for index in accepted],
            attempts=end,
            rejected=dict(sorted(rejected.items(), key=lambda item: (-item[1], item[0]))),
            **_spent(attempts[:end], reasons),
        )

    def _measure_together(self, candidates: Sequence[Flat]) -> dict[str, list[Any]]:
        """Return all fields of all candidates, with the columns that see every candidate."""
        if not candidates:
            return {}
        table = _columnar(candidates, list(candidates[0]))
        corpus = [c for c in self.recipe.columns if isinstance(c, CorpusColumn)]
        return table | measure(corpus, table)

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

    def _complete(self, table: Mapping[str, Sequence[Any]], index: int) -> rows.Row:
        """Return one released row: every declared field in order, and no evidence."""
        flat = {name: table[name][index] for name in rows.dtypes(self.recipe.dtypes)}
        return flat | {"messages": rows.messages(flat["instruction"], flat["response"])}


def _evidence(part: str, answer: Answer) -> Flat:
    return {
        f"{part}_logprob_sum": answer.logprob_sum,
        f"{part}_logprob_lowest": answer.logprob_min,
        f"{part}_logprob_count": answer.logprob_count,
    }


def _named(judged: Sequence[str | None]) -> list[str | None]:
    """Return filters' texts as reasons, apart from those of the gates."""
    return [None if text is None else f"filter: {text}" for text in judged]


def _columnar(flats: Sequence[Flat], names: Sequence[str]) -> dict[str, list[Any]]:
    return {name: [flat[name] for flat in flats] for name in names}


def _spent(attempts: Sequence[Attempt], reasons: Mapping[int, str | None]) -> dict[str, Any]:
    """Add up what the attempts cost.

    The response of a duplicate is left out: whether it was asked for depends on which of the
    two instructions arrived first, and a lock must not.
    """
    answers = [attempt.instruction for attempt in attempts]
    answers += [
        attempt.response
        for attempt in attempts
        if attempt.response is not None and reasons[attempt.slot] != gates.DUPLICATE
    ]
    answered = [answer for answer in answers if answer.error is None]
    prompt = [answer.prompt_tokens for answer in answered]
    return {
        "requests": len(answered),
        "prompt_tokens": None if None in prompt else sum(p for p in prompt if p is not None),
        "generated_tokens": sum(answer.generated_tokens for answer in answered),
    }
