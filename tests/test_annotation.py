"""`prequery annotate`: somebody's dataset, measured like ours."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from datasets import ClassLabel, Dataset, Features, Value, load_dataset

from prequery import annotation, cards, cli, rebuild, recipe
from prequery.annotation import Annotated, Wish, annotate
from prequery.conversation import Candidate
from prequery.endpoint import Answer
from prequery.errors import (
    AcceptanceError,
    BudgetError,
    BuildError,
    DatasetError,
    EndpointError,
    RebuildError,
    RecipeError,
)
from prequery.options import Options
from prequery.released import open_release
from prequery.simulation import Machine, Settings, simulate
from prequery.transport import Patience
from prequery.verification import verify
from prequery.versions import compare
from scripted_tei import REWARD_MODEL, REWARD_REVISION, Json, ScriptedTei, by_length
from scripted_tgi import MODEL, REVISION, ScriptedTgi

AT_ONCE = Patience(first_wait_s=0, longest_wait_s=0)
NOBODY = "http://127.0.0.1:9"
TEXTS = ["What is bread?", "Name a river.", "Draw a map of it.", "Tune a violin, please."]
REWARD: dict[str, Any] = {
    "columns": ["length", {"instruct_reward": {"judge": "reward"}}],
    "judges": {
        "reward": {
            "model": REWARD_MODEL,
            "revision": REWARD_REVISION,
            "endpoint": {"url": NOBODY, "concurrency": 16},
        }
    },
}


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREQUERY_HOME", str(tmp_path / "home"))


class Silent:
    """An observer that counts."""

    def __init__(self, wanted: int | None = None) -> None:
        self.wanted = wanted
        self.attempts = 0

    def __enter__(self) -> "Silent":
        return self

    def __exit__(self, *raised: object) -> None:
        pass

    def said(self, text: str) -> None:
        pass

    def answered(self, made: object, answer: Answer) -> None:
        pass

    def attempted(self, attempt: Candidate, reason: str | None) -> None:
        self.attempts += 1


def rows_of(count: int) -> list[dict[str, Any]]:
    """Rows that all differ."""
    return [
        {
            "prompt": f"{TEXTS[n % 4]} Number {n}.",
            "output": "It is so." + " Indeed." * (n % 5),
            "level": n,
        }
        for n in range(count)
    ]


def parquet(tmp_path: Path, rows: Sequence[Mapping[str, Any]], name: str = "data.parquet") -> str:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), path, row_group_size=100)
    return str(path)


def run(
    tmp_path: Path,
    place: str,
    out: str = "out",
    judge: ScriptedTei | ScriptedTgi | None = None,
    options: Options | None = None,
    fields: Mapping[str, str] | None = None,
    roles: Mapping[str, str] | None = None,
    **keys: Any,
) -> tuple[list[Json], Json]:
    """Annotate, and return rows and lock."""
    done = annotated(tmp_path, place, out, judge, options, fields, roles, **keys)
    found = [
        pq.read_table(path).to_pylist() for path in sorted((tmp_path / out).rglob("*.parquet"))
    ]
    return [row for part in found for row in part], done.lock


def annotated(
    tmp_path: Path,
    place: str,
    out: str = "out",
    judge: ScriptedTei | ScriptedTgi | None = None,
    options: Options | None = None,
    fields: Mapping[str, str] | None = None,
    roles: Mapping[str, str] | None = None,
    rows_per_shard: int = 50_000,
    **keys: Any,
) -> Annotated:
    fields = fields or {"instruction": "prompt", "response": "output"}
    section = annotation.pinned(Wish(place, fields=fields, roles=roles))
    head = {"name": "given", "version": "1.0.0", "columns": ["length"], "dataset": section}
    text = yaml.safe_dump({**head, **keys}, sort_keys=False)
    name = next(iter(keys.get("judges", {"none": None})))
    options = options or Options(
        judge_endpoints={name: (judge.url,)} if judge else {}, patience=AT_ONCE
    )
    read = recipe.read_annotation(text, "given.yaml")
    return annotate(read, str(tmp_path / out), options, Silent, place, rows_per_shard)


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_card_of_an_annotated_dataset_is_what_its_data_gives(tmp_path: Path) -> None:
    run(tmp_path, parquet(tmp_path, rows_of(50)), filters=["level >= 2", "response_words > 2"])

    assert [(one.config, one.found) for one in cards.check(str(tmp_path / "out"))] == [
        ("given", ())
    ]


def test_rows_keep_their_order_and_their_other_fields_and_are_measured(tmp_path: Path) -> None:
    given = rows_of(700)

    rows, lock = run(tmp_path, parquet(tmp_path, given), filters=["level >= 2"])

    assert [row["level"] for row in rows] == list(range(2, 700))
    assert [row["id"] for row in rows] == [
        f"{lock['config']['fingerprint'][:12]}-{n}" for n in range(2, 700)
    ]
    assert rows[0] == {
        "id": rows[0]["id"],
        "messages": [
            {"role": "user", "content": given[2]["prompt"]},
            {"role": "assistant", "content": given[2]["output"]},
        ],
        "instruction": given[2]["prompt"],
        "response": given[2]["output"],
        "turns": 1,
        "level": 2,
        "instruction_chars": len(given[2]["prompt"]),
        "instruction_words": len(given[2]["prompt"].split()),
        "response_chars": len(given[2]["output"]),
        "response_words": len(given[2]["output"].split()),
    }
    counts = lock["build"]
    assert (counts["attempts"], counts["accepted"], counts["requests"]) == (700, 698, 0)
    assert counts["rejected"] == {"filter: level >= 2": 2}
    assert [one["values"] for one in counts["steps"][0]["examples"]] == [{"level": 0}, {"level": 1}]


def test_a_release_of_somebodys_dataset_loads_like_any_other(tmp_path: Path) -> None:
    features = Features(
        {"prompt": Value("string"), "output": Value("string"), "kind": ClassLabel(names=["a", "b"])}
    )
    columns = {"prompt": ["x", "y", "z"], "output": ["1", "2", "3"], "kind": [0, 1, None]}
    Dataset.from_dict(columns, features).to_parquet(tmp_path / "data.parquet")

    run(tmp_path, str(tmp_path / "data.parquet"), release={"license": "mit"})
    loaded = load_dataset(str(tmp_path / "out"), "given", split="train")

    assert loaded.features["kind"] == ClassLabel(names=["a", "b"])
    assert loaded["kind"] == [0, 1, None]
    assert loaded[0]["messages"][0] == {"role": "user", "content": "x"}
    assert str(loaded.info.version) == "1.0.0"
    assert "license: mit" in (tmp_path / "out/README.md").read_text()


def test_the_lock_names_the_files_and_the_recipe_rebuilds_the_bytes(tmp_path: Path) -> None:
    place = parquet(tmp_path, rows_of(250))
    _, lock = run(tmp_path, place)
    kept = tmp_path / "out/given.yaml"

    read = recipe.read_annotation(kept.read_text(), str(kept))
    again = annotate(read, str(tmp_path / "again"), Options(), Silent, place)

    assert list(lock["dataset"]["files"]) == ["data.parquet"]
    assert lock["dataset"]["sha256"] == read.dataset.sha256
    assert not again.reused
    assert files(tmp_path / "again") == files(tmp_path / "out")
    assert annotate(read, str(tmp_path / "again"), Options(), Silent, place).reused


def test_a_measured_dataset_is_verified_and_compared_and_not_rebuilt(tmp_path: Path) -> None:
    place = parquet(tmp_path, rows_of(250))
    run(tmp_path, place, "one")
    run(tmp_path, place, "two", filters=["response_words > 4"], columns=["length", "repetition"])
    one, two = (open_release(str(tmp_path / name)) for name in ("one", "two"))

    changes = compare(one, two)

    assert {finding.verdict for finding in verify(one)} == {"same"}
    assert changes.removed == {"filter: response_words > 4": 100}
    assert changes.kept == 150
    with pytest.raises(RebuildError, match="measures somebody's dataset"):
        rebuild.from_recording(one, str(tmp_path / "again"))


def test_fields_of_every_kind_are_kept_as_they_are(tmp_path: Path) -> None:
    given = pa.table(
        {
            "prompt": ["a", "b"],
            "wild": [float("nan"), float("inf")],
            "half": pa.array([1.5, 2.5], pa.float32()),
            "time": pa.array([1, 2], pa.timestamp("ns")),
            "price": pa.array([Decimal("1.10"), None], pa.decimal128(8, 2)),
            "bytes": [b"x", b"y"],
            "nested": [{"a": 1, "b": [1]}, None],
            "large": pa.array([2**63, 1], pa.uint64()),
            "day": pa.array([1, 2], pa.date32()),
            "text": pa.array(["x", "y"], pa.large_string()),
            "lists": [[], ["q"]],
        }
    )
    pq.write_table(given, tmp_path / "data.parquet")

    run(tmp_path, str(tmp_path / "data.parquet"), fields={"instruction": "prompt"})

    (path,) = (tmp_path / "out/given").glob("*.parquet")
    kept = pq.read_table(path)
    names = given.column_names[1:]
    assert kept.select(names).schema.types == given.select(names).schema.types
    assert repr(kept.select(names).to_pylist()) == repr(given.select(names).to_pylist())
    assert "| `wild` | — | — | — | — | — | 0 |" in (tmp_path / "out/README.md").read_text()
    assert {finding.verdict for finding in verify(open_release(str(tmp_path / "out")))} == {"same"}


def test_many_files_are_one_dataset_and_many_shards_one_release(tmp_path: Path) -> None:
    given = rows_of(300)
    parquet(tmp_path, given[:120], "in/a.parquet")
    parquet(tmp_path, given[120:], "in/b.parquet")

    done = annotated(tmp_path, str(tmp_path / "in"), rows_per_shard=128)
    of_pattern = annotated(tmp_path, str(tmp_path / "in/*.parquet"), "pattern")

    shards = sorted(path.name for path in (tmp_path / "out/given").iterdir())
    assert shards == [f"train-{n:05d}-of-00003.parquet" for n in range(3)]
    loaded = load_dataset(str(tmp_path / "out"), "given", split="train")
    assert loaded["level"] == list(range(300))
    assert done.lock["dataset"]["files"] == of_pattern.lock["dataset"]["files"]


def test_json_lines_and_csv_are_read_too(tmp_path: Path) -> None:
    given = rows_of(5)
    lines = "".join(json.dumps(row) + "\n" for row in given)
    (tmp_path / "data.jsonl").write_text(lines)
    table = "".join(f'"{row["prompt"]}",{row["level"]}\n' for row in given)
    (tmp_path / "data.csv").write_text("prompt,level\n" + table)

    of_lines, _ = run(tmp_path, str(tmp_path / "data.jsonl"))
    of_table, _ = run(
        tmp_path, str(tmp_path / "data.csv"), "table", fields={"instruction": "prompt"}
    )

    assert (
        [row["level"] for row in of_lines] == [row["level"] for row in of_table] == [0, 1, 2, 3, 4]
    )
    assert of_table[0]["messages"] == [{"role": "user", "content": given[0]["prompt"]}]
    assert of_table[0]["response"] is None


def test_conversations_of_both_forms_become_messages(tmp_path: Path) -> None:
    said = [
        {"from": "system", "value": "Be kind."},
        {"from": "human", "value": "Hello?"},
        {"from": "gpt", "value": "Hello."},
        {"from": "customer", "value": "More!"},
        {"from": "gpt", "value": "More."},
    ]
    place = parquet(tmp_path, [{"conversations": said}, {"conversations": None}])

    rows, lock = run(
        tmp_path, place, fields={"messages": "conversations"}, roles={"customer": "user"}
    )

    roles = ["system", "user", "assistant", "user", "assistant"]
    assert rows[0]["messages"] == [
        {"role": role, "content": one["value"]} for role, one in zip(roles, said, strict=True)
    ]
    assert (rows[0]["instruction"], rows[0]["response"], rows[0]["turns"]) == (
        "Hello?",
        "Hello.",
        2,
    )
    assert rows[1] | {"id": ""} == dict.fromkeys(rows[1]) | {"id": ""}
    assert lock["dataset"]["fields"] == {"messages": "conversations"}


def test_a_null_text_is_null_in_every_column(tmp_path: Path) -> None:
    given = [{"prompt": None, "output": "So."}, {"prompt": "Why?", "output": None}]
    place = parquet(tmp_path, given)
    columns = ["length", "language", "repetition", "format", "refusal", "personal_data"]

    with ScriptedTei().serving() as judge:
        rows, _ = run(
            tmp_path, place, judge=judge, **REWARD | {"columns": [*columns, REWARD["columns"][1]]}
        )

    nothing = {name for name, value in rows[0].items() if value is None}
    assert {name for name in rows[0] if name.startswith("instruction")} <= nothing
    assert {"messages", "turns", "language", "instruct_reward", "reward_model"} <= nothing
    assert {name for name in rows[1] if name.startswith("response")} <= {
        name for name, value in rows[1].items() if value is None
    }
    assert judge.asked == []


def test_a_field_whose_name_is_taken_gets_another_one(tmp_path: Path) -> None:
    given = [{"q": "Why?", "id": 7, "language": "xx", "prompt": "p", "instruction_chars": 1}]

    rows, lock = run(
        tmp_path,
        parquet(tmp_path, given),
        fields={"instruction": "q"},
        columns=["length", "language"],
        filters=["source_id == 7"],
    )

    assert rows[0]["source_id"] == 7
    assert rows[0]["source_language"] == "xx"
    assert rows[0]["source_prompt"] == "p"
    assert rows[0]["source_instruction_chars"] == 1
    assert rows[0]["instruction_chars"] == 4
    assert lock["dataset"]["kept"]["prompt"] == "source_prompt"
    assert not {"prompt", "q"} & rows[0].keys()


def test_columns_that_see_every_row_see_the_whole_dataset(tmp_path: Path) -> None:
    given = [*rows_of(40), *rows_of(10)]

    rows, lock = run(
        tmp_path,
        parquet(tmp_path, given),
        columns=["min_neighbor_distance"],
        filters=["min_neighbor_distance >= 0", "level != 3"],
        rows=30,
    )

    assert [row["level"] for row in rows] == [n for n in range(31) if n != 3]
    assert lock["build"]["attempts"] == 31


def test_a_limit_of_rows_takes_the_first_that_pass(tmp_path: Path) -> None:
    rows, lock = run(tmp_path, parquet(tmp_path, rows_of(600)), filters=["level > 9"], rows=20)

    assert [row["level"] for row in rows] == list(range(10, 30))
    assert lock["build"]["attempts"] == 30


def test_a_text_is_judged_once_in_whatever_row_or_dataset_it_stands(tmp_path: Path) -> None:
    given = rows_of(40)
    first = parquet(tmp_path, [*given[:30], *given[:30]], "first.parquet")
    second = parquet(tmp_path, given[::-1], "second.parquet")

    with ScriptedTei().serving() as judge:
        rows, lock = run(tmp_path, first, judge=judge, **REWARD)
        asked = len(judge.asked)
        more, _ = run(tmp_path, second, "second", judge=judge, **REWARD)
        then = len(judge.asked)
        measured, _ = run(
            tmp_path,
            second,
            "third",
            judge=judge,
            **REWARD | {"columns": [*REWARD["columns"], "format"], "version": "1.1.0"},
        )

    assert asked == 30
    assert then == len(judge.asked) == 40
    assert all(row["instruct_reward"] == len(row["response"].split()) for row in [*rows, *more])
    assert len(measured) == 40
    assert lock["judges"]["reward"]["model"]["model_id"] == REWARD_MODEL
    assert lock["build"]["requests"] == 60


def test_a_dataset_whose_answers_are_all_recorded_needs_no_judge(tmp_path: Path) -> None:
    place = parquet(tmp_path, rows_of(30))
    with ScriptedTei().serving() as judge:
        run(tmp_path, place, judge=judge, **REWARD)

    run(tmp_path, place, "again", options=Options(patience=AT_ONCE), **REWARD)

    assert files(tmp_path / "again") == files(tmp_path / "out")


def test_a_judge_that_writes_is_checked_and_its_grades_filter(tmp_path: Path) -> None:
    def grade(prompt: str, seed: int | None) -> str:
        label = "good" if "bread" in prompt or "river" in prompt else "poor"
        return json.dumps({"quality_explanation": "So.", "input_quality": label})

    keys: dict[str, Any] = {
        "columns": [{"input_quality": {"judge": "judge"}}],
        "filters": ['input_quality >= "good"'],
        "judges": {"judge": {"model": MODEL, "revision": REVISION, "endpoint": NOBODY}},
    }
    with ScriptedTgi(say=grade).serving() as judge:
        rows, lock = run(tmp_path, parquet(tmp_path, rows_of(20)), judge=judge, **keys)

    assert {row["input_quality"] for row in rows} == {"good"}
    assert [row["level"] for row in rows] == [n for n in range(20) if n % 4 < 2]
    assert lock["judges"]["judge"]["check"]["asked"] == 48
    assert "labelled instructions" in (tmp_path / "out/README.md").read_text()


def test_a_judge_is_not_asked_about_rows_that_are_ruled_out_already(tmp_path: Path) -> None:
    with ScriptedTei().serving() as judge:
        run(
            tmp_path,
            parquet(tmp_path, rows_of(40)),
            judge=judge,
            **REWARD | {"filters": ["instruct_reward >= 3", "level < 10"]},
        )

    assert len(judge.asked) == 10


def test_a_judge_that_gives_no_answer_to_many_rows_stops_the_annotation(tmp_path: Path) -> None:
    def fail(inputs: Any) -> Json:
        return 424, {"error": "inference failed", "error_type": "Backend"}

    with (
        ScriptedTei(predict=fail).serving() as judge,
        pytest.raises(EndpointError, match="failed to answer"),
    ):
        run(tmp_path, parquet(tmp_path, rows_of(40)), judge=judge, **REWARD)


def priced(prompt: float) -> dict[str, Any]:
    """A reward column by a judge that takes so many USD per million prompt tokens."""
    judge = REWARD["judges"]["reward"]
    endpoint = judge["endpoint"] | {"usd_per_million_prompt_tokens": prompt}
    return REWARD | {"judges": {"reward": judge | {"endpoint": endpoint}}}


@pytest.mark.parametrize(
    ("limit", "what"),
    [
        ({"max_tokens": 11 * 20}, "tokens are spent, 220 may be"),
        ({"max_seconds": 0.3}, "s are spent, 0.3 may be"),
        ({"max_cost_usd": 0.022}, "USD are spent, 0.022 may be"),
    ],
)
def test_a_budget_ends_it_and_the_same_command_carries_on(
    tmp_path: Path, limit: Mapping[str, Any], what: str
) -> None:
    place = parquet(tmp_path, rows_of(400))

    def slow(inputs: Any) -> Json:
        time.sleep(0.05)
        return by_length(inputs)

    with ScriptedTei(predict=slow).serving() as judge:
        options = Options(
            judge_endpoints={"reward": (judge.url,)}, patience=AT_ONCE, resume="again", **limit
        )
        with pytest.raises(BudgetError) as caught:
            run(tmp_path, place, options=options, **priced(100))
        spent = len(judge.asked)
        judge.predict = by_length
        rows, _ = run(tmp_path, place, judge=judge, **priced(100))

    assert what in caught.value.what
    assert caught.value.fix == "carry on with another budget: again"
    assert 16 <= spent < 400
    assert len(rows) == len(judge.asked) == 400


def test_a_judge_costs_what_its_own_endpoint_takes(tmp_path: Path) -> None:
    keys = priced(1e6)  # a dollar a token, and the other judge takes nothing
    keys["columns"] = [*keys["columns"], {"input_quality": {"judge": "free"}}]
    keys["judges"]["free"] = {"model": MODEL, "revision": REVISION, "endpoint": NOBODY}
    place = parquet(tmp_path, rows_of(40))
    with (
        ScriptedTei().serving() as reward,
        ScriptedTgi(say=lambda prompt, seed: "poor").serving() as free,
    ):
        options = Options(
            judge_endpoints={"reward": (reward.url,), "free": (free.url,)},
            patience=AT_ONCE,
            max_cost_usd=40 * 11 + 0.5,
        )
        rows, _ = run(tmp_path, place, options=options, **keys)

    assert len(rows) == len(reward.asked) == 40
    assert len(free.asked) == 48 + 40


def test_a_limit_in_dollars_needs_a_price_before_anybody_is_asked(tmp_path: Path) -> None:
    place = parquet(tmp_path, rows_of(40))
    with ScriptedTei().serving() as judge:
        options = Options(
            judge_endpoints={"reward": (judge.url,)}, patience=AT_ONCE, max_cost_usd=5
        )
        with pytest.raises(RecipeError) as caught:
            run(tmp_path, place, options=options, **REWARD)

    assert caught.value.args == (
        "this run may cost 5 USD, and the recipe names no price",
        "given.yaml, judges, endpoint",
        "add usd_per_million_prompt_tokens and usd_per_million_generated_tokens there, or limit "
        "the run by --max-tokens",
    )
    assert judge.asked == []


RUN = """
import sys
from pathlib import Path
from prequery import recipe
from prequery.annotation import annotate
from prequery.options import Options
from prequery.progress import Progress
text, place, url, out, journal = sys.argv[1:]
options = Options(judge_endpoints={"reward": (url,)}, journal=Path(journal))
read = recipe.read_annotation(text, "given.yaml")
annotate(read, out, options, Progress, place)
"""


@pytest.mark.parametrize(
    ("filters", "kept"),
    [
        ([], 1_200),
        ([{"top": {"by": "instruct_reward", "rows": 300}}], 300),
        ([{"balance": {"by": "kind", "rows": 300, "best": "instruct_reward"}}], 300),
    ],
    ids=["plain", "top", "balance"],
)
def test_a_killed_annotation_carries_on_to_the_same_bytes_and_pays_for_nothing_twice(
    tmp_path: Path, filters: list[Json], kept: int
) -> None:
    given = [
        row | {"kind": ["easy", "hard", "odd"][at % 3]} for at, row in enumerate(rows_of(1_200))
    ]
    place = parquet(tmp_path, given)
    with ScriptedTei().serving() as judge:
        rows, _ = run(tmp_path, place, judge=judge, filters=filters, **REWARD)
        asked = len(judge.asked)
        judge.asked.clear()
        text, journal = (tmp_path / "out/given.yaml").read_text(), str(tmp_path / "journal")
        command = [sys.executable, "-c", RUN, text, place, judge.url, str(tmp_path / "k"), journal]
        killed = []
        for enough in (100, 600, 1_000):
            judge.held_after = enough
            with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
                while len(judge.asked) < enough and process.poll() is None:
                    time.sleep(0.005)
                process.kill()
            killed.append(process.returncode)
        judge.held_after = None
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)

    assert (len(rows), asked) == (kept, 1_200)
    assert killed == [-signal.SIGKILL] * 3
    assert files(tmp_path / "k") == files(tmp_path / "out")
    # What is in flight when it is killed is asked for again.
    assert 1_200 <= len(judge.asked) <= 1_200 + 3 * 16


def test_ctrl_c_lets_finish_what_is_in_flight_and_says_how_to_carry_on(tmp_path: Path) -> None:
    place = parquet(tmp_path, rows_of(1_200))
    judge = ScriptedTei(held_after=50)
    with judge.serving():
        (tmp_path / "mine.yaml").write_text(
            yaml.safe_dump({**REWARD, "name": "mine"}).replace(NOBODY, judge.url)
        )
        command = [str(Path(sys.executable).parent / "prequery"), "annotate", place, "--field"]
        command += ["instruction=prompt", "--field", "response=output", "--recipe"]
        command += [str(tmp_path / "mine.yaml"), "--out", str(tmp_path / "out")]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            while len(judge.asked) < 50:
                time.sleep(0.005)
            process.send_signal(signal.SIGINT)
            judge.held_after = None
            told = process.communicate(timeout=60)[1]
        asked = len(judge.asked)
        again = subprocess.run(command, check=False, capture_output=True, text=True)

    assert process.returncode == 130
    assert 50 <= asked < 1_200
    assert "StoppedError: the annotation was stopped; every finished answer is kept" in told
    assert f"carry on: prequery annotate {place} --field instruction=prompt" in told
    assert again.returncode == 0
    assert len(judge.asked) == 1_200


WRONG: dict[str, tuple[dict[str, Any], type[BuildError], str]] = {
    "missing field": (
        {"fields": {"instruction": "promt"}},
        DatasetError,
        "the dataset has no field 'promt'\n  where: given.yaml, dataset.fields.instruction\n"
        "  fix:   choose one of: prompt, output, level",
    ),
    "no text": (
        {"fields": {"instruction": "level"}},
        DatasetError,
        "the field 'level' is no text: Value('int64')",
    ),
    "no conversation": (
        {"fields": {"messages": "prompt"}},
        DatasetError,
        "the field 'prompt' is no list of messages: Value('string')",
    ),
    "unknown filter field": (
        {"filters": ["levle > 3"]},
        RecipeError,
        "unknown field 'levle'",
    ),
    "a model's own answers": (
        {"columns": ["likelihood"]},
        DatasetError,
        "column 'likelihood' reads 'instruction_logprob_sum', which is told of a model's own "
        "answers and of no dataset",
    ),
    "nothing stays": (
        {"filters": ["level < 0"]},
        AcceptanceError,
        "none of 4 rows stays, and there is nothing to release",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_wish_is_refused_with_what_where_and_fix(tmp_path: Path, case: str) -> None:
    keys, kind, told = WRONG[case]

    with pytest.raises(kind) as raised:
        run(tmp_path, parquet(tmp_path, rows_of(4)), **keys)

    assert str(raised.value).startswith(told)
    assert not (tmp_path / "out").exists()


def test_an_unknown_speaker_is_named_with_row_and_fix(tmp_path: Path) -> None:
    said = [[{"role": "user", "content": "Hi"}], [{"role": "wizard", "content": "Hi"}]]
    place = parquet(tmp_path, [{"chat": one} for one in said])

    with pytest.raises(DatasetError) as raised:
        run(tmp_path, place, fields={"messages": "chat"})

    assert raised.value.what == "nobody is known who speaks as 'wizard'"
    assert raised.value.where == "data.parquet, row 1, message 0 of 'chat'"
    assert raised.value.fix == "say who that is: roles: {wizard: user}, or --role wizard=user"


def test_two_fields_of_one_name_are_refused(tmp_path: Path) -> None:
    place = parquet(tmp_path, [{"prompt": "a", "output": "b", "id": 1, "source_id": 2}])

    with pytest.raises(DatasetError, match="two fields would be named 'source_id'"):
        run(tmp_path, place)


def test_files_that_changed_since_they_were_pinned_are_refused(tmp_path: Path) -> None:
    place = parquet(tmp_path, rows_of(5))
    run(tmp_path, place)
    kept = (tmp_path / "out/given.yaml").read_text()
    parquet(tmp_path, rows_of(6))

    with pytest.raises(DatasetError, match="the files are others than were pinned"):
        annotate(recipe.read_annotation(kept, "x"), str(tmp_path / "o"), Options(), Silent, place)


def test_an_empty_dataset_and_one_that_is_not_there_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"prompt": pa.array([], pa.string())}), tmp_path / "none.parquet")
    (tmp_path / "empty").mkdir()

    with pytest.raises(DatasetError, match="has no rows"):
        run(tmp_path, str(tmp_path / "none.parquet"), fields={"instruction": "prompt"})
    with pytest.raises(DatasetError, match="cannot be read: The directory"):
        run(tmp_path, str(tmp_path / "empty"))
    with pytest.raises(DatasetError, match="there is no such file or folder"):
        run(tmp_path, str(tmp_path / "not-there.parquet"))


def test_an_unknown_split_or_config_is_refused_with_the_choices(tmp_path: Path) -> None:
    place = parquet(tmp_path, rows_of(3))

    with pytest.raises(DatasetError) as raised:
        annotation.pinned(Wish(place, split="test"))
    assert str(raised.value) == (
        f"the dataset has no split 'test'\n  where: {place}\n  fix:   choose one of: train"
    )
    with pytest.raises(DatasetError, match=re.escape("'nope' not found. Available: ['default']")):
        annotation.pinned(Wish(str(Path(place).parent), config="nope"))


def test_a_damaged_file_is_an_error_that_names_the_place(tmp_path: Path) -> None:
    place = Path(parquet(tmp_path, rows_of(500)))
    content = bytearray(place.read_bytes())
    content[1_000:1_400] = bytes(400)
    place.write_bytes(content)

    with pytest.raises(DatasetError, match=re.escape(f"{place.name}, behind row 0 of split")):
        run(tmp_path, str(place))


def test_lines_that_change_their_fields_are_an_error_of_the_dataset(tmp_path: Path) -> None:
    lines = [json.dumps({"prompt": "x" * 1_000, "output": "y", "n": 1})] * 12_000
    lines.append(json.dumps({"prompt": "x", "output": "y", "n": "one"}))
    (tmp_path / "data.jsonl").write_text("\n".join(lines))

    with pytest.raises(DatasetError, match="the dataset is not as its fields say"):
        run(tmp_path, str(tmp_path / "data.jsonl"))


def test_a_recipe_without_a_pin_is_refused(tmp_path: Path) -> None:
    text = "name: x\nversion: 1.0.0\ndataset: {path: a/b, fields: {instruction: q}}\n"

    with pytest.raises(RecipeError) as raised:
        recipe.read_annotation(text, "x.yaml")

    assert raised.value.what == "the dataset is not pinned, and what is read could change"
    assert raised.value.where == "x.yaml, line 3, dataset.revision"


def test_a_recipe_of_a_dataset_is_no_recipe_of_a_build(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as raised:
        recipe.read("name: x\ndataset: {path: a/b}\n", "x.yaml")

    assert raised.value.fix == "prequery annotate --recipe x.yaml"


def command(*arguments: str, verb: Sequence[str] = ("annotate",)) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["prequery", *verb, *arguments])
        with pytest.raises(SystemExit) as left:
            cli.main()
    return int(left.value.code or 0)


def test_the_command_shows_its_recipe_keeps_it_and_runs_from_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    place = parquet(tmp_path, rows_of(9))
    options = ["--field", "instruction=prompt", "--columns", "length, language", "--filter"]
    out, again = str(tmp_path / "out"), str(tmp_path / "again")

    first = command(place, *options, "level > 0", "--out", out)
    shown = capfd.readouterr()
    second = command(place, "--recipe", f"{out}/data-annotated.yaml", "--out", again)
    third = command(place, "--recipe", f"{out}/data-annotated.yaml", "--out", again)

    kept = (tmp_path / "out/data-annotated.yaml").read_text()
    assert first == second == third == 0
    assert kept in shown.err
    assert str(tmp_path) not in kept
    assert "8  accepted" in shown.out
    assert files(tmp_path / "again") == files(tmp_path / "out")
    assert "Reusing" in capfd.readouterr().out


def test_the_command_ends_with_3_when_it_has_cost_what_it_may_and_says_how_to_go_on(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    place, path = parquet(tmp_path, rows_of(100)), tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"name": "mine", "version": "1.0.0", **priced(100)}))
    with ScriptedTei().serving() as judge:
        given = [place, "--recipe", str(path), "--field", "instruction=prompt"]
        given += ["--field", "response=output", "--judge-endpoint", f"reward={judge.url}"]
        given += ["--out", str(tmp_path / "out")]
        stopped = command(*given, "--max-cost", "0.011")
        told = capfd.readouterr().err
        asked = len(judge.asked)
        finished = command(*given)

    assert (stopped, finished) == (3, 0)
    assert "0.011 may be; every finished answer is kept" in told
    assert "carry on with another budget: prequery annotate" in told
    assert 10 <= asked < 100 == len(judge.asked)


def test_what_is_done_with_a_release_is_done_with_this_one_too(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    said = [{"from": "human", "value": "Hello?"}, {"from": "gpt", "value": "Hello."}]
    place = parquet(tmp_path, [{"chat": said, "b": n, "a": [n]} for n in range(9)])
    out, released = str(tmp_path / "out"), str(tmp_path / "released")
    options = ["--field", "messages=chat", "--columns", "length", "--filter", "b > 0"]

    codes = [
        command(*arguments, verb=())
        for arguments in (
            ["annotate", place, *options, "--out", out],
            ["release", out, "--to", released],
            ["verify", released],
            ["card", released, "--check"],
            ["diff", out, released],
            ["rebuild", released, "--out", str(tmp_path / "again")],
        )
    ]

    told = capfd.readouterr()
    assert codes == [0, 0, 0, 0, 0, 1], told.err
    loaded = load_dataset(released, "data-annotated", split="train")
    assert loaded.column_names[:7] == [
        "id",
        "messages",
        "instruction",
        "response",
        "turns",
        "b",
        "a",
    ]
    assert "No row, field or value differs." in told.out
    assert "prequery annotate --recipe data-annotated.yaml" in told.err


def test_a_recipe_of_ones_own_is_completed_with_the_pinned_dataset(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("# mine\nname: mine\nversion: 2.0.0\ncolumns: [length]\n")
    place = parquet(tmp_path, rows_of(9))

    done = command(
        place, "--field", "instruction=prompt", "--recipe", str(mine), "--out", str(tmp_path / "o")
    )
    wrong = command(place, "--recipe", str(mine), "--columns", "format")

    assert done == 0
    assert (tmp_path / "o/mine.yaml").read_text().startswith(mine.read_text())
    assert wrong == 1
    assert "no field of the dataset is called messages or instruction" in capfd.readouterr().err


def test_the_models_of_a_dataset_that_is_there_are_not_known(tmp_path: Path) -> None:
    place = parquet(tmp_path, rows_of(3))

    with pytest.raises(RecipeError) as error:
        run(tmp_path, place, columns=[{"ifd": {"judge": "generator"}}])

    assert error.value.what == "a column asks the generator, and a dataset that is there has none"


def test_a_dataset_is_read_and_embedded_as_ours_are(tmp_path: Path) -> None:
    """Columns of several questions, and vectors that no row holds."""
    fleet = Settings(machines=(Machine(token_s=0),))
    reader = {"model": fleet.model_id, "revision": fleet.model_sha, "endpoint": NOBODY}
    embedder = {"model": "acme/embedder", "revision": REWARD_REVISION, "endpoint": NOBODY}
    asked: dict[str, Any] = {
        "columns": [
            {"ifd": {"judge": "reader"}},
            {"instruction_embedding": {"judge": "embedder"}},
            {"min_neighbor_distance": {"embedder": "instruction_embedding"}},
        ],
        "judges": {"reader": reader, "embedder": embedder},
    }
    tei = ScriptedTei(embed=lambda text: [[float(len(text)), 1.0]], model_id="acme/embedder")
    place = parquet(tmp_path, rows_of(12))
    with simulate(fleet) as served, tei.serving():
        addresses = {"reader": tuple(served.urls), "embedder": (tei.url,)}
        options = Options(judge_endpoints=addresses, patience=AT_ONCE)
        rows, _ = run(tmp_path, place, options=options, **asked)
    again, _ = run(tmp_path, place, "again", options=Options(patience=AT_ONCE), **asked)

    assert len(rows) == 12
    assert all(row["ifd"] > 0 and row["min_neighbor_distance"] is not None for row in rows)
    assert "instruction_embedding" not in rows[0]
    assert again == rows
