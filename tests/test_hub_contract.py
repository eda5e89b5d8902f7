"""What releases rely on, asked of the Hub of the tests and, with `pytest -m hub`, of the real one.

Only what a client can see is compared, so that both can pass. What the two must not share, because
it is not known of the real Hub, is named in the docstring of the package `hub`.
"""

import hashlib
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    get_session,
    hf_hub_download,
)
from huggingface_hub.errors import (
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from hub import Place

Operation = CommitOperationAdd | CommitOperationCopy | CommitOperationDelete

PARQUET = b"PAR1" + bytes(range(256)) * 40 + b"PAR1"


@pytest.fixture(autouse=True)
def _not_over_xet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)


def add(path: str, content: bytes = b"text\n") -> CommitOperationAdd:
    return CommitOperationAdd(path, content)


def commit(place: Place, repo_id: str, *operations: Operation, **more: Any) -> str:
    made = place.api().create_commit(
        repo_id, operations, repo_type="dataset", commit_message="a change", **more
    )
    return str(made.oid)


def paths(place: Place, repo_id: str, revision: str = "main") -> list[str]:
    files = place.api().list_repo_files(repo_id, repo_type="dataset", revision=revision)
    return sorted(files)


def status(error: pytest.ExceptionInfo[HfHubHTTPError]) -> int:
    return error.value.response.status_code


def test_a_new_repo_has_its_attributes_file_and_one_commit(place: Place, repo_id: str) -> None:
    assert paths(place, repo_id) == [".gitattributes"]
    history = place.api().list_repo_commits(repo_id, repo_type="dataset")
    assert [made.title for made in history] == ["initial commit"]


def test_a_repo_that_exists_is_a_conflict_unless_that_is_fine(place: Place, repo_id: str) -> None:
    with pytest.raises(HfHubHTTPError, match="You already created this dataset repo") as error:
        place.api().create_repo(repo_id, repo_type="dataset")

    assert status(error) == 409
    again = place.api().create_repo(repo_id, repo_type="dataset", exist_ok=True)
    assert again.repo_id == repo_id


def test_a_private_repo_is_not_there_for_strangers(place: Place, repo_id: str) -> None:
    with pytest.raises(RepositoryNotFoundError):
        place.api().dataset_info(repo_id, token=False)


def test_a_token_that_is_none_is_told_apart_from_a_missing_repo(place: Place, repo_id: str) -> None:
    with pytest.raises(HfHubHTTPError, match="Invalid credentials") as error:
        place.api("hf_" + "x" * 34).dataset_info(repo_id)

    assert status(error) == 401


def test_parquet_is_large_and_names_its_content(place: Place, repo_id: str, tmp_path: Path) -> None:
    made = commit(place, repo_id, add("a/0.parquet", PARQUET), add("a.txt"))

    found = place.api().get_paths_info(
        repo_id, ["a/0.parquet", "a.txt", "a", "b"], repo_type="dataset"
    )
    by_path = {entry.path: entry for entry in found}
    assert sorted(by_path) == ["a", "a.txt", "a/0.parquet"]
    large: Any = by_path["a/0.parquet"]
    assert (large.size, large.lfs.sha256) == (len(PARQUET), hashlib.sha256(PARQUET).hexdigest())
    assert getattr(by_path["a.txt"], "lfs", None) is None
    path = hf_hub_download(
        repo_id,
        "a/0.parquet",
        repo_type="dataset",
        endpoint=place.api().endpoint,
        token=place.api().token,
        cache_dir=tmp_path,
    )
    assert Path(path).read_bytes() == PARQUET
    assert Path(path).parents[1].name == made


def test_a_commit_on_another_parent_is_refused(place: Place, repo_id: str) -> None:
    first = commit(place, repo_id, add("a.txt"))
    commit(place, repo_id, add("b.txt"), parent_commit=first)

    with pytest.raises(HfHubHTTPError, match="A commit has happened since") as error:
        commit(place, repo_id, add("c.txt"), parent_commit=first)

    assert status(error) == 412
    assert paths(place, repo_id) == [".gitattributes", "a.txt", "b.txt"]


