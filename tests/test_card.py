"""The card: its numbers are the files' numbers, and no text breaks out of it."""

import hashlib
import re
import statistics
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from datasets import load_dataset
from datasets.info import DatasetInfosDict
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCard
from jinja2 import UndefinedError
from markdown_it import MarkdownIt

from prequery import card, lock, recipe, rows
from prequery.card import facts, markdown, meanings, page, sections
from prequery.endpoint import Info
from prequery.errors import ShardError
from prequery.prefix import Prefix
from prequery.recipe import Recipe
from prequery.selection import Selection
from prequery.voices import Voice, Voices

ROOT = Path(__file__).parents[1]
RECIPE = (ROOT / "configs/smollm2-demo.yaml").read_text()
DEMO = recipe.read(RECIPE, "demo.yaml")

PREFIX = Prefix(
    text="<|im_start|>system\nYou are a helpful AI assistant.<|im_end|>\n<|im_start|>user\n",
    suffix="<|im_end|>\n<|im_start|>assistant\n",
    ids=(1, 9690, 198, 2),
    system_prompt="You are a helpful AI assistant.",
    stop=("<|im_end|>", "<|im_start|>"),
    bos="the endpoint adds no token of its own",
)
INFO = Info(
    model_id=DEMO.generator.model,
    max_concurrent_requests=64,
    max_input_tokens=1024,
    max_total_tokens=2048,
    version="3.3.6",
    engine="xllamacpp 1",
    exact=True,
    weights_sha256="ab" * 32,
)

HOSTILE = (
    "``` \n```\n~~~\n````js\n# a heading",
    "---\nlicense: mit\n---\n",
    "<script>alert(1)</script><!-- <img src=x onerror=alert(1)> </code></pre></details>",
    "a | b \\| c \\\\| d \\",
    "![](https://evil.example/x.png) [x](javascript:alert(1)) <https://evil.example>",
    "\x1b[31mred\x1b]0;title\x07 NUL \x00 \x7f\x85\x9b",
    "left \u202e tfel \u2066 x \u2069 \ufeff \u00ad \U000e0041 \ue000",
    "one\u2028two\u2029three\rfour\x0bfive\x0csix",
    "`one` ``two`` ```three",
    "`",
    "www.evil.example me@evil.example @everyone #1 :smile: $x^2$ &lt; &#124; *a* _b_ ~c~ {{ 7*7 }}",
    " leading\n\n\ttrailing ",
    "| a | b |\n|---|---|\n| c | d |\n\n1. x\n- y\n> z\n===\n***\n[ref]: https://evil.example",
    "\u0301 e\u0301 العربية 日本語 👩\u200d🚀 %s {0} $(id) `id`",
)


def row(slot: int, **changed: Any) -> rows.Row:
    """Return one row of the demo's recipe with values that differ by slot."""
    words = {"instruction": f"What is {slot} and one?", "response": f"It is {slot + 1}."} | changed
    content = {
        "id": f"{DEMO.fingerprint[:12]}-{slot}",
        "messages": rows.messages([(words["instruction"], words["response"])]),
        "generator": f"{DEMO.generator.model}@{DEMO.generator.revision}",
        "responder": f"{DEMO.generator.model}@{DEMO.generator.revision}",
        "system_prompt": PREFIX.system_prompt,
        "steering": None,
        "steering_item": None,
        "instruction_start": None,
        "turns": 1,
        "turns_ended": None,
        "follow_up_system": None,
        "thinking": None,
        "instruction_temperature": 0.8,
        "instruction_top_p": 0.95,
        "instruction_seed": 2**62 + slot,
        "response_seed": None,
        "instruction_tokens": 7 + slot % 5,
        "response_tokens": 1500 + 3 * slot,
        "instruction_finish_reason": "eos_token",
        "response_finish_reason": "length" if slot % 10 == 0 else "eos_token",
        "instruction_chars": len(words["instruction"]),
        "instruction_words": 5,
        "response_chars": len(words["response"]),
        "response_words": 3,
        "language": None if slot == 3 else "de" if slot % 9 == 0 else "en",
        "language_score": None if slot == 3 else 1 / (slot + 1),
        "instruction_logprob_mean": -0.5 - slot / 7,
        "instruction_logprob_min": -3.25,
        "instruction_logprob_std": 0.25 * slot,
        "instruction_perplexity": 1.5 + slot**2 / 3,
        "response_logprob_mean": None,
        "response_logprob_min": None,
        "response_logprob_std": None,
        "response_perplexity": None,
        "instruction_repetition_ratio": 0.0,
        "instruction_loop": False,
        "response_repetition_ratio": slot / 100,
        "response_loop": slot % 4 == 0,
        "min_neighbor_distance": 0.01 + slot / 50,
        "repeat_count": int(slot < 2),
        "min_similar_id": f"{DEMO.fingerprint[:12]}-0" if slot < 2 else None,
    }
    return content | words


