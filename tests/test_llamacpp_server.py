"""The client of raw completions against llama.cpp's own server and the packaged model."""

import asyncio
import json
import math
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pyarrow.parquet as pq
import pytest

from llamacpp_server import ALIAS, llamacpp
from prequery import Magpie
from prequery.draws import fold
from prequery.endpoint import Answer, Request
from prequery.errors import EndpointError
from prequery.fleet import Fleet
from prequery.local import weights
from prequery.options import Options
from prequery.prefix import derive
from prequery.recipe import Sampling
from prequery.transport import Patience

T = TypeVar("T")

AT_ONCE = Patience(first_wait_s=0, longest_wait_s=0.05)
SAMPLED = Sampling(temperature=0.8, top_p=0.95, max_new_tokens=64)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with llamacpp() as address:
        yield address


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREQUERY_HOME", str(tmp_path / "home"))


def run(url: str, work: Callable[[Fleet], Awaitable[T]]) -> T:
    async def inside() -> T:
        async with Fleet([url], patience=AT_ONCE) as fleet:
            return await work(fleet)

    return asyncio.run(inside())


def ask(url: str, *requests: Request) -> list[Answer]:
    async def work(fleet: Fleet) -> list[Answer]:
        return [await fleet.generate(request, "test") for request in requests]

    return run(url, work)


def test_the_handshake_tells_what_is_served_and_what_is_not_known(url: str) -> None:
    info = run(url, lambda fleet: fleet.info())

    assert (info.model_id, info.model_sha, info.router) == (ALIAS, None, "llamacpp")
    assert (info.slots, info.max_total_tokens) == (2, 1024)
    assert info.engine == "llama.cpp, Q4_1"
    assert info.max_concurrent_requests is None


def test_the_prefix_is_the_one_that_the_embedded_endpoint_gives(url: str, local_url: str) -> None:
    ours, theirs = (run(one, derive) for one in (local_url, url))

    assert theirs == ours


def test_an_answer_is_that_of_the_embedded_endpoint_for_the_same_seed(
    url: str, local_url: str
) -> None:
    prefix = run(url, derive)
    requests = [
        Request(prompt=prefix.text, sampling=sampling, seed=seed, stop=prefix.stop)
        for seed in (5, 2**40 + 3, 2**63 - 1)
        for sampling in (
            SAMPLED,
            Sampling(temperature=1.2, top_k=20, repetition_penalty=1.2, max_new_tokens=48),
        )
    ]

    ours, theirs = ask(local_url, *requests), ask(url, *requests)

    for one, other in zip(ours, theirs, strict=True):
        assert (other.text, other.finish_reason) == (one.text, one.finish_reason)
        assert (other.prompt_tokens, other.generated_tokens) == (24, one.generated_tokens)
        assert other.logprob_count == one.logprob_count
        assert other.logprob_sum == pytest.approx(one.logprob_sum, abs=1e-3)
        assert one.seed is not None
        assert other.seed == fold(one.seed)


def test_the_end_of_a_turn_is_told_from_a_stop_string_and_a_cut(url: str) -> None:
    prefix = run(url, derive)

    def request(stop: tuple[str, ...], most: int) -> Request:
        sampling = Sampling(temperature=0.8, max_new_tokens=most)
        return Request(prompt=prefix.text, sampling=sampling, seed=2, stop=stop)

    ended, stopped, cut = ask(
        url, request(prefix.stop, 80), request((" to",), 80), request(prefix.stop, 3)
    )

    assert ended.finish_reason == "eos_token"
    assert (stopped.finish_reason, cut.finish_reason) == ("stop_sequence", "length")
    assert ended.text.partition(" to")[0] == stopped.text
    assert (cut.generated_tokens, ended.generated_tokens) == (3, ended.logprob_count)


def test_greedy_answers_carry_the_models_own_probabilities(url: str) -> None:
    [answer] = ask(url, Request(prompt="The sky is", sampling=Sampling(max_new_tokens=8)))

    assert answer.seed is None
    assert answer.logprob_sum is not None
    assert -8 * math.log(49152) < answer.logprob_sum < 0


def test_a_prompt_that_is_too_long_is_refused_in_the_servers_words(url: str) -> None:
    [answer] = ask(url, Request(prompt="a " * 1500, sampling=SAMPLED, seed=1))

    assert not answer.failed
    assert answer.error is not None
    assert "exceeds the available context size (1024 tokens)" in answer.error


