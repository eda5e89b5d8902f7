"""Releases into a folder or URL: one version or the other, other configs untouched, repeatable."""

import hashlib
import multiprocessing
import os
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import pytest
from datasets import load_dataset
from typer.testing import CliRunner

from built_folder import Wanted, build
from prequery import Magpie
from prequery.cli import app
from prequery.errors import ReleaseError
from prequery.options import Options
from prequery.release import content, folder
from prequery.release.changes import belongs
from scripted_tgi import ScriptedTgi, recipe_text


def released(out: Path | str, target: Path | str, *, dry_run: bool = False) -> Any:
    return folder.release(content.read(str(out)), str(target), dry_run=dry_run)


def state(path: Path) -> dict[str, str]:
    """Return every file with its hash."""
    return {
        str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }


def loaded(place: Path, config: str, cache: Path) -> Any:
    return load_dataset(str(place), config, split="train", cache_dir=str(cache))


def test_a_released_folder_loads_with_its_version(tmp_path: Path) -> None:
    out = build(tmp_path / "out", Wanted(rows=10))

    done = released(out, tmp_path / "place")

    ds = loaded(tmp_path / "place", "chat", tmp_path / "cache")
    assert done.kind == "released"
    assert (str(ds.info.version), len(ds)) == ("1.0.0", 10)
    assert ds[3]["instruction"] == "What is 3 and one?"


def test_a_repeat_changes_nothing(tmp_path: Path) -> None:
    out = build(tmp_path / "out", Wanted())
    released(out, tmp_path / "place")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "place").rglob("*")}

    done = released(out, tmp_path / "place")

    assert done.kind == "unchanged"
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "place").rglob("*")} == before


def test_the_same_rows_that_were_waited_for_longer_are_the_same_release(tmp_path: Path) -> None:
    released(build(tmp_path / "once", Wanted(seconds=3600)), tmp_path / "place")
    before = state(tmp_path / "place")

    again = released(build(tmp_path / "again", Wanted(seconds=7200)), tmp_path / "place")

    assert again.kind == "unchanged"
    assert state(tmp_path / "place") == before


def test_a_new_version_takes_the_old_ones_shards_away(tmp_path: Path) -> None:
    released(build(tmp_path / "one", Wanted(rows=12)), tmp_path / "place")

    done = released(build(tmp_path / "two", Wanted(version="1.1.0", rows=6)), tmp_path / "place")

    ds = loaded(tmp_path / "place", "chat", tmp_path / "cache")
    assert (str(ds.info.version), len(ds)) == ("1.1.0", 6)
    assert done.changes.removed == tuple(f"chat/train-0000{i}-of-00003.parquet" for i in range(3))
    shards = sorted(path.name for path in (tmp_path / "place/chat").iterdir())
    assert shards == ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"]


