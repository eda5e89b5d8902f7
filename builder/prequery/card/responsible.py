"""How the rows came to be and what is wrong with them, for machines: Croissant's RAI vocabulary.

Source:
    docs.mlcommons.org/croissant, RAI extension, version 1.0.
"""

from typing import Any

from prequery.card.facts import Facts
from prequery.lock import Lock
from prequery.recipe import Annotation, AnyRecipe, Recipe


def rai(recipe: AnyRecipe, lock: Lock, facts: Facts) -> dict[str, Any]:
    """Return the RAI fields, each from what was measured or is in the recipe."""
    told = (
        _given(recipe, lock, facts)
        if isinstance(recipe, Annotation)
        else _written(recipe, lock, facts)
    )
    judges = {
        name: f"judge {name}: {judge['model']['model_id']}@{judge['model']['revision']}"
        + (f", {judge['check']['verdict']}" if "check" in judge else "")
        for name, judge in sorted(lock.get("judges", {}).items())
    }
    tools = [f"prequery column {c.name}, version {c.version}" for c in recipe.columns]
    return {
        **told,
        "rai:dataCollectionMissingData": _nulls(recipe, facts),
        "rai:machineAnnotationTools": [*tools, *judges.values()] or None,
        "rai:dataReleaseMaintenancePlan": (
            "A released version never changes; what changes is a new version with a tag of its own."
        ),
    }


def _written(recipe: Recipe, lock: Lock, facts: Facts) -> dict[str, Any]:
    """Tell of rows that a model wrote."""
    cut = (facts.tally("response_finish_reason") or {}).get("length", 0)
    return {
        "rai:dataCollection": (
            "An aligned language model was given the prefix of its chat template and wrote an "
            "instruction; the instruction was sent back and a model wrote the response. Slot by "
            "slot, with seeds that recipe and slot decide. No person wrote or labelled a text."
        ),
        "rai:dataCollectionType": ["Software Collection"],
        "rai:dataPreprocessingProtocol": [
            f"{lock['build']['accepted']} of {lock['build']['attempts']} attempts became rows.",
            *_filters(recipe),
        ],
        "rai:dataAnnotationProtocol": ["Every label was measured by a program; none by a person."],
        "rai:dataLimitations": [
            *_limitations(facts),
            f"{cut} of {facts.rows} responses end at their token limit.",
        ],
        "rai:dataBiases": [
            "The texts show what the generator takes users to ask: its opinions, errors and gaps "
            "are theirs.",
            *_languages(facts),
        ],
        "rai:dataUseCases": ["Instruction tuning and study of language models."],
        "rai:personalSensitiveInformation": _personal(
            facts, "; a model made it up or remembers it."
        ),
    }


def _given(recipe: Annotation, lock: Lock, facts: Facts) -> dict[str, Any]:
    """Tell of somebody's rows, which this release measures."""
    path, revision = recipe.dataset.path, recipe.dataset.revision
    pinned = f"revision {revision}" if revision else f"SHA-256 of its files {recipe.dataset.sha256}"
    config = f"config {recipe.dataset.config!r}, " if recipe.dataset.config else ""
    return {
        "rai:dataCollection": (
            f"The rows were not written or collected for this release: they were read from the "
            f"dataset {path!r}, and how they came to be is for that dataset to say. A program "
            "measured them. The texts are as they were there."
        ),
        "rai:dataCollectionType": ["Secondary Data Analysis"],
        "rai:dataCollectionRawData": (
            f"Dataset {path!r}, {config}split {recipe.dataset.split!r}, {pinned}."
        ),
        "rai:dataPreprocessingProtocol": [
            f"{lock['build']['accepted']} of {lock['build']['attempts']} rows that were read stay.",
            *_filters(recipe),
            *(
                f"{ours} is the dataset's field {theirs!r}."
                for ours, theirs in sorted(lock["dataset"]["fields"].items())
            ),
        ],
        "rai:dataAnnotationProtocol": [
            "Every value of a column of prequery was measured by a program; none by a person. "
            "Other fields are the dataset's own."
        ],
        "rai:dataLimitations": _limitations(facts),
        "rai:dataBiases": ["Those of the dataset that was read.", *_languages(facts)],
        "rai:dataUseCases": ["What the dataset is used for, and choosing among its rows."],
        "rai:personalSensitiveInformation": _personal(facts, "."),
    }


def _filters(recipe: AnyRecipe) -> list[str]:
    return [f"A row passes the filter: {step.text}" for step in recipe.filters]


def _nulls(recipe: AnyRecipe, facts: Facts) -> str:
    found = [f"{f.name} {f.nulls}" for f in facts.fields if f.nulls and f.name in recipe.dtypes]
    told = (
        f"Rows without a value: {', '.join(found)}." if found else "No measured value is missing."
    )
    return f"Null means that a value could not be measured or that there is none. {told}"


def _limitations(facts: Facts) -> list[str]:
    found = [
        "Nobody checked whether a response is true.",
        f"{facts.repeated_instructions} instructions and {facts.repeated_responses} responses "
        "equal an earlier one letter by letter.",
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


def _personal(facts: Facts, end: str) -> list[str]:
    """Tell how many texts hold personal data; `end` says whose it is."""
    found = []
    for part in ("instruction", "response"):
        field = facts.field(f"{part}_personal_data_kinds")
        if field is not None and field.values is not None:
            count = sum(rows for value, rows in field.values if value)
            found.append(
                f"{count} of {facts.rows} {part}s hold what has the form of personal data{end}"
            )
    return found or ["It was not measured whether the texts hold personal data."]
