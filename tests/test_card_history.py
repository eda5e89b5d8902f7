"""The versions on a card: what changed in the data, taken from the release before."""

import json
from pathlib import Path

import pytest

import judged_release as judged
from prequery import cards, recipe
from prequery.card import history, sections
from prequery.card.history import Version
from prequery.errors import CardError

NEXT = recipe.read(
    judged.TEXT.replace("version: 1.2.0", "version: 1.3.0")
    .replace("  - repetition\n", "")
    .replace("not response_loop, ", ""),
    "chat.yaml",
)


def versions(place: Path) -> str:
    section = sections.section_of((place / "README.md").read_text(), "chat") or ""
    return section.split("## Versions\n")[1].split("\n## ")[0]


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """A release, and the next version of it without one of its columns."""
    first, second = tmp_path / "first", tmp_path / "second"
    judged.write(first, [judged.row(slot) for slot in range(30)])
    judged.write(second, [judged.row(slot) for slot in range(20)], NEXT)
    return first, second


def test_a_first_version_says_that_no_earlier_one_is_noted(two: tuple[Path, Path]) -> None:
    assert "| `1.2.0` | 30 | no earlier version is noted |" in versions(two[0])
    assert not (two[0] / "chat.history.json").exists()


def test_a_next_version_says_what_changed_and_keeps_the_first(two: tuple[Path, Path]) -> None:
    first, second = two

    cards.rewrite(str(second), previous=str(first), notes=["10 rows removed by hand"])

    assert (
        "| `1.3.0` | 20 | `10 rows removed by hand`<br>"
        "`10 rows removed (10: the columns cannot tell).`<br>"
        "`Fields removed: instruction_repetition_ratio, instruction_loop, "
        "response_repetition_ratio, response_loop.`<br>"
        "`Column repetition: version 1 before, none now.` |\n"
    ) in versions(second)
    assert "| `1.2.0` | 30 | no earlier version is noted |" in versions(second)
    assert [one.found for one in cards.check(str(second))] == [()]


def test_noting_it_again_changes_nothing(two: tuple[Path, Path]) -> None:
    first, second = two
    cards.rewrite(str(second), previous=str(first))
    before = (second / "README.md").read_bytes(), (second / "chat.history.json").read_bytes()

    cards.rewrite(str(second), previous=str(first))

    assert ((second / "README.md").read_bytes(), (second / "chat.history.json").read_bytes()) == (
        before
    )


def test_a_version_is_told_on_by_those_behind_it(two: tuple[Path, Path], tmp_path: Path) -> None:
    first, second = two
    cards.rewrite(str(second), previous=str(first), notes=["one thing"])
    text = judged.TEXT.replace("version: 1.2.0", "version: 2.0.0").replace("seed: 7", "seed: 8")
    third = tmp_path / "third"
    judged.write(third, [judged.row(slot) for slot in range(5)], recipe.read(text, "chat.yaml"))

    cards.rewrite(str(third), previous=str(second))

    told = json.loads((third / "chat.history.json").read_text())
    assert [one["version"] for one in told] == ["2.0.0", "1.3.0", "1.2.0"]
    assert told[0]["changes"][-1] == "Column repetition: none before, version 1 now."
    assert told[1]["changes"][0] == "one thing"
    assert told[2]["changes"] == []


def test_a_hostile_change_stays_in_its_cell(two: tuple[Path, Path]) -> None:
    first, second = two

    cards.rewrite(str(second), previous=str(first), notes=["a | b ``` <script>\n---\n# x"])

    assert r"| `1.3.0` | 20 | ````a \| b ``` <script>\n---\n# x````<br>`10 rows" in versions(second)
    assert [one.found for one in cards.check(str(second))] == [()]


@pytest.mark.parametrize(
    "text", ["{", "{}", '[{"version": 1}]', '[{"version": "1", "rows": true}]']
)
def test_a_damaged_history_is_refused(two: tuple[Path, Path], text: str) -> None:
    first, second = two
    (first / "chat.history.json").write_text(text if text != "{}" else '{"a": 1}')

    with pytest.raises(CardError, match="the history of versions is damaged"):
        cards.rewrite(str(second), previous=str(first))


def test_a_history_comes_back_as_it_was_written() -> None:
    known = (Version("1.1.0", 3, ("x", "é")), Version("1.0.0", 2, ()))

    assert history.read(history.dump(known), "here") == known
