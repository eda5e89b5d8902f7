"""The Hub of the tests answers the real huggingface_hub as the real Hub does."""

import hashlib
import time
from pathlib import Path

import pytest
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    get_session,
    hf_hub_download,
    snapshot_download,
)
from huggingface_hub.errors import (
    BadRequestError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
)
from huggingface_hub.utils._http import RateLimitInfo, parse_ratelimit_headers

from hub import Fault, Hub

Operation = CommitOperationAdd | CommitOperationCopy | CommitOperationDelete

REPO = "acme/data"
PARQUET = b"PAR1" + bytes(range(256)) * 40 + b"PAR1"


def add(path: str, content: bytes = b"text\n") -> CommitOperationAdd:
    return CommitOperationAdd(path, content)


@pytest.fixture
def repo(hub: Hub) -> Hub:
    hub.api().create_repo(REPO, repo_type="dataset")
    return hub


def commit(hub: Hub, *operations: Operation, parent_commit: str | None = None) -> str:
    made = hub.api().create_commit(
        REPO,
        operations,
        repo_type="dataset",
        commit_message="a change",
        parent_commit=parent_commit,
    )
    return made.oid


def status(error: pytest.ExceptionInfo[HfHubHTTPError]) -> int:
    return error.value.response.status_code


def test_a_new_repo_holds_one_commit_with_the_attributes_file(hub: Hub) -> None:
    url = hub.api().create_repo(REPO, repo_type="dataset", private=True)

    assert url == f"{hub.url}/datasets/{REPO}"
    assert hub.dataset(REPO).private
    assert list(hub.files(REPO)) == [".gitattributes"]
    assert [made.title for made in hub.api().list_repo_commits(REPO, repo_type="dataset")] == [
        "initial commit"
    ]


def test_a_commit_brings_small_files_and_large_ones_at_once(repo: Hub) -> None:
    made = commit(repo, add("README.md", b"---\nlicense: mit\n---\n"), add("a/0.parquet", PARQUET))

    assert repo.files(REPO)["a/0.parquet"] == PARQUET
    info = repo.api().dataset_info(REPO, files_metadata=True)
    assert info.sha == made
    assert info.card_data is not None
    assert info.card_data.license == "mit"
    assert info.siblings is not None
    large = {sibling.rfilename: sibling for sibling in info.siblings}["a/0.parquet"]
    assert large.lfs is not None
    assert large.lfs.sha256 == hashlib.sha256(PARQUET).hexdigest()
    assert [call.name for call in repo.calls[1:]] == [
        "card-check",
        "preupload",
        "lfs-batch",
        "lfs-upload",
        "lfs-verify",
        "commit",
        "info",
    ]
    assert repo.received("lfs-upload") == len(PARQUET)


def test_a_large_file_is_sent_once(repo: Hub) -> None:
    operation = add("a/0.parquet", PARQUET)
    repo.api().preupload_lfs_files(REPO, [operation], repo_type="dataset")
    commit(repo, add("b/1.parquet", PARQUET))

    assert repo.received("lfs-upload") == len(PARQUET)


def test_a_large_file_goes_in_parts(repo: Hub) -> None:
    repo.part_bytes = 3000

    commit(repo, add("a/0.parquet", PARQUET))

    assert repo.files(REPO)["a/0.parquet"] == PARQUET
    assert [call.received for call in repo.calls if call.name == "lfs-part"] == [
        3000,
        3000,
        3000,
        1248,
    ]


def test_deletions_and_copies_are_part_of_a_commit(repo: Hub) -> None:
    commit(repo, add("a/0.parquet", PARQUET), add("a/1.txt"), add("b.txt"))

    commit(
        repo,
        CommitOperationCopy("a/0.parquet", "c/0.parquet"),
        CommitOperationDelete("b.txt"),
        CommitOperationDelete("a/"),
    )

    assert sorted(repo.files(REPO)) == [".gitattributes", "c/0.parquet"]
    with pytest.raises(RemoteEntryNotFoundError, match="A file with this name doesn't exist"):
        commit(repo, CommitOperationDelete("b.txt"))


def test_an_unchanged_file_makes_no_commit(repo: Hub) -> None:
    made = commit(repo, add("a.txt"), add("0.parquet", PARQUET))

    assert commit(repo, add("a.txt"), add("0.parquet", PARQUET)) == made
    assert [call.name for call in repo.calls].count("commit") == 1


def test_a_file_that_was_never_uploaded_cannot_be_committed(repo: Hub) -> None:
    operation = add("0.parquet", PARQUET)
    repo.api().preupload_lfs_files(REPO, [operation], repo_type="dataset", free_memory=False)
    repo.dataset(REPO).large.clear()

    with pytest.raises(BadRequestError, match="LFS pointer pointed to a file that does not exist"):
        commit(repo, operation)


