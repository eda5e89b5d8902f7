"""Filters that choose among all rows: which stay, in a build and by themselves."""

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from aiohttp import web

from prequery import Magpie, cli
from prequery.errors import AcceptanceError, RecipeError
from prequery.filters.picks import AtMost, Balance, Top, shared_out
from prequery.lock import timeless
from prequery.options import Options
from prequery.recipe import load, read
from prequery.recipe.filtering import bundled_filters
from prequery.transport import Patience
from scripted_tgi import Json, ScriptedTgi, recipe_text, words

AT_ONCE = Patience(first_wait_s=0, longest_wait_s=0)


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREQUERY_HOME", str(tmp_path / "home"))


def test_the_highest_values_stay_and_of_equal_ones_the_first() -> None:
    values: dict[str, list[Any]] = {"n": [3, 5, None, 5, 4, 3]}

    assert Top(by="n", rows=3).keep(values) == [False, True, False, True, True, False]
    assert Top(by="n", rows=1).keep(values) == [False, True, False, False, False, False]
    assert Top(by="n", rows=3, order="lowest").keep(values) == [
        True,
        False,
        False,
        False,
        True,
        True,
    ]
    assert Top(by="n", rows=9).keep(values) == [True, True, False, True, True, True]


def test_labels_are_ranked_by_their_order() -> None:
    top = Top(by="grade", rows=2, labels=("poor", "fair", "good"))

    assert top.keep({"grade": ["fair", "good", "poor", None, "fair"]}) == [
        True,
        True,
        False,
        False,
        False,
    ]


def test_rows_are_shared_out_as_evenly_as_the_groups_allow() -> None:
    assert shared_out(10, [9, 9, 9]) == [4, 3, 3]
    assert shared_out(10, [1, 9, 9]) == [1, 5, 4]
    assert shared_out(10, [1, 2, 9]) == [1, 2, 7]
    assert shared_out(10, [1, 2, 3]) == [1, 2, 3]
    assert shared_out(2, [5, 5, 5]) == [1, 1, 0]
    assert shared_out(0, [5]) == [0]
    assert shared_out(3, []) == []


def test_a_balance_takes_the_best_of_every_group_and_no_row_without_one() -> None:
    values: dict[str, list[Any]] = {
        "kind": ["a", "b", "a", None, "a", "b", "c"],
        "n": [1, 2, 3, 9, 2, None, 7],
    }

    even = Balance(by="kind", rows=3, best="n")
    assert even.keep(values) == [False, True, True, False, False, False, True]
    first = Balance(by="kind", rows=3)
    assert first.keep(values) == [True, True, False, False, False, False, True]
    halves = Balance(by="kind", rows=4, groups=(("a",), ("b", "c")), best="n")
    assert halves.keep(values) == [False, True, True, False, True, False, True]
    assert halves.text == "balance 4 by kind: a; b, c; highest n first"


def test_at_most_cuts_every_group_off() -> None:
    values: dict[str, list[Any]] = {"kind": ["a", "b", "a", None, "a"], "n": [1, 2, 3, 9, 2]}

    assert AtMost(by="kind", rows=2).keep(values) == [True, True, True, False, False]
    assert AtMost(by="kind", rows=2, best="n").keep(values) == [False, True, True, False, True]
    assert AtMost(by="kind", rows=1, groups=(("b",),)).keep(values) == [False, True, *[False] * 3]


LONGEST = "[instruction_words > 3, {top: {by: response_chars}}]"


def build(
    tmp_path: Path,
    server: ScriptedTgi,
    out: str,
    rows: int = 10,
    journal: str = "home",
    **changed: str,
) -> tuple[list[Json], Json]:
    path = tmp_path / "scripted.yaml"
    path.write_text(recipe_text(rows, **changed))
    options = Options(endpoints=(server.url,), patience=AT_ONCE, journal=tmp_path / journal)
    Magpie(path, options=options).download_and_prepare(tmp_path / out)
    with next((tmp_path / out / "scripted").glob("*.parquet")).open("rb") as file:
        found: list[Json] = pq.read_table(file).to_pylist()
    return found, json.loads((tmp_path / out / "scripted.lock.json").read_text())


def slot(row: Json) -> int:
    return int(row["id"].rpartition("-")[2])


