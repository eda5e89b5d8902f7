"""Reward of the response against that of a base model's answer to the same instruction."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from prequery.columns.base import Inquiry, JudgeColumn, Score, To
from prequery.columns.base_response import BaseResponse
from prequery.columns.instruct_reward import InstructReward


@dataclass(frozen=True, kw_only=True)
class RewardDifference(JudgeColumn):
    """How much more reward the response gets than a base model's answer.

    `reward_difference` is the reward of the response minus `base_reward`, in the reward model's own
    raw units: over 0, alignment helped. Null: one of the two has no reward, or the base model wrote
    nothing.

    It asks as `instruct_reward` and `base_response` do, into their journals: beside these columns
    it costs the reward of the base model's answer alone. They must have the same parameters.

    Args:
        judge: As of `instruct_reward`: the reward model.
        base: As of `base_response`: the base model.
        text: As of `instruct_reward`.
        label: As of `instruct_reward`.
        max_new_tokens: As of `base_response`.

    Source:
        MAGPIE, arXiv 2406.08464, 3.2: r* - r_base. See `base_response` for how we differ.
    """

    name: ClassVar[str] = "reward_difference"
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ("instruction", "response")
    features: ClassVar[Mapping[str, str]] = {
        "reward_difference": "float64",
        "base_reward": "float64",
    }
    asks: ClassVar[type[Score]] = Score

    base: str
    text: str = ""
    label: str = ""
    max_new_tokens: int = 1024

    def __post_init__(self) -> None:
        self.askers()  # their parameters are checked by them

    def askers(self) -> tuple[JudgeColumn, ...]:
        """Return those whose answers it compares, and itself."""
        return (self._reward, self._base, self)

    def inquire(self, row: Mapping[str, Any]) -> Inquiry:
        """Have both written and ours scored, then theirs."""
        nothing = dict.fromkeys(self.features)
        ours, theirs = self._reward.ask(row), self._base.ask(row)
        if ours is None or theirs is None:
            return nothing
        scored, written = yield [To(self._reward, ours), To(self._base, theirs)]
        if scored is None or written is None or not written.text.strip():
            return nothing
        answered = {"instruction": row["instruction"], "response": written.text.strip()}
        question = self._reward.ask(answered)
        assert question is not None
        (base_scored,) = yield [To(self, question)]
        if base_scored is None:
            return nothing
        one, other = (
            self._reward.read(said.text, said.model)["instruct_reward"]
            for said in (scored, base_scored)
        )
        difference = None if one is None or other is None else one - other
        return {"reward_difference": difference, "base_reward": other}

    def pins(self) -> dict[str, str]:
        """What the base model is shown."""
        return self._base.pins()

    @cached_property
    def _reward(self) -> InstructReward:
        return InstructReward(judge=self.judge, text=self.text, label=self.label)

    @cached_property
    def _base(self) -> BaseResponse:
        return BaseResponse(judge=self.base, max_new_tokens=self.max_new_tokens)