def test_deletions_and_additions_are_one_commit(place: Place, repo_id: str) -> None:
    commit(place, repo_id, add("a/0.txt"), add("a/1.txt"), add("b.txt"), add("c.parquet", PARQUET))

    commit(
        place,
        repo_id,
        CommitOperationDelete("a/"),
        CommitOperationDelete("b.txt"),
        CommitOperationCopy("c.parquet", "d/c.parquet"),
        add("a/2.txt"),
    )

    assert paths(place, repo_id) == [".gitattributes", "a/2.txt", "c.parquet", "d/c.parquet"]
    with pytest.raises(RemoteEntryNotFoundError, match="A file with this name doesn't exist"):
        commit(place, repo_id, CommitOperationDelete("b.txt"))


def test_an_unchanged_file_makes_no_commit(place: Place, repo_id: str) -> None:
    made = commit(place, repo_id, add("a.txt"), add("0.parquet", PARQUET))

    assert commit(place, repo_id, add("a.txt"), add("0.parquet", PARQUET)) == made


def test_a_commit_that_changes_nothing_is_made_if_it_is_sent(place: Place, repo_id: str) -> None:
    before = commit(place, repo_id, add("a.txt"))
    body = b'{"key": "header", "value": {"summary": "nothing", "description": ""}}\n'

    answer = get_session().post(
        f"{place.api().endpoint}/api/datasets/{repo_id}/commit/main",
        content=body,
        headers={
            "Content-Type": "application/x-ndjson",
            "Authorization": f"Bearer {place.api().token}",
        },
    )

    assert answer.status_code == 200
    history = place.api().list_repo_commits(repo_id, repo_type="dataset")
    assert [made.commit_id for made in history[:2]] == [answer.json()["commitOid"], before]


def test_a_tag_stays_where_it_is(place: Place, repo_id: str) -> None:
    first = commit(place, repo_id, add("a.txt"))
    place.api().create_tag(repo_id, tag="a-v1.0.0", repo_type="dataset")
    commit(place, repo_id, add("b.txt"))

    with pytest.raises(HfHubHTTPError) as error:
        place.api().create_tag(repo_id, tag="a-v1.0.0", repo_type="dataset")

    assert status(error) == 409
    refs = place.api().list_repo_refs(repo_id, repo_type="dataset")
    assert [(tag.name, tag.target_commit) for tag in refs.tags] == [("a-v1.0.0", first)]
    assert paths(place, repo_id, "a-v1.0.0") == [".gitattributes", "a.txt"]
    place.api().delete_tag(repo_id, tag="a-v1.0.0", repo_type="dataset")
    with pytest.raises(RevisionNotFoundError):
        place.api().dataset_info(repo_id, revision="a-v1.0.0")


def test_a_branch_grows_on_its_own(place: Place, repo_id: str) -> None:
    first = commit(place, repo_id, add("a.txt"))
    place.api().create_branch(repo_id, branch="next", repo_type="dataset")

    commit(place, repo_id, add("b.txt"), revision="next")

    refs = place.api().list_repo_refs(repo_id, repo_type="dataset")
    assert {ref.name: ref.target_commit for ref in refs.branches}["main"] == first
    assert paths(place, repo_id, "next") == [".gitattributes", "a.txt", "b.txt"]
    with pytest.raises(HfHubHTTPError) as error:
        place.api().create_branch(repo_id, branch="next", repo_type="dataset")
    assert status(error) == 409
    place.api().delete_branch(repo_id, branch="next", repo_type="dataset")
    with pytest.raises(RevisionNotFoundError):
        commit(place, repo_id, add("c.txt"), revision="next")


def test_a_tag_takes_no_commits(place: Place, repo_id: str) -> None:
    place.api().create_tag(repo_id, tag="v1", repo_type="dataset")

    with pytest.raises(HfHubHTTPError):
        commit(place, repo_id, add("a.txt"), revision="v1")

    assert paths(place, repo_id, "v1") == [".gitattributes"]


