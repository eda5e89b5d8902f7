"""What the fields of a row are, and what they mean, each in one phrase."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from prequery import rows
from prequery.lock import Lock
from prequery.recipe import Annotation, AnyRecipe

if TYPE_CHECKING:
    from datasets import Features

FIELDS: Mapping[str, str] = {
    "id": "fingerprint of the recipe and slot of the attempt; the same in every rebuild",
    "messages": "instruction and response as a conversation, as trainers take it",
    "prompt": "the instruction, as trainers of preferences take it",
    "chosen": "the response with the highest score",
    "rejected": "the response with the lowest score",
    "instruction": "what the model wrote in the user's place, in the first turn",
    "response": "what the model answered to it; in a preference config, the chosen one",
    "generator": "model and revision that wrote the instructions",
    "responder": "model and revision that wrote the responses",
    "system_prompt": "under which the instruction was written; null: none",
    "steering": "name of the recipe's setting; null: it has none",
    "steering_item": "item that the slot drew; null: the setting has none",
    "instruction_start": "first words that the model was given; null: none",
    "turns": "pairs of instruction and response in the conversation",
    "turns_ended": "why there are fewer turns than were drawn; null: there are not",
    "follow_up_system": "system prompt of later user turns; null: none, or not released",
    "thinking": "think block of each response; null: not split off",
    "instruction_temperature": "of the setting that the slot drew; null: greedy",
    "instruction_top_p": "of the setting that the slot drew; null: the whole vocabulary",
    "instruction_seed": "sent with the request; null: greedy",
    "response_seed": "sent with the request; null: greedy",
    "instruction_tokens": "as the endpoint counted them",
    "response_tokens": "as the endpoint counted them",
    "instruction_finish_reason": "why the model stopped",
    "response_finish_reason": "why the model stopped; length: it was cut off",
    "chosen_score": "of the chosen response, in the field that the recipe names",
    "rejected_score": "of the rejected response",
    "score_margin": "the difference of both",
    "scores": "of every response to the instruction; null: it has none",
    "rejected_seed": "sent with the request of the rejected response",
}
"""What the fields that every release has mean, each in one phrase."""

GIVEN: Mapping[str, str] = {
    "id": "fingerprint of the recipe and number of the row in the dataset, from 0",
    "messages": "the conversation, as trainers take it; null: the dataset has none, or half of it",
    "instruction": "what the user says first",
    "response": "what the assistant answers to it; null: nothing",
    "turns": "how often the user speaks",
}
"""What our fields mean in rows of somebody else's dataset."""


def features(recipe: AnyRecipe, lock: Lock) -> "Features":
    """Return the released schema, of which somebody's dataset has its part."""
    if isinstance(recipe, Annotation):
        from datasets import Features

        return Features._from_yaml_list(lock["dataset"]["features"])
    return rows.features(recipe.dtypes, recipe.shape)
