"""Conversations of every kind against a real HTTP server: who is asked what, what is kept."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset

from prequery import Magpie, gates, instructions
from prequery.draws import draw
from prequery.endpoint import Answer
from prequery.errors import BudgetError, BuildError, RecipeError
from prequery.options import Options
from prequery.preference import TIE
from prequery.recipe import read
from prequery.transport import Patience
from scripted_tgi import (
    MODEL,
    REVISION,
    SYSTEM,
    Json,
    ScriptedTgi,
    chatml,
    generated,
    recipe_text,
    words,
)

AT_ONCE = Patience(first_wait_s=0, longest_wait_s=0)
USER = "<|im_start|>user\n"
ASSISTANT = "<|im_start|>assistant\n"


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREQUERY_HOME", str(tmp_path / "home"))


class Built:
    """A finished build: its rows and its lock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with next((folder / "scripted").glob("*.parquet")).open("rb") as file:
            self.rows: list[Json] = pq.read_table(file).to_pylist()
        self.lock: Json = json.loads((folder / "scripted.lock.json").read_text())


def build(
    tmp_path: Path,
    server: ScriptedTgi | None,
    out: str = "out",
    second: ScriptedTgi | None = None,
    changed: Mapping[str, str] | None = None,
) -> Built:
    """Build this recipe; without a server, from the journal alone."""
    path = tmp_path / "scripted.yaml"
    path.write_text(recipe_text(**(changed or {})))
    nobody = "http://127.0.0.1:9"
    options = Options(
        endpoints=(server.url if server else nobody,),
        responder_endpoints=(second.url if second else nobody,)
        if "responder" in (changed or {})
        else (),
        patience=AT_ONCE,
    )
    Magpie(path, options=options).download_and_prepare(tmp_path / out, file_format="parquet")
    return Built(tmp_path / out)


def bodies(server: ScriptedTgi) -> list[Json]:
    """Return what was asked, without the proof of the prefix, which asks for 32 tokens."""
    asked = [json.loads(body) for body in server.asked]
    return [body for body in asked if body["parameters"]["max_new_tokens"] != 32]


def roles(row: Json) -> str:
    return "".join(message["role"][0] for message in row["messages"])


def test_later_turns_are_written_from_the_conversation_so_far(tmp_path: Path) -> None:
    with ScriptedTgi().serving() as server:
        built = build(tmp_path, server, changed={"turns": "3", "rows": "6"})
    prompts = {body["inputs"] for body in bodies(server)}

    assert {roles(row) for row in built.rows} == {"uauaua"}
    assert {row["turns"] for row in built.rows} == {3}
    for row in built.rows:
        prompt = f"<|im_start|>system\n{SYSTEM}<|im_end|>\n{USER}"
        for instruction, response in zip(row["messages"][::2], row["messages"][1::2], strict=True):
            assert prompt in prompts
            prompt += f"{instruction['content']}<|im_end|>\n{ASSISTANT}"
            assert prompt in prompts
            prompt += f"{response['content']}<|im_end|>\n{USER}"
        assert row["instruction"] == row["messages"][0]["content"]
        assert row["response"] == row["messages"][1]["content"]


def test_a_build_of_conversations_is_repeated_from_its_journal(tmp_path: Path) -> None:
    options = {
        "turns": "[1, 1, 1]",
        "instructions": "[{temperature: 0.8, max_new_tokens: 64, first_temperature: 1.4}]",
    }
    with ScriptedTgi(say=opened).serving() as server:
        first = build(tmp_path, server, changed=options)
    again = build(tmp_path, None, out="again", changed=options)

    assert {row["turns"] for row in first.rows} == {1, 2, 3}
    assert again.lock["files"] == first.lock["files"]
    assert again.lock["build"] == first.lock["build"]


def test_the_reminder_is_for_later_user_turns_alone(tmp_path: Path) -> None:
    reminder = "You are the user who asks."
    with ScriptedTgi().serving() as server:
        hidden = build(
            tmp_path, server, changed={"turns": "2", "follow_up": f"{{system: {reminder}}}"}
        )
        told = build(
            tmp_path,
            server,
            "told",
            changed={"turns": "2", "follow_up": f"{{system: {reminder}, release: true}}"},
        )
    under = [body["inputs"] for body in bodies(server) if reminder in body["inputs"]]

    assert under
    assert all(prompt.endswith(USER) and prompt.count(USER) == 2 for prompt in under)
    assert reminder not in json.dumps(hidden.rows)
    assert {row["follow_up_system"] for row in told.rows} == {reminder}
    assert {roles(row) for row in told.rows} == {"uaua"}


