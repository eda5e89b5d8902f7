"""A release's answers, published as frozen journals, give its very bytes to somebody else."""

import asyncio
import json
import random
from collections.abc import Mapping
from pathlib import Path

import fsspec
import msgspec
import pytest
from aiohttp import web

from prequery import Magpie, recording
from prequery.draws import draw
from prequery.endpoint import Answer
from prequery.errors import BuildError, JournalError, RebuildError
from prequery.journal import Key, segments
from prequery.options import Options
from prequery.recipe import load, read
from prequery.transport import Patience
from scripted_tei import REWARD_MODEL, REWARD_REVISION, ScriptedTei
from scripted_tgi import Json, ScriptedTgi, recipe_text, words

AT_ONCE = Patience(first_wait_s=0, longest_wait_s=0)
LOCAL = fsspec.filesystem("file")
USER = "<|im_start|>user\n"


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREQUERY_HOME", str(tmp_path / "home"))


def repeating(prompt: str, seed: int | None) -> str:
    """Write an instruction that comes again now and then."""
    if prompt.endswith(USER) and (seed or 0) % 4 == 0:
        return "Could you explain how bread is made, in a few words?"
    return words(prompt, seed)


async def shuffled(request: web.Request, body: Json, before: int) -> web.StreamResponse | None:
    await asyncio.sleep(random.random() / 50)
    return None


def built(
    tmp_path: Path, server: ScriptedTgi, name: str, changed: Mapping[str, str] | None = None
) -> tuple[Path, Options]:
    """Build into a folder and a journal of this name."""
    path = tmp_path / "scripted.yaml"
    path.write_text(recipe_text(**changed or {}))
    options = Options((server.url,), journal=tmp_path / f"{name}-journal", patience=AT_ONCE)
    builder = Magpie(path, options=options)
    builder.download_and_prepare(tmp_path / name, file_format="parquet")
    return tmp_path / name, options


def publish(tmp_path: Path, out: Path, options: Options, name: str) -> dict[str, bytes]:
    """Publish a recording; return its files."""
    lock = json.loads((out / "scripted.lock.json").read_text())
    root = tmp_path / name
    recording.publish(load(out / "scripted.yaml"), lock, options, LOCAL, str(root))
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def reading(files: Mapping[str, bytes]) -> recording.Reads:
    def read(name: str) -> bytes:
        if name not in files:
            raise FileNotFoundError(name)
        return files[name]

    return read


def rebuild(tmp_path: Path, files: Mapping[str, bytes], out: Path) -> dict[str, bytes]:
    """Build from a recording and nothing else; return the shards."""
    recipe = load(out / "scripted.yaml")
    recording.restore(reading(files), recipe, "here", tmp_path / "restored")
    options = Options(("http://127.0.0.1:9",), journal=tmp_path / "restored", recorded=True)
    Magpie(recipe, options=options).download_and_prepare(tmp_path / "re", file_format="parquet")
    return shards(tmp_path / "re")


def shards(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / "scripted").iterdir()}


def test_a_recording_gives_the_same_bytes_without_an_endpoint(tmp_path: Path) -> None:
    with ScriptedTgi(say=repeating).serving() as server:
        out, options = built(tmp_path, server, "out")
    files = publish(tmp_path, out, options, "recording")

    assert rebuild(tmp_path, files, out) == shards(out)
    assert (tmp_path / "re/scripted.lock.json").read_text() == (
        out / "scripted.lock.json"
    ).read_text()


def test_many_segments_give_the_same_bytes_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "ANSWERS_PER_SEGMENT", 7)
    with ScriptedTgi(say=repeating).serving() as server:
        out, options = built(tmp_path, server, "out")
    files = publish(tmp_path, out, options, "recording")

    assert sum("-instruction-" in name for name in files) > 3
    assert rebuild(tmp_path, files, out) == shards(out)


def test_whoever_builds_records_the_same_but_for_the_time_that_was_waited(tmp_path: Path) -> None:
    with ScriptedTgi(say=repeating, fault=shuffled).serving() as server:
        first = publish(tmp_path, *built(tmp_path, server, "first"), "first-recording")
        second = publish(tmp_path, *built(tmp_path, server, "second"), "second-recording")

    assert "recording.json" in first
    assert answers(first) == answers(second)
    assert all(answer.waited_ms is not None for answer in recorded(first).values())


def recorded(recording: Mapping[str, bytes]) -> dict[Key, Answer]:
    """Return the answers of a recording."""
    found: dict[Key, Answer] = {}
    for name, content in recording.items():
        folder, _, file = name.rpartition("/")
        segment = segments.parse(file, folder.rpartition("-")[2])
        if segment:
            found |= segments.unpack(segment, content)
    return found


def answers(recording: Mapping[str, bytes]) -> dict[Key, Answer]:
    """Return the answers of a recording without their time."""
    return {
        key: msgspec.structs.replace(answer, waited_ms=None)
        for key, answer in recorded(recording).items()
    }


