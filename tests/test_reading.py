"""Columns that have a model read texts: `ifd`, `backward`, and what endpoints tell of texts."""

import asyncio
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from aiohttp import web

from plain_http import post
from prequery import Magpie
from prequery.columns.backward import Backward
from prequery.columns.base import Reading, Said, To
from prequery.columns.ifd import Ifd
from prequery.columns.run import conclude
from prequery.endpoint import Answer, Request
from prequery.errors import RecipeError
from prequery.fleet import Fleet
from prequery.likely import Likely, behind
from prequery.options import Options
from prequery.recipe import Sampling, read
from prequery.rehearsal import rehearse, unjudged
from prequery.simulation import Lengths, Machine, Settings, simulate
from prequery.simulation.settings import MODEL, REVISION
from prequery.transport import Patience
from scripted_completions import ScriptedCompletions, completion
from scripted_tgi import Json, ScriptedTgi, recipe_text, tokens

AT_ONCE = Patience(first_wait_s=0, longest_wait_s=0.05, request_s=5)
FLEET = Settings(machines=(Machine(token_s=0),), lengths=Lengths(response_median=30), seed=5)
NOBODY = "http://127.0.0.1:9"
ROW = {"instruction": "Why is the sky blue?", "response": "Air scatters blue light."}
SIMULATED = {
    "generator": f"{{model: {MODEL}, revision: '{REVISION}'}}",
    "columns": "[length, {ifd: {judge: generator}}]",
}


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREQUERY_HOME", str(tmp_path / "home"))


def build(folder: Path, url: str, changed: Mapping[str, str]) -> tuple[list[Json], Json]:
    """Build, and return rows and lock."""
    folder.mkdir()
    path = folder / "scripted.yaml"
    path.write_text(recipe_text(**SIMULATED | dict(changed)))
    options = Options(endpoints=(url,), patience=AT_ONCE)
    Magpie(path, options=options).download_and_prepare(folder / "out", file_format="parquet")
    with next((folder / "out/scripted").glob("*.parquet")).open("rb") as file:
        rows = pq.read_table(file).to_pylist()
    return rows, json.loads((folder / "out/scripted.lock.json").read_text())


def reading(text: str, prompt: str = "") -> Request:
    return Request(prompt=prompt, sampling=Sampling(max_new_tokens=1), logprobs=False, reads=text)


def ask(url: str, request: Request) -> Answer:
    async def inside() -> Answer:
        async with Fleet([url], patience=AT_ONCE) as fleet:
            return await fleet.generate(request, "test")

    return asyncio.run(inside())


@pytest.mark.parametrize(
    ("prompt", "whole", "logprobs", "found"),
    [
        ([1, 2], [1, 2, 3, 4], [None, -9.0, -1.0, -3.0], Likely(-4.0, 10.0, -3.0, 2)),
        # The prompt's last token is joined with the text's first characters.
        ([1, 2], [1, 7, 4], [None, -1.0, -3.0], Likely(-4.0, 10.0, -3.0, 2)),
        # What follows on nothing has no probability.
        ([], [3, 4], [None, -3.0], Likely(-3.0, 9.0, -3.0, 1)),
        # Not all are told: cached, or not enabled.
        ([1, 2], [1, 2, 3, 4], [None, -9.0, None, -3.0], None),
        ([1, 2], [1, 2, 3, 4], [], None),
        ([1], [1], [None], None),
        # The server reads another prompt than was sent.
        (list(range(20)), [99, *range(20)], [-1.0] * 21, None),
    ],
)
def test_the_likelihood_of_a_text_is_that_of_the_tokens_behind_the_prompt(
    prompt: list[int], whole: list[int], logprobs: list[float | None], found: Likely | None
) -> None:
    assert behind(prompt, whole, logprobs) == found


def test_tgi_is_asked_for_the_prefill_of_the_whole_text() -> None:
    with simulate(FLEET) as fleet:
        (url,) = fleet.urls
        answer = ask(url, reading("Air scatters light.", "<|im_start|>assistant\n"))
        parameters = {"details": True, "decoder_input_details": True, "max_new_tokens": 1}
        whole = "<|im_start|>assistant\nAir scatters light."
        body = post(f"{url}/generate", {"inputs": whole, "parameters": parameters}).json
        again = ask(url, reading("Air scatters light.", "<|im_start|>assistant\n"))

    told = {one["text"]: one["logprob"] for one in body["details"]["prefill"]}
    span = [told[text] for text in ("Air", " scatters", " light", ".")]
    assert (
        answer
        == again
        == Answer(
            finish_reason="length",
            generated_tokens=1,
            prompt_tokens=7,
            logprob_sum=math.fsum(span),
            logprob_squares=math.fsum(one * one for one in span),
            logprob_min=min(span),
            logprob_count=4,
        )
    )


