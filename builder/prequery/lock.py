"""The lock: everything that decided a value, resolved.

A lock beside a recipe in `configs/` pins what the recipe leaves to others: the revision that the
endpoint serves and the prefix that its template gives. A build holds itself to it, and writes a
complete one, with counts and file hashes, beside the card. Addresses are no part of it, nor the
clock: its only time is how long answers were waited for, which the journal tells. It bears a hash
of itself, so that an edit shows.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from prequery import __version__
from prequery.budget import cost_usd
from prequery.endpoint import Info
from prequery.errors import RecipeError
from prequery.judge_check import Check
from prequery.recipe import Annotation, AnyRecipe, Generator, Recipe, read, read_annotation
from prequery.selection import Selection
from prequery.voices import Judging, Voice, Voices

FORMAT = 2
"""1 had no digest, no recipe and no rows; all else is the same."""
PACKAGES = ("datasets", "jinja2", "numpy", "pyarrow")
"""Packages of others that can change a released byte; those of columns are in their pins."""

LOCK = ".lock.json"
"""Of a lock's file, behind the name of the config or recipe."""

Lock = dict[str, Any]


def pin(recipe: Recipe, voices: Voices) -> Lock:
    """Return the lock of a recipe before anything is built.

    Args:
        recipe: What to build.
        voices: The served models. Addresses are no part of a lock.
    """
    writers = _voice(recipe.generator, voices.generator)
    if recipe.responder:
        writers["responder"] = _voice(recipe.responder, voices.responder)
    return _pinned(recipe, writers, voices.judges)


def pin_annotation(
    recipe: Annotation, dataset: Mapping[str, Any], judges: Mapping[str, Judging]
) -> Lock:
    """Return the lock of a dataset's annotation before its rows are counted.

    Args:
        recipe: What is measured.
        dataset: What was read: where from, of which revision or with which hashes, which fields.
        judges: The served models that judge, by name.
    """
    return _pinned(recipe, {"dataset": dict(dataset)}, judges)


def _pinned(recipe: AnyRecipe, origin: Lock, judges: Mapping[str, Judging]) -> Lock:
    """Return a lock of rows of this origin: the models that write them, or a dataset."""
    return {
        "format": FORMAT,
        "config": {
            "name": recipe.name,
            "version": recipe.version,
            "fingerprint": recipe.fingerprint,
            "build_hash": recipe.build_hash,
        },
        **origin,
        **_judges(recipe, judges),
        "columns": _columns(recipe),
        "packages": {"prequery": __version__} | {name: version(name) for name in PACKAGES},
    }


def _voice(model: Generator, voice: Voice) -> Lock:
    """Return what a lock tells of a model that writes."""
    prefix = json.loads(json.dumps(asdict(voice.prefix)))
    return {
        "generator": _model(model, voice.info),
        "endpoint": _endpoint(voice.info),
        "prefix": prefix,
    }


def _columns(recipe: AnyRecipe) -> Lock:
    return {
        column.name: {
            "version": column.version,
            "fingerprint": column.fingerprint(),
            "pins": column.pins(),
        }
        for column in recipe.columns
    }


def _judges(recipe: AnyRecipe, served: Mapping[str, Judging]) -> Lock:
    """Return what a lock tells of the judges; nothing where there are none."""
    judges = {name: _judge(recipe.judges[name], judge) for name, judge in served.items()}
    return {"judges": judges} if judges else {}


def _judge(model: Generator, judge: Judging) -> Lock:
    """Return what a lock tells of a judge; its prefix, where it writes."""
    told = {"model": _model(model, judge.info), "endpoint": _endpoint(judge.info)}
    if judge.prefix is None:
        return told
    return told | {"prefix": json.loads(json.dumps(asdict(judge.prefix)))}


def _model(model: Generator, info: Info) -> Lock:
    return {
        "model_id": model.model,
        "revision": model.revision,
        "revision_confirmed_by_endpoint": info.model_sha is not None,
        "weights_sha256": info.weights_sha256,
    }


def _endpoint(info: Info) -> Lock:
    return {
        "router": info.router,
        "version": info.version,
        "engine": info.engine,
        "exact": info.exact,
        "slots": info.slots,
    }


def with_checks(pinned: Lock, checks: Mapping[str, Check]) -> Lock:
    """Return a lock that tells, besides, what each judge's labels are worth."""
    if not checks:
        return pinned
    judges = {
        name: judge | ({"check": _check(checks[name])} if name in checks else {})
        for name, judge in pinned["judges"].items()
    }
    return pinned | {"judges": judges}


def _check(check: Check) -> Lock:
    return asdict(check) | {"at_chance": check.is_at_chance, "verdict": check.sentence()}


