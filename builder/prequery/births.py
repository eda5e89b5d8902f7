"""A row as its answers make it, before any column measures it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from prequery import responses, rows
from prequery.conversation import Attempt, Turn
from prequery.endpoint import Answer
from prequery.recipe import Generator, Recipe
from prequery.voices import Voices

if TYPE_CHECKING:
    from datasets import Features

Flat = dict[str, Any]
"""A row's fields with its evidence, before columns."""

Check = Callable[[Sequence[rows.Row]], None]


class Births(Protocol):
    """What the candidates of one build become."""

    def features(self, columns: Mapping[str, str]) -> "Features":
        """Return the schema of its rows with these columns."""

    def row(self, attempt: Any, choice: Any) -> Flat:
        """Return the row that one choice of a candidate makes, before any column."""

    def check(self, columns: Mapping[str, str]) -> Check | None:
        """Return what holds finished rows against the schema; null: Arrow does."""


@dataclass(frozen=True)
class Written:
    """Rows that models wrote.

    Args:
        recipe: By which they did.
        voices: The models.
    """

    recipe: Recipe
    voices: Voices

    def features(self, columns: Mapping[str, str]) -> "Features":
        """Return the released schema."""
        return rows.features(columns, self.recipe.shape)

    def check(self, columns: Mapping[str, str]) -> Check:
        """Return what holds finished rows against the released schema."""
        return partial(rows.check, columns=columns, shape=self.recipe.shape)

    def row(self, attempt: Attempt, first: Turn) -> Flat:
        """Return a conversation that begins with this turn, before any column."""
        recipe, drawn = self.recipe, attempt.drawn
        turns = (first, *attempt.later)
        instruction, response = first.instruction, first.response
        said = [(turn.instruction.text.strip(), self._response(turn)) for turn in turns]
        follow_up = recipe.follow_up
        tells = follow_up is not None and follow_up.release and attempt.later
        return {
            "id": rows.id_of(recipe.fingerprint, attempt.slot),
            "messages": rows.messages(said, responses.system(recipe, drawn)),
            "instruction": said[0][0],
            "response": said[0][1],
            "generator": name(recipe.generator),
            "responder": name(recipe.responder or recipe.generator),
            "system_prompt": drawn.system or self.voices.generator.prefix.system_prompt,
            "steering": drawn.setting.name,
            "steering_item": drawn.item,
            "instruction_start": drawn.start or None,
            "turns": len(turns),
            "turns_ended": attempt.ended,
            "follow_up_system": follow_up.system if follow_up and tells else None,
            "thinking": [turn.reply.thought for turn in turns] if recipe.think == "split" else None,
            "instruction_temperature": drawn.setting.temperature,
            "instruction_top_p": drawn.setting.top_p,
            "instruction_seed": instruction.seed,
            "response_seed": response.seed,
            "instruction_tokens": instruction.generated_tokens,
            "response_tokens": response.generated_tokens,
            "instruction_finish_reason": instruction.finish_reason,
            "response_finish_reason": response.finish_reason,
            **_evidence("instruction", instruction),
            **_evidence("response", response),
        }

    def _response(self, turn: Turn) -> str:
        """Return what is released of a response."""
        if self.recipe.think == "keep":
            return self.voices.responder.whole(turn.response.text)
        return turn.reply.words


def name(model: Generator) -> str:
    """Return a model as rows name it."""
    return f"{model.model}@{model.revision}"


def _evidence(part: str, answer: Answer) -> Flat:
    return {
        f"{part}_logprob_sum": answer.logprob_sum,
        f"{part}_logprob_squares": answer.logprob_squares,
        f"{part}_logprob_lowest": answer.logprob_min,
        f"{part}_logprob_count": answer.logprob_count,
    }