def test_openings_and_filters_over_all_rows_are_recorded_too(tmp_path: Path) -> None:
    changed = {
        "instructions": "[{temperature: 0.8, max_new_tokens: 64, first_temperature: 1.5}]",
        "columns": "[length, min_neighbor_distance]",
        "filters": "[min_neighbor_distance > 0.05]",
        "turns": "[0.5, 0.5]",
    }
    with ScriptedTgi().serving() as server:
        out, options = built(tmp_path, server, "out", changed)

    assert rebuild(tmp_path, publish(tmp_path, out, options, "recording"), out) == shards(out)


def test_verdicts_of_judges_are_recorded_too(tmp_path: Path) -> None:
    with ScriptedTei().serving() as judge, ScriptedTgi().serving() as server:
        model = f"{{model: {REWARD_MODEL}, revision: '{REWARD_REVISION}', endpoint: {judge.url}}}"
        changed = {
            "columns": "[length, {instruct_reward: {judge: reward}}]",
            "judges": f"{{reward: {model}}}",
        }
        out, options = built(tmp_path, server, "out", changed)
    files = publish(tmp_path, out, options, "recording")

    assert any("-verdict-" in name for name in files)
    assert rebuild(tmp_path, files, out) == shards(out)


def test_what_an_endpoint_says_when_it_fails_is_not_published(tmp_path: Path) -> None:
    recipe = read(recipe_text(), "scripted.yaml")
    seeds = [draw(recipe.fingerprint, slot, "instruction") for slot in (2, 5)]

    async def secretive(request: web.Request, body: Json, before: int) -> web.Response | None:
        if body["parameters"].get("seed") not in seeds:
            return None
        return web.json_response({"error": "host 10.1.2.3 says no", "error_type": "v"}, status=422)

    with ScriptedTgi(fault=secretive).serving() as server:
        out, options = built(tmp_path, server, "out")
        address = server.url.removeprefix("http://").encode()
    files = publish(tmp_path, out, options, "recording")

    assert not [name for name, held in files.items() if b"10.1.2.3" in held or address in held]
    assert rebuild(tmp_path, files, out) == shards(out)


def test_a_recording_that_was_changed_or_is_of_another_recipe_is_refused(tmp_path: Path) -> None:
    with ScriptedTgi().serving() as server:
        out, options = built(tmp_path, server, "out")
    files = publish(tmp_path, out, options, "recording")
    recipe = load(out / "scripted.yaml")
    segment = next(name for name in files if name.endswith(".parquet"))
    index = json.loads(files["recording.json"])
    other = index | {"config": index["config"] | {"fingerprint": "ab" * 32}}
    outside = index | {"files": {"../x": {"sha256": "0" * 64}}}

    def refused(changed: Mapping[str, bytes]) -> str:
        with pytest.raises(RebuildError) as caught:
            recording.restore(reading(changed), recipe, "here", tmp_path / "restored")
        return caught.value.what

    assert refused({}) == "the release has no recorded answers"
    assert refused(files | {segment: files[segment][:-1] + b"x"}) == (
        f"the recorded answers were changed: {segment} is not as it was"
    )
    assert refused({name: held for name, held in files.items() if name != segment}) == (
        f"the recorded answers were changed: {segment} is missing"
    )
    assert refused({"recording.json": b"[]"}) == (
        "the recorded answers were changed: its index cannot be read"
    )
    assert refused({"recording.json": json.dumps(other).encode()}) == (
        "the recorded answers are those of another recipe: abababababab, "
        f"this recipe is {recipe.fingerprint[:12]}"
    )
    assert refused({"recording.json": json.dumps(outside).encode()}) == (
        "the recorded answers were changed: it names the file '../x'"
    )


def test_a_journal_that_lacks_answers_is_not_published(tmp_path: Path) -> None:
    with ScriptedTgi().serving() as server:
        out, options = built(tmp_path, server, "out")
    elsewhere = Options(options.endpoints, journal=tmp_path / "elsewhere")

    with pytest.raises(JournalError) as caught:
        publish(tmp_path, out, elsewhere, "recording")

    assert caught.value.what == "this journal does not hold the answers of the build"
    assert not (tmp_path / "recording/recording.json").exists()


def test_a_build_of_recorded_answers_asks_nobody_for_others(tmp_path: Path) -> None:
    with ScriptedTgi().serving() as server:
        out, options = built(tmp_path, server, "out")
        files = publish(tmp_path, out, options, "recording")
        (out / "scripted.yaml").write_text(recipe_text(rows=21))
        asked = sum(server.asked.values())

        with pytest.raises(BuildError) as caught:
            rebuild(tmp_path, files, out)

        assert sum(server.asked.values()) == asked
    assert caught.value.what == "the recorded answers are not all that the recipe needs"