def tables(released: Sequence[rows.Row], rows_per_table: int = 10**6) -> list[pa.Table]:
    rows.check(released, DEMO.dtypes)
    schema = rows.features(DEMO.dtypes).arrow_schema
    starts = range(0, len(released), rows_per_table)
    parts = [list(released[start : start + rows_per_table]) for start in starts]
    return [pa.Table.from_pylist(part, schema=schema) for part in parts]


def finished(
    built: Recipe,
    released: Sequence[rows.Row],
    rejected: dict[str, int],
    prefix: Prefix = PREFIX,
    info: Info = INFO,
    file_bytes: int = 4096,
) -> lock.Lock:
    selection = Selection(
        parts=[],
        accepted=len(released),
        attempts=len(released) + sum(rejected.values()),
        rejected=rejected,
        ended={},
        requests=1234,
        prompt_tokens=56_789,
        generated_tokens=98_765,
    )
    path = f"{built.name}/train-00000-of-00001.parquet"
    listed = {path: {"bytes": file_bytes, "rows": len(released), "sha256": "cd" * 32}}
    voice = Voice(info, prefix)
    return lock.complete(lock.pin(built, Voices(voice, voice)), selection, listed)


MEASURED = "What the rows measure"
LANGUAGE = 'filter: language == "en" and language_score > 0.3'
REJECTED = {"cut off at max_new_tokens": 11, LANGUAGE: 9}


def demo_card(count: int = 30, built: Recipe = DEMO) -> str:
    released = [row(slot) for slot in range(count)]
    return card.render(built, finished(built, released, REJECTED), card.measure(tables(released)))


def front_matter(text: str) -> dict[str, Any]:
    parsed = yaml.safe_load(text.split("---\n", 2)[1])
    assert isinstance(parsed, dict)
    return parsed


def hub_reads(text: str) -> Any:
    return DatasetCard(text).data.to_dict()  # type: ignore[no-untyped-call]


def body(text: str) -> str:
    return text.split("\n---\n", 1)[1]


def tokens(text: str) -> list[Any]:
    """Parse a card's text as CommonMark with tables, and flatten it."""
    found = []
    for token in MarkdownIt("commonmark").enable("table").parse(body(text)):
        found += [token, *(token.children or [])]
    return found


def cells(text: str, heading: str) -> dict[str, list[str]]:
    """Return the table rows of a section, by their first cell, as a reader sees them."""
    section = body(text).split(f"\n## {heading}\n")[1].split("\n## ")[0]
    found: dict[str, list[str]] = {}
    current: list[str] = []
    for token in MarkdownIt("commonmark").enable("table").parse(section):
        if token.type == "tr_open":
            current = []
        elif token.type == "inline":
            current.append("".join(child.content for child in token.children or []))
        elif token.type == "tr_close":
            found[current[0]] = current[1:]
    return found


