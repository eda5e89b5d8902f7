"""Pass 2: instruction -> response."""

from collections.abc import Sequence
from dataclasses import replace

from prequery.draws import draw
from prequery.endpoint import Request
from prequery.prefix import Prefix
from prequery.recipe import Recipe
from prequery.slots import Slot


def kind(recipe: Recipe, prefix: Prefix) -> Request:
    """Return what every request for a response has in common."""
    return Request(
        prompt="",
        sampling=recipe.responses,
        stop=prefix.response_stop,
        control=prefix.thinks_in_control_tokens,
    )


def request(
    recipe: Recipe,
    prefix: Prefix,
    slot: Slot,
    instruction: str,
    turns: Sequence[tuple[str, str]] = (),
    choice: int = 0,
) -> Request:
    """Return what to ask for a response.

    Args:
        recipe: What to build.
        prefix: Of the model that writes responses.
        slot: The attempt.
        instruction: Without white space around it: some templates trim a user's words and some
            do not, and only trimmed words are the same to both.
        turns: Instruction and response of the turns so far.
        choice: Which of several responses to one instruction; each has a seed of its own.
    """
    greedy = recipe.responses.temperature is None
    seed = None if greedy else draw(recipe.fingerprint, slot.number, "response", len(turns), choice)
    prompt = prefix.ask_response(instruction, turns, system(recipe, slot))
    return replace(kind(recipe, prefix), prompt=prompt, seed=seed)


def system(recipe: Recipe, slot: Slot) -> str | None:
    """Return the steering system prompt where responses are asked for under it."""
    return slot.system if recipe.steering == "released" else None
