"""A release for machines: Croissant 1.0 with the RAI vocabulary.

Source:
    docs.mlcommons.org/croissant: the format and its RAI extension, version 1.0 of both. There is no
    date in it, because equal builds give equal bytes; the Hub knows when a commit was made.
"""

import json
from typing import Any

from prequery import rows
from prequery.card import licences
from prequery.card.facts import Facts
from prequery.card.meanings import FIELDS
from prequery.lock import Lock
from prequery.recipe import Recipe

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

CITATION = (
    "@inproceedings{xu2025magpie, title={Magpie: Alignment Data Synthesis from Scratch by "
    "Prompting Aligned {LLMs} with Nothing}, author={Xu, Zhangchen and Jiang, Fengqing and "
    "Niu, Luyao and Deng, Yuntian and Poovendran, Radha and Choi, Yejin and Lin, Bill Yuchen}, "
    "booktitle={The Thirteenth International Conference on Learning Representations}, year={2025}, "
    "note={arXiv:2406.08464}}"
)

_TYPES = {
    "string": "sc:Text",
    "bool": "sc:Boolean",
    "int32": "cr:Int32",
    "int64": "cr:Int64",
    "float64": "cr:Float64",
}


def path(recipe: Recipe) -> str:
    """Return where a config's Croissant file is in a release."""
    return f"{recipe.name}.croissant.json"


def describe(recipe: Recipe, lock: Lock, facts: Facts) -> str:
    """Return a config's Croissant file. Equal arguments give equal bytes."""
    front = licences.front_matter(recipe, lock)
    links = [source.terms.url for source in licences.sources(lock) if source.terms]
    licence = front["license"] or links or None
    content = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": [
            "http://mlcommons.org/croissant/1.0",
            "http://mlcommons.org/croissant/RAI/1.0",
        ],
        "name": recipe.name,
        "description": (
            f"{facts.rows} rows that {lock['generator']['model_id']} wrote by itself from nothing "
            "but the prefix of its chat template (MAGPIE)."
        ),
        "version": recipe.version,
        "license": licence,
        "citeAs": CITATION,
        "keywords": ["synthetic", "magpie", "prequery", "instruction-tuning"],
        "inLanguage": list(facts.languages()) or None,
        "isLiveDataset": False,
        **_owner(recipe),
        **_responsible(recipe, lock, facts),
        "distribution": _distribution(recipe, lock),
        "recordSet": [_record_set(recipe)],
    }
    kept = {key: value for key, value in content.items() if value is not None}
    return json.dumps(kept, indent=1, ensure_ascii=True) + "\n"


def _owner(recipe: Recipe) -> dict[str, Any]:
    if recipe.release.repo is None:
        return {}
    owner = recipe.release.repo.partition("/")[0]
    return {
        "url": f"https://huggingface.co/datasets/{recipe.release.repo}",
        "creator": {"@type": "sc:Organization", "name": owner},
    }


def _distribution(recipe: Recipe, lock: Lock) -> list[dict[str, Any]]:
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


def _record_set(recipe: Recipe) -> dict[str, Any]:
    conversations = [_conversation(recipe, name) for name in rows.CONVERSATION[recipe.shape]]
    flat = []
    for name, dtype in rows.dtypes(recipe.dtypes, recipe.shape).items():
        inner = dtype.removesuffix("[]")
        repeated = {"repeated": True} if inner != dtype else {}
        flat.append(_field(recipe, name, _TYPES[inner]) | repeated)
    return {
        "@type": "cr:RecordSet",
        "@id": recipe.name,
        "name": recipe.name,
        "key": {"@id": f"{recipe.name}/id"},
        "field": [*flat[:1], *conversations, *flat[1:]],
    }


def _conversation(recipe: Recipe, name: str) -> dict[str, Any]:
    """Return a list of {role, content}: a repeated field of two parts, each picked by its path."""
    whole = _field(recipe, name, "sc:Text")
    parts = []
    for part in ("role", "content"):
        one = _field(recipe, name, "sc:Text")
        one |= {"@id": f"{recipe.name}/{name}/{part}", "name": part}
        one["source"] = one["source"] | {"transform": {"jsonPath": part}}
        del one["description"]
        parts.append(one)
    kept = {key: whole[key] for key in ("@type", "@id", "name", "description")}
    return kept | {"repeated": True, "subField": parts}


