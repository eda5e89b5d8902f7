"""A release comes again: from recorded answers byte for byte, live as far as the endpoint does."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pytest
from typer.testing import CliRunner

from hub import Hub
from prequery import Magpie, rebuild, recording
from prequery.cli import app
from prequery.errors import EndpointError, RebuildError
from prequery.options import Options
from prequery.progress import Progress
from prequery.recipe import load
from prequery.released import open_release
from released_folders import AT_ONCE, REPO, edit_lock, release, upload
from scripted_tgi import ScriptedTgi, words

PLACE = "journals/scripted/v1.0.0"
USER = "<|im_start|>user\n"


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREQUERY_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release with its recorded answers."""
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("built")
        patch.setenv("PREQUERY_HOME", str(root / "home"))
        out = release(root, "out")
        lock = json.loads((out / "scripted.lock.json").read_text())
        options = Options(journal=root / "journal")
        files = fsspec.filesystem("file")
        recipe = load(out / "scripted.yaml")
        recording.publish(recipe, lock, options, files, str(out / PLACE))
        return out


@pytest.fixture
def out(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "out"))


def shards(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / "scripted").glob("*.parquet")}


def live(out: Path, again: Path, server: ScriptedTgi) -> rebuild.Comparison:
    options = Options((server.url,), journal=again.with_name("new"), patience=AT_ONCE)
    return rebuild.live(open_release(str(out)), str(again), options, lambda line: None, Progress)


def test_recorded_answers_give_the_same_bytes_without_a_model(out: Path, tmp_path: Path) -> None:
    made = rebuild.from_recording(open_release(str(out)), str(tmp_path / "again"))

    assert made.identical
    assert made.same_rows
    assert made.packages == {}
    assert len(made.files) == 3
    assert shards(tmp_path / "again") == shards(out)
    assert (tmp_path / "again/scripted.lock.json").read_text() == (
        out / "scripted.lock.json"
    ).read_text()


def test_a_tag_on_the_hub_comes_again(hub: Hub, out: Path, tmp_path: Path) -> None:
    upload(hub, out, "scripted-v1.0.0")

    opened = open_release(f"{REPO}@scripted-v1.0.0", "scripted")
    made = rebuild.from_recording(opened, str(tmp_path / "again"))

    assert made.identical
    assert shards(tmp_path / "again") == shards(out)


def test_other_packages_and_other_bytes_are_told(out: Path, tmp_path: Path) -> None:
    held = json.loads((out / "scripted.lock.json").read_text())
    name = "scripted/train-00000-of-00003.parquet"
    files = held["files"] | {name: held["files"][name] | {"sha256": "0" * 64}}
    packages = held["packages"] | {"pyarrow": "1.0"}
    edit_lock(out, {"files": files, "packages": packages}, honest=True)

    made = rebuild.from_recording(open_release(str(out)), str(tmp_path / "again"))

    assert [path for path, same in made.files.items() if not same] == [name]
    assert made.same_rows
    assert made.packages == {"pyarrow": ("1.0", held["packages"]["pyarrow"])}


def test_an_edited_lock_and_the_release_itself_as_output_are_refused(
    out: Path, tmp_path: Path
) -> None:
    with pytest.raises(RebuildError) as here:
        rebuild.from_recording(open_release(str(out)), str(out))
    edit_lock(out, {"packages": {}})
    with pytest.raises(RebuildError) as edited:
        rebuild.from_recording(open_release(str(out)), str(tmp_path / "again"))

    assert here.value.what == "the rebuild would stand where the release is"
    assert edited.value.what == "the lock was edited: its digest is another"
    assert not (tmp_path / "again").exists()


def test_a_recipe_that_was_edited_is_refused(out: Path, tmp_path: Path) -> None:
    text = (out / "scripted.yaml").read_text()
    (out / "scripted.yaml").write_text(text.replace("seed: 3", "seed: 4"))

    with pytest.raises(RebuildError) as caught:
        rebuild.from_recording(open_release(str(out)), str(tmp_path / "again"))

    assert caught.value.what.startswith("the recipe is not the one of the lock")


def test_without_recorded_answers_an_endpoint_is_asked_for(out: Path, tmp_path: Path) -> None:
    shutil.rmtree(out / "journals")

    with pytest.raises(RebuildError) as caught:
        rebuild.from_recording(open_release(str(out)), str(tmp_path / "again"))

    assert caught.value.what == "the release has no recorded answers"