def test_a_failed_turn_ends_the_conversation_at_the_last_whole_pair(tmp_path: Path) -> None:
    def sometimes(prompt: str, seed: int | None) -> str | Json:
        said = words(prompt, seed)
        turn = prompt.count(USER)
        kind = len(prompt) % 5
        if turn == 2 and prompt.endswith(USER):
            cut, blank, loop = generated(said, "length"), generated("  "), "again and " * 40
            odd: list[str | Json] = [cut, blank, loop, said, said]
            return odd[kind]
        if turn == 2 and kind == 3:
            return generated(said, "length")
        return said

    with ScriptedTgi(say=sometimes).serving() as server:
        built = build(tmp_path, server, changed={"turns": "2", "rows": "40"})
    ended = [row["turns_ended"] for row in built.rows]

    counted = {reason: ended.count(reason) for reason in set(ended) - {None}}
    assert built.lock["build"]["ended"] == counted
    assert {gates.CUT_OFF, gates.EMPTY, gates.LOOP} <= counted.keys()
    for row in built.rows:
        assert roles(row) == ("uaua" if row["turns_ended"] is None else "ua")
        assert row["turns"] == len(row["messages"]) // 2


def test_nobody_goes_on_from_half_of_a_response(tmp_path: Path) -> None:
    def verbose(prompt: str, seed: int | None) -> str | Json:
        said = words(prompt, seed)
        return said if prompt.endswith(USER) else generated(said, "length")

    with ScriptedTgi(say=verbose).serving() as server:
        built = build(tmp_path, server, changed={"turns": "2"})

    assert built.lock["build"]["ended"] == {gates.CUT_OFF_RESPONSE: 20}
    assert not any(body["inputs"].count(USER) > 1 for body in bodies(server))


def test_a_user_who_repeats_an_earlier_turn_ends_the_conversation(tmp_path: Path) -> None:
    def parrot(prompt: str, seed: int | None) -> str:
        said = re.findall(r"user\n(.*?)<\|im_end\|>", prompt)
        return said[0] if prompt.endswith(USER) and said else words(prompt, seed)

    with ScriptedTgi(say=parrot).serving() as server:
        built = build(tmp_path, server, changed={"turns": "2"})

    assert built.lock["build"]["ended"] == {gates.REPEATED_TURN: 20}
    assert {roles(row) for row in built.rows} == {"ua"}


STEERED = """
  - {weight: 1, temperature: 0.8, max_new_tokens: 64}
  - {weight: 1, name: topics, temperature: 0.9, max_new_tokens: 64, items: [bread, maps],
     system: "You help people who ask about {item}."}"""


def test_a_hidden_steering_prompt_shapes_the_instruction_alone(tmp_path: Path) -> None:
    with ScriptedTgi().serving() as server:
        built = build(tmp_path, server, changed={"instructions": STEERED})
    under = {body["inputs"] for body in bodies(server) if "You help" in body["inputs"]}

    steered = [row for row in built.rows if row["steering"] == "topics"]
    plain = [row for row in built.rows if row["steering"] is None]
    assert steered
    assert plain
    assert under == {
        f"<|im_start|>system\nYou help people who ask about {item}.<|im_end|>\n{USER}"
        for item in ("bread", "maps")
    }
    for row in steered:
        assert row["system_prompt"] == f"You help people who ask about {row['steering_item']}."
        assert row["instruction_temperature"] == 0.9
        assert roles(row) == "ua"
    assert {(row["system_prompt"], row["steering_item"]) for row in plain} == {(SYSTEM, None)}
    card = (built.folder / "README.md").read_text()
    assert "Not in every row: 1 of 2 settings steer the instruction" in card


def test_a_released_steering_prompt_stands_in_messages_and_over_the_response(
    tmp_path: Path,
) -> None:
    with ScriptedTgi().serving() as server:
        built = build(
            tmp_path,
            server,
            changed={"instructions": STEERED, "steering": "released", "turns": "2"},
        )
    prompts = {body["inputs"] for body in bodies(server)}

    for row in built.rows:
        if row["steering"] is None:
            assert roles(row) == "uaua"
            continue
        assert roles(row) == "suaua"
        system = row["messages"][0]["content"]
        assert system == row["system_prompt"]
        asked = f"<|im_start|>system\n{system}<|im_end|>\n{USER}{row['instruction']}"
        assert f"{asked}<|im_end|>\n{ASSISTANT}" in prompts


