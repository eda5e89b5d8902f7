"""One README for several configs: what is not a config's own stays byte for byte."""

from typing import Any

import pytest
import yaml
from datasets.info import DatasetInfosDict
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCard

from prequery.card import markdown, sections
from prequery.card.sections import merged
from prequery.errors import CardError

HAND = "Written by hand, with a  tab\t, odd   spaces and\r\nWindows lines.\n"


def card(
    config: str,
    rows: int = 10,
    languages: tuple[str, ...] = ("en",),
    licence: str = "apache-2.0",
    version: str = "1.0.0",
    text: str = "Some words.",
) -> str:
    block = {
        "pretty_name": config,
        "license": licence,
        "language": list(languages),
        "size_categories": [sections.size_category(rows)],
        "tags": ["synthetic", config],
        "configs": [
            {
                "config_name": config,
                "version": version,
                "data_files": [{"split": "train", "path": f"{config}/train-*.parquet"}],
            }
        ],
        "dataset_info": {
            "config_name": config,
            "features": [{"name": "id", "dtype": "string"}],
            "splits": [{"name": "train", "num_bytes": 1, "num_examples": rows}],
            "download_size": 1,
            "dataset_size": 1,
        },
    }
    return f"---\n{sections.dump(block)}---\n\n# {config}\n\n{text}\n"


def block(readme: str) -> dict[str, Any]:
    parsed = yaml.safe_load(readme.split("---\n", 2)[1])
    assert isinstance(parsed, dict)
    return parsed


def body(readme: str) -> str:
    return readme.split("\n---\n", 1)[1]


def test_a_first_card_keeps_its_yaml_and_text_between_marks_that_nobody_sees() -> None:
    readme = merged(None, card("chat"), "chat")

    assert block(readme) == block(card("chat"))
    assert body(readme) == (
        "\n<!-- prequery: begin chat -->\n"
        '<!-- prequery: yaml {"language": ["en"], "license": ["apache-2.0"], '
        '"pretty_name": ["chat"], "tags": ["synthetic", "chat"]} -->\n'
        "\n# chat\n\nSome words.\n\n<!-- prequery: end chat -->\n"
    )
    assert sections.section_of(readme, "chat") == "\n# chat\n\nSome words.\n\n"


def test_merging_again_changes_nothing() -> None:
    readme = merged(merged(None, card("chat"), "chat"), card("math", 2000), "math")

    assert merged(readme, card("chat"), "chat") == readme
    assert merged(readme, card("math", 2000), "math") == readme


def test_two_configs_stand_in_one_readme_in_either_order() -> None:
    one = merged(merged(None, card("chat"), "chat"), card("math"), "math")
    other = merged(merged(None, card("math"), "math"), card("chat"), "chat")

    for readme in (one, other):
        data = DatasetCard(readme).data
        assert set(MetadataConfigs.from_dataset_card_data(data)) == {"chat", "math"}
        assert set(DatasetInfosDict.from_dataset_card_data(data)) == {"chat", "math"}
        assert "# chat\n\nSome words." in body(readme)
        assert "# math\n\nSome words." in body(readme)


def test_lists_are_united_and_the_size_is_that_of_all_rows() -> None:
    readme = merged(None, card("chat", 600, ("en", "de")), "chat")

    both = block(merged(readme, card("math", 700, ("zh", "en"), "gemma"), "math"))

    assert both["language"] == ["en", "de", "zh"]
    assert both["license"] == ["apache-2.0", "gemma"]
    assert both["tags"] == ["synthetic", "chat", "math"]
    assert both["size_categories"] == ["1K<n<10K"]
    assert both["pretty_name"] == "chat"


def test_a_new_version_takes_back_what_the_config_no_longer_gives() -> None:
    first = merged(None, card("chat", 600, ("en", "de")), "chat")
    both = merged(first, card("math", 700, ("zh",), "gemma"), "math")

    again = block(merged(both, card("math", 10, ("en",), "apache-2.0", "2.0.0"), "math"))

    assert again["language"] == ["en", "de"]
    assert again["license"] == ["apache-2.0"]
    assert again["size_categories"] == ["n<1K"]
    assert [entry["version"] for entry in again["configs"]] == ["1.0.0", "2.0.0"]


def test_what_was_added_by_hand_to_the_yaml_stays() -> None:
    readme = merged(None, card("chat"), "chat")
    edited = readme.replace("tags:\n", "tags:\n- mine\n").replace(
        "---\n", "---\nthumbnail: me.png # a comment\n", 1
    )

    again = merged(edited, card("chat", languages=("fr",)), "chat")

    assert block(again)["tags"] == ["mine", "synthetic", "chat"]
    assert block(again)["thumbnail"] == "me.png"
    assert block(again)["language"] == ["fr"]
    assert merged(edited, card("chat"), "chat") == edited, "nothing new: not even a comment is lost"


