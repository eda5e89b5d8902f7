"""From a dataset's name to a recipe that pins it."""

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from prequery.annotation.source import FORMATS, opened, opened_files
from prequery.errors import DatasetError, RecipeError
from prequery.recipe import Dataset, Fields
from prequery.strict_yaml import parse

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?")


@dataclass(frozen=True)
class Wish:
    """What the user says of a dataset before it is pinned.

    Args:
        place: Id on the Hub, or path, pattern or URL of files.
        revision: Branch, tag or commit on the Hub; null: its main branch.
        config: Which of its configs; null: it has one.
        split: Which of its splits.
        fields: Which of its fields say what; empty: those of the same names.
        roles: What it calls those who speak.
    """

    place: str
    revision: str | None = None
    config: str | None = None
    split: str = "train"
    fields: Mapping[str, str] | None = None
    roles: Mapping[str, str] | None = None


def is_local(place: str) -> bool:
    """Say whether a name stands for files, and not for a dataset on the Hub."""
    return (
        "://" in place
        or Path(place).exists()
        or not _HUB_ID.fullmatch(place)
        or Path(place).suffix in FORMATS
    )


def pinned(wish: Wish) -> dict[str, Any]:
    """Return the section `dataset` of a recipe: what was wished for, as it is now.

    Raises:
        DatasetError: It is not there, or not open to this user, or its fields do not tell by their
            names which is which.
    """
    given = Dataset(wish.place, Fields(), config=wish.config, split=wish.split)
    if is_local(wish.place):
        if wish.revision is not None:
            raise DatasetError(
                "files have no revision: they are pinned by their SHA-256",
                "--revision",
                "leave it out",
            )
        source, sha256 = opened_files(given, Path())
        # Where the files are on this machine is nobody else's business.
        path = wish.place if "://" in wish.place else posixpath.basename(wish.place.rstrip("/"))
        pin = {"path": path, "sha256": sha256}
    else:
        revision = _commit(wish)
        source = opened(replace(given, revision=revision), Path())
        pin = {"path": wish.place, "revision": revision}
    found: dict[str, Any] = {**pin}
    if wish.config is not None:
        found["config"] = wish.config
    found |= {"split": wish.split, "fields": wish.fields or _guessed(wish, list(source.features))}
    return found | ({"roles": dict(wish.roles)} if wish.roles else {})


def completed(text: str, source: str, added: Mapping[str, Any]) -> str:
    """Return a recipe's text with keys behind it that it does not have yet.

    Args:
        text: YAML; empty: there is no recipe yet.
        source: Name of its file, for errors.
        added: Key to value.

    Raises:
        RecipeError: It has one of these keys already.
    """
    there = parse(text, source).value if text.strip() else {}
    for key in added:
        if isinstance(there, dict) and key in there:
            raise RecipeError(
                f"the recipe has the key {key!r} already",
                f"{source}, line {there[key].line}",
                "change it there, and leave the option out",
            )
    more = yaml.safe_dump(dict(added), sort_keys=False, allow_unicode=True, width=1000)
    return f"{text}{'' if not text or text.endswith(chr(10)) else chr(10)}{more if added else ''}"


def default_name(place: str) -> str:
    """Return a config's name for a dataset that was annotated."""
    stem = posixpath.basename(place.rstrip("/")).partition(".")[0]
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._") or "dataset"
    return f"{name[:80]}-annotated"


def _guessed(wish: Wish, names: list[str]) -> dict[str, str]:
    """Return the fields that bear our names."""
    if "messages" in names:
        return {"messages": "messages"}
    if "instruction" in names:
        return {name: name for name in ("instruction", "response") if name in names}
    raise DatasetError(
        "no field of the dataset is called messages or instruction",
        wish.place,
        f"say which is which, as --field instruction=NAME --field response=NAME, or "
        f"--field messages=NAME; it has: {', '.join(names)}",
    )


def _commit(wish: Wish) -> str:
    """Return the commit that a branch or tag of a dataset on the Hub is now."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

    try:
        found = HfApi().dataset_info(wish.place, revision=wish.revision).sha
    except RepositoryNotFoundError:
        raise DatasetError(
            f"there is no file and no folder {wish.place!r}, and the Hub has no such dataset that "
            "is open to you",
            wish.place,
            "check the name; a private or gated dataset needs access that was granted on its "
            "page, and a token of yours in HF_TOKEN",
        ) from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        raise DatasetError(
            f"the Hub answered {status} for the revision {wish.revision or 'main'!r}",
            wish.place,
            "check the revision, and HF_TOKEN where the dataset is gated",
        ) from None
    except Exception as error:  # noqa: BLE001 - which HTTP client raises is the Hub client's affair
        raise DatasetError(
            f"the Hub cannot be reached: {type(error).__name__}",
            wish.place,
            "go online, or name files of yours",
        ) from None
    if found is None:
        raise DatasetError("the Hub names no commit", wish.place, "give one: --revision COMMIT")
    return found