@dataclass
class ReleasedFolder:
    """A release as Parquet files and a card beside them."""

    path: Path
    released: list[rows.Row]
    readme: str


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> ReleasedFolder:
    path = tmp_path_factory.mktemp("release")
    released = [row(slot) for slot in range(40)]
    shards = path / DEMO.name
    shards.mkdir()
    pq.write_table(tables(released)[0], shards / "train-00000-of-00001.parquet")
    size = (shards / "train-00000-of-00001.parquet").stat().st_size
    read_back = [pq.read_table(file) for file in sorted(shards.iterdir())]
    complete = finished(DEMO, released, REJECTED, file_bytes=size)
    readme = card.render(DEMO, complete, card.measure(read_back))
    (path / "README.md").write_text(readme)
    return ReleasedFolder(path, released, readme)


def test_the_folder_loads_with_its_version_and_features(
    folder: ReleasedFolder, tmp_path: Path
) -> None:
    loaded = load_dataset(str(folder.path), DEMO.name, split="train", cache_dir=str(tmp_path))

    assert str(loaded.info.version) == "1.0.0"
    assert loaded.features == rows.features(DEMO.dtypes)
    assert loaded.to_list() == folder.released


def test_the_folder_streams_with_its_version_and_features(folder: ReleasedFolder) -> None:
    streamed = load_dataset(str(folder.path), DEMO.name, split="train", streaming=True)

    assert str(streamed.info.version) == "1.0.0"
    assert streamed.features == rows.features(DEMO.dtypes)
    assert next(iter(streamed)) == folder.released[0]


def test_the_only_config_needs_no_name(folder: ReleasedFolder, tmp_path: Path) -> None:
    loaded = load_dataset(str(folder.path), split="train", cache_dir=str(tmp_path))

    assert loaded.config_name == "smollm2-demo"


def test_the_snippet_on_the_card_runs(folder: ReleasedFolder, tmp_path: Path) -> None:
    fences = [t for t in tokens(folder.readme) if t.type == "fence" and t.info == "python"]
    snippet = fences[0].content.replace("path/to/this/folder", str(folder.path))
    names: dict[str, Any] = {}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
        exec(compile(snippet, "snippet", "exec"), names)

    assert names["rows"].num_rows == 40


def test_every_number_in_the_tables_is_the_files_number(folder: ReleasedFolder) -> None:
    table = pq.read_table(folder.path / DEMO.name / "train-00000-of-00001.parquet")
    fields = cells(folder.readme, "Fields")
    measured = cells(folder.readme, MEASURED)

    unmeasured = {"id", "instruction", "response", "instruction_seed", "response_seed"}
    empty = {name for name in table.column_names if table[name].null_count == table.num_rows}
    told = re.findall(r"^Null in every row: (.*)\.$", folder.readme, re.M)
    assert sorted(", ".join(told).split(", ")) == sorted(f"`{name}`" for name in empty)
    assert "steering" in empty
    unmeasured |= empty
    assert measured.keys() - {"number", "text, yes or no"} == (
        rows.dtypes(DEMO.dtypes).keys() - unmeasured
    )
    for name, dtype in rows.dtypes(DEMO.dtypes).items():
        found = [value for value in table[name].to_pylist() if value is not None]
        nulls = str(table.num_rows - len(found))
        assert fields[name][:2] == [dtype, nulls]
        if name not in unmeasured:
            expected = by_value(found) if dtype in ("string", "bool") else distribution(found)
            assert measured[name] == [*expected, nulls]


def by_value(found: list[Any]) -> list[str]:
    counts = Counter(str(value).lower() if value in (True, False) else value for value in found)
    return [", ".join(f"{value} {rows}" for value, rows in counts.most_common()) or "—"]


def distribution(found: list[float]) -> list[str]:
    if not found:
        return ["—"] * 5
    p90 = statistics.quantiles(found, n=10, method="inclusive")[-1]
    numbers = (min(found), statistics.median(found), statistics.mean(found), p90, max(found))
    return [f"{number:,.0f}" if number >= 1000 else f"{number:.4g}" for number in numbers]


