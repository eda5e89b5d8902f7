"""What a slot draws: a function of fingerprint and number, in the shares that were asked for."""

from collections import Counter

from prequery import slots
from prequery.recipe import Recipe, read
from scripted_tgi import recipe_text

STEERED = """
  - {weight: 3, temperature: [0.8, 1.0], top_p: [0.9, 1.0, 0.95], max_new_tokens: 64}
  - {weight: 1, name: topics, temperature: 1.1, max_new_tokens: 64, start: "About {item}:",
     system: "Ask about {item}.", items: [bread, rivers, maps]}"""


def recipe(**changed: str) -> Recipe:
    return read(recipe_text(**changed), "r.yaml")


def test_a_list_stands_for_a_setting_of_each_combination_and_shares_the_weight() -> None:
    made = recipe(instructions=STEERED)

    grid = [(s.temperature, s.top_p, s.weight) for s in made.instructions]

    assert grid == [
        *((t, p, 0.5) for t in (0.8, 1.0) for p in (0.9, None, 0.95)),
        (1.1, None, 1.0),
    ]


def test_slots_choose_settings_items_and_turns_in_their_shares() -> None:
    made = recipe(instructions=STEERED, turns="[1, 0, 3]")

    drawn = [slots.draw(made, number) for number in range(4000)]

    steered = [slot for slot in drawn if slot.setting.name == "topics"]
    items = Counter(slot.item for slot in steered)
    turns = Counter(slot.turns for slot in drawn)
    assert abs(len(steered) - 1000) < 120  # over four standard deviations
    assert set(items) == {"bread", "rivers", "maps"}
    assert all(abs(count - len(steered) / 3) < 70 for count in items.values())
    assert set(turns) == {1, 3}
    assert abs(turns[1] - 1000) < 120


def test_an_item_stands_where_the_recipe_says() -> None:
    made = recipe(instructions=STEERED)
    slot = next(s for s in (slots.draw(made, n) for n in range(100)) if s.item == "maps")

    assert (slot.system, slot.start) == ("Ask about maps.", "About maps:")


def test_a_plain_setting_steers_nothing() -> None:
    slot = slots.draw(recipe(), 5)

    assert (slot.item, slot.system, slot.start, slot.turns) == (None, None, "", 1)


def test_names_responses_compared_and_think_blocks_change_no_fingerprint() -> None:
    named = "[{temperature: 0.8, top_p: 0.95, max_new_tokens: 64, name: plain}]"

    assert recipe().fingerprint == recipe(instructions=named, think="strip").fingerprint
    assert recipe().build_hash != recipe(instructions=named).build_hash
    assert recipe().build_hash != recipe(think="strip").build_hash


def test_what_decides_an_answer_changes_the_fingerprint() -> None:
    one = "{{temperature: 0.8, top_p: 0.95, max_new_tokens: 64, {}}}"
    texts = [
        recipe_text(),
        *(
            recipe_text(instructions="[" + one.format(key) + "]")
            for key in ("system: Ask.", "start: How", "first_temperature: 1.2", "heading: false")
        ),
        recipe_text(turns="2"),
        recipe_text(turns="2", follow_up="{system: You are the user.}"),
        recipe_text(steering="released"),
    ]

    assert len({read(text, "r.yaml").fingerprint for text in texts}) == len(texts)
