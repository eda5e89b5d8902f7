"""A release is opened wherever it is, and held against its lock."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import fsspec
import pytest
from huggingface_hub import CommitOperationAdd, constants

from hub import Fault, Hub
from prequery import cards
from prequery.errors import RebuildError, ReleaseError
from prequery.release import content
from prequery.release.hub import Wishes
from prequery.release.hub import release as release_on_hub
from prequery.release.wire import Wire
from prequery.released import Released, open_release
from prequery.verification import verify
from released_folders import REPO, edit_lock, release, upload

MAIN = "from prequery.cli import main; main()"
TAG = "scripted-v1.0.0"


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREQUERY_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("built")
        patch.setenv("PREQUERY_HOME", str(root / "home"))
        return release(root, "out")


@pytest.fixture
def out(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "out"))


def verdicts(opened: Released, expected: str | None = None) -> dict[str, str]:
    return {each.name: each.verdict for each in verify(opened, expected)}


def differing(opened: Released, expected: str | None = None) -> dict[str, str]:
    return {each.name: each.told for each in verify(opened, expected) if each.verdict != "same"}


def refused(reference: str, config: str | None = None) -> RebuildError:
    with pytest.raises(RebuildError) as caught:
        open_release(reference, config)
    return caught.value


def test_a_folder_is_what_its_lock_says(out: Path) -> None:
    opened = open_release(str(out))

    assert verdicts(opened) == {
        "lock": "same",
        "scripted.yaml": "same",
        "fingerprint": "same",
        "scripted/train-00000-of-00003.parquet": "same",
        "scripted/train-00001-of-00003.parquet": "same",
        "scripted/train-00002-of-00003.parquet": "same",
        "counts": "same",
        "rows": "same",
    }
    assert opened.read("README.md").startswith(b"---")
    assert opened.title == "scripted 1.0.0"


def test_a_url_is_opened_as_a_folder_is(out: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(str(out), "/a-release", recursive=True)

    opened = open_release("memory://a-release", "scripted")

    assert set(verdicts(opened).values()) == {"same"}
    memory.rm("/a-release", recursive=True)


def test_a_tag_on_the_hub_is_opened(hub: Hub, out: Path) -> None:
    commit = upload(hub, out, TAG)

    opened = open_release(f"{REPO}@{TAG}", "scripted")

    assert opened.where == f"datasets/{REPO}@{TAG}, commit {commit[:7]}"
    assert differing(opened) == {
        "tag": f"{TAG} is commit {commit[:7]}, and no commit says that it released this version"
    }
    assert open_release(REPO).where == f"datasets/{REPO}@main, commit {commit[:7]}"


def test_what_the_release_command_wrote_is_what_its_lock_says(hub: Hub, out: Path) -> None:
    done = release_on_hub(content.read(str(out)), Wire(REPO, hub.url, hub.token), Wishes())

    found = list(verify(open_release(f"{REPO}@{TAG}", "scripted")))

    assert {one.verdict for one in found} == {"same"}
    (tag,) = [one.told for one in found if one.name == "tag"]
    assert tag.startswith(f"{TAG} is commit {(done.commit or '')[:7]}, build ")


def test_every_kind_of_change_shows(out: Path) -> None:
    shards = sorted((out / "scripted").glob("*.parquet"))
    shards[0].write_bytes(shards[0].read_bytes()[:-1] + b"x")
    shards[1].unlink()
    shutil.copy(shards[2], out / "scripted/train-00003-of-00003.parquet")
    (out / "scripted.yaml").write_text((out / "scripted.yaml").read_text() + "# more\n")
    opened = open_release(str(out))
    sha256 = opened.lock["files"]["scripted/train-00000-of-00003.parquet"]["sha256"]

    told = differing(opened)

    assert told.pop("scripted/train-00000-of-00003.parquet").endswith(
        f", the lock says {sha256[:12]}"
    )
    assert told == {
        "scripted.yaml": "was edited",
        "scripted/train-00001-of-00003.parquet": "is missing",
        "scripted/train-00003-of-00003.parquet": "is there, and the lock does not name it",
        "rows": "files differ already",
    }


def test_an_edited_lock_shows(out: Path) -> None:
    held = json.loads((out / "scripted.lock.json").read_text())
    edit_lock(out, {"build": held["build"] | {"attempts": 1000}})

    assert differing(open_release(str(out))) == {
        "lock": "it was edited: its digest is another",
        "counts": "20 rows in files, 20 accepted, "
        f"{sum(held['build']['rejected'].values())} rejected of 1000",
    }


def test_a_lock_that_was_edited_with_its_digest_shows_by_a_digest_from_elsewhere(out: Path) -> None:
    known = json.loads((out / "scripted.lock.json").read_text())["digest"]
    edit_lock(out, {"packages": {}}, honest=True)
    opened = open_release(str(out))
    now = opened.lock["digest"]

    assert differing(opened) == {}
    assert differing(opened, known) == {"lock": f"its digest is {now}, {known} was expected"}


def test_a_lock_from_before_digests_is_still_held_against_the_files(out: Path) -> None:
    held = json.loads((out / "scripted.lock.json").read_text())
    for key in ("digest", "recipe", "rows"):
        del held[key]
    (out / "scripted.lock.json").write_text(json.dumps(held | {"format": 1}))

    assert differing(open_release(str(out))) == {
        "lock": "it is from before locks bore a digest",
        "scripted.yaml": "the lock does not tell its hash",
        "rows": "the lock does not tell their hash",
    }


def test_a_tag_that_was_moved_to_another_version_shows(hub: Hub, out: Path) -> None:
    upload(hub, out, "scripted-v0.9.0")

    told = differing(open_release(f"{REPO}@scripted-v0.9.0"))

    assert told == {"tag": "scripted-v0.9.0 holds version 1.0.0: it was moved"}


def test_what_is_not_there_is_said(hub: Hub, out: Path, tmp_path: Path) -> None:
    upload(hub, out, TAG)
    (tmp_path / "empty").mkdir()

    assert refused("acme/nothing").what == "there is no such dataset repository, or it is private"
    assert refused(f"{REPO}@v9").what == "the repository has no such tag, branch or commit"
    no_config = refused(f"{REPO}@{TAG}", "other")
    assert (no_config.what, no_config.fix) == (
        "there is no config 'other'",
        "configs here: scripted",
    )
    assert refused(str(tmp_path / "empty")).what == "no release of prequery is here"
    assert refused(str(tmp_path / "nowhere")).what == f"there is no folder '{tmp_path}/nowhere'"
    assert refused("s3://me:secret@bucket/x").what == "the address holds credentials"


def test_a_folder_that_is_half_written_is_refused(out: Path) -> None:
    (out / "scripted.lock.json").unlink()

    assert refused(str(out)).what == (
        "there is no lock: what is here was not finished, or is no release of prequery"
    )


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"config": {"name": "scripted"}}', '{"config": 7}']
)
def test_a_damaged_lock_is_refused(out: Path, content: str) -> None:
    (out / "scripted.lock.json").write_text(content)

    assert refused(str(out)).what == "the lock is damaged, or was pinned and never built"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("build", {"accepted": 1, "attempts": "2", "rejected": {}}),
        ("files", {"scripted/train-00000-of-00001.parquet": {"sha256": "0"}}),
        ("columns", {"length": {"version": 1}}),
        ("columns", {"length": {"version": 1, "pins": {"a": 1}}}),
        ("packages", []),
        ("generator", {"model_id": "acme/x"}),
        ("generator", "acme/x"),
        ("prefix", 7),
        ("judges", {"one": {}}),
        ("responder", {"generator": {}}),
        ("rows", "sha"),
        ("recipe", {"sha256": None}),
        ("dataset", None),
        ("digest", 1),
    ],
)
def test_an_edited_lock_of_a_wrong_form_is_an_error_that_names_it(
    out: Path, key: str, value: object
) -> None:
    edit_lock(out, {key: value}, honest=key != "digest")

    assert refused(str(out)).what == "the lock is damaged, or was pinned and never built"


def test_a_lock_cannot_name_files_of_others(out: Path) -> None:
    held = json.loads((out / "scripted.lock.json").read_text())
    stolen = {"../secret.parquet": next(iter(held["files"].values()))}
    edit_lock(out, {"files": stolen}, honest=True)

    assert refused(str(out)).what == "the lock is not that of the config 'scripted'"


def test_the_command_tells_by_its_exit_code(out: Path) -> None:
    def run(*more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", MAIN, "verify", str(out), "scripted", *more]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    good = run()
    (out / "scripted.yaml").write_text("name: other\n")
    bad = run("--json")

    assert (good.returncode, bad.returncode) == (0, 1)
    assert good.stdout.endswith(f"scripted 1.0.0 in {out} is what its lock says.\n")
    told = json.loads(bad.stdout)
    assert told["same"] is False
    assert {each["name"] for each in told["findings"] if each["verdict"] == "differs"} == {
        "scripted.yaml"
    }


def commit(hub: Hub, title: str, content: str) -> str:
    made = hub.api().create_commit(
        REPO,
        [CommitOperationAdd("notes.txt", content.encode())],
        repo_type="dataset",
        commit_message=title,
    )
    return str(made.oid)


def tag(hub: Hub, name: str, at: str) -> None:
    hub.api().create_tag(REPO, tag=name, revision=at, repo_type="dataset")


def told_of_tag(name: str) -> tuple[str, str]:
    found = {each.name: each for each in verify(open_release(f"{REPO}@{name}", "scripted"))}
    return found["tag"].verdict, found["tag"].told


def test_a_tag_is_held_against_the_commits_that_released_its_version(hub: Hub, out: Path) -> None:
    upload(hub, out)
    first = commit(hub, "Release scripted 1.0.0 [build 0123456789abcdef]", "one")
    tag(hub, TAG, first)
    alone = told_of_tag(TAG)
    later = commit(hub, "Correct a word", "two")
    hub.api().delete_tag(REPO, tag=TAG, repo_type="dataset")
    tag(hub, TAG, later)
    moved = told_of_tag(TAG)
    second = commit(hub, "Release scripted 1.0.0 [build fedcba9876543210]", "three")
    hub.api().delete_tag(REPO, tag=TAG, repo_type="dataset")
    tag(hub, TAG, second)

    assert alone == ("same", f"{TAG} is commit {first[:7]}, build 0123456789abcdef")
    assert moved == (
        "differs",
        f"{TAG} is commit {later[:7]}, but {first[:7]} released this version",
    )
    assert told_of_tag(TAG) == (
        "differs",
        f"{TAG} is commit {second[:7]}, but {first[:7]} released this version",
    )


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
def test_a_hub_that_fails_is_named_with_what_to_do(hub: Hub, out: Path, status: int) -> None:
    upload(hub, out, TAG)
    hub.fail(Fault(call=f"GET /api/datasets/{REPO}/revision/*", status=status, times=100))

    error = refused(f"{REPO}@{TAG}")

    assert error.where == f"datasets/{REPO}@{TAG}"
    assert error.what.startswith(("the Hub gave no answer", "there is no such dataset repository"))


@pytest.mark.parametrize("fault", [{"status": 403}, {"lost": True}])
def test_a_file_that_cannot_be_fetched_is_an_error_that_names_the_commit(
    hub: Hub, out: Path, fault: dict[str, Any]
) -> None:
    commit = upload(hub, out, TAG)
    hub.fail(Fault(call=f"* /datasets/{REPO}/resolve/*", times=1000, **fault))

    error = refused(f"{REPO}@{TAG}")

    assert error.where == f"datasets/{REPO}@{TAG}, commit {commit[:7]}"
    assert error.what.startswith("the Hub ")


def test_a_hub_that_is_not_there_is_named(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")

    assert refused(f"{REPO}@{TAG}").what.startswith("the Hub cannot be reached: ")


def test_recorded_answers_that_were_changed_show(out: Path) -> None:
    root = out / "journals/scripted/v1.0.0"
    root.mkdir(parents=True)
    fingerprint = json.loads((out / "scripted.lock.json").read_text())["config"]["fingerprint"]
    config = {"fingerprint": fingerprint}
    (root / "a.txt").write_text("answers")
    sha256 = hashlib.sha256(b"answers").hexdigest()
    index = {"config": config, "answers": 40, "files": {"a.txt": {"sha256": sha256}}}
    (root / "recording.json").write_text(json.dumps(index))
    good = verdicts(open_release(str(out)))
    (root / "a.txt").write_text("other answers")

    assert good["journals/scripted/v1.0.0"] == "same"
    assert differing(open_release(str(out))) == {
        "journals/scripted/v1.0.0": "a.txt is missing, or is not as it was"
    }


def test_files_that_a_recipe_names_need_not_be_there_to_read_a_release(tmp_path: Path) -> None:
    (tmp_path / "recipes").mkdir()
    shutil.copy(Path(__file__).parent / "texts/riddles.jsonl", tmp_path / "recipes")
    named = "[length, {contamination: {files: {riddles.jsonl: question}}}]"
    out = release(tmp_path, "out", columns=named)

    assert set(verdicts(open_release(str(out))).values()) == {"same"}
    assert content.read(str(out)).config == "scripted"
    assert [one.found for one in cards.check(str(out))] == [()]
    (out / "riddles.jsonl").write_text("")
    assert verdicts(open_release(str(out)))["fingerprint"] == "differs"
    with pytest.raises(ReleaseError):
        content.read(str(out))
