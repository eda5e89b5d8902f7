"""Releases on the Hub: one commit and one tag, whole or not at all, whatever fails on the way."""

import contextlib
import threading
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import CommitOperationAdd
from typer.testing import CliRunner

from built_folder import Wanted, build
from hub import Fault, Hub
from prequery.cli import app
from prequery.errors import ReleaseError
from prequery.release import content, wire
from prequery.release import hub as hub_release
from prequery.release.changes import Outcome
from prequery.release.content import Content
from prequery.release.hub import Wishes
from prequery.release.wire import Wire

REPO = "acme/data"
NO_WAITS = (0.0,) * 5


def read(path: Path, wanted: Wanted) -> Content:
    return content.read(str(build(path, wanted)))


def release(hub: Hub, released: Content, token: str | None = None, **wishes: Any) -> Outcome:
    wire = Wire(REPO, hub.url, token or hub.token)
    return hub_release.release(released, wire, Wishes(**{"waits_s": NO_WAITS} | wishes))


def own(hub: Hub, config: str, revision: str = "main") -> dict[str, bytes]:
    """Return a config's files at a revision."""
    files = hub.files(REPO, revision)
    mine = (f"{config}/", f"{config}.", f"plots/{config}/")
    return {path: data for path, data in files.items() if path.startswith(mine)}


def titles(hub: Hub) -> list[str]:
    return [made.title.split(" [")[0] for made in hub.dataset(REPO).history("main")][::-1]


def tags(hub: Hub) -> dict[str, str]:
    refs = hub.dataset(REPO).refs
    return {ref.removeprefix("refs/tags/"): oid for ref, oid in refs.items() if "/tags/" in ref}


def wanted_files(released: Content) -> dict[str, bytes]:
    return {path: released.read(path) for path in released.files}


def test_a_release_is_one_commit_and_one_tag(hub: Hub, tmp_path: Path) -> None:
    chat = read(tmp_path / "chat", Wanted())

    done = release(hub, chat)

    assert done.kind == "released"
    assert titles(hub) == ["initial commit", "Release chat 1.0.0"]
    assert tags(hub) == {"chat-v1.0.0": done.commit}
    assert own(hub, "chat", "chat-v1.0.0") == wanted_files(chat)
    assert hub.files(REPO)["README.md"].decode() == chat.readme(None)


def test_a_repeat_changes_and_sends_nothing(hub: Hub, tmp_path: Path) -> None:
    chat = read(tmp_path / "chat", Wanted())
    release(hub, chat)
    since = len(hub.calls)

    done = release(hub, chat)

    assert done.kind == "unchanged"
    assert {call.method for call in hub.calls[since:]} == {"GET"}


def test_the_same_rows_that_were_waited_for_longer_are_the_same_release(
    hub: Hub, tmp_path: Path
) -> None:
    once = read(tmp_path / "once", Wanted(seconds=3600))
    release(hub, once)
    since = len(hub.calls)

    done = release(hub, read(tmp_path / "again", Wanted(seconds=7200)))

    assert done.kind == "unchanged"
    assert {call.method for call in hub.calls[since:]} == {"GET"}
    assert own(hub, "chat", "chat-v1.0.0") == wanted_files(once)


def test_a_new_version_takes_the_old_shards_away_and_leaves_the_old_tag(
    hub: Hub, tmp_path: Path
) -> None:
    old = read(tmp_path / "old", Wanted())
    new = read(tmp_path / "new", Wanted(version="1.1.0", rows=6))
    release(hub, old)

    release(hub, new)

    assert own(hub, "chat") == wanted_files(new)
    assert own(hub, "chat", "chat-v1.0.0") == wanted_files(old)
    assert titles(hub)[1:] == ["Release chat 1.0.0", "Release chat 1.1.0"]


def test_shards_that_stay_are_not_sent_again_though_they_get_a_new_name(
    hub: Hub, tmp_path: Path
) -> None:
    release(hub, read(tmp_path / "old", Wanted(rows=12)))
    since = len(hub.calls)

    done = release(hub, read(tmp_path / "new", Wanted(version="1.1.0", rows=14)))

    assert done.changes.moved["chat/train-00000-of-00004.parquet"] == (
        "chat/train-00000-of-00003.parquet"
    )
    sent = [call for call in hub.calls[since:] if call.name == "lfs-upload"]
    assert len(sent) == 1


def test_two_hundred_shards_are_one_commit(hub: Hub, tmp_path: Path) -> None:
    chat = read(tmp_path / "chat", Wanted(rows=200, rows_per_shard=1))

    release(hub, chat)

    assert titles(hub) == ["initial commit", "Release chat 1.0.0"]
    assert own(hub, "chat") == wanted_files(chat)