def test_a_live_rebuild_of_a_model_that_repeats_itself_is_identical(
    out: Path, tmp_path: Path
) -> None:
    with ScriptedTgi().serving() as server:
        compared = live(out, tmp_path / "again", server)

    assert compared.counts == {
        "identical": 20,
        "same instruction": 0,
        "different": 0,
        "missing": 0,
    }
    assert compared.differences == []
    assert compared.identical_ratio == 1
    assert compared.rebuilt.identical


def test_a_live_rebuild_names_the_first_differing_token(out: Path, tmp_path: Path) -> None:
    rows = [row for table in open_release(str(out)).tables() for row in table.to_pylist()]
    changed, other = rows[3]["instruction"], rows[5]["instruction"]

    def said(prompt: str, seed: int | None) -> str:
        text = words(prompt, seed)
        if prompt.endswith(USER):
            return text.replace("Could", "Would") if text == other else text
        return text.replace("Of course", "Of sorts") if changed in prompt else text

    with ScriptedTgi(say=said).serving() as server:
        compared = live(out, tmp_path / "again", server)

    assert compared.counts["identical"] == 18
    first, second = compared.differences
    assert (first.id, first.likeness, first.part, first.token) == (
        rows[3]["id"],
        "same instruction",
        "response 0",
        2,
    )
    assert first.ids[0] != first.ids[1]
    assert first.texts[0].startswith("course.")
    assert first.texts[1].startswith("sorts.")
    assert (second.id, second.likeness, second.part, second.token) == (
        rows[5]["id"],
        "different",
        "instruction 0",
        0,
    )


def test_a_row_whose_slot_is_rejected_now_is_compared_all_the_same(
    out: Path, tmp_path: Path
) -> None:
    rows = [row for table in open_release(str(out)).tables() for row in table.to_pylist()]
    short = rows[4]["instruction"]

    def said(prompt: str, seed: int | None) -> str:
        text = words(prompt, seed)
        return "Why?" if text == short else text

    with ScriptedTgi(say=said).serving() as server:
        compared = live(out, tmp_path / "again", server)

    assert compared.counts == {
        "identical": 19,
        "same instruction": 0,
        "different": 1,
        "missing": 0,
    }
    assert compared.differences[0].texts == (short[:24], "Why?")


@pytest.mark.parametrize("changed", [{"model_sha": "6" * 40}, {"model_id": "acme/other"}])
def test_another_model_or_revision_is_refused_before_it_is_paid(
    out: Path, tmp_path: Path, changed: dict[str, str]
) -> None:
    info = ScriptedTgi().info | changed
    with ScriptedTgi(info=info).serving() as server:
        with pytest.raises(EndpointError, match="the endpoint serves"):
            live(out, tmp_path / "again", server)
        assert not server.asked

    assert not (tmp_path / "again").exists()


def test_another_template_is_refused_before_it_is_paid(out: Path, tmp_path: Path) -> None:
    def template(messages: list[dict[str, str]]) -> str:
        turns = [f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages]
        return "".join(turns) + "<|im_start|>assistant\n"

    with ScriptedTgi(template=template).serving() as server:
        with pytest.raises(RebuildError) as caught:
            live(out, tmp_path / "again", server)
        assert not server.asked

    assert caught.value.what.startswith(
        "the endpoint does not serve what the release was made with: prefix."
    )


def test_conversations_and_preferences_come_again(tmp_path: Path) -> None:
    sampled = "{temperature: 0.8, max_new_tokens: 128}"
    score = "{responses: 3, score: response_chars}"
    with ScriptedTgi().serving() as server:
        talk = release(tmp_path, "talk", server, turns="[0.5, 0.5]")
        pairs = release(tmp_path, "pairs", server, responses=sampled, preference=score)
        compared = [live(out, tmp_path / f"{out.name}-2", server) for out in (talk, pairs)]

    assert [one.counts["identical"] for one in compared] == [20, 20]
    assert all(one.rebuilt.identical for one in compared)


def test_a_later_turn_and_a_rejected_response_that_differ_are_named(tmp_path: Path) -> None:
    sampled = "{temperature: 0.8, max_new_tokens: 128}"
    score = "{responses: 3, score: response_chars}"

    def odd(prompt: str, seed: int | None) -> str:
        text = words(prompt, seed)
        later = prompt.count(USER) > 1
        return text.replace("Could", "Would") if later and prompt.endswith(USER) else text

    def longer(prompt: str, seed: int | None) -> str:
        text = words(prompt, seed)
        return text if prompt.endswith(USER) else text.replace("things", "kinds of things")

    with ScriptedTgi().serving() as server:
        talk = release(tmp_path, "talk", server, turns="2")
        pairs = release(tmp_path, "pairs", server, responses=sampled, preference=score)
    with ScriptedTgi(say=odd).serving() as server:
        turns = live(talk, tmp_path / "talk-2", server)
    with ScriptedTgi(say=longer).serving() as server:
        scored = live(pairs, tmp_path / "pairs-2", server)

    assert turns.counts["same instruction"] == 20
    assert {one.part for one in turns.differences} == {"instruction 1"}
    assert scored.counts["same instruction"] == 20
    assert {one.part for one in scored.differences} == {"chosen"}