def test_configs_stand_side_by_side_with_words_of_others(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    (place / "README.md").write_text("---\ntags: [mine]\n---\nBy hand.\n")
    (place / "notes.txt").write_text("mine")
    released(build(tmp_path / "chat", Wanted()), place)
    before = state(place)

    released(build(tmp_path / "code", Wanted(name="code", version="2.0.0", rows=5)), place)

    after = state(place)
    assert {name: after[name] for name in before if name != "README.md"} == {
        name: digest for name, digest in before.items() if name != "README.md"
    }
    readme = (place / "README.md").read_text()
    assert "By hand.\n" in readme
    assert "- mine\n" in readme
    assert len(loaded(place, "chat", tmp_path / "cache")) == 12
    assert str(loaded(place, "code", tmp_path / "cache").info.version) == "2.0.0"


@pytest.mark.parametrize(
    ("version", "what"),
    [
        ("1.1.0", "version 1.1.0 of 'chat' exists and holds other content"),
        ("1.0.9", "'chat' is at version 1.1.0 there, newer than 1.0.9"),
    ],
)
def test_a_version_is_never_replaced_by_other_content_or_an_older_one(
    tmp_path: Path, version: str, what: str
) -> None:
    released(build(tmp_path / "one", Wanted(version="1.1.0")), tmp_path / "place")
    other = build(tmp_path / "two", Wanted(version=version, words="And {}?"))
    before = state(tmp_path / "place")

    with pytest.raises(ReleaseError) as caught:
        released(other, tmp_path / "place")

    assert caught.value.what == what
    assert caught.value.fix.startswith("raise `version` in the recipe, as to 1.2.0")
    assert state(tmp_path / "place") == before


def test_a_dry_run_shows_what_the_release_then_does(tmp_path: Path) -> None:
    released(build(tmp_path / "one", Wanted()), tmp_path / "place")
    out = build(tmp_path / "two", Wanted(version="1.1.0", rows=13))
    before = state(tmp_path / "place")

    planned = released(out, tmp_path / "place", dry_run=True)

    assert planned.kind == "planned"
    assert state(tmp_path / "place") == before
    done = released(out, tmp_path / "place")
    after = state(tmp_path / "place")
    assert done.changes == planned.changes
    assert set(planned.changes.added) == after.keys() - before.keys()
    assert set(planned.changes.removed) == before.keys() - after.keys()
    assert set(planned.changes.replaced) == {
        name for name in before.keys() & after.keys() if before[name] != after[name]
    }
    assert "+  version: 1.1.0\n" in planned.changes.readme


def _release_and_stop(out: str, target: str, writes: int) -> None:
    """Release, and die without a word before the given write to the place."""
    left = writes
    write = folder._Place._write

    def counted(self: folder._Place, name: str, file: content.File) -> None:
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        write(self, name, file)

    folder._Place._write = counted  # type: ignore[method-assign]
    folder.release(content.read(out), target)


def test_a_release_that_is_killed_before_any_write_is_one_version_or_no_config(
    tmp_path: Path,
) -> None:
    old = build(tmp_path / "one", Wanted())
    new = build(tmp_path / "two", Wanted(version="1.1.0", rows=13, words="Say {}."))
    released(old, tmp_path / "whole")
    released(new, tmp_path / "whole")
    wanted = state(tmp_path / "whole")
    context = multiprocessing.get_context("fork")
    seen: set[tuple[Any, ...]] = set()
    for writes in range(20):
        place = tmp_path / f"place{writes}"
        released(old, place)
        child = context.Process(target=_release_and_stop, args=(str(new), str(place), writes))
        child.start()
        child.join()
        if child.exitcode == 0:
            break
        try:
            ds = loaded(place, "chat", tmp_path / f"cache{writes}")
            shown = {ds[i]["instruction"].split()[0] for i in range(len(ds))}
            seen.add((child.exitcode, str(ds.info.version), len(ds), *sorted(shown)))
        except FileNotFoundError:
            seen.add((child.exitcode, "closed"))

        released(new, place)

        assert state(place) == wanted, f"killed before write {writes}"
    assert seen == {
        (-9, "1.0.0", 12, "What"),
        (-9, "closed"),
        (-9, "1.1.0", 13, "Say"),
    }


def test_a_release_to_a_url_has_the_same_files(tmp_path: Path) -> None:
    out = build(tmp_path / "out", Wanted())
    url = f"memory://{tmp_path.name}/place"

    first, second = released(out, url), released(out, url)

    assert (first.kind, second.kind) == ("released", "unchanged")
    released(out, tmp_path / "place")
    fs, root = fsspec.url_to_fs(url)
    found = {path.removeprefix(root + "/"): fs.cat_file(path) for path in fs.find(root)}
    local = {name: (tmp_path / "place" / name).read_bytes() for name in state(tmp_path / "place")}
    assert found == local


def test_a_build_at_a_url_is_released_as_one_in_a_folder_is(tmp_path: Path) -> None:
    out = build(tmp_path / "out", Wanted())
    url = f"memory://{tmp_path.name}/out"
    fsspec.filesystem("memory").put(f"{out}/", url, recursive=True)

    released(url, tmp_path / "from a url")

    released(out, tmp_path / "from a folder")
    assert state(tmp_path / "from a url") == state(tmp_path / "from a folder")


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def cut(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-1] + b"X")