def test_configs_and_words_of_others_stay(hub: Hub, tmp_path: Path) -> None:
    chat, code = read(tmp_path / "chat", Wanted()), read(tmp_path / "code", Wanted(name="code"))
    release(hub, chat)
    by_hand = hub.files(REPO)["README.md"].decode() + "\nBy hand.\n"
    files = [
        CommitOperationAdd("README.md", by_hand.encode()),
        CommitOperationAdd("notes.txt", b"mine"),
    ]
    hub.api().create_commit(REPO, files, repo_type="dataset", commit_message="notes")

    release(hub, code)

    assert hub.files(REPO)["README.md"].decode() == code.readme(by_hand)
    assert "By hand." in code.readme(by_hand)
    assert hub.files(REPO)["notes.txt"] == b"mine"
    assert own(hub, "chat") == wanted_files(chat)
    assert own(hub, "code") == wanted_files(code)


def test_two_configs_released_at_the_same_time_both_survive(hub: Hub, tmp_path: Path) -> None:
    chat, code = read(tmp_path / "chat", Wanted()), read(tmp_path / "code", Wanted(name="code"))
    hub.api().create_repo(REPO, repo_type="dataset")
    theirs = threading.Thread(target=lambda: release(hub, code, "hf_colleague"))

    def meanwhile() -> None:
        # On the server's thread, which must go on serving: the other release runs beside it and
        # is waited for by the next call, the tag's.
        theirs.start()

    hub.fail(Fault("commit", runs=meanwhile, status=503))
    release(hub, chat)
    theirs.join()

    assert own(hub, "chat", "chat-v1.0.0") == wanted_files(chat)
    assert own(hub, "code", "code-v1.0.0") == wanted_files(code)
    assert own(hub, "chat") == wanted_files(chat)
    assert own(hub, "code") == wanted_files(code)
    readme = hub.files(REPO)["README.md"].decode()
    assert (chat.readme(readme), code.readme(readme)) == (readme, readme)


def test_somebody_elses_commit_in_the_last_moment_is_kept(hub: Hub, tmp_path: Path) -> None:
    chat = read(tmp_path / "chat", Wanted())
    hub.api().create_repo(REPO, repo_type="dataset")

    def meanwhile() -> None:
        repo = hub.dataset(REPO)
        head = repo.at("main")
        files = {**head.files, "README.md": repo.small(b"Words of others.\n")}
        repo.write("refs/heads/main", head.oid, files, "theirs", "", "bob")

    hub.fail(Fault("commit", runs=meanwhile))
    release(hub, chat)

    assert titles(hub) == ["initial commit", "theirs", "Release chat 1.0.0"]
    assert hub.files(REPO)["README.md"].decode() == chat.readme("Words of others.\n")
    assert [call.status for call in hub.calls if call.name == "commit"] == [412, 200]


def refused(hub: Hub, released: Content, token: str | None = None, **wishes: Any) -> ReleaseError:
    """Release, and see that nothing was uploaded and nothing lost."""
    before = {key: (dict(repo.refs), set(repo.large)) for key, repo in hub.repos.items()}
    with pytest.raises(ReleaseError) as caught:
        release(hub, released, token, **wishes)
    after = {key: (dict(repo.refs), set(repo.large)) for key, repo in hub.repos.items()}
    assert after == before
    assert hub.token not in str(caught.value)
    return caught.value


def put(hub: Hub, path: str, data: bytes) -> None:
    hub.api().create_commit(
        REPO, [CommitOperationAdd(path, data)], repo_type="dataset", commit_message="by hand"
    )


def test_other_content_under_a_version_that_exists_is_refused(hub: Hub, tmp_path: Path) -> None:
    release(hub, read(tmp_path / "one", Wanted()))

    error = refused(hub, read(tmp_path / "two", Wanted(words="And {}?")))

    assert error.what == (
        "the tag chat-v1.0.0 exists and holds other content, first at "
        "'chat/train-00000-of-00003.parquet'"
    )
    assert error.fix == (
        "raise `version` in the recipe, as to 1.1.0, build again and release; nothing was uploaded"
    )


def test_an_older_version_is_refused(hub: Hub, tmp_path: Path) -> None:
    release(hub, read(tmp_path / "one", Wanted(version="1.1.0")))

    error = refused(hub, read(tmp_path / "two", Wanted(version="1.0.9")))

    assert error.what == "'chat' is at version 1.1.0 there, newer than 1.0.9"


