"""A release for machines: Croissant 1.0 with the RAI vocabulary.

Rows that a model wrote are described as ours; those of somebody's dataset as what they are, based
on it.

Source:
    docs.mlcommons.org/croissant: the format and its RAI extension, version 1.0 of both. There is no
    date in it, because equal builds give equal bytes; the Hub knows when a commit was made.
"""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from prequery.card import licences
from prequery.card.facts import Facts
from prequery.card.meanings import FIELDS, GIVEN, features
from prequery.card.responsible import rai
from prequery.lock import Lock
from prequery.recipe import Annotation, AnyRecipe, Recipe

CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
"""The context that the format prescribes."""

HUB = "https://huggingface.co/datasets/"

CITATION = (
    "@inproceedings{xu2025magpie, title={Magpie: Alignment Data Synthesis from Scratch by "
    "Prompting Aligned {LLMs} with Nothing}, author={Xu, Zhangchen and Jiang, Fengqing and "
    "Niu, Luyao and Deng, Yuntian and Poovendran, Radha and Choi, Yejin and Lin, Bill Yuchen}, "
    "booktitle={The Thirteenth International Conference on Learning Representations}, year={2025}, "
    "note={arXiv:2406.08464}}"
)

_TYPES = {
    "string": "sc:Text",
    "large_string": "sc:Text",
    "bool": "sc:Boolean",
    "int8": "cr:Int8",
    "int16": "cr:Int16",
    "int32": "cr:Int32",
    "int64": "cr:Int64",
    "uint8": "cr:UInt8",
    "uint16": "cr:UInt16",
    "uint32": "cr:UInt32",
    "uint64": "cr:UInt64",
    "float16": "cr:Float16",
    "float32": "cr:Float32",
    "float64": "cr:Float64",
    "date32": "sc:Date",
}
"""Types of values in Parquet that the format has; others, as bytes and decimals, it has not."""


def path(recipe: AnyRecipe) -> str:
    """Return where a config's Croissant file is in a release."""
    return f"{recipe.name}.croissant.json"


def describe(recipe: AnyRecipe, lock: Lock, facts: Facts) -> str:
    """Return a config's Croissant file. Equal arguments give equal bytes."""
    content = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": [
            "http://mlcommons.org/croissant/1.0",
            "http://mlcommons.org/croissant/RAI/1.0",
        ],
        "name": recipe.name,
        "version": recipe.version,
        "inLanguage": list(facts.languages()) or None,
        "isLiveDataset": False,
        **(
            _given(recipe, lock, facts)
            if isinstance(recipe, Annotation)
            else _written(recipe, lock, facts)
        ),
        **rai(recipe, lock, facts),
        "distribution": _distribution(recipe, lock),
        "recordSet": [_record_set(recipe, lock)],
    }
    kept = {key: value for key, value in content.items() if value is not None}
    return json.dumps(kept, indent=1, ensure_ascii=True) + "\n"


def _written(recipe: Recipe, lock: Lock, facts: Facts) -> dict[str, Any]:
    """Tell what rows are that a model wrote."""
    front = licences.front_matter(recipe, lock)
    links = [source.terms.url for source in licences.sources(lock) if source.terms]
    return {
        "description": (
            f"{facts.rows} rows that {lock['generator']['model_id']} wrote by itself from nothing "
            "but the prefix of its chat template (MAGPIE)."
        ),
        "license": front["license"] or links or None,
        "citeAs": CITATION,
        "keywords": ["synthetic", "magpie", "prequery", "instruction-tuning"],
        **_owner(recipe, "creator"),
    }


def _given(recipe: Annotation, lock: Lock, facts: Facts) -> dict[str, Any]:
    """Tell what rows of somebody's dataset are, and which dataset.

    Who releases them is their publisher: nobody here made them.
    """
    dataset = recipe.dataset
    basis: dict[str, Any] = {"@type": "sc:CreativeWork", "name": dataset.path}
    if dataset.revision:
        basis |= {
            "url": f"{HUB}{quote(dataset.path)}/tree/{dataset.revision}",
            "version": dataset.revision,
        }
    else:
        basis["identifier"] = f"sha256:{dataset.sha256}"
    return {
        "description": (
            f"{facts.rows} rows of the dataset {dataset.path!r}, measured by `prequery annotate`. "
            "Their texts are as they were there: nothing was written, and nothing in them was "
            "changed."
        ),
        "license": licences.front_matter(recipe, lock)["license"],
        "keywords": ["annotated", "prequery", "instruction-tuning"],
        "isBasedOn": basis,
        **_owner(recipe, "publisher"),
    }


