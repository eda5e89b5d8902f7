"""Plots: every bar is a count of the files, and the same facts give the same bytes."""

import re
from collections import Counter
from xml.etree import ElementTree

import numpy as np
import pytest

import judged_release as judged
from prequery import card, recipe
from prequery.card import Card, facts, svg

RELEASED = [judged.row(slot) for slot in range(400)]
FILES = {"chat/train-00000-of-00001.parquet": {"bytes": 1, "rows": 400, "sha256": "cd" * 32}}
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def made() -> Card:
    lock = judged.finished(FILES, {"cut off at max_new_tokens": 20})
    return card.make(judged.RECIPE, lock, card.measure([judged.table(RELEASED)]))


def pictures(made: Card) -> dict[str, str]:
    return {path: text for path, text in made.files.items() if path.endswith(".svg")}


def tips(picture: str) -> dict[str, int]:
    """Return what a plot's boxes tell: a label and its count."""
    root = ElementTree.fromstring(picture)
    texts = [
        title.text or "" for box in root.iter(f"{SVG}rect") for title in box.iter(f"{SVG}title")
    ]
    told = [re.match(r"(.*): ([\d,]+)", text) for text in texts]
    return {found[1]: int(found[2].replace(",", "")) for found in told if found}


def test_a_release_with_judges_has_five_plots(made: Card) -> None:
    names = ("lengths", "distance", "languages", "categories", "difficulty_quality")

    assert [path for path in made.files if path.endswith(".svg")] == [
        f"plots/chat/{name}.svg" for name in names
    ]
    for path in pictures(made):
        assert f"]({path})" in made.readme


def test_bars_are_the_counts_of_the_rows(made: Card) -> None:
    for name, field in (("categories", "task_category"), ("languages", "language")):
        expected = Counter(row[field] for row in RELEASED)
        assert tips(made.files[f"plots/chat/{name}.svg"]) == dict(expected)


def test_the_grid_counts_pairs(made: Card) -> None:
    pairs = Counter(f"{row['difficulty']}, {row['input_quality']}" for row in RELEASED)

    told = tips(made.files["plots/chat/difficulty_quality.svg"])

    assert len(told) == 25
    assert {pair: count for pair, count in told.items() if count} == dict(pairs)


def test_a_histograms_bins_hold_every_row_once() -> None:
    measured = card.measure([judged.table(RELEASED)])

    for name in facts.HISTOGRAMS:
        field = measured.field(name)
        assert field is not None
        assert field.histogram is not None
        values = [row[name] for row in RELEASED]
        edges, counts = field.histogram.edges, field.histogram.counts
        assert sum(counts) == 400
        assert edges[0] <= min(values) < edges[1]
        assert edges[-2] <= max(values) <= edges[-1]
        for place, count in enumerate(counts[:-1]):
            inside = [v for v in values if edges[place] <= v < edges[place + 1]]
            assert len(inside) == count


@pytest.mark.parametrize("value", [0.0, 0.25, 1.0, 7.0, 2048.0, -3.5])
def test_equal_values_make_one_bin(value: float) -> None:
    for grows in (False, value >= 0):
        found = facts._histogram(np.array([value] * 3), grows=grows)

        assert found is not None
        assert sum(found.counts) == 3
        assert found.edges[0] <= value <= found.edges[-1]


def test_pictures_repeat_byte_for_byte_however_rows_are_cut(made: Card) -> None:
    lock = judged.finished(FILES, {"cut off at max_new_tokens": 20})
    parts = [judged.table(RELEASED[start : start + 70]) for start in range(0, 400, 70)]

    again = card.make(judged.RECIPE, lock, card.measure(parts))

    assert again.files == made.files


def test_a_picture_is_a_few_kilobytes(made: Card) -> None:
    assert max(len(picture) for picture in pictures(made).values()) < 16_000


def test_the_top_of_an_axis_is_round_and_near() -> None:
    for count in (*range(1, 2_000), 10**6, 10**6 + 1, 999_999):
        top = svg._round_up(count)

        assert top % 2 == 0
        assert count <= top <= max(1.34 * count, 2)
        assert len(str(top).rstrip("0")) <= 2


def test_one_value_alone_has_no_bar() -> None:
    released = [judged.row(slot, language="en", task_category="Math") for slot in range(3)]
    lock = judged.finished({"f": {"bytes": 1, "rows": 3, "sha256": ""}}, {})

    made = card.make(judged.RECIPE, lock, card.measure([judged.table(released)]))

    names = [path.rpartition("/")[2] for path in pictures(made)]
    assert names == ["lengths.svg", "distance.svg", "difficulty_quality.svg"]


def test_a_hostile_value_stays_a_label() -> None:
    hostile = "</text><script>alert(1)</script>&\x00\x1b\u202e\ufffe"
    released = [judged.row(slot, task_category=hostile, difficulty=hostile) for slot in range(2)]
    released.append(judged.row(2, task_category="Math"))
    lock = judged.finished({"f": {"bytes": 1, "rows": 3, "sha256": ""}}, {})

    made = card.make(judged.RECIPE, lock, card.measure([judged.table(released)]))

    for picture in pictures(made).values():
        tags = {element.tag for element in ElementTree.fromstring(picture).iter()}
        assert tags <= {f"{SVG}{tag}" for tag in ("svg", "title", "rect", "path", "text")}


def test_the_terms_of_every_model_are_on_the_card(made: Card) -> None:
    assert "[Gemma Terms of Use](https://ai.google.dev/gemma/terms)" in made.readme
    assert "- Llama 3.3 Community License: A model that is trained on this data" in made.readme
    assert "says prominently: Built with Llama" in made.readme
    assert "\nlicense:\n- gemma\n- llama3.3\n" in made.readme
    assert "\nlicense: " not in made.readme.split("\n---\n")[0]


def test_what_columns_found_in_the_rows_is_counted_among_the_limitations() -> None:
    text = judged.TEXT.replace("  - repetition\n", "  - personal_data\n  - refusal\n")
    built = recipe.read(text.replace("not response_loop, ", ""), "chat.yaml")
    kinds = ["", "email", "email,iban", None]
    released = [
        dict.fromkeys(built.dtypes)
        | judged.row(slot)
        | {"response_personal_data_kinds": kinds[slot], "response_refusal": ""}
        for slot in range(4)
    ]
    lock = judged.finished({"f": {"bytes": 1, "rows": 4, "sha256": ""}}, {}, built)

    made = card.make(built, lock, card.measure([judged.table(released, built)]))

    assert (
        "- Found: 2 responses hold what looks like personal data or a key (50.0 %).\n"
        "- Found: 0 responses refuse, by their English phrases (0.0 %).\n" in made.readme
    )
    assert (
        "2 of 4 responses hold what has the form of personal data"
        in (made.files["chat.croissant.json"])
    )
