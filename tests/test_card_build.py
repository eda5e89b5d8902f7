"""The card of a build: what a folder already says is kept, and what is broken is said first."""

from pathlib import Path

import pytest

from prequery import Magpie, cards
from prequery.card import sections
from prequery.errors import CardError
from prequery.options import Options
from prequery.transport import Patience
from scripted_tgi import ScriptedTgi, recipe_text

AT_ONCE = Patience(first_wait_s=0, longest_wait_s=0)
HAND = "# Our data\n\nWords of ours,  with two spaces.\n\n"


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREQUERY_HOME", str(tmp_path / "home"))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    place = tmp_path / "out"
    place.mkdir()
    return place


def build(server: ScriptedTgi, out: Path, **changed: str) -> None:
    recipe = out.parent / f"{changed.get('name', 'scripted')}.yaml"
    recipe.write_text(recipe_text(rows=5, **changed))
    options = Options(endpoints=(server.url,), patience=AT_ONCE)
    Magpie(recipe, options=options).download_and_prepare(out, file_format="parquet")


def test_two_configs_are_built_into_one_folder_with_hand_written_words(out: Path) -> None:
    (out / "README.md").write_text(HAND)

    with ScriptedTgi().serving() as server:
        build(server, out)
        build(server, out, name="other", seed="4")

    readme = (out / "README.md").read_text()
    assert HAND in readme
    assert sections.names(readme) == ["scripted", "other"]
    assert [(one.config, one.found) for one in cards.check(str(out))] == [
        ("other", ()),
        ("scripted", ()),
    ]


@pytest.mark.parametrize(
    ("readme", "what"),
    [
        ("---\na: [\n---\n", "the YAML block is broken"),
        ("<!-- prequery: begin scripted -->\n", "the section of scripted has no end"),
        (b"\xff\xfe", "the README is not UTF-8: byte 0 is 0xff"),
    ],
)
def test_a_broken_readme_is_said_before_anything_is_asked(
    out: Path, readme: str | bytes, what: str
) -> None:
    content = readme if isinstance(readme, bytes) else readme.encode()
    (out / "README.md").write_bytes(content)

    with ScriptedTgi().serving() as server, pytest.raises(CardError, match=what):
        build(server, out)

    assert server.asked.total() == 0
    assert (out / "README.md").read_bytes() == content


def test_a_recipe_brings_its_own_template(out: Path) -> None:
    (out.parent / "mine.jinja").write_text(
        "# Mine\n\n{{ facts.rows }} rows of {{ recipe.name }}.\n"
    )

    with ScriptedTgi().serving() as server:
        build(server, out, release="{template: mine.jinja}")

    section = sections.section_of((out / "README.md").read_text(), "scripted")
    assert section == "\n# Mine\n\n5 rows of `scripted`.\n\n"
    (out.parent / "mine.jinja").unlink()
    assert [one.found for one in cards.check(str(out))] == [()]


@pytest.mark.parametrize(
    ("template", "what"),
    [
        (None, "the card's template cannot be read: No such file or directory"),
        ("{% for %}", "the card's template is no Jinja"),
    ],
)
def test_a_broken_template_is_said_before_anything_is_asked(
    out: Path, template: str | None, what: str
) -> None:
    if template is not None:
        (out.parent / "mine.jinja").write_text(template)

    with ScriptedTgi().serving() as server, pytest.raises(CardError, match=what):
        build(server, out, release="{template: mine.jinja}")

    assert server.asked.total() == 0


def test_a_template_that_a_recipe_no_longer_names_is_gone(out: Path) -> None:
    (out.parent / "mine.jinja").write_text("# Mine\n")

    with ScriptedTgi().serving() as server:
        build(server, out, release="{template: mine.jinja}")
        (out / "scripted.lock.json").unlink()
        build(server, out)

    assert not (out / "scripted.card.jinja").exists()
    assert "## How it was made" in (out / "README.md").read_text()