def test_a_version_whose_tag_is_missing_is_not_given_other_content(
    hub: Hub, tmp_path: Path
) -> None:
    release(hub, read(tmp_path / "one", Wanted()))
    hub.api().delete_tag(REPO, tag="chat-v1.0.0", repo_type="dataset")

    error = refused(hub, read(tmp_path / "two", Wanted(words="And {}?")))

    assert error.what == "version 1.0.0 of 'chat' exists and holds other content"


def test_a_missing_tag_is_made_at_the_releases_own_commit(hub: Hub, tmp_path: Path) -> None:
    chat = read(tmp_path / "chat", Wanted())
    first = release(hub, chat)
    release(hub, read(tmp_path / "next", Wanted(version="1.1.0", rows=5)))
    hub.api().delete_tag(REPO, tag="chat-v1.0.0", repo_type="dataset")

    again = release(hub, chat)

    assert again.kind == "released"
    assert tags(hub)["chat-v1.0.0"] == first.commit
    assert len(titles(hub)) == 3


def test_a_tag_that_somebody_moved_is_told_with_the_way_back(hub: Hub, tmp_path: Path) -> None:
    chat = read(tmp_path / "chat", Wanted())
    first = release(hub, chat)
    hub.api().delete_tag(REPO, tag="chat-v1.0.0", repo_type="dataset")
    put(hub, "chat.lock.json", b"{}")
    hub.api().create_tag(REPO, tag="chat-v1.0.0", repo_type="dataset")

    error = refused(hub, chat)

    assert error.what == (
        f"the tag chat-v1.0.0 was moved: this release is commit {str(first.commit)[:8]}"
    )
    assert "hf repos tag delete datasets/acme/data chat-v1.0.0" in error.fix


@pytest.mark.parametrize(
    ("path", "data", "what"),
    [
        ("chat.lock.json", b"{}", "the lock in the repository is damaged"),
        ("README.md", b"---\na: [\n---\n", "the YAML block is broken"),
        ("README.md", b"\xff", "README.md in the repository is not UTF-8"),
        ("chat/train-extra.parquet", b"x", "the repository holds files that no release wrote"),
        ("chat.yaml", b"name: chat\n", "chat.yaml was edited by hand"),
    ],
)
def test_a_repository_that_was_edited_is_not_written_over(
    hub: Hub, tmp_path: Path, path: str, data: bytes, what: str
) -> None:
    release(hub, read(tmp_path / "one", Wanted()))
    repo = hub.dataset(REPO)
    head = repo.at("main")
    made = repo.small(data)
    repo.write("refs/heads/main", head.oid, {**head.files, path: made}, "by hand", "", "bob")

    error = refused(hub, read(tmp_path / "two", Wanted(version="1.1.0")))

    assert error.what.startswith(what)


def test_a_card_that_was_edited_is_replaced_only_when_told_so(hub: Hub, tmp_path: Path) -> None:
    release(hub, read(tmp_path / "one", Wanted()))
    readme = hub.files(REPO)["README.md"].decode()
    put(hub, "README.md", readme.replace("## How it was made", "## My words").encode())
    new = read(tmp_path / "two", Wanted(version="1.1.0"))

    error = refused(hub, new)

    assert error.what.startswith("README.md, the section of chat was edited by hand")
    assert release(hub, new, overwrite_edits=True).kind == "released"


def test_files_of_somebody_else_under_the_configs_name_are_kept(hub: Hub, tmp_path: Path) -> None:
    hub.api().create_repo(REPO, repo_type="dataset")
    put(hub, "chat/train-00000-of-00001.parquet", b"PAR1mine")

    error = refused(hub, read(tmp_path / "chat", Wanted()))

    assert error.what.startswith("the repository holds files that no release wrote")


