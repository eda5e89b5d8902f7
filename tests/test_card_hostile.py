"""Rows that a hostile model wrote, in real releases: nothing breaks out of what is made of them."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml
from datasets import load_dataset
from markdown_it import MarkdownIt

import judged_release as judged
from prequery import cards
from prequery.card import sections
from test_card import HOSTILE

MORE = (
    *HOSTILE,
    "<!-- prequery: end chat -->\n<!-- prequery: begin evil -->\n---\nconfigs: []\n---\n",
    "x\n<!-- prequery: yaml {} -->\n]]></svg><svg onload=alert(1)>",
    "</text>' onload='alert(1)\" x=\"&#0;\ufffe",
    "|" * 40 + "\\" * 41 + "`" * 42,
    "[x]: javascript:alert(1)\n\n    indented\n\n\n# {% raw %}{{ recipe }}{# x #}",
)
FREE = (
    "quality_explanation",
    "intent",
    "knowledge",
    "task_category",
    "input_quality",
    "difficulty",
)


def release(place: Path, text: str) -> Path:
    """Write a release with one text in every field that can hold any."""
    rows = []
    for slot in range(12):
        changed = dict.fromkeys(
            (*FREE, "language", "instruction", "response", "system_prompt"), text
        )
        said = [{"role": "user", "content": text}, {"role": "assistant", "content": text}]
        changed["task_category"] = text if slot else "Math"  # two values have bars
        rows.append(judged.row(slot, **changed) | {"messages": said, "other_task_category": [text]})
    judged.write(place, rows)
    return place


def shape(readme: str) -> Counter[str]:
    """Count what the text of a README consists of, other than text and code."""
    body = readme.split("\n---\n", 1)[1]
    found: Counter[str] = Counter()
    for token in MarkdownIt("commonmark").enable("table").parse(body):
        for one in (token, *(token.children or [])):
            # What a page would take for HTML counts with its words.
            found[one.content if one.type.startswith("html") else one.type] += 1
    return Counter({kind: n for kind, n in found.items() if kind not in _WORDS})


_WORDS = {"text", "code_inline", "softbreak", "inline"}


@pytest.fixture(scope="module")
def benign(tmp_path_factory: pytest.TempPathFactory) -> str:
    place = release(tmp_path_factory.mktemp("benign"), "plain words")
    return (place / "README.md").read_text()


@pytest.mark.parametrize("text", MORE, ids=range(len(MORE)))
def test_a_hostile_release_is_read_back_as_it_was_written(
    benign: str, tmp_path: Path, text: str
) -> None:
    place = release(tmp_path / "release", text)

    readme = (place / "README.md").read_text()
    block: dict[str, Any] = yaml.safe_load(readme.split("---\n", 2)[1])
    assert shape(readme) == shape(benign)
    assert block["license"] == ["gemma", "llama3.3"]
    assert "language" not in block
    assert [one["config_name"] for one in block["configs"]] == ["chat"]
    assert sections.names(readme) == ["chat"]
    assert [one.found for one in cards.check(str(place))] == [()]
    for picture in (place / "plots/chat").iterdir():
        tags = {one.tag.rpartition("}")[2] for one in ElementTree.parse(picture).getroot().iter()}
        assert tags <= {"svg", "title", "rect", "path", "text"}
        attributes = {name for one in ElementTree.parse(picture).iter() for name in one.attrib}
        assert not {name for name in attributes if name.startswith("on")}
    assert json.loads((place / "chat.croissant.json").read_text())["name"] == "chat"


@pytest.mark.parametrize("text", MORE, ids=range(len(MORE)))
def test_a_second_config_stands_beside_a_hostile_one(tmp_path: Path, text: str) -> None:
    place = release(tmp_path / "release", text)
    readme = (place / "README.md").read_text()
    other = "---\nconfigs:\n- config_name: math\n  data_files: math/*.parquet\n---\n\n# math\n"

    both = sections.merged(readme, other, "math")

    assert sections.names(both) == ["chat", "math"]
    assert sections.section_of(both, "chat") == sections.section_of(readme, "chat")


def test_a_hostile_release_loads(tmp_path: Path) -> None:
    place = release(tmp_path / "release", MORE[len(HOSTILE)])
    shutil.rmtree(place / "plots")

    rows = load_dataset(str(place), "chat", split="train", cache_dir=str(tmp_path / "cache"))

    assert rows[0]["instruction"] == MORE[len(HOSTILE)]
    assert str(rows.info.version) == "1.2.0"
