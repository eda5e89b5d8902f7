"""Judge columns that ask how likely a text is behind another one, and alone: what they share."""

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from prequery.columns.base import Inquiry, JudgeColumn, Reading, Said, To


@dataclass(frozen=True, kw_only=True)
class ConditionalColumn(JudgeColumn):
    """A column of two perplexities of one text: behind a user's words in the template, and alone.

    Its fields are the ratio of the two, the first and the second, in this order. The first token
    of a text that stands alone has no probability unless the tokenizer puts BOS before it, and is
    left out of the second.
    """

    reads: ClassVar[tuple[str, ...]] = ("instruction", "response")
    asks: ClassVar[type[Reading]] = Reading

    @abstractmethod
    def pair(self, instruction: str, response: str) -> tuple[str, str]:
        """Return the text that is read, and the user's words that it stands behind."""

    def inquire(self, row: Mapping[str, Any]) -> Inquiry:
        """Have the text read twice."""
        instruction, response = row["instruction"], row["response"]
        if not (instruction or "").strip() or not (response or "").strip():
            return dict.fromkeys(self.features)
        text, words = self.pair(instruction, response)
        said = yield [To(self, Reading(text, words), 0), To(self, Reading(text), 1)]
        behind, alone = (_surprise(one) for one in said)
        ratio = None if behind is None or alone is None else behind - alone
        values = map(_exponential, (ratio, behind, alone))
        return dict(zip(self.features, values, strict=True))


def _surprise(said: Said | None) -> float | None:
    """Return the mean of a text's negative log-probabilities; null where it is not told."""
    if said is None or said.logprob_sum is None or not said.logprob_count:
        return None
    return -said.logprob_sum / said.logprob_count


def _exponential(value: float | None) -> float | None:
    try:
        return None if value is None else math.exp(value)
    except OverflowError:
        return None