def test_each_column_is_named_with_its_version_and_what_decided_its_values() -> None:
    text = demo_card()
    shown = text.split("## What the rows measure")[1].split("\n## ")[0]

    headings = re.findall(r"^### (.*)$", shown, re.M)
    assert headings == [
        "Every row's own fields",
        *(f"Column `{column.name}`" for column in DEMO.columns),
    ]
    assert (
        "### Column `length`\n\nLength of instruction and response in characters and in "
        "whitespace-separated words. Version 1.\n" in shown
    )
    for column in DEMO.columns:
        part = shown.split(f"### Column `{column.name}`")[1].split("###")[0]
        for name, pin in column.pins().items():
            shown_pin = f"`{pin[:19]}` …" if pin.startswith("sha256:") else f"`{pin}`"
            assert f"`{name}` {shown_pin}" in part
        assert all(f"`{name}`" in part for name in column.features)


def test_the_sections_stand_in_the_order_of_a_readers_questions() -> None:
    headings = re.findall(r"^## (.*)$", demo_card(), re.M)

    assert headings == [
        "How to load",
        "Fields",
        "How it was made",
        "Attempts, and why rows are missing",
        "What the rows measure",
        "10 rows, drawn by hash",
        "Limitations, measured",
        "Licence and terms",
        "Versions",
        "How to rebuild",
        "Citation",
    ]


def test_the_funnel_adds_up_and_names_filters_that_took_nothing() -> None:
    shown = cells(demo_card(), "Attempts, and why rows are missing")

    assert shown["made"] == ["50", "100.0 %"]
    assert shown["rejected: cut off at max_new_tokens"] == ["11", "22.0 %"]
    assert shown[f"rejected: {LANGUAGE}"] == ["9", "18.0 %"]
    assert shown["rejected: filter: not response_loop"] == ["0", "0.0 %"]
    assert sum(name.startswith("rejected: filter: ") for name in shown) == len(DEMO.filters)
    assert shown["accepted"] == ["30", "60.0 %"]


def test_the_cost_is_told_in_requests_tokens_and_hours() -> None:
    complete = finished(DEMO, [row(0)], {})
    timed = complete | {"build": complete["build"] | {"seconds": 5400}}
    measured = card.measure(tables([row(0)]))

    told = cells(card.render(DEMO, timed, measured), "How it was made")
    untold = cells(card.render(DEMO, complete, measured), "How it was made")

    assert told["requests of all attempts"] == ["1,234"]
    assert told["prompt tokens"] == ["56,789"]
    assert told["generated tokens"] == ["98,765"]
    assert told["hours of waiting for answers"] == ["1.5, of all builders together"]
    assert untold["hours of waiting for answers"] == [
        "not known: answers from before their time was taken"
    ]


def test_an_endpoint_that_does_not_count_prompt_tokens_gets_no_number() -> None:
    complete = finished(DEMO, [row(0)], {})
    uncounted = complete | {"build": complete["build"] | {"prompt_tokens": None}}

    text = card.render(DEMO, uncounted, card.measure(tables([row(0)])))

    assert cells(text, "How it was made")["prompt tokens"] == ["not counted by the endpoint"]


def test_limitations_are_counted() -> None:
    released = [row(slot, instruction="Same?", response=f"{slot % 15}.") for slot in range(30)]

    text = card.render(DEMO, finished(DEMO, released, {}), card.measure(tables(released)))

    limits = [line for line in text.splitlines() if line.startswith("- ") and "." in line]
    assert limits[1:7] == [
        "- Repeats: 29 instructions and 15 responses equal an earlier one letter by letter.",
        "- Near repeats: 2 instructions (6.7 %) have another candidate nearer than 0.05, "
        "by `min_neighbor_distance`.",
        "- Cut off: 3 responses (10.0 %) end at their token limit.",
        "- Loops: 0 instructions (0.0 %) run into repeating themselves.",
        "- Loops: 8 responses (26.7 %) run into repeating themselves.",
        "- Language: 25 instructions (83.3 %) are in `en`, as far as the detector can tell.",
    ]


