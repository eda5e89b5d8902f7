"""What one attempt at a row draws: its setting, its steering, and how many turns it will have."""

from collections.abc import Sequence
from dataclasses import dataclass

from prequery.draws import choose
from prequery.recipe import DEFAULT, Recipe, Setting
from prequery.recipe.parts import ITEM


@dataclass(frozen=True)
class Slot:
    """One attempt at a row.

    Args:
        number: 0 or more.
        setting: How its instructions are asked for.
        item: What it drew of the setting's items; null where there are none.
        system: Steering system prompt; null: the template's own is left as it is.
        start: First words of the instruction; empty where the model chooses them.
        turns: User turns, 1 or more.
    """

    number: int
    setting: Setting
    item: str | None
    system: str | None
    start: str
    turns: int


def draw(recipe: Recipe, number: int) -> Slot:
    """Draw for one slot. A function of the recipe's fingerprint and the number alone."""

    def of(weights: Sequence[float], purpose: str) -> int:
        return choose(recipe.fingerprint, number, weights, purpose)  # type: ignore[arg-type]

    settings = recipe.instructions
    setting = settings[of([one.weight for one in settings], "setting")]
    items = setting.items
    item = items[of([1.0] * len(items), "item")] if items else None

    def filled(text: str) -> str:
        return text if item is None else text.replace(ITEM, item)

    turns = recipe.turns
    return Slot(
        number=number,
        setting=setting,
        item=item,
        system=None if setting.system == DEFAULT else filled(setting.system),
        start=filled(setting.start or ""),
        turns=turns if isinstance(turns, int) else of(turns, "turns") + 1,
    )