def test_the_longest_of_the_candidates_are_released_in_slot_order(tmp_path: Path) -> None:
    with ScriptedTgi().serving() as server:
        plain, _ = build(tmp_path, server, "plain", 40)
        rows, lock = build(tmp_path, server, "longest", candidates="40", filters=LONGEST)
    ranked = sorted(plain, key=lambda row: (-row["response_chars"], slot(row)))

    assert [row["id"] for row in rows] == [row["id"] for row in sorted(ranked[:10], key=slot)]
    built = lock["build"]
    assert built["rejected"]["filter: top 10 by response_chars"] == 30
    assert built["attempts"] == 10 + sum(built["rejected"].values())
    words, top = built["steps"]
    assert (words["step"], words["rows_out"]) == ("instruction_words > 3", 40)
    assert (top["step"], top["rows_in"], top["rows_out"]) == ("top 10 by response_chars", 40, 10)
    gone = {row["id"]: row for row in ranked[10:]}
    assert len(top["examples"]) == 3
    for example in top["examples"]:
        row = gone[example["id"]]
        assert example["values"] == {"response_chars": row["response_chars"]}
        assert example["instruction"] == row["instruction"][:160]


def test_filters_are_applied_in_order_around_a_choice(tmp_path: Path) -> None:
    text = "{top: {by: response_chars, rows: 20}}"
    with ScriptedTgi().serving() as server:
        rows, lock = build(
            tmp_path,
            server,
            "out",
            candidates="40",
            columns="[length, min_neighbor_distance]",
            filters=f"[min_neighbor_distance > 0.1, {text}, instruction_chars > 40]",
        )
    steps = lock["build"]["steps"]

    assert [step["step"] for step in steps] == [
        "min_neighbor_distance > 0.1",
        "top 20 by response_chars",
        "instruction_chars > 40",
    ]
    assert [step["rows_out"] for step in steps[:2]] == [40, 20]
    assert steps[2]["rows_in"] == 20
    assert len(rows) == 10
    assert all(row["instruction_chars"] > 40 for row in rows)
    spare = lock["build"]["rejected"].get("not needed: the rows before it are enough", 0)
    assert steps[2]["rows_out"] == 10 + spare


def test_a_choice_does_not_depend_on_what_came_first(tmp_path: Path) -> None:
    async def shuffled(request: web.Request, body: Json, before: int) -> web.StreamResponse | None:
        await asyncio.sleep(random.random() / 50)
        return None

    found = []
    for limit in (1, 16):
        server = ScriptedTgi(fault=shuffled)
        server.info["max_concurrent_requests"] = limit
        with server.serving():
            built = build(
                tmp_path, server, f"out{limit}", 10, f"j{limit}", candidates="30", filters=LONGEST
            )
        found.append((built[0], timeless(built[1])))

    assert found[0] == found[1]


def test_another_choice_asks_for_no_answer_again(tmp_path: Path) -> None:
    with ScriptedTgi().serving() as server:
        build(tmp_path, server, "out", candidates="40", filters=LONGEST)
        server.asked.clear()
        shortest = LONGEST.replace("chars}", "chars, order: lowest}")
        rows, lock = build(tmp_path, server, "other", candidates="40", filters=shortest)

    assert server.asked.total() == 0
    assert lock["build"]["steps"][1]["step"] == "top 10 by response_chars, lowest"
    assert len(rows) == 10


def test_a_choice_that_leaves_too_few_names_the_way_on(tmp_path: Path) -> None:
    filters = "[{at_most: {by: response_finish_reason, rows: 5}}]"
    with ScriptedTgi().serving() as server, pytest.raises(AcceptanceError) as caught:
        build(tmp_path, server, "out", candidates="20", filters=filters)

    assert caught.value.what == "of 20 candidates the filters leave 5 rows: 10 are wanted"
    assert caught.value.where.endswith("filters: `at_most 5 by response_finish_reason`")
    assert "raise candidates" in caught.value.fix


