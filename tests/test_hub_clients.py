"""Whole programs use the Hub of the tests as they are: they upload, die, race, and download."""

import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from datasets import Dataset
from huggingface_hub import CommitOperationAdd
from huggingface_hub.errors import HfHubHTTPError

from hub import Fault, Hub

REPO = "acme/data"

PUSH = """
import os, random
from datasets import Dataset, load_dataset
from huggingface_hub import HfApi

rows = Dataset.from_dict({"number": list(range(1000)), "text": ["x" * n for n in range(1000)]})
rows.push_to_hub("acme/data", "first", max_shard_size="100KB")
rows.push_to_hub("acme/data", "second")
assert load_dataset("acme/data", "first", split="train")[:] == rows[:]

os.makedirs("folder")
with open("folder/noise.bin", "wb") as file:
    file.write(random.Random(1).randbytes(300000))
with open("folder/note.txt", "w") as file:
    file.write("a note")
api = HfApi()
api.upload_folder(repo_id="acme/data", folder_path="folder", repo_type="dataset")
api.snapshot_download("acme/data", repo_type="dataset")
checked = api.verify_repo_checksums("acme/data", repo_type="dataset", revision="main")
assert (checked.mismatches, checked.missing_paths) == ([], []), checked
"""

COMMIT = """
from huggingface_hub import CommitOperationAdd, HfApi
HfApi().create_commit(
    "acme/data",
    [CommitOperationAdd("0.parquet", b"PAR1" * 1000)],
    repo_type="dataset",
    commit_message="a change",
)
"""

COMMIT_FILE = COMMIT.replace('b"PAR1" * 1000', '"0.parquet"')


def start(hub: Hub, code: str, folder: Path, xet: bool = False) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, **hub.environment(folder / "home", xet)},
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("over_xet", [False, True])
def test_datasets_and_folders_go_up_and_come_back_whole(
    hub: Hub, tmp_path: Path, over_xet: bool
) -> None:
    with start(hub, PUSH, tmp_path, over_xet) as client:
        said = client.communicate(timeout=240)[1]

    assert client.returncode == 0, said
    files = hub.files(REPO)
    assert len([path for path in files if path.startswith("first/")]) == 6
    assert files["note.txt"] == b"a note"
    assert ("shard-upload" in {call.name for call in hub.calls}) == over_xet
    assert "unknown" not in {call.name for call in hub.calls}


@pytest.mark.parametrize("call", ["preupload", "lfs-upload", "commit"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_what_a_killed_client_did_stays(hub: Hub, tmp_path: Path, call: str, when: str) -> None:
    hub.api().create_repo(REPO, repo_type="dataset")
    running: list[subprocess.Popen[str]] = []

    def kill() -> None:
        running[0].send_signal(signal.SIGKILL)

    hub.fail(Fault(call, when=when, runs=kill))  # type: ignore[arg-type]

    with start(hub, COMMIT, tmp_path) as client:
        running.append(client)
        client.communicate(timeout=240)

    # A request that has arrived whole is carried out, whether or not somebody waits for the answer.
    assert client.returncode == -signal.SIGKILL
    assert ("0.parquet" in hub.files(REPO)) == (call == "commit")
    with start(hub, COMMIT, tmp_path) as client:
        said = client.communicate(timeout=240)[1]
    assert client.returncode == 0, said
    assert hub.files(REPO)["0.parquet"] == b"PAR1" * 1000
    assert hub.received("lfs-upload") == 4000


def test_of_two_commits_on_one_parent_one_is_refused(hub: Hub) -> None:
    hub.api().create_repo(REPO, repo_type="dataset")
    head = hub.dataset(REPO).at("main").oid
    together = threading.Barrier(2)
    refused = []

    def write(token: str) -> None:
        together.wait(240)
        operations = [CommitOperationAdd(f"{token}.txt", b"text\n")]
        try:
            hub.api(token).create_commit(
                REPO,
                operations,
                repo_type="dataset",
                commit_message=token,
                parent_commit=head,
            )
        except HfHubHTTPError as error:
            refused.append(error.response.status_code)

    threads = [threading.Thread(target=write, args=(t,)) for t in ("hf_writer", "hf_colleague")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert refused == [412]
    assert len(hub.dataset(REPO).history("main")) == 2


def test_a_stranger_may_propose_large_files_over_xet(xet: Hub) -> None:
    xet.api().create_repo(REPO, repo_type="dataset")

    xet.api("hf_stranger").create_commit(
        REPO,
        [CommitOperationAdd("0.parquet", b"PAR1" * 1000)],
        repo_type="dataset",
        commit_message="a proposal",
        create_pr=True,
    )

    assert xet.files(REPO, "refs/pr/1")["0.parquet"] == b"PAR1" * 1000
    assert "shard-upload" in {call.name for call in xet.calls}


def test_a_tenth_more_rows_sends_about_a_tenth_over_xet(hub: Hub, tmp_path: Path) -> None:
    hub.api().create_repo(REPO, repo_type="dataset")
    draw = random.Random(5)
    texts = [draw.randbytes(600).hex() for _ in range(3300)]
    sent = []

    for count in (3000, 3300):
        # Each time from a machine that knows nothing of the other's upload.
        folder = tmp_path / str(count)
        folder.mkdir()
        Dataset.from_dict({"text": texts[:count]}).to_parquet(folder / "0.parquet")
        before = len(hub.calls)
        with start(hub, COMMIT_FILE, folder, xet=True) as client:
            said = client.communicate(timeout=240)[1]
        assert client.returncode == 0, said
        sent.append(hub.received(since=before))

    # Every new row and, of the old ones, the chunk that the boundary cuts.
    held = len(hub.files(REPO)["0.parquet"])
    assert sent[0] > 0.5 * held
    assert sent[1] < 0.25 * sent[0]
