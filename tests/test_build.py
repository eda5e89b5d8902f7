"""Whole builds against a real HTTP server: same bytes, whatever happens in between."""

import asyncio
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import fsspec
import pyarrow.parquet as pq
import pytest
from aiohttp import web
from datasets import load_dataset

from prequery import Magpie, pipeline, synthesis
from prequery.conversation import Candidate
from prequery.endpoint import Answer
from prequery.errors import (
    AcceptanceError,
    BudgetError,
    BuildError,
    EndpointError,
    JournalError,
    RecipeError,
    ShardError,
    StoppedError,
)
from prequery.journal import Pass
from prequery.journal.locks import this_host
from prequery.lock import dump
from prequery.magpie import Shows
from prequery.options import Options
from prequery.progress import Progress
from prequery.selection import ledger
from prequery.transport import Patience
from scripted_tgi import Json, ScriptedTgi, generated, recipe_text, words
from timeless import digests

AT_ONCE = Patience(first_wait_s=0, longest_wait_s=0)


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREQUERY_HOME", str(tmp_path / "home"))


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "scripted.yaml"
    path.write_text(recipe_text())
    return path


def build(
    recipe: Path, server: ScriptedTgi, out: Path, show: Callable[[int], Shows] = Progress
) -> Magpie:
    options = Options(endpoints=(server.url,), patience=AT_ONCE)
    builder = Magpie(recipe, options=options, show=show)
    builder.download_and_prepare(out, file_format="parquet")
    return builder


def table(out: Path) -> list[Json]:
    with next((out / "scripted").glob("*.parquet")).open("rb") as file:
        rows: list[Json] = pq.read_table(file).to_pylist()
    return rows