def test_a_grammar_is_refused_rather_than_ignored(url: str) -> None:
    async def work(fleet: Fleet) -> None:
        fleet.check(Request(prompt="", sampling=SAMPLED, grammar="[^#]*"))

    with pytest.raises(EndpointError) as caught:
        run(url, work)

    assert caught.value.what.startswith("llamacpp cannot be told grammar")


def test_characters_of_several_tokens_arrive_whole(url: str) -> None:
    chat = "<|im_start|>user\nWrite emojis: 😀🧑‍🚀<|im_end|>\n<|im_start|>assistant\n"
    sampled = Sampling(temperature=0.8, max_new_tokens=30)

    [answer] = ask(url, Request(prompt=chat, sampling=sampled, seed=3))

    assert "�" not in answer.text
    assert 0 < answer.logprob_count < answer.generated_tokens == 30


def test_a_wrong_key_is_an_error_that_names_the_variable() -> None:
    async def work(url: str) -> None:
        async with Fleet([url], token="wrong", patience=AT_ONCE):
            pass

    with llamacpp(api_keys=["right"]) as url, pytest.raises(EndpointError) as caught:
        asyncio.run(work(url))

    assert caught.value.fix == "export a valid token and name its variable in endpoint.token_env"
    assert "wrong" not in str(caught.value)


def recipe(folder: Path, responses: str, template: str = "null") -> Path:
    path = folder / "own.yaml"
    path.write_text(
        "name: own\nversion: 1.0.0\nrows: 5\nseed: 11\n"
        f"generator: {{model: {ALIAS}, revision: {weights.MODEL_SHA}, template: {template}}}\n"
        "instructions: [{temperature: 0.8, top_p: 0.95, max_new_tokens: 64}]\n"
        f"responses: {responses}\n"
        # As many as there are rows: what is asked for beyond them is for nothing.
        "endpoint: {url: local, concurrency: 5}\n"
        "columns: [length, likelihood]\n"
    )
    return path


def build(
    path: Path, urls: tuple[str, ...], out: Path, journal: Path | None = None
) -> tuple[list[dict[str, Any]], Any]:
    options = Options(endpoints=urls, patience=AT_ONCE, journal=journal or out.with_suffix(".j"))
    Magpie(path, options=options).download_and_prepare(out, file_format="parquet")
    [shard] = (out / "own").glob("*.parquet")
    rows: list[dict[str, Any]] = pq.ParquetFile(shard).read().to_pylist()
    [lock] = out.rglob("*.lock.json")
    return rows, json.loads(lock.read_text())


def test_a_build_gives_the_rows_of_the_embedded_endpoint(
    url: str, local_url: str, tmp_path: Path
) -> None:
    path = recipe(tmp_path, "{temperature: 0.7, top_p: 0.9, max_new_tokens: 48}")

    ours, _ = build(path, (local_url,), tmp_path / "tgi")
    theirs, lock = build(path, (url,), tmp_path / "completions")

    assert len(theirs) == 5
    for one, other in zip(ours, theirs, strict=True):
        for key in ("instruction_seed", "response_seed"):
            assert other[key] == fold(one[key])
        for key, value in other.items():
            if key.endswith(("_logprob_mean", "_logprob_min", "_logprob_std", "_perplexity")):
                assert value == pytest.approx(one[key], rel=1e-3)
            elif not key.endswith("_seed"):
                assert value == one[key], key
    assert lock["generator"]["revision_confirmed_by_endpoint"] is False
    assert lock["endpoint"]["router"] == "llamacpp"


def test_the_template_of_the_gguf_gives_the_prefix_of_the_served_one(
    url: str, tmp_path: Path
) -> None:
    found = weights.find()
    assert found is not None
    path = recipe(tmp_path, "{max_new_tokens: 24}", f"{{gguf: {found.path}}}")
    served = run(url, derive)

    rows, lock = build(path, (url,), tmp_path / "out")

    assert len(rows) == 5
    assert (lock["prefix"]["text"], lock["prefix"]["suffix"]) == (served.text, served.suffix)
    assert tuple(lock["prefix"]["ids"]) == served.ids
    assert lock["prefix"]["source"] == f"GGUF {found.path.name}"


def test_two_servers_are_one_fleet_and_a_recorded_build_needs_none(
    url: str, tmp_path: Path
) -> None:
    path = recipe(tmp_path, "{temperature: null, max_new_tokens: 32}")

    with llamacpp() as other:
        rows, _ = build(path, (url, other), tmp_path / "out", tmp_path / "journal")
    again, _ = build(path, ("http://127.0.0.1:9",), tmp_path / "again", tmp_path / "journal")

    assert again == rows