def test_the_model_goes_on_from_the_first_words(tmp_path: Path) -> None:
    def goes_on(prompt: str, seed: int | None) -> str:
        said = words(prompt + USER if prompt.endswith("How do I") else prompt, seed)
        return said.replace("Could you explain how", " find out how")

    setting = "[{temperature: 0.8, max_new_tokens: 64, start: How do I}]"
    with ScriptedTgi(say=goes_on).serving() as server:
        built = build(tmp_path, server, changed={"instructions": setting})

    assert all(row["instruction"].startswith("How do I find out how ") for row in built.rows)
    assert {row["instruction_start"] for row in built.rows} == {"How do I"}
    assert any(body["inputs"].endswith(f"{USER}How do I") for body in bodies(server))


def opened(prompt: str, seed: int | None) -> str | Json:
    """Write a first token where one is asked for at a temperature of its own, and go on from it."""
    if prompt.endswith(USER):
        return generated("Would" if seed and seed % 2 else "Might", "length")
    begun = re.search(r"user\n(Would|Might)$", prompt)
    if begun:
        return words(prompt[: -len(begun[1])], seed).removeprefix("Could")
    return words(prompt, seed)


def test_a_hotter_first_token_is_a_request_of_its_own(tmp_path: Path) -> None:
    setting = "[{temperature: 0.8, top_p: 0.9, max_new_tokens: 64, first_temperature: 1.4}]"
    with ScriptedTgi(say=opened).serving() as server:
        built = build(tmp_path, server, changed={"instructions": setting})
    first = [body for body in bodies(server) if body["parameters"]["max_new_tokens"] == 1]
    rest = [body for body in bodies(server) if body["inputs"].endswith(("Would", "Might"))]

    assert len(first) >= 20
    assert {body["parameters"]["temperature"] for body in first} == {1.4}
    assert {body["parameters"]["temperature"] for body in rest} == {0.8}
    seeds = [body["parameters"]["seed"] for body in first + rest]
    assert len(set(seeds)) == len(seeds)
    assert {row["instruction"].split()[0] for row in built.rows} == {"Would", "Might"}
    assert built.lock["build"]["requests"] == 3 * built.lock["build"]["attempts"]
    for row in built.rows:
        assert row["instruction_temperature"] == 0.8


def test_the_log_probabilities_of_both_requests_add_up() -> None:
    first = Answer(logprob_sum=-2.0, logprob_squares=4.0, logprob_min=-2.0, logprob_count=1)
    rest = Answer(logprob_sum=-1.5, logprob_squares=1.25, logprob_min=-1.0, logprob_count=2)
    before = msgspec.structs.replace(first, logprob_squares=None)

    assert instructions.joined(first, rest) == Answer(
        logprob_sum=-3.5, logprob_squares=5.25, logprob_min=-2.0, logprob_count=3
    )
    assert instructions.joined(first, Answer()) == first
    assert instructions.joined(before, rest).logprob_squares is None


def test_a_first_token_that_ends_the_turn_is_an_empty_instruction(tmp_path: Path) -> None:
    def silent(prompt: str, seed: int | None) -> str | Json:
        return (
            generated("")
            if prompt.endswith(USER) and seed and seed % 3 == 0
            else opened(prompt, seed)
        )

    setting = "[{temperature: 0.8, max_new_tokens: 64, first_temperature: 1.4}]"
    with ScriptedTgi(say=silent).serving() as server:
        built = build(tmp_path, server, changed={"instructions": setting})

    assert built.lock["build"]["rejected"][gates.EMPTY] > 0


def test_half_a_character_is_not_sent_back(tmp_path: Path) -> None:
    def half(prompt: str, seed: int | None) -> str | Json:
        if prompt.endswith(USER) and not seed:
            raise AssertionError
        asked = prompt.endswith(USER) and (seed or 0) in firsts
        return generated("\ufffd", "length") if asked else words(prompt, seed)

    setting = "[{temperature: 0.8, max_new_tokens: 64, first_temperature: 1.4}]"
    made = read(recipe_text(instructions=setting), "r.yaml")
    firsts = {draw(made.fingerprint, slot, "opening") for slot in range(200)}
    with ScriptedTgi(say=half).serving() as server:
        built = build(tmp_path, server, changed={"instructions": setting})

    assert all(row["instruction"].startswith("Could you explain") for row in built.rows)


