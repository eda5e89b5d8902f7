"""`prequery plan` and `prequery rehearse`, against simulated fleets, through the command line."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from command_line import Run, commands
from prequery.simulation import Machine, Settings, simulate
from prequery.simulation.settings import MODEL, REVISION
from scripted_tgi import recipe_text

SERVED = Settings(machines=(Machine(token_s=0),))


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "planned.yaml"
    path.write_text(planned(400))
    return path


def planned(rows: int, **changed: str) -> str:
    lines = {
        "name": "planned",
        "generator": f"{{model: {MODEL}, revision: '{REVISION}'}}",
        "responses": "{temperature: null, max_new_tokens: 1024}",
        "columns": "[length]",
        "filters": "[instruction_words > 8]",
    }
    return recipe_text(rows, **lines | changed)


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    with commands(COLUMNS="200", NO_COLOR="1") as run:
        yield run


def without_time(text: str) -> str:
    """Leave out the line that differs from run to run, and the blanks that fill a table."""
    lines = (line.rstrip() for line in text.splitlines())
    return "\n".join(line for line in lines if not line.startswith("time "))


PLAN = """\
400 rows of planned
                  probe  expected  cautious
attempts             43       538       673
requests             81     1,013     1,268
prompt tokens     2,126    26,575    33,270
generated tokens 15,765   197,063   246,709
cost         0.0326 USD 0.4074 USD 0.5101 USD
6 of 43 attempts rejected: filter: instruction_words > 8
5 of 43 attempts rejected: cut off at max_new_tokens
The probe is in the journal: the build does not pay for it again. Cautious: acceptance two \
standard errors lower. Time is at the speed of so few rows at once: an endpoint with room for \
more is faster. Filters over all rows are not in it."""

PRICED = "{url: local, usd_per_million_prompt_tokens: 0.5, usd_per_million_generated_tokens: 2}"


def squeezed(text: str) -> list[str]:
    return [re.sub(r"\s+", " ", line).strip() for line in text.splitlines()]


def test_a_plan_is_a_table_and_says_what_it_rests_on(
    run: Run, recipe: Path, tmp_path: Path
) -> None:
    recipe.write_text(planned(400, endpoint=PRICED))
    with simulate(SERVED) as fleet:
        done = run("plan", str(recipe), "--endpoint", fleet.urls[0], home=tmp_path)

    assert done.returncode == 0, done.stderr
    assert squeezed(without_time(done.stdout)) == squeezed(PLAN)
    assert re.search(r"^time +0:00:\d\d +0:0\d:\d\d +0:0\d:\d\d$", done.stdout, re.MULTILINE)


def test_a_second_plan_asks_nobody(run: Run, recipe: Path, tmp_path: Path) -> None:
    with simulate(SERVED) as fleet:
        first = run("plan", str(recipe), "--endpoint", fleet.urls[0], home=tmp_path)
    second = run("plan", str(recipe), "--endpoint", "http://127.0.0.1:9", home=tmp_path)

    assert second.returncode == 0, second.stderr
    assert squeezed(without_time(second.stdout)) == squeezed(without_time(first.stdout))
    # The journal tells how long its answers took, in whole seconds: of less it tells nothing.
    assert re.search(r"^time +(\?|\S+\d) +\S+ +\S+$", second.stdout, re.MULTILINE)


def test_a_build_does_not_pay_for_its_plan_again(run: Run, recipe: Path, tmp_path: Path) -> None:
    recipe.write_text(planned(60))
    with simulate(SERVED) as fleet:
        run("plan", str(recipe), "--endpoint", fleet.urls[0], home=tmp_path)
        done = run("build", str(recipe), "--endpoint", fleet.urls[0], "--out", "o", home=tmp_path)
        (counters,) = fleet.counters()

    assert done.returncode == 0, done.stderr
    # The four requests that prove the prefix come at every start; none comes when the probe's
    # surplus was enough for all rows.
    assert counters.answered_again.pop(32, 0) in (0, 4)
    # What was in flight when the probe had enough was cancelled, and may have been answered.
    assert sum(counters.answered_again.values()) < 64


def test_a_plan_for_few_rows_probes_no_more_than_these(
    run: Run, recipe: Path, tmp_path: Path
) -> None:
    recipe.write_text(planned(5, filters="[]"))
    with simulate(SERVED) as fleet:
        done = run("plan", str(recipe), "--endpoint", fleet.urls[0], home=tmp_path)

    probed, expected = re.findall(r"^attempts +(\d+) +(\d+)", done.stdout, re.MULTILINE)[0]
    assert probed == expected
    assert int(probed) >= 5


def test_a_plan_of_a_recipe_that_cannot_succeed_is_an_error(
    run: Run, recipe: Path, tmp_path: Path
) -> None:
    recipe.write_text(planned(400, filters="[instruction_words > 900]"))
    with simulate(SERVED) as fleet:
        done = run("plan", str(recipe), "--endpoint", fleet.urls[0], home=tmp_path)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-3].startswith("AcceptanceError: 0 of ")


REHEARSE = ("--rows", "60", "--slots", "16", "--tokens-per-s", "2000", "--speed-up", "1")


def test_a_rehearsal_builds_and_says_what_it_would_take(
    run: Run, recipe: Path, tmp_path: Path
) -> None:
    recipe.write_text(planned(120, endpoint=PRICED))
    done = run("rehearse", str(recipe), *REHEARSE, "--endpoints", "2", home=tmp_path)

    assert done.returncode == 0, done.stderr
    lines = squeezed(done.stdout)
    assert lines[:3] == [
        "60 rows of planned, rehearsed",
        "rehearsed all 120 rows",
        "attempts 84 168",
    ]
    assert re.fullmatch(r"time 0:00:\d\d 0:00:\d\d", lines[6])
    assert re.fullmatch(r"cost 0\.0\d{3} USD 0\.\d{4} USD", lines[7])
    assert re.fullmatch(r"busy, tail included: \d+%, \d+%", lines[8])
    assert lines[-1] == (
        "Simulated: the model, its chat template (ChatML), words, lengths and speed. Real: "
        "everything else, without filters on the language. The share of attempts that pass is the "
        "real model's affair: ask it with `prequery plan`."
    )
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [recipe]


def test_a_responder_is_rehearsed_on_a_fleet_of_its_own(
    run: Run, recipe: Path, tmp_path: Path
) -> None:
    recipe.write_text(planned(120, responder=f"{{model: acme/other, revision: '{REVISION}'}}"))

    done = run("rehearse", str(recipe), *REHEARSE, "--endpoints", "2", home=tmp_path)

    assert done.returncode == 0, done.stderr
    assert re.search(r"^busy, tail included: \d+%, \d+%, \d+%, \d+%$", done.stdout, re.MULTILINE)


def test_a_rehearsal_brings_no_template_from_the_hub(
    run: Run, recipe: Path, tmp_path: Path
) -> None:
    own = "template: tokenizer, date: '2026-01-31', thinking: false"
    generator = f"{{model: {MODEL}, revision: '{REVISION}', {own}}}"
    recipe.write_text(planned(120, generator=generator))

    done = run("rehearse", str(recipe), *REHEARSE, home=tmp_path)

    assert done.returncode == 0, done.stderr


def test_a_rehearsal_leaves_out_filters_on_the_language(
    run: Run, recipe: Path, tmp_path: Path
) -> None:
    chinese = "['language == \"zh\"', instruction_words > 8]"
    recipe.write_text(planned(120, columns="[length, language]", filters=chinese))

    done = run("rehearse", str(recipe), *REHEARSE, home=tmp_path)

    assert done.returncode == 0, done.stderr
    assert "attempts rejected: filter: instruction_words > 8" in done.stdout


def test_a_rehearsal_says_which_faults_it_went_through(
    run: Run, recipe: Path, tmp_path: Path
) -> None:
    faults = ("--fault", "failed=0.04", "--fault", "truncated=0.04")

    done = run("rehearse", str(recipe), *REHEARSE, *faults, home=tmp_path)

    assert done.returncode == 0, done.stderr
    assert re.search(r"^played: \d+ x failed$", done.stdout, re.MULTILINE)
    assert re.search(r"^played: \d+ x truncated$", done.stdout, re.MULTILINE)


@pytest.mark.parametrize("fault", ["unhelthy=0.1", "reset", "reset=2", "reset=-1", "reset=x"])
def test_a_fault_that_is_none_is_wrong_usage(
    run: Run, recipe: Path, tmp_path: Path, fault: str
) -> None:
    done = run("rehearse", str(recipe), "--fault", fault, home=tmp_path)

    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        f"Error: Invalid value: {fault!r} is not a fault: KIND=SHARE of the requests, may be "
        "repeated; kinds: overloaded (429), unhealthy (503), failed (424), reset, truncated, "
        "malformed, stall, drip."
    )


def test_a_rehearsal_does_not_read_the_token_of_the_recipe(
    run: Run, recipe: Path, tmp_path: Path
) -> None:
    recipe.write_text(planned(400, endpoint="{url: 'https://tgi.example', token_env: UNSET_HERE}"))

    done = run("rehearse", str(recipe), *REHEARSE, home=tmp_path)

    assert done.returncode == 0, done.stderr
