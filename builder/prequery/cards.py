"""Cards of a finished folder or of a repository's copy: made anew, or held against the data."""

import json
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs

from prequery import versions
from prequery.card import differences, history, sections
from prequery.card.differences import Difference
from prequery.errors import BuildError, CardError
from prequery.folder import Folder, finished_configs
from prequery.lock import LOCK, Lock, recipe_of
from prequery.released import Released, open_release


@dataclass(frozen=True)
class Checked:
    """What came of checking one config's card.

    Args:
        config: Its name.
        numbers: How many numbers the card and the plots have.
        found: Where they are not what the data gives.
    """

    config: str
    numbers: int
    found: tuple[Difference, ...]


def check(place: str) -> Iterator[Checked]:
    """Recompute the cards of all configs from their Parquet files and locks, and compare.

    Args:
        place: Local folder or fsspec URL.

    Raises:
        CardError: There is no card, or what it is made from cannot be read.
        ShardError: Recipe, lock and files are not of one build.
    """
    fs, root = url_to_fs(place)
    configs = _configs(fs, root, place)
    for config in configs:
        yield _check(*_opened(fs, root, config, place))
    readme = Folder(fs, root, _opened(fs, root, configs[0], place)[0].recipe).readme() or ""
    for config in sections.names(readme):
        if config not in configs:
            missing = Difference(f"{config}{LOCK}", None, "one: nothing else tells what is true")
            yield Checked(config, 0, (missing,))


def rewrite(
    place: str,
    template: str | None = None,
    previous: str | None = None,
    notes: Sequence[str] = (),
) -> list[str]:
    """Make the cards of all configs anew from their Parquet files and locks.

    Args:
        place: Local folder or fsspec URL.
        template: A user's own, kept in the folder; null: the one that is there, else the bundled.
        previous: The release before this one, as `released.open_release` takes it: its versions
            are told on, with what `versions.compare` finds. For a folder of one config.
        notes: What else changed in the data since then.

    Returns:
        The configs' names.

    Raises:
        CardError: There is no lock, or a README or template is broken.
        RebuildError: The release before cannot be opened or compared.
        ShardError: Recipe, lock and files are not of one build.
    """
    fs, root = url_to_fs(place)
    configs = _configs(fs, root, place)
    if previous is not None and len(configs) > 1:
        raise CardError(
            f"there are several configs: {', '.join(configs)}",
            place,
            "note the version before in the output folder of one config",
        )
    for config in configs:
        folder, held = _opened(fs, root, config, place)
        told = None if previous is None else _history(folder, place, previous, notes)
        folder.write_card(held, template, told)
    return configs


def _history(folder: Folder, place: str, previous: str, notes: Sequence[str]) -> str:
    """Return the history of the release before, with this version in front."""
    config = folder.recipe.name
    before, now = open_release(previous, config), open_release(place, config)
    try:
        text = before.read(folder.history).decode(errors="replace")
    except FileNotFoundError:
        text = None
    earlier = history.read(text, f"{before.where}, {folder.history}")
    changes = (*notes, *versions.compare(before, now).sentences())
    told = history.extended(earlier, _version(before), replace(_version(now), changes=changes))
    return history.dump(told)


def _version(release: Released) -> history.Version:
    build = release.lock["build"]
    return history.Version(release.lock["config"]["version"], build["accepted"], ())


def _configs(fs: AbstractFileSystem, root: str, place: str) -> list[str]:
    names = finished_configs(fs, root)
    if not names:
        raise CardError(
            "there is no lock, which a build writes last",
            place,
            "name a folder that `prequery build` finished, or a whole copy of a repository",
        )
    return names


def _opened(fs: AbstractFileSystem, root: str, config: str, place: str) -> tuple[Folder, Lock]:
    path = posixpath.join(root, f"{config}.yaml")
    where = posixpath.join(place, f"{config}.yaml")
    try:
        text = fs.cat_file(path).decode()
    except (FileNotFoundError, UnicodeDecodeError):
        raise CardError(
            "the recipe is missing beside the lock", where, "fetch the whole repository"
        ) from None
    held = _lock(fs, posixpath.join(root, f"{config}{LOCK}"))
    built = recipe_of(held, text, where)
    folder = Folder(fs, root, built)
    if built.name != config:
        what = f"the recipe is of the config {built.name!r}"
        raise CardError(what, where, "fetch the whole repository again")
    return folder, held


def _lock(fs: AbstractFileSystem, path: str) -> Lock:
    try:
        held = json.loads(fs.cat_file(path))
        _ = held["config"]["build_hash"], held["build"]["accepted"], held["files"].items()
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CardError("the lock is damaged", path, "fetch the whole repository again") from None
    assert isinstance(held, dict)
    return held


def _check(folder: Folder, held: Lock) -> Checked:
    """Compare one config's card, plots and file list with what its Parquet files give."""
    config = folder.recipe.name
    files = folder.files()
    found = [
        Difference(f"{config}{LOCK}, files, {path}, {key}", told, given)
        for path in dict.fromkeys((*held["files"], *files))
        for key in ("rows", "bytes", "sha256")
        if (told := _text(held["files"], path, key)) != (given := _text(files, path, key))
    ]
    try:
        made = folder.card(held | {"files": files})
    except BuildError as error:
        return Checked(config, 0, (*found, Difference(f"{config}{LOCK}", error.what, None)))
    found += differences.in_readme(folder.readme() or "", made.readme, config)
    for path, given in made.files.items():
        told = folder.beside(path)
        if told is None:
            found.append(Difference(path, None, "one"))
        elif told != given:
            found += [replace(one, place=path) for one in differences.in_text(told, given)]
    numbers = sum(map(differences.count_numbers, (made.readme, *made.files.values())))
    return Checked(config, numbers, tuple(found))


def _text(files: dict[str, dict[str, object]], path: str, key: str) -> str | None:
    return str(files[path].get(key)) if path in files else None