def test_tokens_that_cannot_release_are_told_before_anything_is_sent(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = read(tmp_path / "chat", Wanted())

    assert refused(hub, chat, "hf_reader").what == "the token may only read"
    assert refused(hub, chat, "hf_expired").what == "the token is not valid, or no longer"
    stranger = refused(hub, chat, "hf_stranger").what
    assert stranger.startswith("the Hub does not let this token make the repository")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(ReleaseError, match="there is no token"):
        hub_release.release(chat, Wire(REPO, hub.url), Wishes())
    assert hub.repos == {}


@pytest.mark.parametrize("repo", ["data", "datasets/acme/data", "acme/da ta", "acme/-data-"])
def test_a_name_that_the_hub_refuses_is_told(hub: Hub, tmp_path: Path, repo: str) -> None:
    chat = read(tmp_path / "chat", Wanted())

    with pytest.raises(ReleaseError) as caught:
        hub_release.release(chat, Wire(repo, hub.url, hub.token), Wishes(waits_s=NO_WAITS))

    assert caught.value.where == "--repo"


@pytest.mark.parametrize(("kind", "word"), [("model", "model"), ("space", "Space")])
def test_a_repository_of_another_kind_is_told(
    hub: Hub, tmp_path: Path, kind: str, word: str
) -> None:
    hub.api().create_repo(REPO, repo_type=kind, space_sdk="static" if kind == "space" else None)

    error = refused(hub, read(tmp_path / "chat", Wanted()))

    assert error.what == f"'acme/data' is a {word}, and no dataset of this name exists"


def test_a_gitignore_that_hides_shards_is_told_before_the_commit(hub: Hub, tmp_path: Path) -> None:
    chat = read(tmp_path / "chat", Wanted())
    hub.api().create_repo(REPO, repo_type="dataset")
    put(hub, ".gitignore", b"*.parquet\n")
    before = titles(hub)

    with pytest.raises(ReleaseError, match=r"\.gitignore leaves 'chat/train-"):
        release(hub, chat)

    assert titles(hub) == before


def test_a_private_release_makes_a_private_repository_and_refuses_a_public_one(
    hub: Hub, tmp_path: Path
) -> None:
    chat = read(tmp_path / "chat", Wanted())
    release(hub, chat, private=True)
    assert hub.dataset(REPO).private

    hub.dataset(REPO).private = False

    error = refused(hub, read(tmp_path / "next", Wanted(version="1.1.0")), private=True)
    assert error.what == "the repository is public, and this release is to be private"


def test_a_branch_is_made_and_main_stays(hub: Hub, tmp_path: Path) -> None:
    release(hub, read(tmp_path / "one", Wanted()))
    main = hub.dataset(REPO).refs["refs/heads/main"]
    new = read(tmp_path / "two", Wanted(version="2.0.0", rows=5))

    done = release(hub, new, branch="next")

    assert hub.dataset(REPO).refs["refs/heads/main"] == main
    assert own(hub, "chat", "next") == own(hub, "chat", "chat-v2.0.0") == wanted_files(new)
    assert tags(hub)["chat-v2.0.0"] == done.commit


def test_a_pull_request_is_made_once_and_tagged_when_it_was_merged(
    hub: Hub, tmp_path: Path
) -> None:
    chat = read(tmp_path / "chat", Wanted())
    hub.api().create_repo(REPO, repo_type="dataset")
    hub.fail(Fault("commit", when="after", lost=True))

    first = release(hub, chat, create_pr=True)
    second = release(hub, chat, create_pr=True)

    assert (first.kind, second.kind) == ("proposed", "proposed")
    assert first.url == second.url
    assert len(hub.dataset(REPO).pulls) == 1
    assert (titles(hub), tags(hub)) == (["initial commit"], {})
    hub.api().merge_pull_request(REPO, 1, repo_type="dataset")
    merged = release(hub, chat, create_pr=True)
    assert merged.kind == "released"
    assert own(hub, "chat", "chat-v1.0.0") == wanted_files(chat)


def test_a_dry_run_shows_what_the_release_then_does(hub: Hub, tmp_path: Path) -> None:
    chat, new = (
        read(tmp_path / "one", Wanted()),
        read(tmp_path / "two", Wanted(version="1.1.0", rows=13)),
    )
    fresh = release(hub, chat, dry_run=True)
    assert hub.repos == {}
    assert fresh.changes.steps == (
        "public dataset repository acme/data",
        "commit on main",
        "tag chat-v1.0.0",
    )
    release(hub, chat)
    before, since = own(hub, "chat"), len(hub.calls)

    planned = release(hub, new, dry_run=True)

    assert {call.method for call in hub.calls[since:]} == {"GET"}
    done = release(hub, new)
    after = own(hub, "chat")
    assert done.changes == planned.changes
    changes = planned.changes
    added = {path for path in (*changes.added, *changes.moved) if path != "README.md"}
    assert added == after.keys() - before.keys()
    assert set(changes.removed) == before.keys() - after.keys()
    assert "+  version: 1.1.0\n" in changes.readme


def test_both_ways_of_upload_bring_the_same_files(xet: Hub, tmp_path: Path) -> None:
    chat = read(tmp_path / "chat", Wanted())

    release(xet, chat)

    assert own(xet, "chat", "chat-v1.0.0") == wanted_files(chat)
    assert not [call for call in xet.calls if call.name.startswith("lfs")]
    assert [call for call in xet.calls if call.name == "xorb-upload"]


def test_recorded_answers_are_part_of_the_commit_and_the_same_release_without_them(
    hub: Hub, tmp_path: Path
) -> None:
    chat = read(tmp_path / "chat", Wanted())
    recording = tmp_path / "recording/journals/chat/v1.0.0"
    recording.mkdir(parents=True)
    (recording / "recording.json").write_text("{}")
    (recording / "segment.parquet").write_bytes(b"PAR1PAR1")

    done = release(hub, chat.beside(tmp_path / "recording"))

    files = hub.files(REPO, "chat-v1.0.0")
    assert files["journals/chat/v1.0.0/segment.parquet"] == b"PAR1PAR1"
    assert titles(hub) == ["initial commit", "Release chat 1.0.0"]
    assert release(hub, chat).kind == "unchanged"
    next_ = release(hub, read(tmp_path / "next", Wanted(version="1.1.0")))
    assert done.kind == next_.kind == "released"
    assert not [path for path in hub.files(REPO) if path.startswith("journals/")]


@pytest.mark.parametrize("fault", [{"status": 503}, {"status": 403}, {"lost": True}])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("call", ["xet-token", "xorb-upload", "shard-upload"])
def test_a_fault_in_an_upload_over_xet_leaves_nothing_half_done(
    xet: Hub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: dict[str, Any],
    when: Any,
    call: str,
) -> None:
    chat = read(tmp_path / "chat", Wanted(rows=2))
    monkeypatch.setenv("HF_XET_CLIENT_RETRY_BASE_DELAY", "1ms")
    xet.fail(Fault(call, when=when, **fault))

    with contextlib.suppress(ReleaseError):
        release(xet, chat)

    assert ("datasets", REPO) not in xet.repos or titles(xet) in (
        ["initial commit"],
        ["initial commit", "Release chat 1.0.0"],
    )
    release(xet, chat)
    assert titles(xet) == ["initial commit", "Release chat 1.0.0"]
    assert own(xet, "chat", "chat-v1.0.0") == wanted_files(chat)


def test_who_may_not_write_can_propose(hub: Hub, tmp_path: Path) -> None:
    release(hub, read(tmp_path / "one", Wanted()))
    new = read(tmp_path / "two", Wanted(version="1.1.0"))

    error = refused(hub, new, "hf_stranger")
    proposed = release(hub, new, "hf_stranger", create_pr=True)

    assert "--create-pr" in error.fix
    assert proposed.kind == "proposed"
    hub.api().merge_pull_request(REPO, 1, repo_type="dataset")
    assert release(hub, new).kind == "released"
    assert own(hub, "chat", "chat-v1.1.0") == wanted_files(new)


def test_a_hub_that_does_not_answer_is_not_waited_for(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = read(tmp_path / "chat", Wanted(rows=2))
    monkeypatch.setattr(wire, "TIMEOUT", 0.3)
    hub.fail(Fault("commit", when="after", hang_s=1.5))

    done = release(hub, chat)

    assert done.kind == "released"
    assert titles(hub) == ["initial commit", "Release chat 1.0.0"]


def test_no_round_is_begun_when_patience_is_at_its_end(hub: Hub, tmp_path: Path) -> None:
    hub.fail(Fault("refs", status=503))

    error = refused(hub, read(tmp_path / "chat", Wanted()), patience_s=0.0)

    assert error.what.startswith("the Hub did not take the release in 1 tries")


def test_the_same_release_by_two_machines_is_made_once(hub: Hub, tmp_path: Path) -> None:
    chat = read(tmp_path / "chat", Wanted())
    hub.api().create_repo(REPO, repo_type="dataset")
    other = threading.Thread(target=lambda: release(hub, chat, "hf_colleague"))
    hub.fail(Fault("preupload", runs=other.start))

    release(hub, chat)
    other.join()

    assert titles(hub) == ["initial commit", "Release chat 1.0.0"]
    assert own(hub, "chat", "chat-v1.0.0") == wanted_files(chat)


def test_the_command_releases_and_shows_no_token(
    hub: Hub, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = build(tmp_path / "out", Wanted(rows=2))
    hub.fail(Fault("lfs-upload", status=503))
    hub.fail(Fault("tag", status=500, message=f"who showed {hub.token}?"))

    done = CliRunner().invoke(app, ["release", str(out), "--repo", REPO])

    said = done.output + "".join(capfd.readouterr())
    assert done.exit_code == 0
    assert 'load_dataset("acme/data", "chat", revision="chat-v1.0.0", split="train")' in done.output
    assert "hf_***" in said
    assert hub.token not in said
    assert "/lfs/" not in said