def test_a_grammar_forbids_a_heading_in_user_turns_alone(tmp_path: Path) -> None:
    setting = "[{temperature: 0.8, max_new_tokens: 64, heading: false}]"
    with ScriptedTgi().serving() as server:
        build(tmp_path, server, changed={"instructions": setting})

    for body in bodies(server):
        grammar = body["parameters"].get("grammar")
        if not body["inputs"].endswith(USER):
            assert grammar is None
            continue
        assert grammar["type"] == "regex"
        for text in ("How are you?", "a", "1. Tell me\nmore", "…"):
            assert re.fullmatch(grammar["value"], text)
        for text in ("# Title", "## Step 1", "* one", "- one", "**Bold**", "> so", " x", "\n", ""):
            assert not re.fullmatch(grammar["value"], text)


def thinker(prompt: str, seed: int | None) -> str:
    said = words(prompt, seed)
    return said if prompt.endswith(USER) else f"<think>\nIt is {seed}.\n</think>\n\n{said}"


@pytest.mark.parametrize("mode", ["keep", "strip", "split"])
def test_think_blocks_are_kept_stripped_or_split_off(tmp_path: Path, mode: str) -> None:
    server = ScriptedTgi(say=thinker, template=thinking_chatml)
    with server.serving():
        built = build(
            tmp_path,
            server,
            changed={"think": mode, "turns": "2", "columns": "[length]", "filters": "[]"},
        )

    for row in built.rows:
        said = [message["content"] for message in row["messages"][1::2]]
        assert said[0] == row["response"]
        assert all(text.startswith("<think>\nIt is") == (mode == "keep") for text in said)
        assert row["thinking"] == (["It is None.", "It is None."] if mode == "split" else None)
    # What was thought is no part of the conversation that the next turn is written from.
    later = [body["inputs"] for body in bodies(server) if body["inputs"].count(USER) == 2]
    assert later
    assert not any("<think>" in prompt for prompt in later)


def thinking_chatml(messages: list[dict[str, str]]) -> str:
    """Render like a thinking model's template: history without its think blocks."""

    return chatml(
        [m | {"content": m["content"].split("</think>")[-1].lstrip("\n")} for m in messages]
    )


CHANNELS = "<|start|>assistant<|channel|>"


def test_thoughts_between_control_tokens_are_told_from_words(tmp_path: Path) -> None:
    """TGI leaves control tokens out of `generated_text`, and has them in its details."""

    def channels(prompt: str, seed: int | None) -> Json:
        said = words("<|im_start|>user\n" if prompt.endswith("user<|message|>") else prompt, seed)
        if prompt.endswith("user<|message|>"):
            return generated(said)
        spelled = (
            f"<|channel|>analysis<|message|>They ask.<|end|>{CHANNELS}final<|message|>{said}"
            "<|return|>"
        )
        answer = generated(spelled)
        for token in answer["details"]["tokens"]:
            token["special"] = token["text"].startswith("<|")
        answer["generated_text"] = re.sub(r"<\|\w+\|>", "", spelled)
        return answer

    harmony = Path(__file__).parent / "templates/harmony.jinja"
    generator = (
        f"{{model: {MODEL}, revision: '{REVISION}', date: 2026-01-31, "
        f"template: {{file: '{harmony}'}}}}"
    )
    changed = {"generator": generator, "think": "split", "filters": "[]"}
    with ScriptedTgi(say=channels).serving() as server:
        built = build(tmp_path, server, changed=changed)

    assert {tuple(row["thinking"]) for row in built.rows} == {("They ask.",)}
    assert all(row["response"].startswith("Of course. ") for row in built.rows)
    assert "analysis" not in json.dumps([row["messages"] for row in built.rows])


def test_think_markers_in_an_instruction_are_control_tokens(tmp_path: Path) -> None:
    def confused(prompt: str, seed: int | None) -> str:
        said = words(prompt, seed)
        odd = prompt.endswith(USER) and seed and seed % 4 == 0
        return f"<think>Let me ask.</think> {said}" if odd else said

    with ScriptedTgi(say=confused, template=thinking_chatml).serving() as server:
        built = build(tmp_path, server)

    assert built.lock["build"]["rejected"][gates.CONTROL] > 0
    assert "<think>" not in json.dumps(built.rows)


