"""Whole builds over raw completions, against simulated fleets: everything of the engine works."""

import asyncio
import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from plain_http import get, post
from prequery import Magpie
from prequery.endpoint import Request
from prequery.errors import EndpointError
from prequery.fleet import Fleet
from prequery.options import Options
from prequery.recipe import Sampling
from prequery.simulation import Counters, Faults, Machine, Settings, simulate
from prequery.simulation.settings import MODEL, REVISION
from prequery.transport import Patience
from scripted_completions import MODEL as RAW
from scripted_completions import ScriptedCompletions
from scripted_tgi import recipe_text

MAIN = [sys.executable, "-c", "from prequery.cli import main; main()"]
AT_ONCE = Patience(first_wait_s=0, longest_wait_s=0.05, overloaded_s=20, down_s=0.5, request_s=5)
MACHINE = Machine(slots=4, token_s=0.00001)


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREQUERY_HOME", str(tmp_path / "home"))


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "raw.yaml"
    generator = f"{{model: {MODEL}, revision: '{REVISION}'}}"
    path.write_text(recipe_text(60, name="raw", generator=generator, filters="[]"))
    return path


def settings(machines: int = 1, **changed: Any) -> Settings:
    return Settings(machines=(MACHINE,) * machines, protocol="completions", **changed)


def build(recipe: Path, served: Settings, out: Path) -> tuple[str, list[Counters]]:
    """Return the hash of what was built, and what the endpoints did."""
    with simulate(served) as fleet:
        options = Options(
            endpoints=tuple(fleet.urls), patience=AT_ONCE, journal=out.with_suffix(".journal")
        )
        Magpie(recipe, options=options).download_and_prepare(out, file_format="parquet")
        counters = fleet.counters()
    [shard] = (out / "raw").glob("*.parquet")
    return hashlib.sha256(shard.read_bytes()).hexdigest(), counters


