"""Quality columns: one file each, listed here in run order.

A package of yours adds one by the entry point group `prequery.columns`: the entry's name is the
column's name, its value the class. Listing columns imports no model and no numerical library.
"""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, get_type_hints

from prequery.columns.backward import Backward
from prequery.columns.base import Column
from prequery.columns.base_response import BaseResponse
from prequery.columns.cluster import Cluster
from prequery.columns.contamination import Contamination
from prequery.columns.difficulty import Difficulty
from prequery.columns.format import Format
from prequery.columns.ifd import Ifd
from prequery.columns.input_quality import InputQuality
from prequery.columns.instruct_reward import InstructReward
from prequery.columns.instruction_embedding import InstructionEmbedding
from prequery.columns.instruction_vector import InstructionVector
from prequery.columns.language import Language
from prequery.columns.length import Length
from prequery.columns.likelihood import Likelihood
from prequery.columns.min_neighbor_distance import MinNeighborDistance
from prequery.columns.near_duplicate import NearDuplicate
from prequery.columns.novelty import Novelty
from prequery.columns.personal_data import PersonalData
from prequery.columns.refusal import Refusal
from prequery.columns.repetition import Repetition
from prequery.columns.response_quality import ResponseQuality
from prequery.columns.reward_difference import RewardDifference
from prequery.columns.safety import Safety
from prequery.columns.task_category import TaskCategory
from prequery.errors import RecipeError

__all__ = ["ALL", "GROUP", "available", "load"]

ALL: tuple[type[Column], ...] = (
    Length,
    Language,
    Likelihood,
    Repetition,
    Format,
    Refusal,
    PersonalData,
    Contamination,
    Novelty,
    InputQuality,
    Difficulty,
    TaskCategory,
    ResponseQuality,
    Safety,
    InstructReward,
    BaseResponse,
    RewardDifference,
    Ifd,
    Backward,
    InstructionEmbedding,
    InstructionVector,
    MinNeighborDistance,
    NearDuplicate,
    Cluster,
)
GROUP = "prequery.columns"

_BUILT_IN = {column.name: column for column in ALL}


def available() -> dict[str, type[Column]]:
    """Return every column by name: ours in run order, then those of installed packages.

    Raises:
        RecipeError: An installed package offers something that is not a column.
    """
    others = sorted(entry_points(group=GROUP), key=lambda entry: entry.name)
    return _BUILT_IN | {entry.name: _resolve(entry) for entry in others}


def load(
    spec: object,
    where: str,
    folder: Path = Path(),
    locked: Mapping[str, Mapping[str, str]] | None = None,
) -> Column:
    """Make a column from an entry of a recipe.

    Args:
        spec: A name, or a mapping of one name to a mapping of its parameters.
        where: Place of the entry, for errors.
        folder: Where relative names of files begin: the recipe's.
        locked: Column to the hashes of its files in a release's lock. A release does not carry
            them, and what was measured can be read without. Null: they must be there.

    Raises:
        RecipeError: No such column, parameter or file, or a parameter of the wrong type or value.
    """
    name, parameters = _split(spec, where)
    column = _BUILT_IN.get(name) or _installed(name, where)
    made = _construct(column, parameters, where)
    vouched = (locked or {}).get(name, {})
    made.vouch(vouched)
    for file in made.reads_files():
        made.stand_in(folder)
        if not made.path(file).is_file() and file not in vouched:
            what = f"column {name!r} reads the file {file!r}, which is not there"
            fix = f"put it at {made.path(file)}, or correct its name: it is relative to the recipe"
            raise RecipeError(what, where, fix)
    return made


def _split(spec: object, where: str) -> tuple[str, Mapping[str, Any]]:
    if isinstance(spec, str):
        return spec, {}
    if isinstance(spec, Mapping) and len(spec) == 1:
        ((name, parameters),) = spec.items()
        if isinstance(name, str) and isinstance(parameters, Mapping):
            return name, parameters
    raise RecipeError(
        f"{spec!r:.80} is not a column",
        where,
        "write its name, or its name and parameters: {min_neighbor_distance: {threshold: 0.05}}",
    )


def _installed(name: str, where: str) -> type[Column]:
    for entry in entry_points(group=GROUP, name=name):
        return _resolve(entry)
    known = [*_BUILT_IN, *sorted(entry_points(group=GROUP).names)]
    raise RecipeError(f"unknown column {name!r}", where, _choose(name, known))


def _resolve(entry: EntryPoint) -> type[Column]:
    """Import a column of another package and hold it to the form."""
    where = f"entry point {entry.name!r} = {entry.value!r}"
    if entry.name in _BUILT_IN:
        what = f"an installed package offers a column {entry.name!r}, which prequery has itself"
        raise RecipeError(what, where, "uninstall that package, or have its column renamed")
    try:
        column = entry.load()
    except (ImportError, AttributeError) as error:
        what = f"the column {entry.name!r} cannot be imported: {error}"
        raise RecipeError(what, where, "repair or uninstall the package that offers it") from error
    if isinstance(column, type) and issubclass(column, Column) and column.name == entry.name:
        return column
    what = f"the entry point {entry.name!r} is not a column of that name"
    fix = "point it at a subclass of prequery.columns.base.Column with that `name`"
    raise RecipeError(what, where, fix)


def _construct(column: type[Column], parameters: Mapping[str, Any], where: str) -> Column:
    known = {field.name: field for field in fields(column)}
    types = get_type_hints(column)
    checked: dict[str, Any] = {}
    for key, value in parameters.items():
        if key not in known:
            what = f"column {column.name!r} has no parameter {key!r}"
            raise RecipeError(what, where, _choose(str(key), list(known)))
        # YAML reads 1 as a whole number, and both spellings must give one fingerprint.
        as_float = types[key] is float and type(value) is int
        checked[key] = float(value) if as_float else value
        if types[key] in (bool, int, float, str) and type(checked[key]) is not types[key]:
            what = f"parameter {key!r} of column {column.name!r} is {value!r:.80}"
            raise RecipeError(what, where, f"give it a value of type {types[key].__name__}")
    for key, field in known.items():
        if key not in checked and field.default is field.default_factory is MISSING:
            what = f"column {column.name!r} needs the parameter {key!r}"
            raise RecipeError(what, where, f"write {{{column.name}: {{{key}: ...}}}}")
    try:
        return column(**checked)
    except ValueError as error:
        what = f"column {column.name!r}: {error}"
        raise RecipeError(what, where, "see `prequery columns`") from None


def _choose(name: str, known: list[str]) -> str:
    close = get_close_matches(name, known, 1)
    meant = f"did you mean {close[0]!r}? " if close else ""
    return f"{meant}known: {', '.join(known) or 'none'}"
