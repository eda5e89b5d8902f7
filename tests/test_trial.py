"""Filters and columns on the answers that are there: the numbers of a build, and no request."""

import json
from pathlib import Path

import pytest

from prequery import Magpie, cli, trial
from prequery.errors import JournalError
from prequery.options import Options
from prequery.recipe import load
from prequery.transport import Patience
from scripted_tei import REWARD_MODEL, REWARD_REVISION, Json, ScriptedTei
from scripted_tgi import ScriptedTgi, recipe_text

AT_ONCE = Patience(first_wait_s=0, longest_wait_s=0)
NOBODY = "http://127.0.0.1:9"
JUDGE = f"{{reward: {{model: {REWARD_MODEL}, revision: '{REWARD_REVISION}', endpoint: {NOBODY}}}}}"
JUDGED = {
    "columns": "[length, {instruct_reward: {judge: reward}}]",
    "judges": JUDGE,
    "filters": "[instruction_chars > 55, instruct_reward > 3]",
}


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREQUERY_HOME", str(tmp_path / "home"))


def written(tmp_path: Path, rows: int = 20, **changed: str) -> Path:
    path = tmp_path / "scripted.yaml"
    path.write_text(recipe_text(rows, **changed))
    return path


def build(
    path: Path, out: Path, server: ScriptedTgi | None, judge: ScriptedTei | None = None
) -> Json:
    options = Options(
        endpoints=(server.url if server else NOBODY,),
        judge_endpoints={"reward": (judge.url,)} if judge else {},
        patience=AT_ONCE,
    )
    Magpie(path, options=options).download_and_prepare(out, file_format="parquet")
    lock: Json = json.loads((out / "scripted.lock.json").read_text())
    return lock


def tried(path: Path, tmp_path: Path) -> trial.Trial:
    return trial.attempt(load(path), Options(), tmp_path / "work")


def journals(tmp_path: Path) -> dict[str, bytes]:
    paths = (tmp_path / "home/journals").rglob("*")
    return {str(path): path.read_bytes() for path in paths if path.is_file()}


@pytest.mark.parametrize(
    "changed",
    [
        {"filters": "[response_chars > 52, instruction_chars > 40]"},
        {
            "filters": "[min_neighbor_distance > 0.05, {top: {by: response_chars}}]",
            "columns": "[length, min_neighbor_distance]",
            "candidates": "15",
        },
    ],
)
def test_a_trial_comes_to_what_a_build_comes_to(changed: dict[str, str], tmp_path: Path) -> None:
    with ScriptedTgi().serving() as server:
        build(written(tmp_path, 60), tmp_path / "first", server)
    before = journals(tmp_path)
    path = written(tmp_path, 10, **changed)

    found = tried(path, tmp_path)
    unchanged = journals(tmp_path) == before
    built = build(path, tmp_path / "out", None)["build"]

    assert unchanged
    assert found.enough
    assert found.selection.attempts == built["attempts"]
    assert found.selection.rejected == built["rejected"]
    assert [step.told() for step in found.selection.steps] == built["steps"]
    assert not found.left_out
    assert not found.unasked


def test_a_judge_that_was_not_asked_is_counted_and_costs_a_build_just_that(tmp_path: Path) -> None:
    with ScriptedTgi().serving() as server:
        build(written(tmp_path, 40), tmp_path / "first", server)
        path = written(tmp_path, 10, **JUDGED)

        found = tried(path, tmp_path)
        server.asked.clear()
        with ScriptedTei().serving() as judge:
            built = build(path, tmp_path / "out", server, judge)

    assert found.left_out == ("instruct_reward > 3",)
    assert [step.step for step in found.selection.steps] == ["instruction_chars > 55"]
    assert found.unasked == {"instruct_reward": 10}
    # The generator's prefix is proved with 32 tokens, before any row.
    assert all('"max_new_tokens": 32' in body for body in server.asked)
    assert len(judge.asked) >= 10
    assert built["build"]["steps"][1]["step"] == "instruct_reward > 3"


def test_filters_over_what_is_measured_by_an_unasked_judge_are_left_out_too(tmp_path: Path) -> None:
    columns = "[length, {instruction_embedding: {judge: reward}}, "
    columns += "{min_neighbor_distance: {embedder: instruction_embedding}}]"
    filters = "[instruction_chars > 55, min_neighbor_distance > 0.1]"
    with ScriptedTgi().serving() as server:
        build(written(tmp_path, 40), tmp_path / "first", server)
    path = written(tmp_path, 10, columns=columns, filters=filters, judges=JUDGE)

    found = tried(path, tmp_path)

    assert found.left_out == ("min_neighbor_distance > 0.1",)
    assert found.enough
    assert found.unasked["instruction_embedding"] >= 10


def test_answers_that_are_not_enough_are_told_as_they_are(tmp_path: Path) -> None:
    with ScriptedTgi().serving() as server:
        build(written(tmp_path), tmp_path / "first", server)
    filters = "[response_chars > 1, {top: {by: response_chars}}]"

    found = tried(written(tmp_path, 200, candidates="300", filters=filters), tmp_path)

    assert not found.enough
    assert found.selection.accepted == found.selection.steps[1].rows_out >= 20
    assert found.selection.steps[0].rows_in <= found.selection.attempts


def test_a_recipe_that_nobody_built_is_named(tmp_path: Path) -> None:
    with pytest.raises(JournalError) as caught:
        tried(written(tmp_path), tmp_path)

    assert caught.value.what.startswith("there is no answer of this recipe, scripted ")
    assert not (tmp_path / "home/journals").exists()


def test_the_command_tries_filters_that_the_recipe_does_not_have(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, 20)
    with ScriptedTgi().serving() as server:
        build(path, tmp_path / "first", server)
    capsys.readouterr()

    given = ["--filter", "instruction_chars > 20", "--filter", "top: {by: response_chars, rows: 5}"]
    sizes = ["--rows", "5", "--candidates", "20"]
    cli.app(["filter", str(path), *given, *sizes], standalone_mode=False)

    told = capsys.readouterr().out
    assert "5 accepted of 5 rows" in told
    assert "instruction_chars > 20" in told
    assert "     20         5  top 5 by response_chars" in told
    assert told.endswith("A build asks for no instruction and no response.\n")
