"""Under which terms a release stands: those of the models that wrote and judged it.

What a licence asks is data, `dataset_cards/licenses.json`, and so is which model is under which,
`configs/models.json`. Nothing here is legal advice; it names what must not be overlooked.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from prequery.bundled import bundled
from prequery.lock import Lock
from prequery.recipe import Annotation, AnyRecipe


@dataclass(frozen=True)
class Terms:
    """What one licence asks.

    Args:
        id: The Hub's name of it, or its `license_name` where the Hub has none.
        name: Of the licence.
        url: Where it stands.
        duties: What who uses the data must do, each a sentence.
    """

    id: str
    name: str
    url: str
    duties: tuple[str, ...]


@dataclass(frozen=True)
class Source:
    """A model that wrote or judged.

    Args:
        model: model@revision.
        part: What it did, in a few words.
        terms: Null: not known here.
    """

    model: str
    part: str
    terms: Terms | None


def sources(lock: Lock) -> tuple[Source, ...]:
    """Return the models of a release and their terms, each model once."""
    parts: dict[tuple[str, str], list[str]] = {}

    def add(model: Mapping[str, Any], part: str) -> None:
        parts.setdefault((model["model_id"], model["revision"]), []).append(part)

    if "generator" in lock:
        add(lock["generator"], "instructions")
        add(lock.get("responder", lock)["generator"], "responses")
    for name, judge in sorted(lock.get("judges", {}).items()):
        add(judge["model"], f"verdicts of judge {name}")
    return tuple(
        Source(f"{model}@{revision}", ", ".join(did), _terms(model))
        for (model, revision), did in parts.items()
    )


def front_matter(recipe: AnyRecipe, lock: Lock) -> dict[str, Any]:
    """Return the licence keys of the YAML block.

    The recipe's licence, else those of all models. A licence that the Hub has no name for is
    `other`, with name and link; where a model's is not known, and the recipe is silent, none is
    claimed. Nor is one for somebody's dataset: its own holds, and models only judged it.
    """
    if isinstance(recipe, Annotation):
        return {"license": recipe.release.license}
    found = [source.terms for source in sources(lock)]
    told = [terms for terms in found if terms is not None]
    named = list(dict.fromkeys(terms.id for terms in told))
    others = [terms for terms in told if terms.id in _unnamed()]
    licence: Any = recipe.release.license
    if licence is None and len(told) == len(found):
        ids = list(dict.fromkeys("other" if one in _unnamed() else one for one in named))
        licence = ids[0] if len(ids) == 1 else ids
    content = {"license": licence}
    if "other" in (licence if isinstance(licence, list) else [licence]) and len(set(others)) == 1:
        content |= {"license_name": others[0].id, "license_link": others[0].url}
    return content


def _terms(model: str) -> Terms | None:
    entry = _file("configs", "models.json").get(model)
    if entry is None:
        return None
    name = entry.get("license_name", entry["license"])
    known = _file("dataset_cards", "licenses.json").get(name)
    return Terms(name, known["name"], known["url"], tuple(known["duties"])) if known else None


def _unnamed() -> set[str]:
    """Return the licences that the Hub has no name for."""
    models = _file("configs", "models.json").values()
    return {entry["license_name"] for entry in models if "license_name" in entry}


@cache
def _file(folder: Any, name: str) -> dict[str, Any]:
    content = json.loads((bundled(folder) / name).read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content