def test_files_that_a_recipe_names_are_taken_from_a_folder(tmp_path: Path) -> None:
    (tmp_path / "recipes").mkdir()
    shutil.copy(Path(__file__).parent / "texts/riddles.jsonl", tmp_path / "recipes")
    out = release(
        tmp_path, "out", columns="[length, {contamination: {files: {riddles.jsonl: question}}}]"
    )
    lock = json.loads((out / "scripted.lock.json").read_text())
    recipe = load(tmp_path / "recipes/out.yaml")
    files = fsspec.filesystem("file")
    recording.publish(recipe, lock, Options(journal=tmp_path / "journal"), files, str(out / PLACE))
    opened = open_release(str(out))

    with pytest.raises(RebuildError) as caught:
        rebuild.from_recording(opened, str(tmp_path / "again"))
    made = rebuild.from_recording(opened, str(tmp_path / "again"), tmp_path / "recipes")

    assert "--files" in caught.value.fix
    assert made.identical


def run(*words: str) -> Any:
    return CliRunner().invoke(app, ["rebuild", *words])


def test_the_command_tells_by_its_exit_code(out: Path, tmp_path: Path) -> None:
    def odd(prompt: str, seed: int | None) -> str:
        text = words(prompt, seed)
        return text if prompt.endswith(USER) else text.replace("Of course", "Well")

    recorded = run(str(out), "scripted", "--out", str(tmp_path / "a"))
    with ScriptedTgi(say=odd).serving() as server:
        live = ["--out", str(tmp_path / "b"), "--endpoint", server.url]
        bad = run(str(out), "scripted", *live)
        good = run(str(out), "scripted", *live, "--min-identical", "0", "--json")

    assert recorded.exit_code == 0, recorded.output
    assert f"scripted 1.0.0 is rebuilt in {tmp_path}/a." in recorded.output
    assert bad.exit_code == 1, bad.output
    assert "20 same instruction" in bad.output
    assert "0.00% of the rows came again: too few for 0.99." in bad.output
    assert good.exit_code == 0
    told = json.loads(good.stdout)
    assert told["counts"]["same instruction"] == 20
    assert told["differences"][0]["token"] == 0


def test_what_is_released_with_its_answers_is_rebuilt_from_its_tag(
    hub: Hub, tmp_path: Path
) -> None:
    out = release(tmp_path, "out")
    tag = f"{REPO}@scripted-v1.0.0"
    journal = ["--with-journal", "--journal", str(tmp_path / "journal")]

    done = [
        CliRunner().invoke(app, words)
        for words in (
            ["release", str(out), "--repo", REPO, *journal],
            ["verify", tag, "scripted"],
            ["rebuild", tag, "scripted", "--out", str(tmp_path / "again")],
            ["diff", tag, str(tmp_path / "again"), "scripted"],
        )
    ]

    assert [one.exit_code for one in done] == [0, 0, 0, 0], [one.output for one in done]
    assert "40 recorded answers" in done[1].output
    assert "DIFFERS" not in done[1].output + done[2].output
    assert "No row, field or value differs." in done[3].output
    assert shards(tmp_path / "again") == shards(out)


def test_the_exact_mode_of_the_embedded_model_comes_again_live(tmp_path: Path) -> None:
    demo = load("smollm2-demo")
    text = demo.text.replace("rows: 100", "rows: 3").replace(
        "max_new_tokens: 512", "max_new_tokens: 32"
    )
    text = text.replace('  - response_finish_reason == "eos_token"\n', "")
    path = tmp_path / "small.yaml"
    path.write_text(text)
    options = Options(("local",), journal=tmp_path / "journal", exact=True)
    Magpie(path, options=options).download_and_prepare(tmp_path / "o", file_format="parquet")

    again = replace(options, journal=tmp_path / "new")
    opened = open_release(str(tmp_path / "o"))
    compared = rebuild.live(opened, str(tmp_path / "again"), again, lambda line: None)

    assert compared.counts["identical"] == 3
    assert compared.rebuilt.identical
