"""`prequery annotate` on datasets of a Hub: pinned, gated, private or missing."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from datasets import load_dataset

from hub import Hub

COMMAND = [str(Path(sys.executable).parent / "prequery"), "annotate"]


class Told(NamedTuple):
    """What a command said."""

    code: int
    out: str
    err: str


def annotate(tmp_path: Path, *arguments: str, **environment: str) -> Told:
    """Run the command, in a process of its own, with caches of its own."""
    env = {**os.environ, "PREQUERY_HOME": str(tmp_path / "home"), **environment}
    done = subprocess.run(
        [*COMMAND, *arguments], check=False, capture_output=True, text=True, env=env, cwd=tmp_path
    )
    return Told(done.returncode, done.stdout, done.stderr)


def publish(hub: Hub, tmp_path: Path, texts: list[str], private: bool = False) -> str:
    """Commit a dataset of two splits, and return the commit."""
    name = f"{hub.namespace}/chats"
    api = hub.api()
    api.create_repo(name, repo_type="dataset", private=private, exist_ok=True)
    folder = tmp_path / "repo/data"
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("train", "test"):
        rows = [{"prompt": f"{split}: {text}", "n": n} for n, text in enumerate(texts)]
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{split}-00000-of-00001.parquet")
    commit = api.upload_folder(
        repo_id=name, folder_path=tmp_path / "repo", repo_type="dataset", commit_message="Add"
    )
    return str(commit.oid)


def test_a_branch_is_pinned_to_its_commit_and_read_at_that(hub: Hub, tmp_path: Path) -> None:
    first = publish(hub, tmp_path, ["one", "two"])
    name = f"{hub.namespace}/chats"
    options = ["--field", "instruction=prompt", "--columns", "length", "--split", "test"]

    told = annotate(tmp_path, name, *options, "--out", "out")
    second = publish(hub, tmp_path, ["one", "two", "three"])
    again = annotate(tmp_path, "--recipe", "out/chats-annotated.yaml", "--out", "again")
    old = annotate(tmp_path, name, *options, "--revision", first[:40], "--out", "old")
    new = annotate(tmp_path, name, *options, "--revision", "main", "--out", "new")

    assert [one.code for one in (told, again, old, new)] == [0] * 4, told.err + again.err
    pinned = yaml.safe_load((tmp_path / "out/chats-annotated.yaml").read_text())
    assert pinned["dataset"]["revision"] == first
    assert (
        yaml.safe_load((tmp_path / "new/chats-annotated.yaml").read_text())["dataset"]["revision"]
        == second
    )
    loaded = load_dataset(str(tmp_path / "out"), "chats-annotated", split="train")
    assert loaded["instruction"] == ["test: one", "test: two"]
    parquet = "chats-annotated/train-00000-of-00001.parquet"
    for folder in ("again", "old"):
        assert (tmp_path / folder / parquet).read_bytes() == (
            tmp_path / "out" / parquet
        ).read_bytes()
    assert f"| revision | `{first}` |" in (tmp_path / "out/README.md").read_text()
    assert "source_datasets:\n- " + name in (tmp_path / "out/README.md").read_text()
    described = json.loads((tmp_path / "out/chats-annotated.croissant.json").read_text())
    assert described["isBasedOn"] == {
        "@type": "sc:CreativeWork",
        "name": name,
        "url": f"https://huggingface.co/datasets/{name}/tree/{first}",
        "version": first,
    }
    assert described["rai:dataCollectionRawData"] == (
        f"Dataset {name!r}, split 'test', revision {first}."
    )


def test_a_missing_or_private_dataset_is_said_to_be_so(hub: Hub, tmp_path: Path) -> None:
    publish(hub, tmp_path, ["one"], private=True)
    name = f"{hub.namespace}/chats"
    options = ["--field", "instruction=prompt", "--columns", "length"]

    missing = annotate(tmp_path, f"{hub.namespace}/nothing", *options)
    stranger = annotate(tmp_path, name, *options, HF_TOKEN="")
    branch = annotate(tmp_path, name, *options, "--revision", "no-such-branch")
    field = annotate(tmp_path, name, "--columns", "length")

    said = "the Hub has no such dataset that is open to you"
    assert missing.code == stranger.code == branch.code == field.code == 1
    assert said in missing.err
    assert said in stranger.err
    assert "HF_TOKEN" in stranger.err
    assert "the Hub answered 404 for the revision 'no-such-branch'" in branch.err
    assert "it has: prompt, n" in field.err
    assert "Traceback" not in missing.err + stranger.err + branch.err + field.err


def test_a_hub_that_refuses_the_token_is_an_error_of_three_lines(hub: Hub, tmp_path: Path) -> None:
    commit = publish(hub, tmp_path, ["one"])
    dataset = {
        "path": f"{hub.namespace}/chats",
        "revision": commit,
        "fields": {"instruction": "prompt"},
    }
    text = {"name": "mine", "version": "1.0.0", "columns": ["length"], "dataset": dataset}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(text))

    done = annotate(tmp_path, "--recipe", "mine.yaml", "--out", "out", HF_TOKEN="hf_wrong")

    assert done.code == 1
    assert done.err.startswith("DatasetError: the dataset is not there, or not open to you")
    assert "hf_wrong" not in done.err
    assert "Traceback" not in done.err


LOAD = """
import json
from datasets import load_dataset
rows = load_dataset("{path}", "chats-annotated", revision="{tag}", split="train")
print(json.dumps(list(rows["instruction"])))
"""


def test_an_annotation_is_released_verified_and_loaded_at_its_tag(hub: Hub, tmp_path: Path) -> None:
    publish(hub, tmp_path, ["one", "two"])
    options = ["--field", "instruction=prompt", "--columns", "length", "--out", "out"]
    annotated = annotate(tmp_path, f"{hub.namespace}/chats", *options)
    name, tag = f"{hub.namespace}/annotated", "chats-annotated-v1.0.0"

    commands = [
        [COMMAND[0], "release", "out", "--repo", name],
        [COMMAND[0], "release", "out", "--repo", name],
        [COMMAND[0], "verify", f"{name}@{tag}", "chats-annotated"],
        [COMMAND[0], "card", f"hf://datasets/{name}@{tag}", "--check"],
        [sys.executable, "-c", LOAD.format(path=name, tag=tag)],
    ]
    done = [
        subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        for command in commands
    ]

    assert annotated.code == 0, annotated.err
    assert [one.returncode for one in done] == [0] * 5, [one.stdout + one.stderr for one in done]
    assert json.loads(done[-1].stdout.splitlines()[-1]) == ["train: one", "train: two"]
    assert len(hub.dataset(name).history("main")) == 2  # that which made the repo, and the release