def vllm(prompt: str, seed: int | None) -> Json:
    listed: list[Json | None] = [
        {str(one["id"]): {"logprob": -float(at), "rank": 1, "decoded_token": one["text"]}}
        for at, one in enumerate(tokens(prompt))
    ]
    return completion("x", len(listed), prompt_logprobs=[None, *listed[1:]])


def sglang(prompt: str, seed: int | None) -> Json:
    logprobs = [None, *(-float(at) for at in range(1, len(tokens(prompt)))), -0.5]
    return completion("x", len(logprobs) - 1, logprobs={"token_logprobs": logprobs})


@pytest.mark.parametrize(
    ("server", "asked"),
    [
        (ScriptedCompletions(owned_by="vllm", say=vllm), {"prompt_logprobs": 0}),
        (ScriptedCompletions(owned_by="sglang", say=sglang), {"echo": True, "logprobs": 1}),
    ],
)
def test_vllm_and_sglang_tell_the_same(server: ScriptedCompletions, asked: Json) -> None:
    with server.serving():
        answer = ask(server.url, reading("Air scatters", "<|im_start|>assistant\n"))

    assert (answer.logprob_sum, answer.logprob_min, answer.logprob_count) == (-12.0, -5.0, 3)
    [body] = server.asked
    assert body | asked | {"max_tokens": 1, "temperature": 0} == body
    assert body["prompt"] == "<|im_start|>assistant\nAir scatters"


def test_vllm_puts_bos_before_a_text_that_stands_alone() -> None:
    def say(prompt: str, seed: int | None) -> Json:
        return vllm("<s>" + prompt, seed)

    alone = replace(reading("Air scatters"), plain=True)
    with ScriptedCompletions(owned_by="vllm", bos="<s>", say=say).serving() as server:
        answer = ask(server.url, alone)

    assert (answer.logprob_sum, answer.logprob_count) == (-6.0, 3)
    assert [body["add_special_tokens"] for body in server.asked] == [True]


@pytest.mark.parametrize("owned_by", ["lmdeploy", "acme/raw"])
def test_a_server_that_cannot_is_not_asked(owned_by: str) -> None:
    with ScriptedCompletions(owned_by=owned_by).serving() as server:
        answer = ask(server.url, reading("Air scatters"))

    assert answer.error is not None
    assert answer.error.endswith(" tells no log-probabilities of a prompt")
    assert server.asked == []


def said(*sums: float | None) -> Mapping[int, Said | None]:
    return {at: None if one is None else Said("", "m@r", one, 4) for at, one in enumerate(sums)}


def test_ifd_compares_the_perplexities_of_the_response() -> None:
    asked: list[To] = []
    column = Ifd(judge="j")

    def find(to: To) -> Said | None:
        asked.append(to)
        return said(-4.0, -8.0)[to.number]

    assert conclude(column, ROW, "r", find) == {
        "ifd": math.exp(-1),
        "ifd_perplexity": math.exp(1),
        "ifd_perplexity_alone": math.exp(2),
    }
    assert [one.question for one in asked] == [
        Reading(ROW["response"], ROW["instruction"]),
        Reading(ROW["response"]),
    ]


@pytest.mark.parametrize(
    ("sums", "values"),
    [
        ((None, -8.0), (None, None, math.exp(2))),
        ((-4.0, None), (None, math.exp(1), None)),
        ((-4e4, -8.0), (None, None, math.exp(2))),  # beyond any number
        ((None, None), (None, None, None)),
    ],
)
def test_what_is_not_told_is_null(
    sums: tuple[float | None, ...], values: tuple[float | None, ...]
) -> None:
    measured = conclude(Ifd(judge="j"), ROW, "r", lambda to: said(*sums)[to.number])

    assert tuple(measured.values()) == values


@pytest.mark.parametrize("text", [None, "", " \n"])
def test_nobody_reads_an_empty_text(text: str | None) -> None:
    asked: list[To] = []
    for column in (Ifd(judge="j"), Backward(judge="j")):
        for name in ROW:
            values = conclude(column, ROW | {name: text}, "r", asked.append)
            assert values == dict.fromkeys(column.features)
    assert asked == []