def run(*words: str, home: Path) -> str:
    environment = os.environ | {"PREQUERY_HOME": str(home), "COLUMNS": "200", "NO_COLOR": "1"}
    done = subprocess.run(
        [*MAIN, *words], capture_output=True, text=True, env=environment, cwd=home, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_faults_and_the_number_of_endpoints_change_no_byte(recipe: Path, tmp_path: Path) -> None:
    faults = Faults(
        overloaded=0.05, unhealthy=0.04, failed=0.04, reset=0.04, truncated=0.04, malformed=0.04
    )

    plain, _ = build(recipe, settings(), tmp_path / "plain")
    faulty, counters = build(recipe, settings(3, faults=faults), tmp_path / "faulty")

    assert faulty == plain
    assert sum(sum(one.faults.values()) for one in counters) > 10
    assert all(one.answered > 10 for one in counters)


def test_a_build_that_is_repeated_asks_for_nothing(recipe: Path, tmp_path: Path) -> None:
    first, _ = build(recipe, settings(), tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "away")

    again, [counters] = build(recipe, settings(), tmp_path / "out")

    assert (again, counters.requests) == (first, 0)


def test_rows_hold_what_the_server_said(recipe: Path, tmp_path: Path) -> None:
    build(recipe, settings(), tmp_path / "out")
    [shard] = (tmp_path / "out" / "raw").glob("*.parquet")
    rows = pq.ParquetFile(shard).read().to_pylist()

    assert {row["instruction_finish_reason"] for row in rows} == {"eos_token"}
    assert all(0 < row["instruction_seed"] < 2**32 - 1 for row in rows)
    assert all(row["instruction_logprob_mean"] < 0 for row in rows)


def test_the_protocol_that_the_recipe_names_is_the_one_that_is_spoken(
    recipe: Path, tmp_path: Path
) -> None:
    text = recipe.read_text()

    with simulate(settings()) as fleet:
        named = f"endpoint: {{url: '{fleet.urls[0]}', protocol: %s}}\n"
        recipe.write_text(text + named % "tgi")
        with pytest.raises(EndpointError) as caught:
            Magpie(recipe).download_and_prepare(tmp_path / "out", file_format="parquet")
        recipe.write_text(text + named % "completions")
        Magpie(recipe).download_and_prepare(tmp_path / "out", file_format="parquet")

    assert caught.value.what == "this is no TGI endpoint: GET /info answered 404 (not found)"


TEMPLATE = """\
{{ bos_token }}{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] \
+ '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}\
{% endif %}"""


@pytest.mark.parametrize(
    ("owner", "begins"), [("vllm", "<bos><|im_start|>user\n"), ("sglang", "<|im_start|>user\n")]
)
def test_a_server_that_hides_its_template_builds_with_the_recipes(
    owner: str, begins: str, recipe: Path, tmp_path: Path
) -> None:
    (tmp_path / "chat.jinja").write_text(TEMPLATE)
    where = "{file: chat.jinja, bos_token: '<bos>'}"
    recipe.write_text(
        recipe.read_text()
        .replace(f"model: {MODEL}", f"model: {RAW}, template: {where}")
        .replace("rows: 60", "rows: 20")
    )
    server = ScriptedCompletions(owned_by=owner, bos="<bos>")

    with server.serving():
        options = Options(endpoints=(server.url,), patience=AT_ONCE, journal=tmp_path / "journal")
        builder = Magpie(recipe, options=options)
        builder.download_and_prepare(tmp_path / "out", file_format="parquet")
    rows = builder.sample_rows(20)

    # Exactly one BOS is read: vLLM is told to add none, SGLang adds one.
    assert all(body["prompt"].startswith(begins) for body in server.asked)
    assert len(rows) == 20
    assert any(row["instruction_seed"] > 2**32 for row in rows)
    assert builder.folder_lock()["generator"]["revision_confirmed_by_endpoint"] is False


def test_an_endpoint_that_dies_is_left_and_taken_back() -> None:
    said: list[str] = []
    sampled = Sampling(temperature=1.0, max_new_tokens=16)

    async def work(urls: list[str], kill: Any, revive: Any) -> bool:
        async with Fleet(urls, patience=AT_ONCE, say=said.append) as fleet:

            async def ask(seed: int) -> bool:
                request = Request(prompt="<|im_start|>user\n", sampling=sampled, seed=seed)
                return (await fleet.generate(request, "test")).error is None

            async def round_of(first: int) -> bool:
                # More at the same time than one of the two endpoints is given.
                return all(await asyncio.gather(*(ask(first + one) for one in range(10))))

            first, answered = 11, await round_of(1)
            kill(0)
            while not said:
                answered &= await round_of(first)
                first += 10
            revive(0)
            while len(said) < 2:
                await asyncio.sleep(0.05)
            return answered and await round_of(first)

    with simulate(settings(2)) as fleet:
        answered = asyncio.run(work(fleet.urls, fleet.kill, fleet.revive))
        first = fleet.urls[0]

    assert answered
    assert said[0].startswith(f"{first} is left")
    assert said[1] == f"{first} is back"


def test_llama_cpps_server_queues_what_it_cannot_decode_yet() -> None:
    async def work(url: str) -> list[bool]:
        async with Fleet([url], patience=AT_ONCE) as fleet:
            info = await fleet.info()
            assert (info.slots, fleet.capacity) == (4, 6)
            sampled = Sampling(temperature=1.0, max_new_tokens=16)
            requests = [Request(prompt="a", sampling=sampled, seed=seed) for seed in range(1, 21)]
            answers = await asyncio.gather(*(fleet.generate(one, "test") for one in requests))
            return [answer.error is None for answer in answers]

    with simulate(settings()) as fleet:
        assert all(asyncio.run(work(fleet.urls[0])))
        [counters] = fleet.counters()

    assert (counters.answered, counters.refused) == (20, 0)


def test_errors_have_openais_form() -> None:
    with simulate(settings(faults=Faults(failed=1))) as fleet:
        [url] = fleet.urls
        failed = post(f"{url}/v1/completions", {"prompt": "a"})
        wrong = post(f"{url}/v1/completions", {"prompt": 1})

        assert get(f"{url}/info").status == 404

    assert (failed.status, failed.json["error"]["code"]) == (500, 500)
    assert (wrong.status, wrong.json["error"]["type"]) == (400, "validation")


def test_plan_and_probe_and_rehearse_work_over_raw_completions(
    recipe: Path, tmp_path: Path
) -> None:
    with simulate(settings()) as fleet:
        [url] = fleet.urls
        plan = run("plan", str(recipe), "--endpoint", url, "--rows", "8", home=tmp_path)
        probe = run("probe", str(recipe), "--endpoint", url, home=tmp_path)
    words = ("--rows", "20", "--protocol", "completions", "--speed-up", "1000")
    rehearsed = run("rehearse", str(recipe), *words, home=tmp_path)

    assert plan.startswith("60 rows of raw")
    assert f"{MODEL} self-synthesizes" in probe
    assert rehearsed.startswith("20 rows of raw, rehearsed")