def test_the_tree_comes_in_pages(repo: Hub) -> None:
    commit(repo, *[add(f"a/{number}.txt") for number in range(7)], add("b.txt"))
    repo.page_size = 3

    paths = [
        entry.path for entry in repo.api().list_repo_tree(REPO, recursive=True, repo_type="dataset")
    ]

    assert paths == [".gitattributes", "a", *[f"a/{n}.txt" for n in range(7)], "b.txt"]
    folder = repo.api().list_repo_tree(REPO, "a", repo_type="dataset", expand=True)
    assert {entry.last_commit.title for entry in folder if entry.last_commit} == {"a change"}
    with pytest.raises(RemoteEntryNotFoundError):
        list(repo.api().list_repo_tree(REPO, "c", repo_type="dataset"))


def test_a_download_has_the_commit_and_names_the_content(repo: Hub, tmp_path: Path) -> None:
    made = commit(repo, add("0.parquet", PARQUET), add("a.txt"))

    path = hf_hub_download(REPO, "0.parquet", repo_type="dataset", endpoint=repo.url)

    assert Path(path).read_bytes() == PARQUET
    assert Path(path).parent.name == made
    assert Path(path).resolve().name == hashlib.sha256(PARQUET).hexdigest()
    folder = Path(snapshot_download(REPO, repo_type="dataset", endpoint=repo.url, revision="main"))
    assert sorted(file.name for file in folder.iterdir()) == [
        ".gitattributes",
        "0.parquet",
        "a.txt",
    ]
    with pytest.raises(RemoteEntryNotFoundError):
        hf_hub_download(REPO, "b.txt", repo_type="dataset", endpoint=repo.url)


def test_storage_is_another_host_that_sees_no_token(repo: Hub) -> None:
    commit(repo, add("0.parquet", PARQUET))

    hf_hub_download(REPO, "0.parquet", repo_type="dataset", endpoint=repo.url)

    stored = [call for call in repo.calls if call.name in ("lfs-upload", "download")]
    assert [call.token for call in stored] == [None, None]


def test_tokens_have_roles(repo: Hub) -> None:
    assert repo.api().whoami()["name"] == "ada"
    assert repo.api("hf_reader").whoami()["auth"]["accessToken"]["role"] == "read"

    with pytest.raises(HfHubHTTPError, match="don't have the rights to create a dataset") as error:
        repo.api("hf_reader").create_repo("acme/other", repo_type="dataset")
    assert status(error) == 403
    with pytest.raises(HfHubHTTPError, match="create_pr=1") as error:
        repo.api("hf_stranger").create_commit(
            REPO, [add("a.txt")], repo_type="dataset", commit_message="no"
        )
    assert status(error) == 403
    with pytest.raises(HfHubHTTPError, match="Invalid credentials") as error:
        repo.api("hf_expired").dataset_info(REPO)
    assert status(error) == 401


def test_a_private_repo_is_not_there_for_strangers(hub: Hub) -> None:
    hub.api().create_repo(REPO, repo_type="dataset", private=True)

    for token in ("hf_stranger", False):
        with pytest.raises(RepositoryNotFoundError):
            hub.api().dataset_info(REPO, token=token)
    assert hub.api("hf_colleague").dataset_info(REPO).private


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("kind", [{"status": 500}, {"lost": True}, {"hang_s": 0.01}])
def test_a_commit_that_fails_has_happened_or_not_as_the_fault_says(
    repo: Hub, when: str, kind: dict[str, object]
) -> None:
    repo.fail(Fault("commit", when=when, **kind))  # type: ignore[arg-type]

    with pytest.raises(Exception, match=r"500|disconnected|reset|closed"):
        commit(repo, add("a.txt"))

    assert ("a.txt" in repo.files(REPO)) == (when == "after")
    commit(repo, add("b.txt"))
    assert "b.txt" in repo.files(REPO)


def test_a_fault_meets_the_nth_call_by_name_or_pattern(repo: Hub) -> None:
    fault = repo.fail(Fault("POST /api/datasets/*/tag/*", nth=1, times=2, status=409))

    said = []
    for tag in "abcd":
        try:
            repo.api().create_tag(REPO, tag=tag, repo_type="dataset")
            said.append("made")
        except HfHubHTTPError as error:
            said.append(str(error.response.status_code))

    assert said == ["made", "409", "409", "made"]
    assert [call.number for call in repo.calls if call.fault is fault] == [2, 3]


def test_a_client_waits_as_long_as_a_refusal_says(repo: Hub) -> None:
    repo.fail(Fault("preupload", status=429, retry_after_s=0))

    started = time.monotonic()
    commit(repo, add("a.txt"))

    assert time.monotonic() - started >= 1
    assert [call.status for call in repo.calls if call.name == "preupload"] == [429, 200]