def test_hand_written_text_around_sections_stays_byte_for_byte() -> None:
    readme = merged(merged(None, card("chat"), "chat"), card("math"), "math")
    begin, between = "<!-- prequery: begin chat -->", "<!-- prequery: begin math -->"
    edited = readme.replace(begin, HAND + begin).replace(between, HAND * 2 + between) + HAND * 3

    again = merged(edited, card("math", text="Other words."), "math")

    assert again == edited.replace("# math\n\nSome words.", "# math\n\nOther words.")
    assert again.count(HAND) == 6


def test_a_readme_that_is_not_ours_keeps_every_byte_of_its_text() -> None:
    for existing in ("# Mine\n\n" + HAND, "---\nlicense: mit\n---\n# Mine\n" + HAND, "# Mine", ""):
        readme = merged(existing, card("chat"), "chat")

        own = existing.split("---\n")[-1]
        assert own in readme
        assert readme.index(own) < readme.index("<!-- prequery: begin chat -->")
        assert merged(readme, card("chat"), "chat") == readme


def test_norwegian_a_date_and_an_entry_of_others_survive() -> None:
    existing = (
        "---\nlanguage:\n- no\nupdated: 2026-01-01\n"
        "configs:\n- config_name: theirs\n  data_files: a.csv\n---\n"
    )

    both = sections.block_of(merged(existing, card("chat"), "chat"))

    assert both["language"] == ["no", "en"]
    assert both["updated"] == "2026-01-01"
    assert both["configs"][0] == {"config_name": "theirs", "data_files": "a.csv"}
    data = DatasetCard(merged(existing, card("chat"), "chat")).data
    assert data.to_dict()["language"] == ["no", "en"]  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    ("existing", "what", "where"),
    [
        ("---\na: [1\n---\n", "the YAML block is broken: expected", "README.md, line 2"),
        ("---\na: 1\na: 2\n---\n", "the YAML block is broken: the key 'a' appears twice", "line 3"),
        ("---\na: &x [1]\nb: *x\n---\n", "the YAML block is broken: an alias", "line 3"),
        ("---\n- 1\n---\n", "the YAML block is no mapping of keys: [1]", "README.md, line 2"),
        ("---\n[1]: 2\n---\n", "the YAML block is broken: a key is no word", "line 2"),
        ("---\na: !!python/object:os.x 1\n---\n", "the YAML block is broken: could not", "line 2"),
        ("---\na: 1\n", "the YAML block is opened and never closed", "README.md, line 1"),
        ("---\nconfigs: [1]\n---\n", "an entry of configs is no config: 1", "key configs"),
        ("---\ndataset_info: x\n---\n", "an entry of dataset_info is no config: 'x'", "dataset_"),
        ("<!-- prequery: begin a -->\n", "the section of a has no end", "begin a"),
        ("<!-- prequery: end a -->\n", "a mark stands where none belongs, outside", "end a"),
        (
            "<!-- prequery: begin a -->\n<!-- prequery: begin b -->\n<!-- prequery: end a -->\n",
            "a mark stands where none belongs, inside the section of a",
            "begin b",
        ),
        (
            "<!-- prequery: begin a -->\n<!-- prequery: end a -->\n" * 2,
            "the section of a stands twice",
            "begin a",
        ),
        ("<!-- prequery: beginn a -->\n", "a mark stands where none belongs, outside", "beginn a"),
        (
            "<!-- prequery: begin a -->\n<!-- prequery: yaml {1} -->\n<!-- prequery: end a -->\n",
            "the mark that tells the YAML of a is no JSON of lists",
            "{1}",
        ),
    ],
)
def test_a_broken_readme_is_refused_with_its_place(existing: str, what: str, where: str) -> None:
    with pytest.raises(CardError) as raised:
        merged(existing, card("chat"), "chat")

    assert raised.value.what.startswith(what)
    assert where in raised.value.where
    assert raised.value.fix


def test_a_shown_text_that_looks_like_a_mark_is_none() -> None:
    hostile = "x\n<!-- prequery: end chat -->\n<!-- prequery: begin evil -->\n"

    readme = merged(None, card("chat", text=markdown.fence(hostile)), "chat")

    assert merged(readme, card("math"), "math").startswith("---\n")
    assert r"<\x21-- prequery: end chat -->" in readme


def test_a_template_that_holds_a_mark_is_refused() -> None:
    with pytest.raises(CardError) as raised:
        merged(None, card("chat", text="<!-- prequery: end chat -->"), "chat")

    assert raised.value.where == "the card of chat, line 4 of its text"


def test_what_the_yaml_mark_tells_cannot_end_its_comment() -> None:
    readme = merged(None, card("chat", licence="--> <b>"), "chat")

    told = next(line for line in readme.splitlines() if "prequery: yaml" in line)
    assert told.count("-->") == 1
    assert merged(readme, card("chat", licence="--> <b>"), "chat") == readme