def test_an_output_folder_that_was_edited_is_refused(tmp_path: Path) -> None:
    cases: dict[str, Any] = {
        "a shard is not what the lock says": lambda out: cut(
            out / "chat/train-00001-of-00003.parquet"
        ),
        "a shard is missing": lambda out: (out / "chat/train-00001-of-00003.parquet").unlink(),
        "the lock does not list this file": lambda out: shutil.copy(
            out / "chat/train-00001-of-00003.parquet", out / "chat/train-00003-of-00004.parquet"
        ),
        "there is no finished build: no lock, which is written last": lambda out: (
            out / "chat.lock.json"
        ).unlink(),
        "the lock is damaged": lambda out: edit(out / "chat.lock.json", "{", "["),
        "the lock was edited: it is not what its digest says": lambda out: edit(
            out / "chat.lock.json", '"accepted": 12', '"accepted":  12'
        ),
        "lock and recipe disagree: version '1.0.0', '1.0.1'": lambda out: edit(
            out / "chat.yaml", "version: 1.0.0", "version: 1.0.1"
        ),
        "the recipe is missing beside the lock": lambda out: (out / "chat.yaml").unlink(),
        "the card is missing": lambda out: (out / "README.md").unlink(),
        "the card is not what the data gives: it was edited, or another prequery wrote it": (
            lambda out: edit(out / "README.md", "## How it was made", "## How I made it")
        ),
    }
    for number, (what, damage) in enumerate(cases.items()):
        out = build(tmp_path / f"out{number}", Wanted())
        damage(out)

        with pytest.raises(ReleaseError) as caught:
            released(out, tmp_path / "place")

        assert caught.value.what == what
        assert not (tmp_path / "place").exists(), what


def test_a_lock_whose_figures_were_edited_is_refused(tmp_path: Path) -> None:
    out = build(tmp_path / "out", Wanted())
    edit(out / "chat.lock.json", '"generated_tokens": 192', '"generated_tokens": 191')

    with pytest.raises(ReleaseError, match="the lock was edited"):
        released(out, tmp_path / "place")

    assert not (tmp_path / "place").exists()


def test_a_place_that_cannot_take_the_release_stays_as_it_is(tmp_path: Path) -> None:
    out = build(tmp_path / "out", Wanted())

    def broken_readme(place: Path) -> None:
        (place / "README.md").write_text("---\na: [\n---\n")

    def damaged_lock(place: Path) -> None:
        released(out, place)
        (place / "chat.lock.json").write_text("{}")

    def foreign(place: Path) -> None:
        (place / "chat").mkdir()
        (place / "chat/train-00000-of-00001.parquet").write_bytes(b"mine")

    def disturbing(place: Path) -> None:
        (place / "chat").mkdir()
        (place / "chat/train-extra.parquet").write_bytes(b"mine")

    def edited_card(place: Path) -> None:
        released(out, place)
        edit(place / "README.md", "## How it was made", "## How I made it")

    cases = {
        "the YAML block is broken": broken_readme,
        "the lock that is there is damaged": damaged_lock,
        "the place holds files that no release wrote, as 'chat/train-00000-": foreign,
        "the place holds files that no release wrote, as 'chat/train-extra": disturbing,
        "the section of 'chat' in the README that is there was edited": edited_card,
    }
    for number, (what, prepare) in enumerate(cases.items()):
        place = tmp_path / f"place{number}"
        place.mkdir()
        prepare(place)
        before = state(place)

        with pytest.raises(ReleaseError) as caught:
            released(out, place)

        assert caught.value.what.startswith(what)
        assert state(place) == before


def test_the_builds_own_folder_is_no_target(tmp_path: Path) -> None:
    out = build(tmp_path / "out", Wanted())

    with pytest.raises(ReleaseError, match="the build's own folder is no place to release into"):
        released(out, out)


JUDGED = """judges:
  judge: {model: acme/judge, revision: cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd}
"""


def judge(check: dict[str, Any] | None) -> dict[str, Any]:
    """Return what a lock says of a judge."""
    model = {"model_id": "acme/judge", "revision": "cd" * 20, "weights_sha256": None}
    told = {"model": model | {"revision_confirmed_by_endpoint": True}, "endpoint": {}}
    return {"judge": told | ({"check": {"asked": 40, **check}} if check else {})}