def complete(
    pinned: Lock,
    selection: Selection,
    files: Mapping[str, Mapping[str, Any]],
    recipe: AnyRecipe | None = None,
    rows_sha256: str | None = None,
) -> Lock:
    """Return the lock of a finished build.

    Args:
        pinned: From `pin`.
        selection: What came of the attempts.
        files: Path in the release to `{"bytes": int, "rows": int, "sha256": hex}`.
        recipe: Its text is in the release, and its endpoint has prices; null: neither is told.
        rows_sha256: Of all rows, from `shards.rows_sha256`; null: not told.
    """
    told: Lock = {}
    usd = None
    if recipe:
        content = recipe.text.encode()
        told["recipe"] = {"path": f"{recipe.name}.yaml", "sha256": _sha256(content)}
    if isinstance(recipe, Recipe):
        usd = cost_usd(recipe, selection.prompt_tokens, selection.generated_tokens)
    if rows_sha256:
        told["rows"] = {"count": selection.accepted, "sha256": rows_sha256}
    return (
        pinned
        | told
        | {
            "build": {
                "attempts": selection.attempts,
                "accepted": selection.accepted,
                "rejected": dict(selection.rejected),
                "ended": dict(selection.ended),
                "steps": [step.told() for step in selection.steps],
                "measuring": {name: dict(told) for name, told in selection.measuring.items()},
                "requests": selection.requests,
                "prompt_tokens": selection.prompt_tokens,
                "generated_tokens": selection.generated_tokens,
                "seconds": selection.seconds,
                "usd": usd,
            },
            "files": {path: dict(content) for path, content in files.items()},
        }
    )


def dump(lock: Lock) -> str:
    """Return a lock as canonical JSON: sorted keys, one value a line, with its own digest."""
    return _canonical(lock | {"digest": digest(lock)})


def digest(lock: Lock) -> str:
    """Return the SHA-256 of a lock without its own digest, in hexadecimal."""
    content = {key: value for key, value in lock.items() if key != "digest"}
    return _sha256(_canonical(content).encode())


def timeless(lock: Lock) -> Lock:
    """Return what the locks of equal builds share: all but the time that was waited, and digest."""
    content = {key: value for key, value in lock.items() if key != "digest"}
    build = content.get("build")
    if isinstance(build, dict):
        content["build"] = {key: value for key, value in build.items() if key != "seconds"}
    return content


def _canonical(lock: Lock) -> str:
    return json.dumps(lock, indent=1, sort_keys=True, ensure_ascii=True) + "\n"


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def beside(recipe: Recipe) -> Lock | None:
    """Return the lock that stands beside a recipe's file; null when there is none.

    Raises:
        RecipeError: It is not a lock, or was edited.
    """
    path = path_beside(recipe)
    if not path.is_file():
        return None
    try:
        lock = json.loads(path.read_text(encoding="utf-8"))
        _ = lock["config"]["fingerprint"], lock["generator"], lock["prefix"]
    except (ValueError, KeyError, TypeError):
        fix = f"remove it, or write it anew: prequery recipe pin {recipe.source}"
        raise RecipeError("the lock beside the recipe is damaged", str(path), fix) from None
    assert isinstance(lock, dict)
    if lock.get("digest", digest(lock)) != digest(lock):
        raise RecipeError(
            "the lock beside the recipe was edited: its digest is another",
            str(path),
            f"undo the edit, or write it anew: prequery recipe pin {recipe.source}",
        )
    return lock


def pins_of(lock: Lock) -> dict[str, dict[str, str]]:
    """Return the pins of every column that a lock tells of; those of an edited one are dropped."""
    found = {}
    columns = lock.get("columns")
    for name, column in columns.items() if isinstance(columns, dict) else ():
        pins = column.get("pins") if isinstance(column, dict) else None
        if isinstance(pins, dict) and all(isinstance(one, str) for one in pins.values()):
            found[name] = pins
    return found


def recipe_of(lock: Lock, text: str, where: str) -> AnyRecipe:
    """Return the recipe that stands beside a lock, checked; its files need not be here.

    Args:
        lock: Of the release. Of somebody's dataset it tells which fields that brought.
        text: The recipe's.
        where: Its file, for errors.

    Raises:
        RecipeError: This prequery does not take it, or lacks a column or a file of it.
    """
    if "dataset" in lock:
        return read_annotation(text, where, lock["dataset"]["dtypes"], pins_of(lock))
    return read(text, where, locked=pins_of(lock))


def path_beside(recipe: Recipe) -> Path:
    """Return where the lock of a recipe stands: its file's name with .lock.json."""
    return Path(recipe.source).with_suffix(LOCK)


def hold(recipe: Recipe, pinned: Lock) -> None:
    """Compare what is served with the lock beside the recipe.

    Raises:
        RecipeError: The recipe was edited since it was pinned, or another model or template is
            served than was pinned.
    """
    noted = beside(recipe)
    if noted is None:
        return
    where = str(path_beside(recipe))
    again = f"prequery recipe pin {recipe.source}"
    if noted["config"]["fingerprint"] != recipe.fingerprint:
        raise RecipeError(
            f"the lock is of another recipe: {noted['config']['fingerprint'][:12]}, "
            f"this recipe is {recipe.fingerprint[:12]}",
            where,
            f"undo the change to the recipe, or pin it anew: {again}",
        )
    judges = [("judges", name, "model") for name in recipe.judges]
    written = [("generator",), ("prefix",), ("responder", "generator"), ("responder", "prefix")]
    for path in (*written, *judges):
        old, new = _inside(noted, path), _inside(pinned, path)
        for key, value in new.items():
            if old.get(key) != value:
                raise RecipeError(
                    f"{'.'.join(path)}.{key} is pinned as {old.get(key)!r:.200}, "
                    f"the endpoint has {value!r:.200}",
                    where,
                    f"serve what was pinned, or pin it anew: {again}",
                )


def _inside(lock: Lock, path: Sequence[str]) -> Lock:
    for key in path:
        lock = lock.get(key, {})
    return lock
