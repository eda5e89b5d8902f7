"""Consumers load what prequery built from a Hub, with nothing but `datasets` and huggingface_hub.

Each load is a process of its own, with its own caches: as the clients read their settings when they
are imported, so that nothing of the build can help.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq
import pytest

from hub import Hub, Place
from prequery import Magpie
from prequery.options import Options
from prequery.release import content
from prequery.release import hub as release
from prequery.release.hub import Wishes
from prequery.release.wire import Wire
from scripted_tgi import ScriptedTgi, recipe_text

Rows = list[dict[str, Any]]


class Released(NamedTuple):
    """A repo and where it is."""

    place: Place
    repo_id: str


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """Three builds in several shards: two versions of one config, and another config."""
    work = tmp_path_factory.mktemp("built")
    made = {}
    with pytest.MonkeyPatch.context() as patch, ScriptedTgi().serving() as server:
        patch.setenv("PREQUERY_HOME", str(work / "home"))
        patch.setattr(Magpie, "rows_per_shard", 5)
        for name, version, rows in [
            ("one", "1.2.0", 20),
            ("one", "1.3.0", 24),
            ("two", "3.0.1", 8),
        ]:
            recipe = work / f"{name}-{version}.yaml"
            recipe.write_text(recipe_text(rows, name=name, version=version))
            out = work / f"{name}-v{version}"
            builder = Magpie(recipe, options=Options(endpoints=(server.url,)))
            builder.download_and_prepare(out, file_format="parquet")
            made[out.name] = out
        yield made


def publish(place: Place, repo_id: str, folder: Path) -> None:
    """Release a folder beside what is there."""
    api = place.api()
    wire = Wire(repo_id, api.endpoint, str(api.token))
    released = release.release(content.read(str(folder)), wire, Wishes())
    assert released.kind == "released"


@pytest.fixture
def released(place: Place, repo_id: str, built: dict[str, Path]) -> Released:
    """All three released, the newer version of one config last."""
    for name in ("one-v1.2.0", "two-v3.0.1", "one-v1.3.0"):
        publish(place, repo_id, built[name])
    return Released(place, repo_id)


def rows(folder: Path) -> Rows:
    config = folder.name.partition("-")[0]
    shards = sorted((folder / config).glob("train-*.parquet"))
    assert len(shards) > 1
    return [row for shard in shards for row in pq.read_table(shard).to_pylist()]


# pyarrow's threads may abort an interpreter that ends soon after a Parquet file was read through a
# Python file object (apache/arrow#50482), when all has been read and said.
END = """
import os, sys
sys.stdout.flush()
os._exit(0)
"""


def consume(place: Place, home: Path, code: str, xet: bool = False, **environment: str) -> Any:
    """Run a consumer's code and return what it says at last, decoded."""
    done = subprocess.run(
        [sys.executable, "-c", f"import json\n{code}{END}"],
        env={**os.environ, **place.environment(home, xet), **environment},
        cwd=home.parent,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


LOAD = """
from datasets import load_dataset
said = []
for config, revision in {asked}:
    ds = load_dataset("{path}", config, revision=revision, split="train"{more})
    said.append([str(ds.info.version), list(ds)])
print(json.dumps(said))
"""

SNAPSHOT = """
from huggingface_hub import snapshot_download
print(json.dumps(snapshot_download("{path}", repo_type="dataset", revision="{revision}")))
"""


def load(
    released: Released, home: Path, *asked: tuple[str, str | None], more: str = "", **rest: Any
) -> Any:
    code = LOAD.format(path=released.repo_id, asked=list(asked), more=more)
    return consume(released.place, home, code, **rest)


def test_each_tag_gives_its_rows_and_its_version(
    released: Released, built: dict[str, Path], tmp_path: Path
) -> None:
    said = load(
        released,
        tmp_path / "a",
        ("one", "one-v1.2.0"),
        ("one", "one-v1.3.0"),
        ("two", "two-v3.0.1"),
        ("two", None),
        ("one", None),
    )

    assert said == [
        ["1.2.0", rows(built["one-v1.2.0"])],
        ["1.3.0", rows(built["one-v1.3.0"])],
        ["3.0.1", rows(built["two-v3.0.1"])],
        ["3.0.1", rows(built["two-v3.0.1"])],
        ["1.3.0", rows(built["one-v1.3.0"])],
    ]


def test_rows_can_be_streamed_from_a_tag(
    released: Released, built: dict[str, Path], tmp_path: Path
) -> None:
    asked = ("one", "one-v1.2.0"), ("two", "two-v3.0.1")

    said = load(released, tmp_path / "a", *asked, more=", streaming=True")

    assert said == [
        ["1.2.0", rows(built["one-v1.2.0"])],
        ["3.0.1", rows(built["two-v3.0.1"])],
    ]


def test_two_processes_load_the_same_rows(
    released: Released, built: dict[str, Path], tmp_path: Path
) -> None:
    said = load(released, tmp_path / "a", ("one", "one-v1.3.0"), more=", num_proc=2")

    assert said == [["1.3.0", rows(built["one-v1.3.0"])]]


def test_the_same_rows_come_over_xet(xet: Hub, built: dict[str, Path], tmp_path: Path) -> None:
    xet.api().create_repo("acme/magpie", repo_type="dataset")
    publish(xet, "acme/magpie", built["one-v1.2.0"])
    released = Released(xet, "acme/magpie")
    asked = ("one", "one-v1.2.0")

    said = load(released, tmp_path / "a", asked, xet=True)
    streamed = load(released, tmp_path / "b", asked, xet=True, more=", streaming=True")

    assert said == streamed == [["1.2.0", rows(built["one-v1.2.0"])]]
    assert {call.name for call in xet.calls} >= {"shard-upload", "reconstruction"}


INFORM = """
from datasets import get_dataset_config_names, load_dataset_builder
said = {{}}
for config in get_dataset_config_names("{path}"):
    info = load_dataset_builder("{path}", config).info
    said[config] = [str(info.version), info.splits["train"].num_examples, len(info.features)]
print(json.dumps(said))
"""

READ = """
import fsspec, pyarrow.parquet as pq
rows = []
for file in fsspec.open_files("hf://datasets/{path}@{revision}/{config}/*.parquet"):
    with file as opened:
        rows += pq.read_table(opened).to_pylist()
print(json.dumps(rows))
"""


def test_what_there_is_can_be_seen_before_any_row_is_loaded(
    released: Released, built: dict[str, Path], tmp_path: Path
) -> None:
    code = INFORM.format(path=released.repo_id)

    said = consume(released.place, tmp_path / "a", code)

    fields = len(rows(built["two-v3.0.1"])[0])
    assert said == {"one": ["1.3.0", 24, fields], "two": ["3.0.1", 8, fields]}


def test_files_of_a_tag_can_be_read_without_datasets(
    released: Released, built: dict[str, Path], tmp_path: Path
) -> None:
    code = READ.format(path=released.repo_id, revision="one-v1.2.0", config="one")

    assert consume(released.place, tmp_path / "a", code) == rows(built["one-v1.2.0"])


def test_a_snapshot_of_a_tag_loads_without_a_network_by_its_path(
    released: Released, built: dict[str, Path], tmp_path: Path
) -> None:
    home = tmp_path / "a"
    snapshot = SNAPSHOT.format(path=released.repo_id, revision="one-v1.2.0")

    folder = consume(released.place, home, snapshot)
    local = LOAD.format(path=folder, asked=[("one", None)], more="")
    said = consume(released.place, home, local, HF_HUB_OFFLINE="1")

    assert said == [["1.2.0", rows(built["one-v1.2.0"])]]
    assert consume(released.place, home, snapshot, HF_HUB_OFFLINE="1") == folder
    # A snapshot alone does not answer for the repo's name.
    with pytest.raises(AssertionError, match="ConnectionError: Couldn't reach"):
        load(released, home, ("one", "one-v1.2.0"), HF_HUB_OFFLINE="1")


def test_without_a_network_the_version_tells_what_the_revision_did_not(
    released: Released, built: dict[str, Path], tmp_path: Path
) -> None:
    home = tmp_path / "a"
    load(released, home, ("one", "one-v1.2.0"))
    load(released, home, ("one", "one-v1.3.0"))

    said = load(released, home, ("one", "one-v1.2.0"), HF_HUB_OFFLINE="1")

    # `datasets` takes the newest that it has, whatever tag is asked for.
    assert said == [["1.3.0", rows(built["one-v1.3.0"])]]