@pytest.mark.parametrize(
    ("check", "what"),
    [
        ({"at_chance": True, "verdict": "at chance: its labels mean nothing"}, "at chance: its"),
        (None, "it was never checked"),
        ({"at_chance": False, "verdict": "tells clear instructions from others"}, None),
    ],
)
def test_labels_of_a_judge_at_chance_are_released_only_when_told_so(
    tmp_path: Path, check: dict[str, Any] | None, what: str | None
) -> None:
    wanted = Wanted(columns="[{input_quality: {judge: judge}}]", more=JUDGED)
    out = build(tmp_path / "out", wanted, judge(check))

    if what:
        with pytest.raises(ReleaseError, match=f"not worth releasing: {what}"):
            content.read(str(out))
    else:
        content.read(str(out))

    assert content.read(str(out), allow_chance_labels=True).config == "chat"


def test_one_of_several_configs_in_a_folder_is_named(tmp_path: Path) -> None:
    released(build(tmp_path / "chat", Wanted()), tmp_path / "both")
    released(build(tmp_path / "code", Wanted(name="code")), tmp_path / "both")

    with pytest.raises(ReleaseError, match="the folder holds several configs: chat, code"):
        content.read(str(tmp_path / "both"))

    assert content.read(str(tmp_path / "both"), "code").tag == "code-v1.0.0"


def test_the_command_shows_what_it_does(tmp_path: Path) -> None:
    out, place = build(tmp_path / "out", Wanted(rows=4)), tmp_path / "place"
    command = ["release", str(out), "--to", str(place)]

    planned = CliRunner().invoke(app, [*command, "--dry-run"])
    done = CliRunner().invoke(app, command)
    again = CliRunner().invoke(app, command)

    assert planned.stdout.startswith(f"To release chat 1.0.0 to {place} would:\n  add      chat/")
    assert "+## How it was made" in planned.stdout
    assert [one.exit_code for one in (planned, done, again)] == [0, 0, 0]
    assert done.stdout.splitlines()[:2] == [
        f"Released chat 1.0.0 to {place}.",
        "  add      chat/train-00000-of-00001.parquet",
    ]
    assert f'ds = load_dataset("{place}", "chat", split="train")' in done.stdout
    assert again.stdout == f"{place} holds chat 1.0.0 already: nothing was changed.\n"


def test_the_recorded_answers_can_be_published_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREQUERY_HOME", str(tmp_path / "home"))
    recipe, place = tmp_path / "scripted.yaml", tmp_path / "place"
    recipe.write_text(recipe_text())
    with ScriptedTgi().serving() as server:
        Magpie(recipe, options=Options((server.url,))).download_and_prepare(
            tmp_path / "out", file_format="parquet"
        )
    command = ["release", str(tmp_path / "out"), "--to", str(place)]

    done = CliRunner().invoke(app, [*command, "--with-journal"])
    with_it = state(place)
    again = CliRunner().invoke(app, [*command, "--with-journal"])
    without = CliRunner().invoke(app, command)

    assert (done.exit_code, again.exit_code, without.exit_code) == (0, 0, 0)
    assert "journals/scripted/v1.0.0/recording.json" in with_it
    assert "already: nothing was changed" in again.stdout
    assert "already: nothing was changed" in without.stdout
    assert state(place) == with_it


def test_every_file_of_a_release_is_known_as_one_by_its_name(tmp_path: Path) -> None:
    read = content.read(str(build(tmp_path / "out", Wanted())))

    assert [path for path in read.files if not belongs(path, "chat")] == []
    assert [path for path in read.files if belongs(path, "cha") or belongs(path, "t")] == []


def test_a_file_that_a_column_was_measured_against_is_neither_needed_nor_published(
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "known.txt").write_text("What is bread?\n")
    build(out, Wanted(columns="[length, {novelty: {file: known.txt, field: line}}]"))
    assert "known.txt" not in content.read(str(out)).files

    (out / "known.txt").unlink()

    assert released(out, tmp_path / "place").kind == "released"


def test_two_configs_released_into_one_folder_at_the_same_time_both_survive(
    tmp_path: Path,
) -> None:
    outs = [build(tmp_path / name, Wanted(name=name)) for name in ("chat", "code", "math")]
    reads = [content.read(str(out)) for out in outs]
    place = str(tmp_path / "place")

    with ThreadPoolExecutor(3) as pool:
        done = list(pool.map(lambda read: folder.release(read, place).kind, reads))

    assert done == ["released"] * 3
    assert [folder.release(read, place).kind for read in reads] == ["unchanged"] * 3