def _owner(recipe: AnyRecipe, part: str) -> dict[str, Any]:
    if recipe.release.repo is None:
        return {}
    owner = recipe.release.repo.partition("/")[0]
    return {
        "url": f"{HUB}{recipe.release.repo}",
        part: {"@type": "sc:Organization", "name": owner},
    }


def _distribution(recipe: AnyRecipe, lock: Lock) -> list[dict[str, Any]]:
    # The files one by one carry the hashes. The rows come from the set: mlcroissant joins shards of
    # a set that stands in the folder, and not of one that is said to be contained in files.
    objects = [
        {
            "@type": "cr:FileObject",
            "@id": name,
            "name": name.rpartition("/")[2],
            "contentUrl": name,
            "contentSize": f"{file['bytes']} B",
            "encodingFormat": "application/x-parquet",
            "sha256": file["sha256"],
        }
        for name, file in sorted(lock["files"].items())
    ]
    together = {
        "@type": "cr:FileSet",
        "@id": f"{recipe.name}-shards",
        "name": f"{recipe.name}-shards",
        "encodingFormat": "application/x-parquet",
        "includes": f"{recipe.name}/train-*.parquet",
    }
    return [*objects, together]


def _record_set(recipe: AnyRecipe, lock: Lock) -> dict[str, Any]:
    meanings = _meanings(recipe, lock)
    found = {
        name: _field(recipe, name, kind, meanings[name])
        for name, kind in features(recipe, lock).items()
    }
    missing = [name for name, field in found.items() if field is None]
    told = f"Without {', '.join(map(repr, missing))}: the format has no such type."
    return {
        "@type": "cr:RecordSet",
        "@id": recipe.name,
        "name": recipe.name,
        **({"description": told} if missing else {}),
        "key": {"@id": f"{recipe.name}/id"},
        "field": [field for field in found.values() if field],
    }


def _meanings(recipe: AnyRecipe, lock: Lock) -> dict[str, str]:
    """Return what every field means."""
    meanings = dict(FIELDS)
    if isinstance(recipe, Annotation):
        kept = lock["dataset"]["kept"].items()
        meanings = {new: f"the dataset's field {old!r}" for old, new in kept} | dict(GIVEN)
    for column in recipe.columns:
        by_column = f"measured by the column {column.name}"
        meanings |= {name: meanings.get(name, by_column) for name in column.features}
    return meanings


def _field(recipe: AnyRecipe, name: str, kind: Any, meaning: str) -> dict[str, Any] | None:
    """Describe a field; null: the format has no such type.

    A value, a list of values, a struct of values, or a list of such structs.
    """
    place = f"{recipe.name}/{quote(name, safe='')}"
    whole = {"@type": "cr:Field", "@id": place, "name": name, "description": meaning}
    inner = getattr(kind, "feature", None)
    repeated = {} if inner is None else {"repeated": True}
    source = {
        "fileSet": {"@id": f"{recipe.name}-shards"},
        "extract": {"column": name},
    }
    kind = kind if inner is None else inner
    if not isinstance(kind, Mapping):
        dtype = _type(kind)
        return None if dtype is None else {**whole, "dataType": dtype, "source": source, **repeated}
    parts = []
    for part, value in kind.items():
        dtype = _type(value)
        # The path is an expression, and a name is all that is certain to be one.
        if dtype is None or not part.isidentifier():
            return None
        parts.append(
            {
                "@type": "cr:Field",
                "@id": f"{place}/{part}",
                "name": part,
                "dataType": dtype,
                "source": source | {"transform": {"jsonPath": part}},
            }
        )
    return {**whole, **repeated, "subField": parts} if parts else None


def _type(kind: Any) -> str | None:
    """Return the format's name of what a value is; null: it has none."""
    from datasets import ClassLabel, Value

    if not isinstance(kind, Value | ClassLabel):
        return None
    return "sc:DateTime" if kind.dtype.startswith("timestamp") else _TYPES.get(kind.dtype)