def other_model() -> ScriptedTgi:
    """Serve another model, with a template and words of its own."""

    def render(messages: list[dict[str, str]]) -> str:
        said = "".join(f"{m['role'].upper()}: {m['content']}\n" for m in messages)
        return f"{said}ASSISTANT: "

    def say(prompt: str, seed: int | None) -> str:
        return f"Said otherwise: {words('', len(prompt))}"

    server = ScriptedTgi(say=say, template=render)
    server.info |= {"model_id": "acme/other", "model_sha": "6" * 40}
    return server


OTHER = f"{{model: acme/other, revision: '{'6' * 40}'}}"


def test_another_model_writes_the_responses_in_its_own_template(tmp_path: Path) -> None:
    with ScriptedTgi().serving() as server, other_model().serving() as other:
        built = build(tmp_path, server, second=other, changed={"responder": OTHER, "turns": "2"})
        again = build(tmp_path, None, out="again", changed={"responder": OTHER, "turns": "2"})

    assert all(body["inputs"].endswith(USER) for body in bodies(server))
    assert all(body["inputs"].endswith("ASSISTANT: ") for body in bodies(other))
    for row in built.rows:
        assert (row["generator"], row["responder"]) == (
            f"{MODEL}@{REVISION}",
            f"acme/other@{'6' * 40}",
        )
        assert row["response"].startswith("Said otherwise")
        asked = f"USER: {row['instruction']}\nASSISTANT: "
        assert asked in {body["inputs"] for body in bodies(other)}
    assert built.lock["responder"]["generator"]["model_id"] == "acme/other"
    assert built.lock["responder"]["prefix"]["suffix"] == "\nASSISTANT: "
    assert built.lock["generator"]["model_id"] == MODEL
    assert again.lock["files"] == built.lock["files"]


def test_a_responder_has_a_price_of_its_own(tmp_path: Path) -> None:
    priced = "endpoint: {url: local, usd_per_million_generated_tokens: 1000000}"
    dear = OTHER.removesuffix("}") + f", {priced}}}"
    path = tmp_path / "scripted.yaml"
    path.write_text(recipe_text(responder=dear))
    with ScriptedTgi().serving() as server, other_model().serving() as other:
        options = Options((server.url,), responder_endpoints=(other.url,), max_cost_usd=0.5)
        with pytest.raises(BudgetError, match="USD are spent"):
            Magpie(path, options=options).download_and_prepare(tmp_path / "out")
        asked = len(bodies(other))
        built = build(tmp_path, server, second=other, changed={"responder": dear})

    assert 0 < asked < len(built.rows)
    # A lock counts the tokens of both passes together, which have two prices.
    assert built.lock["build"]["usd"] is None


def test_a_responder_that_serves_another_model_is_refused(tmp_path: Path) -> None:
    with (
        ScriptedTgi().serving() as server,
        ScriptedTgi().serving() as wrong,
        pytest.raises(BuildError) as caught,
    ):
        build(tmp_path, server, second=wrong, changed={"responder": OTHER})

    assert caught.value.what == (
        f"the endpoint serves {MODEL}@{REVISION}, the recipe asks for acme/other@{'6' * 40}"
    )
    assert not bodies(server)


PREFERRED = {
    "responses": "{temperature: 0.8, max_new_tokens: 128}",
    "preference": "{responses: 4, score: response_words}",
}


def wordy(prompt: str, seed: int | None) -> str:
    said = words(prompt, seed)
    return said if prompt.endswith(USER) else said + " Indeed." * ((seed or 0) % 3)


