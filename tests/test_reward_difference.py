"""The column `reward_difference`: three questions to two judges, each paid for once."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from prequery import Magpie
from prequery.columns.base import Said, Score, To
from prequery.columns.base_response import BaseResponse
from prequery.columns.reward_difference import RewardDifference
from prequery.columns.run import conclude
from prequery.errors import RecipeError
from prequery.options import Options
from prequery.recipe import read
from prequery.transport import Patience
from scripted_tei import REWARD_MODEL, REWARD_REVISION, Json, ScriptedTei
from scripted_tgi import ScriptedTgi, recipe_text

AT_ONCE = Patience(first_wait_s=0, longest_wait_s=0)
NOBODY = "http://127.0.0.1:9"
BASE_REVISION = "b" * 40
BASE = f"base: {{model: acme/base, revision: '{BASE_REVISION}', endpoint: {NOBODY}}}"
REWARD = f"reward: {{model: {REWARD_MODEL}, revision: '{REWARD_REVISION}', endpoint: {NOBODY}}}"
BOTH = {
    "columns": "[length, {reward_difference: {judge: reward, base: base}}]",
    "judges": f"{{{REWARD}, {BASE}}}",
}
ROW = {"instruction": "Why is the sky blue?", "response": "Air scatters blue light."}


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREQUERY_HOME", str(tmp_path / "home"))


def base_model() -> ScriptedTgi:
    """A server that goes on from the examples, and then writes a message of its own."""

    def say(prompt: str, seed: int | None) -> str:
        assert seed is None
        instruction = prompt.removesuffix("\n=== answer ===\n").rpartition("=== message ===\n")[2]
        said = "" if "chess" in instruction.lower() else "Look it up.\n"
        return f"{said}=== end ===\n\n=== message ===\nWhat else?"

    server = ScriptedTgi(say=say)
    server.info |= {"model_id": "acme/base", "model_sha": BASE_REVISION}
    # A base model has no chat template, and nobody asks for one.
    server.template = None  # type: ignore[assignment]
    return server


def build(
    folder: Path,
    server: ScriptedTgi | None,
    base: ScriptedTgi | None,
    reward: ScriptedTei | None,
    changed: Mapping[str, str] = BOTH,
) -> list[Json]:
    """Build, and return the rows."""
    folder.mkdir()
    path = folder / "scripted.yaml"
    path.write_text(recipe_text(**changed))
    asked = {"base": base, "reward": reward}
    judges = {name: (one.url if one else NOBODY,) for name, one in asked.items()}
    options = Options(
        endpoints=(server.url if server else NOBODY,),
        judge_endpoints={name: url for name, url in judges.items() if name in changed["judges"]},
        patience=AT_ONCE,
    )
    Magpie(path, options=options).download_and_prepare(folder / "out", file_format="parquet")
    with next((folder / "out/scripted").glob("*.parquet")).open("rb") as file:
        rows: list[Json] = pq.read_table(file).to_pylist()
    return rows


def test_the_reward_of_a_base_models_answer_is_taken_off(tmp_path: Path) -> None:
    with (
        ScriptedTgi().serving() as server,
        base_model().serving() as base,
        ScriptedTei().serving() as reward,
    ):
        rows = build(tmp_path / "first", server, base, reward)
    again = build(tmp_path / "second", None, None, None)

    chess = [row for row in rows if "chess" in row["instruction"].lower()]
    others = [row for row in rows if row not in chess]
    assert chess
    assert {(row["reward_difference"], row["base_reward"]) for row in chess} == {(None, None)}
    assert {row["base_reward"] for row in others} == {3.0}
    assert all(r["reward_difference"] == len(r["response"].split()) - 3 for r in others)
    assert again == rows


def test_it_shares_the_answers_of_the_columns_that_it_asks_by(tmp_path: Path) -> None:
    one = {"columns": "[length, {instruct_reward: {judge: reward}}]", "judges": f"{{{REWARD}}}"}
    all_of_them = BOTH | {
        "columns": "[length, {instruct_reward: {judge: reward}}, {base_response: {judge: base}}, "
        "{reward_difference: {judge: reward, base: base}}]"
    }
    with (
        ScriptedTgi().serving() as server,
        base_model().serving() as base,
        ScriptedTei().serving() as reward,
    ):
        build(tmp_path / "first", server, None, reward, one)
        ours = [body["inputs"] for body in reward.asked]
        reward.asked.clear()
        build(tmp_path / "second", server, base, reward)
        rows = build(tmp_path / "third", None, None, None, all_of_them)

    theirs = [body["inputs"] for body in reward.asked]
    assert not [inputs for inputs in theirs if inputs in ours]
    assert all(row["base_response"] in ("Look it up.", None) for row in rows)
    assert {row["base_model"] for row in rows} == {f"acme/base@{BASE_REVISION}"}
    known = [row for row in rows if row["base_response"]]
    assert all(
        row["reward_difference"] == row["instruct_reward"] - row["base_reward"] for row in known
    )


def test_a_base_model_answers_an_instruction_once_whatever_responses_there_are(
    tmp_path: Path,
) -> None:
    several = {
        "responses": "{temperature: 0.8, max_new_tokens: 128}",
        "preference": "{responses: 3, score: reward_difference}",
        "max_attempts": "60",
        "rows": "4",
    }

    def wordy(prompt: str, seed: int | None) -> str:
        if prompt.endswith("<|im_start|>user\n"):
            return f"Why do {seed} rivers bend?"
        return "Water wears the outer bank." + " Indeed." * ((seed or 0) % 9)

    with (
        ScriptedTgi(say=wordy).serving() as server,
        base_model().serving() as base,
        ScriptedTei().serving() as reward,
    ):
        rows = build(tmp_path / "first", server, base, reward, BOTH | several)

    assert len(rows) == 4
    assert all(row["chosen_score"] > row["rejected_score"] for row in rows)
    assert set(base.asked.values()) == {1}


def test_base_models_continue_examples_without_a_template() -> None:
    question = BaseResponse(judge="b", max_new_tokens=9).ask({"instruction": " Why? \n"})

    assert question is not None
    assert question.text.endswith("\n\n=== message ===\nWhy?\n=== answer ===\n")
    assert question.text.count("=== message ===") == question.text.count("=== answer ===") == 3
    assert (question.stop, question.max_new_tokens) == (("=== end ===", "=== message ==="), 9)
    assert BaseResponse(judge="b").ask({"instruction": "\n"}) is None
    assert BaseResponse(judge="b").read("", "m@r") == {"base_response": None, "base_model": "m@r"}


@pytest.mark.parametrize(
    ("ours", "written", "theirs", "values"),
    [
        ("4", "Yes.", "1.5", (2.5, 1.5)),
        ("4", "Yes.", None, (None, None)),
        ("4", " ", "1", (None, None)),
        (None, "Yes.", "1", (None, None)),
        ("null", "Yes.", "1", (None, 1.0)),
    ],
)
def test_what_has_no_reward_has_no_difference(
    ours: str | None, written: str, theirs: str | None, values: tuple[float | None, float | None]
) -> None:
    said = {"instruct_reward": ours, "base_response": written, "reward_difference": theirs}

    def find(to: To) -> Said | None:
        text = said[to.column.name]
        if text is not None and isinstance(to.question, Score):
            text = f'[{{"score": {text}, "label": "L"}}]'
        return None if text is None else Said(text, "m@r")

    measured: dict[str, Any] = conclude(RewardDifference(judge="r", base="b"), ROW, "id", find)

    assert tuple(measured.values()) == values


def test_two_ways_of_scoring_in_one_recipe_are_refused() -> None:
    columns = (
        "[length, {instruct_reward: {judge: reward, label: good}}, "
        "{reward_difference: {judge: reward, base: base}}]"
    )

    with pytest.raises(RecipeError) as error:
        read(recipe_text(**BOTH | {"columns": columns}), "r.yaml")

    assert error.value.what == (
        "'instruct_reward' is wanted in two ways: "
        "InstructReward(judge='reward', text='', label='good') and "
        "InstructReward(judge='reward', text='', label='')"
    )
    assert error.value.fix == "give both the same parameters"


def test_a_base_model_that_a_column_asks_must_be_a_judge() -> None:
    with pytest.raises(RecipeError) as error:
        read(recipe_text(**BOTH | {"judges": f"{{{REWARD}}}"}), "r.yaml")

    assert (
        error.value.what == "the column 'base_response' asks the judge 'base', which is not there"
    )