def _field(recipe: Recipe, name: str, kind: str) -> dict[str, Any]:
    by_column = {field: column.name for column in recipe.columns for field in column.features}
    meaning = FIELDS.get(name) or f"measured by the column {by_column[name]}"
    return {
        "@type": "cr:Field",
        "@id": f"{recipe.name}/{name}",
        "name": name,
        "description": meaning,
        "dataType": kind,
        "source": {
            "fileSet": {"@id": f"{recipe.name}-shards"},
            "extract": {"column": name},
        },
    }


def _responsible(recipe: Recipe, lock: Lock, facts: Facts) -> dict[str, Any]:
    """Return the RAI fields, each from what was measured or is in the recipe."""
    judges = {
        name: f"judge {name}: {judge['model']['model_id']}@{judge['model']['revision']}"
        + (f", {judge['check']['verdict']}" if "check" in judge else "")
        for name, judge in sorted(lock.get("judges", {}).items())
    }
    tools = [f"prequery column {c.name}, version {c.version}" for c in recipe.columns]
    return {
        "rai:dataCollection": (
            "An aligned language model was given the prefix of its chat template and wrote an "
            "instruction; the instruction was sent back and a model wrote the response. Slot by "
            "slot, with seeds that recipe and slot decide. No person wrote or labelled a text."
        ),
        "rai:dataCollectionType": ["Software Collection"],
        "rai:dataCollectionMissingData": _nulls(recipe, facts),
        "rai:dataPreprocessingProtocol": [
            f"{lock['build']['accepted']} of {lock['build']['attempts']} attempts became rows.",
            *(f"A row passes the filter: {step.text}" for step in recipe.filters),
        ],
        "rai:dataAnnotationProtocol": ["Every label was measured by a program; none by a person."],
        "rai:machineAnnotationTools": [*tools, *judges.values()] or None,
        "rai:dataLimitations": _limitations(facts),
        "rai:dataBiases": [
            "The texts show what the generator takes users to ask: its opinions, errors and gaps "
            "are theirs.",
            *_languages(facts),
        ],
        "rai:dataUseCases": ["Instruction tuning and study of language models."],
        "rai:personalSensitiveInformation": _personal(facts),
        "rai:dataReleaseMaintenancePlan": (
            "A released version never changes; what changes is a new version with a tag of its own."
        ),
    }


def _nulls(recipe: Recipe, facts: Facts) -> str:
    found = [f"{f.name} {f.nulls}" for f in facts.fields if f.nulls and f.name in recipe.dtypes]
    told = (
        f"Rows without a value: {', '.join(found)}." if found else "No measured value is missing."
    )
    return f"Null means that a value could not be measured or that there is none. {told}"


def _limitations(facts: Facts) -> list[str]:
    cut = (facts.tally("response_finish_reason") or {}).get("length", 0)
    found = [
        "Nobody checked whether a response is true.",
        f"{facts.repeated_instructions} instructions and {facts.repeated_responses} responses "
        "equal an earlier one letter by letter.",
        f"{cut} of {facts.rows} responses end at their token limit.",
    ]
    if facts.near_duplicates is not None:
        found.append(f"{facts.near_duplicates} instructions have a near neighbour.")
    for part in ("instruction", "response"):
        loops = facts.tally(f"{part}_loop")
        if loops is not None:
            found.append(f"{loops.get('true', 0)} {part}s run into repeating themselves.")
    return found


def _languages(facts: Facts) -> list[str]:
    tally = facts.tally("language")
    if not tally:
        return ["The languages were not measured."]
    first = next(iter(tally))
    return [f"{tally[first]} of {facts.rows} instructions are in one language, {first!r}."]


def _personal(facts: Facts) -> list[str]:
    found = []
    for part in ("instruction", "response"):
        field = facts.field(f"{part}_personal_data_kinds")
        if field is not None and field.values is not None:
            count = sum(rows for value, rows in field.values if value)
            found.append(
                f"{count} of {facts.rows} {part}s hold what has the form of personal data; a model "
                "made it up or remembers it."
            )
    return found or ["It was not measured whether the texts hold personal data."]