def test_the_best_and_the_worst_of_several_responses_make_a_preference_row(tmp_path: Path) -> None:
    with ScriptedTgi(say=wordy).serving() as server:
        built = build(tmp_path, server, changed=PREFERRED)
        again = build(tmp_path, None, out="again", changed=PREFERRED)
    asked = [body for body in bodies(server) if not body["inputs"].endswith(USER)]

    assert not any("best_of" in body["parameters"] for body in asked)
    assert len({body["parameters"]["seed"] for body in asked}) == len(asked)
    for row in built.rows:
        assert row["prompt"] == [{"role": "user", "content": row["instruction"]}]
        assert row["chosen"] == [{"role": "assistant", "content": row["response"]}]
        (rejected,) = row["rejected"]
        assert len(row["scores"]) == 4
        assert row["chosen_score"] == max(row["scores"]) == len(row["response"].split())
        assert row["rejected_score"] == min(row["scores"]) == len(rejected["content"].split())
        assert row["score_margin"] == row["chosen_score"] - row["rejected_score"] > 0
        assert row["response_seed"] != row["rejected_seed"]
        assert "messages" not in row
    rejected_rows = built.lock["build"]["rejected"]
    assert rejected_rows[TIE] > 0
    assert sum(rejected_rows.values()) + 20 == built.lock["build"]["attempts"]
    assert again.lock["files"] == built.lock["files"]
    loaded = load_dataset(str(built.folder), "scripted", split="train")
    assert loaded.column_names[:4] == ["id", "prompt", "chosen", "rejected"]


def test_a_smaller_margin_makes_no_row(tmp_path: Path) -> None:
    narrow = PREFERRED | {"preference": "{responses: 4, score: response_words, min_margin: 2}"}
    with ScriptedTgi(say=wordy).serving() as server:
        built = build(tmp_path, server, changed=narrow)

    assert min(row["score_margin"] for row in built.rows) == 2
    assert built.lock["build"]["rejected"]["preference: margin below min_margin"] > 0


def test_preferences_go_with_columns_that_see_every_row(tmp_path: Path) -> None:
    with ScriptedTgi(say=wordy).serving() as server:
        built = build(
            tmp_path,
            server,
            changed=PREFERRED
            | {
                "columns": "[length, min_neighbor_distance]",
                "filters": "[min_neighbor_distance > 0, score_margin >= 1]",
            },
        )

    assert all(row["min_neighbor_distance"] > 0 for row in built.rows)
    assert len(built.rows) == 20


@pytest.mark.parametrize(
    ("changed", "what", "fix"),
    [
        (
            {"preference": "{responses: 3, score: response_words}"},
            "responses are decoded greedily: all of them would be the same",
            "set responses.temperature; the paper took 0.8",
        ),
        (
            PREFERRED | {"turns": "2"},
            "preference compares responses to one instruction, and rows have several turns",
            "set turns to 1, or make a recipe of its own",
        ),
        (
            PREFERRED | {"preference": "{responses: 3, score: response_word}"},
            "score is 'response_word'",
            "did you mean 'response_words'? allowed: instruction_chars, instruction_words, "
            "response_chars, response_words, instruction_logprob_mean, instruction_logprob_min, "
            "instruction_logprob_std, instruction_perplexity, response_logprob_mean, "
            "response_logprob_min, response_logprob_std, response_perplexity, "
            "instruction_repetition_ratio, response_repetition_ratio",
        ),
        (
            PREFERRED | {"columns": "[language]", "preference": "{responses: 1, score: x}"},
            "responses is 1",
            "allowed: a whole number from 2 to 64",
        ),
        (
            {"follow_up": "{system: You are the user.}"},
            "follow_up is given, and every row has one turn",
            "raise turns, or remove follow_up",
        ),
        (
            {"turns": "[1, -1]"},
            "turns is [1, -1]",
            "allowed: a number from 1 to 16, or the weights of 1, 2, 3 ... turns",
        ),
        (
            {"instructions": "[{temperature: 1.0, max_new_tokens: 9, system: 'On {item}.'}]"},
            "system has {item}, and there are no items",
            "list the texts that it stands for under items",
        ),
        (
            {"instructions": "[{temperature: 1.0, max_new_tokens: 9, items: [a, b]}]"},
            "items are given, and neither system nor start has {item}",
            "write {item} where an item goes in system or start",
        ),
        (
            {"instructions": "[{temperature: 1.0, max_new_tokens: 9, start: How, heading: false}]"},
            "start gives the first words, so heading decides nothing",
            "remove one of the two",
        ),
        (
            {"instructions": "[{temperature: [], max_new_tokens: 9}]"},
            "temperature is []",
            "allowed: a number over 0, at most 100",
        ),
        (
            {"steering": "relased"},
            "steering is 'relased'",
            "did you mean 'released'? allowed: hidden, released",
        ),
    ],
)
def test_a_recipe_that_contradicts_itself_is_refused(
    changed: dict[str, str], what: str, fix: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        read(recipe_text(**changed), "r.yaml")

    assert (caught.value.what, caught.value.fix) == (what, fix)