def test_the_output_folder_is_a_release(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with ScriptedTgi().serving() as server:
        build(recipe, server, out)

    assert list(digests(out)) == [
        "README.md",
        "plots/scripted/lengths.svg",
        "scripted.croissant.json",
        "scripted.lock.json",
        "scripted.yaml",
        "scripted/train-00000-of-00001.parquet",
    ]
    assert (out / "scripted.yaml").read_text() == recipe.read_text()
    ds = load_dataset(str(out), "scripted", split="train", cache_dir=str(tmp_path / "cache"))
    assert ds.num_rows == 20
    assert str(ds.info.version) == "1.0.0"
    assert ds[0]["messages"] == [
        {"role": "user", "content": ds[0]["instruction"]},
        {"role": "assistant", "content": ds[0]["response"]},
    ]
    streamed = load_dataset(str(out), "scripted", split="train", streaming=True)
    assert [row["id"] for row in streamed] == ds["id"]


def test_what_datasets_writes_for_itself_is_no_part_of_a_release(
    recipe: Path, tmp_path: Path
) -> None:
    recipe.write_text(recipe_text(release="{license: mit}"))
    with ScriptedTgi().serving() as server:
        build(recipe, server, tmp_path / "out")

    shards = sorted(path.name for path in (tmp_path / "out/scripted").iterdir())
    assert shards == ["train-00000-of-00001.parquet"]


def test_the_accepted_rows_are_the_first_slots_that_pass(recipe: Path, tmp_path: Path) -> None:
    with ScriptedTgi().serving() as server:
        build(recipe, server, tmp_path / "out")
    lock = json.loads((tmp_path / "out/scripted.lock.json").read_text())

    rows = table(tmp_path / "out")
    slots = [int(row["id"].rpartition("-")[2]) for row in rows]

    assert slots == sorted(slots)
    assert lock["build"]["attempts"] == slots[-1] + 1
    assert lock["build"]["accepted"] == len(rows) == 20
    assert sum(lock["build"]["rejected"].values()) + 20 == slots[-1] + 1
    assert len({row["instruction"] for row in rows}) == 20


def test_the_python_builder_and_as_dataset_give_the_same_rows(recipe: Path, tmp_path: Path) -> None:
    with ScriptedTgi().serving() as server:
        builder = build(recipe, server, tmp_path / "out")
        cached = Magpie(
            recipe, options=Options(endpoints=(server.url,)), cache_dir=str(tmp_path / "cache")
        )
        cached.download_and_prepare()

    assert builder.as_dataset(split="train").to_list() == cached.as_dataset("train").to_list()
    assert builder.as_dataset(split="train")["id"] == [row["id"] for row in table(tmp_path / "out")]


def test_concurrency_order_and_processes_change_no_byte(recipe: Path, tmp_path: Path) -> None:
    """Answers that overtake one another at random, and one row at a time, give equal files."""

    async def shuffled(request: web.Request, body: Json, before: int) -> web.StreamResponse | None:
        await asyncio.sleep(random.random() / 50)
        return None

    class Small(Magpie):
        rows_per_shard = 7

    hashed = []
    for number, (limit, procs) in enumerate([(1, None), (16, None), (16, 2)]):
        server = ScriptedTgi(fault=shuffled)
        server.info["max_concurrent_requests"] = limit
        out = tmp_path / f"out{number}"
        with server.serving():
            options = Options(endpoints=(server.url,), journal=tmp_path / f"journal{number}")
            builder = Small(recipe, options=options)
            builder.download_and_prepare(out, file_format="parquet", num_proc=procs)
        hashed.append(digests(out))

    assert [name for name in hashed[0] if name.endswith("parquet")] == [
        f"scripted/train-{shard:05d}-of-00003.parquet" for shard in range(3)
    ]
    assert hashed[0] == hashed[1] == hashed[2]


RUN = """
import sys
from pathlib import Path
from prequery import Magpie
from prequery.conversation import Attempt
from prequery.journal.locks import this_host
from prequery.options import Options
recipe, url, out = sys.argv[1:]
Magpie(recipe, options=Options(endpoints=(url,))).download_and_prepare(out, file_format="parquet")
"""


@contextmanager
def running(recipe: Path, server: ScriptedTgi, out: Path) -> Iterator["subprocess.Popen[str]"]:
    """A build in a process of its own, which can be killed."""
    command = [sys.executable, "-c", RUN, str(recipe), server.url, str(out)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(server: ScriptedTgi, asked: int, process: "subprocess.Popen[str]") -> bool:
    """Wait until so many requests came; false when the build ended before."""
    while server.asked.total() < asked:
        if process.poll() is not None:
            return False
        time.sleep(0.005)
    return True


class Watched:
    """An observer that counts finished slots, and takes its time over each."""

    def __init__(self, pause_s: float = 0.0) -> None:
        self.attempts = 0
        self.pause_s = pause_s

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def said(self, text: str) -> None:
        pass

    def answered(self, made: Pass, answer: Answer) -> None:
        pass

    def attempted(self, attempt: Candidate, reason: str | None) -> None:
        self.attempts += 1
        time.sleep(self.pause_s)


def test_a_build_that_carries_on_asks_before_it_has_read_the_journal(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look into the journal takes one slot here, and a while, to show the order."""
    monkeypatch.setattr(synthesis, "READ_S", 0.0)
    recipe.write_text(recipe_text(600))
    with ScriptedTgi().serving() as server:
        build(recipe, server, tmp_path / "whole")
        monkeypatch.setenv("PREQUERY_HOME", str(tmp_path / "other"))
        server.asked.clear()
        recipe.write_text(recipe_text(400))
        build(recipe, server, tmp_path / "part")
        held, watched, read = set(server.asked), Watched(pause_s=0.005), list[int]()

        async def look(request: web.Request, body: Json, before: int) -> web.StreamResponse | None:
            if body["parameters"]["max_new_tokens"] != 32:
                read.append(watched.attempts)
            return None

        server.fault = look
        recipe.write_text(recipe_text(600))
        build(recipe, server, tmp_path / "carried-on", show=lambda rows: watched)

    # A greedy request to a repeated instruction is another slot's, and is the same one.
    again = {key for key in held if server.asked[key] > 1 and '"seed"' in key}
    rows_again = [key for key in again if '"max_new_tokens": 32' not in key]
    # What was in flight when the first build had all its rows was not waited for.
    assert len(rows_again) <= server.info["max_concurrent_requests"]
    assert read[0] < 400  # of 402 slots in the journal
    assert digests(tmp_path / "carried-on") == digests(tmp_path / "whole")


def test_the_time_of_all_runs_is_in_the_lock_and_is_told_again_from_the_journal(
    recipe: Path, tmp_path: Path
) -> None:
    async def slow(request: web.Request, body: Json, before: int) -> web.StreamResponse | None:
        await asyncio.sleep(0.4)
        return None

    def seconds(out: str) -> int:
        lock = json.loads((tmp_path / out / "scripted.lock.json").read_text())
        told: int = lock["build"]["seconds"]
        return told

    server = ScriptedTgi(fault=slow)
    server.info["max_concurrent_requests"] = 8
    began_s = time.monotonic()
    with server.serving():
        recipe.write_text(recipe_text(10))
        build(recipe, server, tmp_path / "part")
        recipe.write_text(recipe_text(40))
        build(recipe, server, tmp_path / "whole")
    took_s = time.monotonic() - began_s
    build(recipe, server, tmp_path / "again")

    assert 0 < seconds("part") < seconds("whole") <= took_s
    assert digests(tmp_path / "again") == digests(tmp_path / "whole")
    assert seconds("again") == seconds("whole")


def test_a_journal_that_cannot_have_all_rows_is_not_read_to_its_end_first(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new filter takes half of the rows: that shows long before the last one."""
    recipe.write_text(recipe_text(400))
    with ScriptedTgi().serving() as server:
        build(recipe, server, tmp_path / "lenient")
        alone = Watched()
        monkeypatch.setattr(pipeline, "Silent", lambda: alone)
        monkeypatch.setattr(synthesis, "READ_S", 0.0)
        recipe.write_text(recipe_text(380, filters="[instruction_chars > 58]"))
        build(recipe, server, tmp_path / "strict")

    lock = json.loads((tmp_path / "strict/scripted.lock.json").read_text())
    assert lock["build"]["attempts"] > 500
    assert 100 <= alone.attempts < 200


def test_rows_that_wait_for_a_slow_one_are_read_again_when_it_is_in(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a row that takes minutes does not hold all that were finished since in memory."""

    async def slow(request: web.Request, body: Json, before: int) -> web.StreamResponse | None:
        is_slow = body["parameters"].get("seed", 1) % 9 == 0
        await asyncio.sleep(0.3 if is_slow else random.random() / 50)
        return None

    recipe.write_text(recipe_text(120))
    with ScriptedTgi().serving() as server:
        build(recipe, server, tmp_path / "whole")
        monkeypatch.setenv("PREQUERY_HOME", str(tmp_path / "other"))
        monkeypatch.setattr(synthesis, "MOST_AHEAD", 4)
        server.asked.clear()
        server.fault = slow
        watched = Watched()
        build(recipe, server, tmp_path / "held-up", show=lambda rows: watched)
    lock = json.loads((tmp_path / "held-up/scripted.lock.json").read_text())

    assert digests(tmp_path / "held-up") == digests(tmp_path / "whole")
    assert max(n for k, n in server.asked.items() if '"max_new_tokens": 32' not in k) == 1
    assert watched.attempts <= lock["build"]["attempts"] + 16 + 4


def test_ctrl_c_finishes_what_is_in_flight_and_names_the_way_on(
    recipe: Path, tmp_path: Path
) -> None:
    with ScriptedTgi(held_after=4 + 4).serving() as server:
        server.info["max_concurrent_requests"] = 4
        with running(recipe, server, tmp_path / "out") as process:
            assert wait_for(server, 4 + 4 + 4, process), process.communicate()[1]
            process.send_signal(signal.SIGINT)
            assert process.stderr is not None
            said = ""
            for line in process.stderr:
                said += line
                if "stopping: " in line:
                    server.held_after = None
        asked = server.asked.total()
        build(recipe, server, tmp_path / "out")

    assert "stopping: 4 rows are in flight and get 30 s to finish" in said
    assert "StoppedError: the build was stopped; every finished answer is kept" in said
    assert "carry on: make the same call again" in said
    assert max(n for k, n in server.asked.items() if '"max_new_tokens": 32' not in k) == 1
    assert server.asked.total() > asked


def test_a_second_build_reuses_everything_and_needs_no_endpoint(
    recipe: Path, tmp_path: Path
) -> None:
    with ScriptedTgi().serving() as server:
        build(recipe, server, tmp_path / "out")
    before = digests(tmp_path / "out")

    build(recipe, server, tmp_path / "out")
    build(recipe, server, tmp_path / "from-journal")

    assert digests(tmp_path / "out") == before == digests(tmp_path / "from-journal")


def test_changing_filters_and_columns_asks_for_no_answer_again(
    recipe: Path, tmp_path: Path
) -> None:
    with ScriptedTgi().serving() as server:
        build(recipe, server, tmp_path / "out")
        server.asked.clear()
        text = recipe_text(16, columns="[length, likelihood]", filters="[response_chars > 1]")
        recipe.write_text(text)
        build(recipe, server, tmp_path / "other")

    assert server.asked.total() == 0
    first = {row["id"]: row["instruction"] for row in table(tmp_path / "out")}
    assert [first[row["id"]] for row in table(tmp_path / "other")]


def test_slots_that_are_added_up_before_the_end_are_counted_the_same(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe.write_text(recipe_text(filters="[response_chars > 52]"))
    with ScriptedTgi().serving() as server:
        build(recipe, server, tmp_path / "whole")
    monkeypatch.setattr(ledger, "FOLD_SLOTS", 3)

    build(recipe, server, tmp_path / "folded")

    lock = json.loads((tmp_path / "folded/scripted.lock.json").read_text())
    assert lock["build"]["attempts"] - lock["build"]["accepted"] > 3
    assert digests(tmp_path / "folded") == digests(tmp_path / "whole")


def test_damage_in_the_output_is_found_and_mended(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with ScriptedTgi().serving() as server:
        build(recipe, server, out)
        before = digests(out)
        shard = out / "scripted/train-00000-of-00001.parquet"
        shard.write_bytes(shard.read_bytes()[:-9])
        build(recipe, server, out)

    assert digests(out) == before


def test_an_output_folder_of_another_build_is_refused_and_left_alone(
    recipe: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with ScriptedTgi().serving() as server:
        build(recipe, server, out)
        before = digests(out)
        recipe.write_text(recipe_text(12))
        with pytest.raises(ShardError) as caught:
            build(recipe, server, out)

    assert caught.value.what.startswith("this folder holds another build: ")
    assert caught.value.where == str(out / "scripted.lock.json")
    assert digests(out) == before


def test_a_folder_with_other_files_is_refused_and_left_alone(recipe: Path, tmp_path: Path) -> None:
    thesis = tmp_path / "out/scripted/thesis.tex"
    thesis.parent.mkdir(parents=True)
    thesis.write_text("years of work")

    with ScriptedTgi().serving() as server, pytest.raises(ShardError) as caught:
        build(recipe, server, tmp_path / "out")

    assert (
        caught.value.what == "the folder holds files that prequery did not write, as 'thesis.tex'"
    )
    assert thesis.read_text() == "years of work"


def test_an_output_folder_that_cannot_be_written_is_named(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with ScriptedTgi().serving() as server, pytest.raises(ShardError) as caught:
        build(recipe, server, tmp_path / "file/out")

    assert caught.value.what == "the output folder cannot be written: Not a directory"


LIMITED = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
"""


@pytest.mark.parametrize(
    ("answered", "error"),
    [
        (False, "JournalError: the journal cannot be used: "),
        (True, "ShardError: the rows cannot be written: "),
    ],
)
def test_a_place_without_room_is_named_and_loses_nothing(
    recipe: Path, tmp_path: Path, answered: bool, error: str
) -> None:
    """A limit on file sizes stops writes half-way, as a full disk does."""
    with ScriptedTgi().serving() as server:
        if answered:
            build(recipe, server, tmp_path / "whole")
        command = [
            sys.executable,
            "-c",
            LIMITED + RUN,
            str(recipe),
            server.url,
            str(tmp_path / "o"),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        asked = set(server.asked)
        build(recipe, server, tmp_path / "o")

    assert error in done.stderr
    assert "then run the same command" in done.stderr
    twice = [k for k in asked if server.asked[k] > 1 and '"max_new_tokens": 32' not in k]
    assert len(twice) <= 16


def test_rows_that_the_model_cannot_reach_stop_the_build_with_the_reasons(
    recipe: Path, tmp_path: Path
) -> None:
    def cut(prompt: str, seed: int | None) -> str | Json:
        text = words(prompt, seed)
        return generated(text, "length") if seed and seed % 40 else text

    recipe.write_text(recipe_text(40))
    with ScriptedTgi(say=cut).serving() as server, pytest.raises(AcceptanceError) as caught:
        build(recipe, server, tmp_path / "out")

    assert "40 rows are out of reach within 400 attempts" in caught.value.what
    assert "x cut off at max_new_tokens" in caught.value.where
    assert not (tmp_path / "out/scripted").exists()
    assert server.asked.total() < 200


def test_an_endpoint_that_refuses_the_sampling_stops_the_build_early(
    recipe: Path, tmp_path: Path
) -> None:
    async def refuse(request: web.Request, body: Json, before: int) -> web.StreamResponse | None:
        if body["parameters"]["max_new_tokens"] != 128:
            return None
        said = {"error": "Input validation error: `max_new_tokens`", "error_type": "validation"}
        return web.json_response(said, status=422)

    with ScriptedTgi(fault=refuse).serving() as server, pytest.raises(EndpointError) as caught:
        build(recipe, server, tmp_path / "out")

    assert caught.value.what.startswith("the endpoint refused 3 of ")
    assert "`max_new_tokens`" in caught.value.what


def test_another_model_behind_the_address_is_refused(recipe: Path, tmp_path: Path) -> None:
    server = ScriptedTgi()
    server.info["model_sha"] = "6" * 40

    with server.serving(), pytest.raises(EndpointError) as caught:
        build(recipe, server, tmp_path / "out")

    assert caught.value.what.startswith(f"the endpoint serves acme/scripted@{'6' * 40}")


def test_a_template_that_changed_since_the_journal_began_is_refused(
    recipe: Path, tmp_path: Path
) -> None:
    with ScriptedTgi(held_after=8).serving() as server:
        server.info["max_concurrent_requests"] = 2
        with running(recipe, server, tmp_path / "out") as process:
            assert wait_for(server, 8, process), process.communicate()[1]
            process.kill()
        server.held_after = None
        server.template = lambda messages: "<|x|>user\n" + messages[-1]["content"] + "<|y|>\n"
        with pytest.raises(JournalError) as caught:
            build(recipe, server, tmp_path / "out")

    assert caught.value.what.startswith(
        "the answers in this journal were made with something else: prefix: "
    )


def test_a_pinned_recipe_is_held_to_its_lock(recipe: Path, tmp_path: Path) -> None:
    with ScriptedTgi().serving() as server:
        build(recipe, server, tmp_path / "out")
        lock = json.loads((tmp_path / "out/scripted.lock.json").read_text())
        lock["prefix"]["text"] = "<|im_start|>user\n"
        recipe.with_name("scripted.lock.json").write_text(json.dumps(lock))
        recipe.write_text(recipe_text(30))
        with pytest.raises(RecipeError) as edited:
            build(recipe, server, tmp_path / "more")
        recipe.with_name("scripted.lock.json").write_text(dump(lock))
        with pytest.raises(RecipeError) as caught:
            build(recipe, server, tmp_path / "more")

    assert edited.value.what == "the lock beside the recipe was edited: its digest is another"
    assert caught.value.what.startswith("prefix.text is pinned as '<|im_start|>user\\n'")


def test_faults_on_the_way_change_no_byte(recipe: Path, tmp_path: Path) -> None:
    async def faulty(request: web.Request, body: Json, before: int) -> web.StreamResponse | None:
        chosen = [None, 429, 503, 424, None, 500][(before + body["parameters"].get("seed", 1)) % 6]
        return web.Response(status=chosen) if chosen and before < 2 else None

    with ScriptedTgi().serving() as server:
        build(recipe, server, tmp_path / "clean")
    with ScriptedTgi(fault=faulty).serving() as server:
        options = Options(endpoints=(server.url,), journal=tmp_path / "other", patience=AT_ONCE)
        Magpie(recipe, options=options).download_and_prepare(
            tmp_path / "faulty", file_format="parquet"
        )

    assert digests(tmp_path / "faulty") == digests(tmp_path / "clean")


def test_errors_reach_other_processes_whole() -> None:
    import pickle

    for kind in (BuildError, StoppedError):
        error = kind("what", "where", "fix")
        assert pickle.loads(pickle.dumps(error)).args == ("what", "where", "fix")


@pytest.mark.parametrize(
    ("limit", "what"),
    [
        ({"max_tokens": 300}, "tokens are spent, 300 may be"),
        ({"max_seconds": 0.3}, "s are spent, 0.3 may be"),
        ({"max_cost_usd": 0.05}, "USD are spent, 0.05 may be"),
    ],
)
def test_a_budget_stops_the_build_and_the_next_run_carries_on(
    recipe: Path, tmp_path: Path, limit: dict[str, float], what: str
) -> None:
    with ScriptedTgi(delay_s=0.05).serving() as server:
        server.info["max_concurrent_requests"] = 2
        prices = "usd_per_million_prompt_tokens: 100, usd_per_million_generated_tokens: 100"
        text = recipe_text(endpoint=f"{{url: '{server.url}', {prices}}}")
        recipe.write_text(text)
        with pytest.raises(BudgetError) as caught:
            Magpie(recipe, options=Options(**limit)).download_and_prepare(tmp_path / "out")  # type: ignore[arg-type]
        server.delay_s = 0
        Magpie(recipe).download_and_prepare(tmp_path / "out")

    assert what in caught.value.what
    assert len(table(tmp_path / "out")) == 20
    assert max(n for k, n in server.asked.items() if '"max_new_tokens": 32' not in k) == 1


def test_a_limit_in_dollars_needs_a_price_before_anybody_is_asked(recipe: Path) -> None:
    with ScriptedTgi().serving() as server:
        options = Options(endpoints=(server.url,), max_cost_usd=5)
        with pytest.raises(RecipeError) as caught:
            Magpie(recipe, options=options).download_and_prepare(recipe.parent / "out")

    assert caught.value.what == "this run may cost 5 USD, and the recipe names no price"
    assert caught.value.where == f"{recipe}, endpoint"
    assert not server.asked


NEAR = """
columns: [length, min_neighbor_distance]
filters: [min_neighbor_distance > 0.3, response_chars > 1]
"""


def test_columns_that_see_every_row_decide_the_same_whatever_came_first(tmp_path: Path) -> None:
    async def shuffled(request: web.Request, body: Json, before: int) -> web.StreamResponse | None:
        await asyncio.sleep(random.random() / 50)
        return None

    path = tmp_path / "scripted.yaml"
    path.write_text(
        recipe_text(30, columns="[]", filters="[]").replace("columns: []\nfilters: []\n", NEAR)
    )
    hashed = []
    for limit in (1, 16):
        server = ScriptedTgi(fault=shuffled)
        server.info["max_concurrent_requests"] = limit
        out = tmp_path / f"out{limit}"
        with server.serving():
            options = Options(endpoints=(server.url,), journal=tmp_path / f"journal{limit}")
            Magpie(path, options=options).download_and_prepare(out)
        hashed.append(digests(out))

    rows = table(tmp_path / "out16")
    lock = json.loads((tmp_path / "out16/scripted.lock.json").read_text())
    assert hashed[0] == hashed[1]
    assert len(rows) == 30
    assert all(row["min_neighbor_distance"] > 0.3 for row in rows)
    assert lock["build"]["rejected"]["filter: min_neighbor_distance > 0.3"] > 0
    assert lock["build"]["attempts"] == 30 + sum(lock["build"]["rejected"].values())


def test_the_output_may_be_any_fsspec_url(recipe: Path, tmp_path: Path) -> None:
    with ScriptedTgi().serving() as server:
        build(recipe, server, tmp_path / "out")
        options = Options(endpoints=(server.url,))
        Magpie(recipe, options=options).download_and_prepare("memory://bucket/out")
        again = Magpie(recipe, options=options)
        again.download_and_prepare("memory://bucket/out")

    store = fsspec.filesystem("memory")
    stored = {path.removeprefix("/bucket/out/"): path for path in store.find("/bucket/out")}
    assert stored.keys() == digests(tmp_path / "out").keys()
    for name, path in stored.items():
        assert store.cat_file(path) == (tmp_path / "out" / name).read_bytes(), name
    assert again.build is None


def test_what_dead_processes_left_is_cleared_and_nothing_of_other_machines(
    recipe: Path, tmp_path: Path
) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    root = tmp_path / "home/work"
    here, elsewhere = root / this_host() / f"{dead.pid}-left", root / "other" / f"{dead.pid}-busy"
    for folder in (here, elsewhere):
        folder.mkdir(parents=True)

    with ScriptedTgi().serving() as server:
        build(recipe, server, tmp_path / "out")

    assert not here.exists()
    assert elsewhere.exists()
    assert list((root / this_host()).iterdir()) == []
