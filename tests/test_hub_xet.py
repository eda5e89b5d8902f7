"""The Hub of the tests takes large files from the real hf_xet, and gives them back."""

import random
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfFileSystem, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import _xet

from hub import Fault, Hub

REPO = "acme/data"


def text(rows: int, seed: int = 1) -> bytes:
    draw = random.Random(seed)
    return b"".join(b"%d,a row,%d\n" % (row, draw.getrandbits(40)) for row in range(rows))


def upload(hub: Hub, path: str, content: bytes, token: str | None = None) -> None:
    hub.api(token).create_commit(
        REPO, [CommitOperationAdd(path, content)], repo_type="dataset", commit_message="a change"
    )


def another_machine(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """Let the next transfer start without what this client remembers."""
    monkeypatch.setenv("HF_HOME", str(home))
    monkeypatch.setattr(_xet, "_GLOBAL_XET_HOLDER", _xet.XetSessionHolder())


@pytest.fixture
def repo(xet: Hub) -> Hub:
    xet.api().create_repo(REPO, repo_type="dataset")
    return xet


def test_a_file_goes_up_in_chunks_and_comes_back(
    repo: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = text(30000) + random.Random(2).randbytes(300000) + bytes(100000)

    upload(repo, "0.parquet", content)

    assert repo.files(REPO)["0.parquet"] == content
    assert {call.name for call in repo.calls} >= {"xet-token", "xorb-upload", "shard-upload"}
    assert "lfs-upload" not in {call.name for call in repo.calls}
    (file,) = repo.api().get_paths_info(REPO, "0.parquet", repo_type="dataset")
    assert getattr(file, "xet_hash", None) in repo.xet.files
    another_machine(monkeypatch, tmp_path / "other")
    path = hf_hub_download(REPO, "0.parquet", repo_type="dataset", endpoint=repo.url)
    assert Path(path).read_bytes() == content
    assert {call.name for call in repo.calls} >= {"reconstruction", "xorb-download"}
    assert "download" not in {call.name for call in repo.calls}


def test_what_was_sent_once_is_not_sent_again(
    repo: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = random.Random(3).randbytes(2_000_000)
    upload(repo, "0.parquet", content)
    before = repo.received("xorb-upload")

    another_machine(monkeypatch, tmp_path / "other")
    start = len(repo.calls)
    upload(repo, "1.parquet", content + random.Random(4).randbytes(200_000))

    assert before > 2_000_000
    assert repo.received("xorb-upload", since=start) < 400_000
    assert [call.name for call in repo.calls[start:]].count("chunk") >= 1
    assert len(repo.files(REPO)["1.parquet"]) == 2_200_000


def test_a_part_of_a_file_is_streamed(repo: Hub) -> None:
    content = text(60000)
    upload(repo, "0.parquet", content)

    files = HfFileSystem(endpoint=repo.url, token=repo.token, skip_instance_cache=True)
    with files.open(f"datasets/{REPO}/0.parquet", "rb") as stream:
        stream.seek(500_000)
        assert stream.read(1000) == content[500_000:501_000]


def test_a_token_for_reading_cannot_upload(repo: Hub) -> None:
    with pytest.raises(HfHubHTTPError, match="create_pr=1"):
        upload(repo, "0.parquet", text(100), token="hf_stranger")

    assert list(repo.files(REPO)) == [".gitattributes"]


@pytest.mark.parametrize("call", ["xorb-upload", "shard-upload"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_lost_answer_is_made_good_by_the_client(repo: Hub, call: str, when: str) -> None:
    repo.fail(Fault(call, when=when, lost=True))  # type: ignore[arg-type]

    upload(repo, "0.parquet", text(1000))

    assert repo.files(REPO)["0.parquet"] == text(1000)
    assert [seen.name for seen in repo.calls].count(call) == 2


def test_a_xet_token_that_is_worth_nothing_fails_the_upload(repo: Hub) -> None:
    repo.fail(Fault("xorb-upload", expires=True))

    # hf_xet knows when its token expires; before that it takes 401 for final.
    with pytest.raises(ConnectionError, match="401 Unauthorized"):
        upload(repo, "0.parquet", text(1000))

    upload(repo, "0.parquet", text(1000))
    assert repo.files(REPO)["0.parquet"] == text(1000)
