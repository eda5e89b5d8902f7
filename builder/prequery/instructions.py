"""Pass 1: prefix -> instruction."""

from prequery.draws import choose, draw
from prequery.endpoint import Request
from prequery.prefix import Prefix
from prequery.recipe import Recipe, Setting


def setting(recipe: Recipe, slot: int) -> Setting:
    """Return the setting that a slot drew."""
    weights = [one.weight for one in recipe.instructions]
    return recipe.instructions[choose(recipe.fingerprint, slot, weights)]


def request(recipe: Recipe, prefix: Prefix, slot: int) -> Request:
    """Return what to ask for a slot's instruction."""
    return Request(
        prompt=prefix.text,
        sampling=setting(recipe, slot),
        seed=draw(recipe.fingerprint, slot, "instruction"),
        stop=prefix.stop,
    )
