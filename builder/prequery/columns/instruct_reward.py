"""Reward of a response, from a model that was trained to prefer."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, ClassVar

from prequery.columns.base import QuestionColumn, Score
from prequery.errors import ColumnError


@dataclass(frozen=True, kw_only=True)
class InstructReward(QuestionColumn):
    """Raw score of a reward model for the response to the instruction.

    Args:
        judge: One of the recipe's judges whose endpoint scores: text-embeddings-inference with a
            sequence classification model.
        text: What is scored, with `{instruction}` and `{response}` in it, as the reward model was
            trained to see them; empty scores the two as a pair.
        label: Whose score counts, where the model gives several; empty: it gives one.

    Source:
        MAGPIE, arXiv 2406.08464, 3.2: FsfairX-LLaMA3-RM-v0.1, raw score. Null means that the model
        refused the row, or gave no such score.
    """

    name: ClassVar[str] = "instruct_reward"
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ("instruction", "response")
    features: ClassVar[Mapping[str, str]] = {"instruct_reward": "float64", "reward_model": "string"}

    asks: ClassVar[type[Score]] = Score

    text: str = ""
    label: str = ""

    def __post_init__(self) -> None:
        missing = [name for name in ("{instruction}", "{response}") if name not in self.text]
        if self.text and missing:
            raise ColumnError(
                f"text has no {missing[0]}",
                "column 'instruct_reward'",
                "write both where they go, or leave text out to score them as a pair",
            )

    def ask(self, row: Mapping[str, Any]) -> Score | None:
        """Return the pair, or the one text that holds both."""
        instruction, response = row["instruction"], row["response"]
        if instruction is None or response is None:
            return None
        if not self.text:
            return Score(instruction, response)
        # In one pass: an instruction that holds "{response}" is no place for it.
        before, _, behind = self.text.partition("{instruction}")
        parts = [part.replace("{response}", response) for part in (before, behind)]
        return Score(instruction.join(parts))

    def read(self, said: str, model: str) -> dict[str, Any]:
        """Return the score that counts."""
        scores = {one["label"]: one["score"] for one in json.loads(said)}
        chosen = scores.get(self.label) if self.label else None
        if not self.label and len(scores) == 1:
            (chosen,) = scores.values()
        if chosen is None or not isfinite(chosen):
            return {"instruct_reward": None, "reward_model": model}
        return {"instruct_reward": float(chosen), "reward_model": model}