def test_a_token_may_expire_in_the_middle(repo: Hub) -> None:
    repo.fail(Fault("preupload", when="after", expires=True))

    with pytest.raises(HfHubHTTPError, match="Invalid credentials") as error:
        commit(repo, add("a.txt"))

    assert status(error) == 401
    assert "a.txt" not in repo.files(REPO)


def test_somebody_else_may_commit_in_between(repo: Hub) -> None:
    head = commit(repo, add("a.txt"))
    other = repo.dataset(REPO)

    def elsewhere() -> None:
        files = {**other.at("main").files, "theirs.txt": other.small(b"theirs\n")}
        other.write("refs/heads/main", head, files, "theirs", "", "bob")

    repo.fail(Fault("commit", runs=elsewhere))

    with pytest.raises(HfHubHTTPError, match="A commit has happened since"):
        commit(repo, add("b.txt"), parent_commit=head)
    assert sorted(repo.files(REPO)) == [".gitattributes", "a.txt", "theirs.txt"]


def test_a_stranger_may_propose_what_a_member_merges(repo: Hub) -> None:
    head = commit(repo, add("a.txt"))

    proposed = repo.api("hf_stranger").create_commit(
        REPO,
        [add("b.txt"), CommitOperationAdd("0.parquet", PARQUET)],
        repo_type="dataset",
        commit_message="a proposal",
        create_pr=True,
        parent_commit=head,
    )

    assert proposed.pr_revision == "refs/pr/1"
    assert "b.txt" not in repo.files(REPO)
    assert repo.files(REPO, "refs/pr/1")["0.parquet"] == PARQUET
    refs = repo.api().list_repo_refs(REPO, repo_type="dataset", include_pull_requests=True)
    assert [ref.target_commit for ref in refs.pull_requests or []] == [proposed.oid]
    with pytest.raises(HfHubHTTPError, match="create_pr=1"):
        repo.api("hf_stranger").merge_pull_request(REPO, 1, repo_type="dataset")

    commit(repo, add("c.txt"))
    repo.api().merge_pull_request(REPO, 1, repo_type="dataset")

    assert sorted(repo.files(REPO)) == [".gitattributes", "0.parquet", "a.txt", "b.txt", "c.txt"]
    details = repo.api().get_discussion_details(REPO, 1, repo_type="dataset")
    assert (details.status, details.author, details.target_branch) == (
        "merged",
        "eve",
        "refs/heads/main",
    )
    assert [pull.title for pull in repo.api().get_repo_discussions(REPO, repo_type="dataset")] == [
        "a proposal"
    ]


def test_the_history_comes_in_pages(repo: Hub) -> None:
    repo.commits_page_size = 2
    for number in range(5):
        commit(repo, add(f"{number}.txt"))

    listed = repo.api().list_repo_commits(REPO, repo_type="dataset")

    assert len(listed) == 6
    assert [made.title for made in listed[-2:]] == ["a change", "initial commit"]
    assert [call.name for call in repo.calls].count("commits") == 3


def test_every_answer_tells_how_many_calls_are_left(repo: Hub) -> None:
    repo.rate_limit = len(repo.calls) + 1

    said = get_session().get(f"{repo.url}/api/datasets/{REPO}")
    refused = get_session().get(f"{repo.url}/api/datasets/{REPO}")

    assert (said.status_code, parse_ratelimit_headers(said.headers)) == (
        200,
        RateLimitInfo("api", 0, 300, 2, 300),
    )
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "300")


def test_a_moved_tag_is_seen_where_it_is(repo: Hub) -> None:
    commit(repo, add("a.txt"))
    repo.api().create_tag(REPO, tag="v1", repo_type="dataset")
    second = commit(repo, add("b.txt"))
    repo.dataset(REPO).refs["refs/tags/v1"] = second

    assert repo.api().dataset_info(REPO, revision="v1").sha == second


def test_settings_and_deletion_need_the_right_to_write(repo: Hub) -> None:
    repo.api().update_repo_settings(REPO, repo_type="dataset", private=True)
    assert repo.dataset(REPO).private
    repo.api().auth_check(REPO, repo_type="dataset")

    with pytest.raises(HfHubHTTPError, match="rights to delete"):
        repo.api("hf_reader").delete_repo(REPO, repo_type="dataset")
    repo.api().delete_repo(REPO, repo_type="dataset")
    assert repo.repos == {}


def test_a_card_may_be_too_large_for_the_check(repo: Hub) -> None:
    repo.card_bytes = 100

    with pytest.raises(HfHubHTTPError, match="413 Request Entity Too Large") as error:
        commit(repo, add("README.md", b"x" * 101))

    assert status(error) == 413
    assert list(repo.files(REPO)) == [".gitattributes"]
