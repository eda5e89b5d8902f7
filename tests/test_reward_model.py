"""A reward model in the build's own process: a real tiny one, made by the test."""

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from prequery import Magpie
from prequery.endpoint import Request
from prequery.errors import EndpointError, RecipeError
from prequery.options import Options
from prequery.recipe import TRANSFORMERS, Sampling, read
from prequery.reward_model import RewardModel
from prequery.runner import run_async
from scripted_tgi import ScriptedTgi, recipe_text

REVISION = "e" * 40
NOBODY = "http://127.0.0.1:9"
JUDGED = {
    "columns": "[length, {instruct_reward: {judge: reward}}]",
    "judges": f"{{reward: {{model: tiny, revision: '{REVISION}', endpoint: transformers}}}}",
}
needs_libraries = pytest.mark.skipif(
    not (find_spec("transformers") and find_spec("torch")), reason="needs the extra `reward`"
)


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREQUERY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def make_model(folder: Path, seed: int = 0, labels: int = 1) -> None:
    """Write a BERT of one layer with random weights and a vocabulary of characters."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    vocabulary = {token: at for at, token in enumerate([*special, *map(chr, range(32, 127))])}
    splitter = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    splitter.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    splitter.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=400,
        num_labels=labels,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=splitter,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
    ).save_pretrained(folder)


def expected(folder: Path, text: str, pair: str | None) -> list[float]:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    inputs = AutoTokenizer.from_pretrained(folder)(text, pair, return_tensors="pt")
    with torch.no_grad():
        scores: list[float] = model(**inputs).logits[0].tolist()
    return scores


def score(model: RewardModel, *requests: Request) -> list[Any]:
    async def inside() -> list[Any]:
        async with model:
            info = await model.info()
            return [info, *[await model.generate(one, "test") for one in requests]]

    return run_async(inside())


def request(text: str, pair: str | None = None) -> Request:
    return Request(prompt=text, pair=pair, sampling=Sampling(), scores=True)


def build(folder: Path, url: str, changed: Mapping[str, str] = JUDGED) -> tuple[list[Any], Any]:
    """Build, and return rows and lock."""
    path = folder / "scripted.yaml"
    path.write_text(recipe_text(**changed))
    out = folder / f"out{len(list(folder.glob('out*')))}"
    Magpie(path, options=Options(endpoints=(url,))).download_and_prepare(out, file_format="parquet")
    with next((out / "scripted").glob("*.parquet")).open("rb") as file:
        rows = pq.read_table(file).to_pylist()
    return rows, json.loads((out / "scripted.lock.json").read_text())


@pytest.mark.train
@needs_libraries
@pytest.mark.filterwarnings("ignore")
def test_a_folder_beside_the_recipe_scores_its_rows(tmp_path: Path) -> None:
    make_model(tmp_path / "tiny")

    with ScriptedTgi().serving() as server:
        rows, lock = build(tmp_path, server.url)
    again, _ = build(tmp_path, NOBODY)

    for row in rows:
        [reward] = expected(tmp_path / "tiny", row["instruction"], row["response"])
        assert row["instruct_reward"] == pytest.approx(reward, abs=1e-5)
    assert len({row["instruct_reward"] for row in rows}) == len(rows)
    assert {row["reward_model"] for row in rows} == {f"tiny@{REVISION}"}
    assert lock["judges"]["reward"]["model"]["revision_confirmed_by_endpoint"] is False
    assert len(lock["judges"]["reward"]["model"]["weights_sha256"]) == 64
    assert again == rows


@pytest.mark.train
@needs_libraries
@pytest.mark.filterwarnings("ignore")
def test_a_model_of_the_hub_is_taken_at_its_revision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--acme--tiny/snapshots" / REVISION
    make_model(snapshot, labels=2)

    info, alone, pair = score(
        RewardModel("acme/tiny", REVISION), request("Why?"), request("Why?", "So.")
    )

    assert (info.model_id, info.model_sha, info.router) == ("acme/tiny", REVISION, "transformers")
    for answer, second in ((alone, None), (pair, "So.")):
        told = json.loads(answer.text)
        assert [one["label"] for one in told] == ["LABEL_0", "LABEL_1"]
        found = expected(snapshot, "Why?", second)
        assert [one["score"] for one in told] == pytest.approx(found, abs=1e-6)
    assert (alone.prompt_tokens, pair.prompt_tokens) == (6, 10)


@pytest.mark.train
@needs_libraries
@pytest.mark.filterwarnings("ignore")
def test_other_weights_are_another_judge_and_a_long_text_is_refused(tmp_path: Path) -> None:
    make_model(tmp_path / "one", seed=1)
    make_model(tmp_path / "two", seed=2)

    one, long = score(RewardModel("one", REVISION, tmp_path), request("x" * 500))
    two, short = score(RewardModel("two", REVISION, tmp_path), request("x"))

    assert one.weights_sha256 != two.weights_sha256
    assert long.error == "the text has 502 tokens, and the model reads 400"
    assert short.error is None


@pytest.mark.train
@needs_libraries
@pytest.mark.filterwarnings("ignore")
def test_a_folder_without_a_model_is_an_error_with_a_fix(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    with pytest.raises(EndpointError) as error:
        score(RewardModel("empty", REVISION, tmp_path))

    assert error.value.what.startswith("the reward model cannot be had: ")
    assert error.value.where == f"transformers, empty@{REVISION}"


@pytest.mark.skipif(bool(find_spec("transformers")), reason="the library is there")
def test_without_its_libraries_a_build_says_what_to_install(tmp_path: Path) -> None:
    with ScriptedTgi().serving() as server, pytest.raises(EndpointError) as error:
        build(tmp_path, server.url)

    assert error.value.args == (
        "a reward model of this machine needs transformers, which is not installed",
        f"transformers, tiny@{REVISION}",
        "pip install 'prequery[reward]', or name a TEI address as the judge's endpoint",
    )


def test_a_reward_model_writes_nothing() -> None:
    with pytest.raises(EndpointError) as error:
        RewardModel("tiny", REVISION).check(Request(prompt="Hi", sampling=Sampling()))

    assert error.value.what == "this endpoint scores texts, it writes none"


def test_only_a_judge_scores_in_this_process() -> None:
    judge = read(recipe_text(**JUDGED), "r.yaml").judges["reward"]

    assert judge.endpoint.url == TRANSFORMERS
    with pytest.raises(RecipeError) as error:
        read(recipe_text(endpoint="transformers"), "r.yaml")
    assert "'transformers'" in error.value.what
