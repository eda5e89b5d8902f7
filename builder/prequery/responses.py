"""Pass 2: instruction -> response."""

from prequery.draws import draw
from prequery.endpoint import Request
from prequery.prefix import Prefix
from prequery.recipe import Recipe


def request(recipe: Recipe, prefix: Prefix, slot: int, instruction: str) -> Request:
    """Return what to ask for a slot's response.

    Args:
        recipe: What to build.
        prefix: Of the served model.
        slot: The attempt.
        instruction: Without white space around it: some templates trim a user's words and some
            do not, and only trimmed words are the same to both.
    """
    greedy = recipe.responses.temperature is None
    return Request(
        prompt=prefix.ask_response(instruction),
        sampling=recipe.responses,
        seed=None if greedy else draw(recipe.fingerprint, slot, "response"),
        stop=prefix.stop,
    )
