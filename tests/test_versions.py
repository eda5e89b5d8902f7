"""Between two releases every row, value, column and key of the recipe is accounted for."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from hub import Hub
from prequery import versions
from prequery.cli import app
from prequery.errors import RebuildError
from prequery.released import open_release
from prequery.versions import Changes
from released_folders import REPO, release, upload
from scripted_tgi import Json, ScriptedTgi

LONG = "instruction_chars >= 58"
WORDY = "instruction_words > 3"


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREQUERY_HOME", str(tmp_path / "home"))


@pytest.fixture
def server() -> Iterator[ScriptedTgi]:
    with ScriptedTgi().serving() as server:
        yield server


def compare(one: Path | str, two: Path | str) -> Changes:
    return versions.compare(open_release(str(one)), open_release(str(two)))


def rows(out: Path) -> list[Json]:
    return [row for table in open_release(str(out)).tables() for row in table.to_pylist()]


def test_equal_releases_differ_in_nothing(tmp_path: Path, server: ScriptedTgi) -> None:
    one = release(tmp_path, "one", server)

    changes = compare(one, one)

    assert changes.same_data
    assert (changes.rows, changes.kept) == ((20, 20), 20)
    assert not changes.recipe
    assert changes.sentences() == ["No row and no value changed."]


def test_every_row_that_came_or_went_has_its_reason(tmp_path: Path, server: ScriptedTgi) -> None:
    one = release(tmp_path, "one", server)
    two = release(tmp_path, "two", server, version="1.1.0", filters=f"['{LONG}', '{WORDY}']")
    before, after = rows(one), rows(two)
    short = [row for row in before if row["instruction_chars"] < 58]
    old, new = {row["id"] for row in before}, {row["id"] for row in after}
    assert short

    changes = compare(one, two)

    assert changes.removed == {f"filter: {LONG}": len(short)}
    assert changes.added == {"behind the last row of scripted 1.0.0": len(new - old)}
    assert changes.kept == len(old & new) == 20 - len(short)
    assert changes.values == {}
    assert changes.recipe == {
        "version": ('"1.0.0"', '"1.1.0"'),
        "filters": (None, f'["{LONG}"]'),
    }
    assert changes.sentences() == [
        f"{len(new - old)} rows added ({len(new - old)}: behind the last row of scripted 1.0.0).",
        f"{len(short)} rows removed ({len(short)}: filter: {LONG}).",
    ]
    back = compare(two, one)
    assert back.added == {f"filter: {LONG}": len(short)}
    assert back.removed == changes.added


def test_fewer_rows_leave_out_the_last(tmp_path: Path, server: ScriptedTgi) -> None:
    one, two = release(tmp_path, "one", server), release(tmp_path, "two", server, rows=12)

    changes = compare(one, two)

    assert changes.removed == {"behind the last row of scripted 1.0.0": 8}
    assert (changes.rows, changes.kept, changes.added) == ((20, 12), 12, {})


def test_a_filter_of_fields_that_are_not_there_is_not_guessed(
    tmp_path: Path, server: ScriptedTgi
) -> None:
    one = release(tmp_path, "one", server, columns="[length]")
    two = release(
        tmp_path,
        "two",
        server,
        columns="[length, min_neighbor_distance, likelihood]",
        filters="['min_neighbor_distance > 0.3', 'response_logprob_mean > -9']",
    )

    changes = compare(one, two)

    gone = {row["id"] for row in rows(one)} - {row["id"] for row in rows(two)}
    assert gone
    assert changes.removed == {
        "one of: filter: response_logprob_mean > -9; filter: min_neighbor_distance > 0.3": len(gone)
    }
    assert changes.fields_added[0] == "min_neighbor_distance"
    assert changes.columns["likelihood"] == (None, "version 2")


def test_choices_among_all_rows_are_named(tmp_path: Path, server: ScriptedTgi) -> None:
    one = release(tmp_path, "one", server)
    two = release(
        tmp_path,
        "two",
        server,
        rows=10,
        candidates="20",
        filters="['instruction_words > 3', {top: {by: response_chars, rows: 10}}]",
    )

    changes = compare(one, two)

    (reason,) = changes.removed
    assert reason.startswith("filter: ")
    assert "response_chars" in reason
    assert changes.removed[reason] == 10


def test_another_seed_asks_for_everything_anew(tmp_path: Path, server: ScriptedTgi) -> None:
    one, two = release(tmp_path, "one", server), release(tmp_path, "two", server, seed="4")

    changes = compare(one, two)

    anew = "all answers were asked for anew"
    assert (changes.added, changes.removed, changes.kept) == ({anew: 20}, {anew: 20}, 0)
    assert changes.recipe == {"seed": ("3", "4")}


def test_changed_values_are_counted_by_field(tmp_path: Path, server: ScriptedTgi) -> None:
    one, two = release(tmp_path, "one", server), release(tmp_path, "two", server)
    path = sorted((two / "scripted").glob("*.parquet"))[1]
    table = pq.ParquetFile(path).read()
    held = table.to_pylist()
    held[0]["response_chars"] += 1
    held[1]["response_chars"] = None
    held[2]["messages"][1]["content"] += "!"
    held[3]["response_logprob_mean"] = float("nan")
    pq.write_table(pa.Table.from_pylist(held, schema=table.schema), path, row_group_size=2)

    changes = compare(one, two)

    assert changes.values == {"messages": 1, "response_chars": 2, "response_logprob_mean": 1}
    assert compare(two, two).values == {}
    assert changes.sentences() == [
        "1 values of messages changed.",
        "2 values of response_chars changed.",
        "1 values of response_logprob_mean changed.",
    ]


def test_rows_in_another_order_are_refused(tmp_path: Path, server: ScriptedTgi) -> None:
    one, two = release(tmp_path, "one", server), release(tmp_path, "two", server)
    path = sorted((two / "scripted").glob("*.parquet"))[0]
    table = pq.ParquetFile(path).read()
    pq.write_table(table.take(list(reversed(range(len(table))))), path)

    with pytest.raises(RebuildError) as caught:
        compare(one, two)

    assert caught.value.what == "the two releases do not have their rows in the same order"


def test_what_wrote_the_rows_is_compared(tmp_path: Path, server: ScriptedTgi) -> None:
    one, two = release(tmp_path, "one", server), release(tmp_path, "two", server)
    path = two / "scripted.lock.json"
    held = json.loads(path.read_text())
    held["generator"]["revision"] = "7" * 40
    held["packages"]["pyarrow"] = "1.0"
    path.write_text(json.dumps(held))

    changes = compare(one, two)

    assert changes.models == {
        "Generator": (f"acme/scripted@{'5' * 12}", f"acme/scripted@{'7' * 12}")
    }
    assert changes.packages["pyarrow"][1] == "1.0"
    assert changes.same_data


def test_two_tags_on_the_hub_are_compared_by_the_command(
    hub: Hub, tmp_path: Path, server: ScriptedTgi
) -> None:
    upload(hub, release(tmp_path, "one", server), "scripted-v1.0.0")
    two = release(tmp_path, "two", server, rows=12, version="1.1.0")
    upload(hub, two, "scripted-v1.1.0")

    def run(*words: str) -> Any:
        tags = [f"{REPO}@scripted-v1.0.0", f"{REPO}@scripted-v1.1.0"]
        return CliRunner().invoke(app, ["diff", *tags, "scripted", *words])

    shown, told = run(), run("--json")

    assert shown.exit_code == told.exit_code == 0, shown.output
    lines = [line.split() for line in shown.output.splitlines()]
    assert ["20", "rows", "before"] in lines
    assert ["-8", "behind", "the", "last", "row", "of", "scripted", "1.1.0"] in lines
    assert ["12", "rows", "now,", "12", "of", "them", "in", "both"] in lines
    assert 'version: "1.0.0" -> "1.1.0"' in shown.output
    assert json.loads(told.stdout)["removed"] == {"behind the last row of scripted 1.1.0": 8}