@pytest.mark.parametrize(
    ("changed", "what", "fix"),
    [
        (
            {"filters": "[{top: {by: response_chars}}]"},
            "`top 20 by response_chars` chooses among rows, and the recipe does not say among how"
            " many",
            "add `candidates:`, the rows that pass the filters before it; more than `rows`",
        ),
        (
            {"candidates": "30"},
            "candidates is given, and no filter chooses among them",
            "add top, balance or at_most to filters, or remove it",
        ),
        (
            {"candidates": "10", "filters": "[{top: {by: response_chars}}]"},
            "candidates is 10",
            "allowed: a whole number from 20 to 10000000000",
        ),
        (
            {"candidates": "30", "filters": "[{top: {by: response_chars, rows: 10}}]"},
            "`top 10 by response_chars` leaves 10 rows at most, and 20 are wanted",
            "raise its rows, or lower those of the recipe",
        ),
        (
            {"candidates": "30", "filters": "[{top: {by: response_char}}]"},
            "by is 'response_char'",
            "did you mean 'response_chars'? allowed: ",
        ),
        (
            {"candidates": "30", "filters": "[{top: {of: response_chars}}]"},
            "unknown key 'of'",
            "known: by, rows, order",
        ),
        (
            {"candidates": "30", "filters": "[{tops: {by: response_chars}}]"},
            "there is no choice 'tops' among rows",
            "did you mean 'top'? known: top, balance, at_most",
        ),
        (
            {"candidates": "30", "filters": "[{balance: {by: instruction}}]"},
            "by is 'instruction'",
            "allowed: ",
        ),
        (
            {
                "candidates": "30",
                "filters": "[{balance: {by: response_finish_reason, groups: [[eos]]}}]",
            },
            "response_finish_reason is never 'eos'",
            "allowed: eos_token, stop_sequence, length",
        ),
        (
            {
                "candidates": "30",
                "filters": "[{at_most: {by: turns, rows: 20, groups: [[1, 2], [2]]}}]",
            },
            "2 stands in the groups twice",
            "keep one of them",
        ),
        (
            {"candidates": "30", "filters": "[{at_most: {by: turns}}]"},
            "the key 'rows' is missing",
            "add `rows:`; see the README",
        ),
        ({"filters": "[3]"}, "3 is not a filter", "write an expression, as language"),
    ],
)
def test_a_choice_that_cannot_be_is_refused(changed: dict[str, str], what: str, fix: str) -> None:
    with pytest.raises(RecipeError) as caught:
        read(recipe_text(**changed), "r.yaml")

    assert caught.value.what == what
    assert fix in caught.value.fix
    assert caught.value.where.startswith("r.yaml, line")


def test_what_is_chosen_from_changes_the_build_and_no_answer() -> None:
    given: list[Any] = [
        read(recipe_text(candidates=number, filters=LONGEST), "r.yaml") for number in ("30", "40")
    ]

    assert given[0].fingerprint == given[1].fingerprint
    assert given[0].build_hash != given[1].build_hash
    assert (given[0].goal, given[0].max_attempts) == (30, 300)


# arXiv 2406.08464, Table 5; how many rows stay is the recipe's.
DISTANCE, REWARD = "min_neighbor_distance > 0", "instruct_reward > -12"
GOOD, LONGEST_OF_ALL = 'input_quality >= "good"', "top 20 by response_chars"
TABLE_5 = {
    "magpie-air": [
        GOOD,
        'difficulty >= "medium"',
        DISTANCE,
        "reward_difference > 0",
        LONGEST_OF_ALL,
    ],
    "magpie-pro": ['input_quality >= "average"', DISTANCE, REWARD, LONGEST_OF_ALL],
    "magpie-pro-filter2": [GOOD, 'difficulty >= "easy"', DISTANCE, REWARD, LONGEST_OF_ALL],
    "magpie-pro-filter3": [DISTANCE, REWARD, LONGEST_OF_ALL],
    "magpie-pro-filter4": [
        GOOD,
        'difficulty >= "easy"',
        DISTANCE,
        "reward_difference > 0",
        LONGEST_OF_ALL,
    ],
    "magpie-pro-filter5": [GOOD, 'difficulty >= "easy"', DISTANCE, REWARD],
    "magpie-pro-filter6": [
        DISTANCE,
        REWARD,
        "balance 20 by difficulty: easy; medium, hard, very hard; highest response_chars first",
    ],
}
ONE = "{model: a/b, revision: '" + "0" * 40 + "', endpoint: http://127.0.0.1:9}"
ALL_COLUMNS = (
    "[length, min_neighbor_distance, {input_quality: {judge: tags}}, {difficulty: {judge: tags}},"
    " {instruct_reward: {judge: reward}}, {base_response: {judge: base}},"
    " {reward_difference: {judge: reward, base: base}}]"
)
JUDGES = f"{{tags: {ONE}, base: {ONE}, reward: {ONE}}}"