def test_a_recipe_without_columns_gets_a_card_that_says_what_was_not_measured() -> None:
    bare = recipe.read(re.sub(r"columns:.*?release:", "release:", RECIPE, flags=re.S), "bare.yaml")
    kept = ["messages", *rows.dtypes({})]
    released = [{name: row(slot)[name] for name in kept} for slot in range(3)]
    table = pa.Table.from_pylist(released, schema=rows.features({}).arrow_schema)

    text = card.render(bare, finished(bare, released, {}), card.measure([table]))

    assert "- Near repeats were not measured." in text
    assert "- The language was not measured." in text
    assert "### Column" not in text
    assert "language" not in front_matter(text)


def test_the_yaml_is_what_the_hub_and_datasets_read() -> None:
    text = demo_card()

    data = DatasetCard(text).data
    infos = DatasetInfosDict.from_dataset_card_data(data)
    configs = MetadataConfigs.from_dataset_card_data(data)

    assert hub_reads(text) == front_matter(text)
    assert list(front_matter(text)) == [
        "pretty_name",
        "license",
        "language",
        "task_categories",
        "size_categories",
        "annotations_creators",
        "language_creators",
        "source_datasets",
        "tags",
        "source_models",
        "configs",
        "dataset_info",
    ]
    assert front_matter(text)["license"] == "apache-2.0"
    assert front_matter(text)["language"] == ["en", "de"]
    assert front_matter(text)["size_categories"] == ["n<1K"]
    assert infos["smollm2-demo"].features == rows.features(DEMO.dtypes)
    assert infos["smollm2-demo"].splits["train"].num_examples == 30
    assert infos["smollm2-demo"].download_size == 4096
    assert str(infos["smollm2-demo"].version) == "1.0.0"
    assert configs == {
        "smollm2-demo": {
            "version": "1.0.0",
            "data_files": [{"split": "train", "path": "smollm2-demo/train-*.parquet"}],
        }
    }


def test_a_language_is_named_from_one_percent_on_and_only_by_its_code() -> None:
    codes = ["en"] * 197 + ["de"] * 2 + ["fr"] + ["no: yes"] * 50
    released = [row(slot) | {"language": code} for slot, code in enumerate(codes)]

    text = card.render(DEMO, finished(DEMO, released, {}), card.measure(tables(released)))

    assert front_matter(text)["language"] == ["en"]


@pytest.mark.parametrize(
    ("row_count", "category"),
    [
        (1, "n<1K"),
        (999, "n<1K"),
        (1_000, "1K<n<10K"),
        (9_999, "1K<n<10K"),
        (300_000, "100K<n<1M"),
        (10**6, "1M<n<10M"),
        (10**12, "n>1T"),
    ],
)
def test_the_size_category_is_the_hubs(row_count: int, category: str) -> None:
    assert sections.size_category(row_count) == category


def test_a_recipe_with_a_repository_shows_its_tag_and_warns_of_offline_use() -> None:
    where = recipe.read(RECIPE.replace("release:", "release:\n  repo: acme/chat"), "demo.yaml")

    text = demo_card(built=where)

    assert (
        'load_dataset("acme/chat", "smollm2-demo", revision="smollm2-demo-v1.0.0", split="train")'
        in text
    )
    assert "Offline, `load_dataset` ignores `revision`" in text
    assert "revision=" not in demo_card()


def test_a_recipe_without_a_licence_gets_its_models() -> None:
    unlicensed = recipe.read(RECIPE.replace("license: apache-2.0", "license: null"), "demo.yaml")

    text = demo_card(built=unlicensed)

    assert front_matter(text)["license"] == "apache-2.0", "the generator's own"
    assert "The recipe names no licence." in text


def test_equal_arguments_give_equal_bytes_however_the_rows_are_cut() -> None:
    released = [row(slot) for slot in range(30)]
    whole = card.measure(tables(released))
    in_parts = card.measure(tables(released, rows_per_table=7))
    # Arrow stores one offset more for each text column of each table.
    in_parts = replace(in_parts, num_bytes=whole.num_bytes)
    complete = finished(DEMO, released, REJECTED)
    shuffled = complete | {
        "build": complete["build"] | {"rejected": dict(reversed(REJECTED.items()))}
    }

    assert in_parts == whole
    assert card.render(DEMO, complete, whole) == card.render(DEMO, shuffled, in_parts)