def test_backward_has_the_instruction_read_behind_its_response() -> None:
    asked: list[To] = []

    conclude(Backward(judge="j"), ROW, "r", asked.append)

    [given, alone] = [one.question for one in asked]
    assert isinstance(given, Reading)
    assert given.text == ROW["instruction"]
    assert given.instruction is not None
    assert given.instruction.endswith(f"\n\n{ROW['response']}")
    assert alone == Reading(ROW["instruction"])


def test_a_recipes_own_model_reads_its_rows_and_is_never_paid_twice(tmp_path: Path) -> None:
    with simulate(FLEET) as fleet:
        rows, lock = build(tmp_path / "first", fleet.urls[0], {})
        both = {"columns": "[length, {ifd: {judge: generator}}, {backward: {judge: generator}}]"}
        more, _ = build(tmp_path / "second", fleet.urls[0], both)
    again, relock = build(tmp_path / "third", NOBODY, {})
    both_again, _ = build(tmp_path / "fourth", NOBODY, both)

    assert all(0 < row["ifd"] != 1 for row in rows)
    assert all(row["backward"] > 0 for row in more)
    assert rows == [{name: row[name] for name in rows[0]} for row in more]
    assert again == rows
    assert both_again == more
    assert relock["files"] == lock["files"]
    assert lock["judges"]["generator"]["model"]["revision"] == REVISION


@pytest.mark.parametrize("refuses", [False, True])
def test_an_endpoint_that_tells_nothing_leaves_null_and_is_asked_once(
    refuses: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """TGI without --enable-prefill-logprobs, and the embedded server, which refuses."""

    async def refuse(request: object, body: Json, before: int) -> web.Response | None:
        if not refuses or "decoder_input_details" not in body["parameters"]:
            return None
        said = {"error": "`decoder_input_details` is not supported", "error_type": "validation"}
        return web.json_response(said, status=422)

    server = ScriptedTgi(fault=refuse)
    changed = {"generator": recipe_line("generator")}
    with server.serving():
        rows, _ = build(tmp_path / "first", server.url, changed)
    again, _ = build(tmp_path / "second", NOBODY, changed)

    read_bodies = [body for body in server.asked if "decoder_input_details" in body]
    assert "ifd will be null: generator: " in capsys.readouterr().err
    assert {row["ifd"] for row in rows} == {None}
    assert len(read_bodies) >= 2 * len(rows)
    assert all(server.asked[body] == 1 for body in read_bodies)
    assert again == rows


def recipe_line(key: str) -> str:
    lines = (line.partition(": ") for line in recipe_text().splitlines())
    return next(value for name, _, value in lines if name == key)


def test_a_rehearsal_has_texts_read_too() -> None:
    recipe = read(recipe_text(**SIMULATED, filters="[ifd < 0]"), "r.yaml")

    done = rehearse(recipe, FLEET, rows=4)

    assert [column.name for column in unjudged(recipe).columns] == ["length", "ifd"]
    assert done.rows == 4
    # Two passes and two readings a row, and the four requests that prove the prefix.
    assert sum(one.answered for one in done.counters) >= 4 * 4 + 4


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        (
            {"columns": "[{ifd: {judge: generatr}}]"},
            "the column 'ifd' asks the judge 'generatr', which is not there",
        ),
        (
            {
                "judges": f"{{generator: {{model: a/b, revision: '{REVISION}'}}}}",
                "columns": "[{ifd: {judge: generator}}]",
            },
            "a judge is called 'generator', which is the recipe's own model",
        ),
    ],
)
def test_a_recipes_own_models_have_their_names(changed: dict[str, str], what: str) -> None:
    with pytest.raises(RecipeError) as error:
        read(recipe_text(**changed), "r.yaml")

    assert error.value.what == what
    assert "did you mean 'generator'?" in error.value.fix or "another name" in error.value.fix


def test_the_responder_reads_where_it_is_asked() -> None:
    other = f"{{model: a/b, revision: '{REVISION}', endpoint: {NOBODY}}}"
    column = {"columns": "[length, {ifd: {judge: responder}}]"}

    alone = read(recipe_text(**column), "r.yaml").judges["responder"]
    apart = read(recipe_text(**column, responder=other), "r.yaml").judges["responder"]

    assert alone.model == "acme/scripted"
    assert (apart.model, apart.endpoint.url) == ("a/b", NOBODY)