def test_the_papers_filters_are_those_of_its_table() -> None:
    assert list(bundled_filters()) == list(TABLE_5)


@pytest.mark.parametrize("name", TABLE_5)
def test_filters_of_a_name_are_expanded(name: str) -> None:
    chosen = {} if name == "magpie-pro-filter5" else {"candidates": "40"}
    text = recipe_text(
        columns=ALL_COLUMNS, judges=JUDGES, filters=f"[{name}, response_chars < 900]", **chosen
    )

    steps = read(text, "r.yaml").filters

    assert [step.text for step in steps] == [*TABLE_5[name], "response_chars < 900"]


@pytest.mark.parametrize("name", TABLE_5)
def test_filters_of_a_name_say_what_they_are_whence_and_how_they_differ(name: str) -> None:
    head = [line for line in bundled_filters()[name].read_text().splitlines() if line[0] == "#"]

    assert head[0].endswith(".")
    assert [line.split(":")[0] for line in head if ": " in line[:12]][-2:] == [
        "# Numbers",
        "# Differs",
    ]


def test_filters_of_a_name_that_is_none_are_refused() -> None:
    with pytest.raises(RecipeError) as caught:
        read(recipe_text(filters="[magpie-pr]"), "r.yaml")

    assert caught.value.what == "there are no filters 'magpie-pr'"
    assert caught.value.where == "r.yaml, line 9, filters"
    assert caught.value.fix.startswith("did you mean 'magpie-pro'? known: magpie-air, magpie-pro, ")


def test_a_column_that_named_filters_need_is_named_with_their_place() -> None:
    with pytest.raises(RecipeError) as caught:
        read(recipe_text(filters="[magpie-pro-filter5]"), "r.yaml")

    assert caught.value.what.startswith("unknown field 'input_quality'")
    assert caught.value.where.startswith("r.yaml, line 9, filters: magpie-pro-filter5, line 4")


@pytest.mark.parametrize("name", ["magpie-air-300k-filtered", "magpie-pro-300k-filtered"])
def test_the_filtered_sets_choose_the_longest(name: str) -> None:
    recipe = load(name)

    assert recipe.filters[-1].text == "top 300000 by response_chars"
    assert recipe.goal > recipe.rows


def test_card_and_terminal_show_what_each_filter_did(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "scripted.yaml"
    path.write_text(recipe_text(10, candidates="40", filters=LONGEST))
    with ScriptedTgi(say=hostile).serving() as server:
        out = ["--out", str(tmp_path / "out"), "--journal", str(tmp_path / "journals")]
        cli.app(["build", str(path), "--endpoint", server.url, *out], standalone_mode=False)

    shown = capsys.readouterr().out
    card = (tmp_path / "out/README.md").read_text()
    assert "40        10  top 10 by response_chars" in shown
    assert "\x1b" not in shown + card
    assert "| `top 10 by response_chars` | 40 | 10 | `" in card
    (line,) = (line for line in card.splitlines() if "| `top 10" in line)
    assert line.count(", `response_chars` ") == 3
    assert line.count(" | ") == 3


def hostile(prompt: str, seed: int | None) -> str:
    return words(prompt, seed) + " <script>|\x1b[2J`"


def test_what_a_filter_on_personal_data_rejected_is_not_shown(tmp_path: Path) -> None:
    def say(prompt: str, seed: int | None) -> str:
        return words(prompt, seed) + (" Write to eve@acme.org" if (seed or 0) % 3 else "")

    columns = "[length, personal_data]"
    filters = "[response_chars > 1, instruction_personal_data_count == 0]"
    with ScriptedTgi(say=say).serving() as server:
        _, lock = build(tmp_path, server, "out", columns=columns, filters=filters)

    step = lock["build"]["steps"][1]
    assert step["rows_in"] > step["rows_out"] == 10
    assert all(example["instruction"] is None for example in step["examples"])
    assert "eve@" not in json.dumps(lock)