def test_the_shown_rows_are_those_with_the_smallest_hash_in_the_releases_order() -> None:
    released = [row(slot) for slot in range(30)]
    ids = [r["id"] for r in released]
    smallest = sorted(ids, key=lambda i: hashlib.sha256(i.encode()).digest())[: facts.SAMPLE_ROWS]

    drawn = [shown.id for shown in card.measure(tables(released, rows_per_table=4)).sample]

    assert drawn == [i for i in ids if i in smallest]


def test_a_long_text_is_cut_and_the_mark_stands_outside_of_it() -> None:
    released = [row(0, response="x" * 1500)]

    text = card.render(DEMO, finished(DEMO, released, {}), card.measure(tables(released)))

    folded = "\n".join(["x" * 80] * 5)
    assert f"Response, the first 400 of 1,500 characters:\n\n```text\n{folded}\n```\n" in text


def test_long_lines_are_folded_at_spaces_and_nothing_else_is_changed() -> None:
    text = "word " * 30 + "\n" + "x" * 250 + "\n\n  short"

    lines = markdown.folded(text).split("\n")

    assert max(map(len, lines)) <= markdown.LINE_CHARS
    assert lines[0] == ("word " * 16).strip()
    assert "".join(lines).replace(" ", "") == text.replace(" ", "").replace("\n", "")


def test_a_field_of_many_values_is_summed_up() -> None:
    few = [row(slot) | {"min_similar_id": f"similar-{slot // 2}"} for slot in range(40)]
    many = [row(slot) | {"min_similar_id": f"similar-{slot}"} for slot in range(1001)]

    few_text = card.render(DEMO, finished(DEMO, few, {}), card.measure(tables(few)))
    many_facts = card.measure(tables(many, rows_per_table=600))
    many_text = card.render(DEMO, finished(DEMO, many, {}), many_facts)

    shown = cells(few_text, MEASURED)["min_similar_id"][0]
    assert shown.endswith("similar-15 2, and 12 other values 24")
    assert cells(many_text, MEASURED)["min_similar_id"][0] == "too many different values to count"


def hostile(text: str, count: int) -> str:
    """Render a card with one text in every place that text can come from outside."""
    released = [
        row(slot, instruction=text, response=text * 50)
        | {"language": text, "system_prompt": text, "min_similar_id": text}
        for slot in range(count)
    ]
    prefix = replace(PREFIX, text=text, system_prompt=text, stop=(text,), bos=text)
    info = Info(
        model_id=DEMO.generator.model,
        max_concurrent_requests=1,
        max_input_tokens=1,
        max_total_tokens=2,
        version=text,
        router=text,
        engine=text,
        weights_sha256=text,
    )
    complete = finished(DEMO, released, {text: 3}, prefix, info)
    return card.render(DEMO, complete, card.measure(tables(released)))


def structure(text: str) -> Counter[str]:
    """Count what blocks, and what inlines other than text and code, a card consists of."""
    inlines = {"text", "code_inline", "softbreak", "inline"}
    return Counter(token.type for token in tokens(text) if token.type not in inlines)


def html(text: str) -> list[str]:
    """Return what a page would take for HTML."""
    return [one.content for one in tokens(text) if one.type.startswith("html")]


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_breaks_out_of_the_card(text: str) -> None:
    benign = hostile("plain words", count=3)

    attacked = hostile(text, count=3)

    assert structure(attacked) == structure(benign)
    fields = len(rows.features(DEMO.dtypes, DEMO.shape))
    assert html(attacked) == [
        f"<details>\n<summary>All {fields}, with type, nulls and meaning</summary>\n",
        "</details>\n",
    ]
    links = [token.attrs["href"] for token in tokens(attacked) if token.type == "link_open"]
    assert links == [
        "https://arxiv.org/abs/2406.08464",
        "https://www.apache.org/licenses/LICENSE-2.0",
    ]
    pictures = [token.attrs["src"] for token in tokens(attacked) if token.type == "image"]
    assert pictures == [f"plots/smollm2-demo/{name}.svg" for name in ("lengths", "distance")]
    assert front_matter(attacked).keys() == front_matter(benign).keys() - {"language"}
    assert front_matter(attacked)["license"] == "apache-2.0"
    assert hub_reads(attacked) == front_matter(attacked)


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_outside_of_code_comes_from_the_data(text: str) -> None:
    def plain(parsed: str) -> list[str]:
        """Return words outside of code; counts, and how much of a text is shown, do differ."""
        words = [token.content for token in tokens(parsed) if token.type == "text"]
        return [re.sub(r"[\d.,]+", "0", w) for w in words if not w.startswith("Response")]

    assert plain(hostile(text, count=1)) == plain(hostile("plain words", count=1))