def test_a_pull_request_starts_at_its_parent_and_is_merged(place: Place, repo_id: str) -> None:
    first = commit(place, repo_id, add("a.txt"))
    commit(place, repo_id, add("b.txt"))

    proposed = place.api().create_commit(
        repo_id,
        [add("c.txt"), add("0.parquet", PARQUET)],
        repo_type="dataset",
        commit_message="a proposal",
        create_pr=True,
        parent_commit=first,
    )

    assert proposed.pr_revision == "refs/pr/1"
    held = [".gitattributes", "0.parquet", "a.txt", "c.txt"]
    assert paths(place, repo_id, "refs/pr/1") == held
    refs = place.api().list_repo_refs(repo_id, repo_type="dataset", include_pull_requests=True)
    assert [ref.target_commit for ref in refs.pull_requests or []] == [proposed.oid]
    place.api().merge_pull_request(repo_id, 1, repo_type="dataset")
    assert paths(place, repo_id) == sorted([*held, "b.txt"])
    assert place.api().get_discussion_details(repo_id, 1, repo_type="dataset").status == "merged"


def test_a_pull_request_that_conflicts_cannot_be_merged(place: Place, repo_id: str) -> None:
    commit(place, repo_id, add("a.txt"))
    pull = place.api().create_pull_request(repo_id, title="empty at first", repo_type="dataset")
    assert pull.status == "draft"
    commit(place, repo_id, add("a.txt", b"theirs\n"), revision=pull.git_reference)
    commit(place, repo_id, add("a.txt", b"ours\n"))

    details = place.api().get_discussion_details(repo_id, pull.num, repo_type="dataset")
    assert details.conflicting_files == ["a.txt"]
    with pytest.raises(HfHubHTTPError):
        place.api().merge_pull_request(repo_id, pull.num, repo_type="dataset")
    place.api().change_discussion_status(repo_id, pull.num, "closed", repo_type="dataset")


def test_a_card_with_broken_metadata_is_refused(place: Place, repo_id: str) -> None:
    with pytest.raises(ValueError, match='"license" must be one of'):
        commit(place, repo_id, add("README.md", b"---\nlicense: mine\n---\n"))
    for broken in (b"license: [", b"license: mit\nlicense: mit"):
        with pytest.raises(ValueError, match=r"Invalid YAML in README\.md"):
            commit(place, repo_id, add("README.md", b"---\n" + broken + b"\n---\n"))

    assert paths(place, repo_id) == [".gitattributes"]


def test_a_range_of_a_file_can_be_asked_for(place: Place, repo_id: str) -> None:
    commit(place, repo_id, add("a.txt", b"0123456789"))
    url = f"{place.api().endpoint}/datasets/{repo_id}/resolve/main/a.txt"
    headers = {"Authorization": f"Bearer {place.api().token}", "Accept-Encoding": "identity"}

    part = get_session().get(url, headers={**headers, "Range": "bytes=2-4"})

    assert (part.status_code, part.content) == (206, b"234")
    assert part.headers["Content-Range"] == "bytes 2-4/10"


def test_what_is_not_asked_for_is_left_out_of_a_description(place: Place, repo_id: str) -> None:
    info = place.api().dataset_info(repo_id, expand=["sha", "siblings"])

    assert info.sha == place.api().list_repo_commits(repo_id, repo_type="dataset")[0].commit_id
    assert [sibling.rfilename for sibling in info.siblings or []] == [".gitattributes"]
    assert info.private is None


def test_a_revision_or_file_that_is_not_there_says_which(place: Place, repo_id: str) -> None:
    with pytest.raises(RevisionNotFoundError):
        place.api().dataset_info(repo_id, revision="nowhere")
    with pytest.raises(RemoteEntryNotFoundError):
        list(place.api().list_repo_tree(repo_id, "nowhere", repo_type="dataset"))
    assert not place.api().file_exists(repo_id, "nowhere", repo_type="dataset")


def test_a_commit_of_what_was_never_uploaded_is_refused(place: Place, repo_id: str) -> None:
    body = (
        b'{"key": "header", "value": {"summary": "a pointer", "description": ""}}\n'
        b'{"key": "lfsFile", "value": {"path": "0.parquet", "algo": "sha256", '
        b'"oid": "' + b"ab" * 32 + b'", "size": 3}}\n'
    )

    answer = get_session().post(
        f"{place.api().endpoint}/api/datasets/{repo_id}/commit/main",
        content=body,
        headers={
            "Content-Type": "application/x-ndjson",
            "Authorization": f"Bearer {place.api().token}",
        },
    )

    assert answer.status_code == 400
    assert "LFS pointer pointed to a file that does not exist" in answer.text