@pytest.mark.parametrize("text", HOSTILE)
def test_invisible_characters_are_written_out(text: str) -> None:
    attacked = hostile(text, count=1)

    invisible = ("Cc", "Cf", "Co", "Cs", "Zl", "Zp")
    odd = {char for char in attacked if unicodedata.category(char) in invisible}
    assert odd <= {"\n", "\t", "\u200d"}


def test_a_reader_sees_in_a_cell_what_was_written() -> None:
    said = ("a | b", "`one` ``two``", "`", " a ", "<b>&lt;</b>", "*x* _y_ $z$ {{ 1 }}", "日本語 é")

    for text in said:
        table = f"| x |\n|---|\n| {markdown.code(text)} |\n"
        parsed = MarkdownIt("commonmark").enable("table").parse(table)
        cell = [token for token in parsed if token.type == "inline"][-1]
        assert [(c.type, c.content) for c in cell.children or []] == [("code_inline", text)]


def test_a_pipe_behind_backslashes_stays_escaped_for_every_renderer() -> None:
    # cmark-gfm pairs backslashes from the left, markdown-it looks at one: both see an odd number.
    for count in range(5):
        shown = markdown.code("\\" * count + "|")
        assert re.fullmatch(r"`(\\\\)*\\\|`", shown)


def test_escapes_are_pythons() -> None:
    text = "\x00\x1b[31m\n\r\t\\\u202e\u2028\U000e0041"

    assert markdown.one_line(text) == r"\x00\x1b[31m\n\r\t\\\u202e\u2028\U000e0041"


def test_a_template_cannot_leave_a_name_open() -> None:
    template = page.environment().from_string("{{ recipe.nmae }}")

    with pytest.raises(UndefinedError, match="nmae"):
        template.render(recipe=DEMO)


def test_a_template_cannot_let_text_out_by_mistake() -> None:
    template = page.environment().from_string("{{ x }} {{ x ~ 1 }} {{ [x] }} {{ x | upper }}")

    assert template.render(x="<b>") == "`<b>` `<b>1` `['<b>']` `<B>`"


def test_a_card_of_other_rows_is_refused() -> None:
    released = [row(slot) for slot in range(3)]
    complete = finished(DEMO, released[:2], {})

    with pytest.raises(ShardError) as raised:
        card.render(DEMO, complete, card.measure(tables(released)))

    assert str(raised.value) == (
        "the card would be wrong: accepted rows are noted as 2, found as 3\n"
        "  where: config smollm2-demo\n"
        "  fix:   recipe, lock and Parquet files are not of one build; build into a new --out"
    )


def test_every_field_of_a_row_has_a_meaning() -> None:
    spoken = [name for names in rows.CONVERSATION.values() for name in names]
    assert list(meanings.FIELDS) == ["id", *spoken, *list(rows.FIELDS)[1:], *rows.PREFERENCE]


def test_numbers_are_exact_where_binary_floats_can_be() -> None:
    table = tables([row(slot) for slot in range(4)])[0]

    measured = next(f for f in card.measure([table]).fields if f.name == "response_tokens")

    assert measured.numbers == facts.Numbers(1500, 1504.5, 1504.5, float(np.float64(1508.1)), 1509)


def test_yes_and_no_are_counted() -> None:
    measured = card.measure(tables([row(slot) for slot in range(8)]))

    assert measured.tally("response_loop") == {"false": 6, "true": 2}
