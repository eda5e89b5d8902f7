"""What changed between two releases: every row accounted for, and why it came or went.

A row is its id, which survives filters, columns and rebuilds. Why a row is in one release only is
found by applying the other one's recipe to the values that it has here; what cannot be told that
way is counted as such, never guessed.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from prequery.errors import BuildError, RebuildError
from prequery.filters import Filter
from prequery.lock import Lock
from prequery.recipe import AnyRecipe
from prequery.released import Released
from prequery.rows import slot_of
from prequery.selection.steps import Steps
from prequery.strict_yaml import parse

ANEW = "all answers were asked for anew"
BEHIND = "behind the last row"
UNTOLD = "the columns cannot tell"

Pair = tuple[str | None, str | None]
"""Before and after; null: not there."""


@dataclass(frozen=True)
class Changes:
    """From one release to another.

    Args:
        before: Config and version.
        after: The same of the other.
        rows: How many each has.
        kept: Rows that both have.
        added: Why a row is only in the second, to how many: a filter of the first, or why not.
        removed: Why a row is only in the first, to how many: a filter of the second, or why not.
        fields_added: Fields that only the second has.
        fields_removed: Fields that only the first has.
        values: Field to how many values of kept rows changed; fields without a change are left out.
        columns: Column to its version and pins, where they differ.
        models: What wrote and judged, and with which prefix, where it differs.
        packages: Package to its version, where it differs.
        recipe: Key of the recipe to what it says, as JSON, where it differs; of a list only the
            entries that differ.
    """

    before: str
    after: str
    rows: tuple[int, int]
    kept: int
    added: Mapping[str, int]
    removed: Mapping[str, int]
    fields_added: Sequence[str]
    fields_removed: Sequence[str]
    values: Mapping[str, int]
    columns: Mapping[str, Pair]
    models: Mapping[str, Pair]
    packages: Mapping[str, Pair]
    recipe: Mapping[str, Pair]

    @property
    def same_data(self) -> bool:
        """Whether no row, field or value differs."""
        return not (
            self.added or self.removed or self.fields_added or self.fields_removed or self.values
        )

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        return asdict(self) | {"same_data": self.same_data}

    def sentences(self) -> list[str]:
        """Return what changed in the data, one sentence for each thing, for a version history.

        Texts of a recipe stand in them as they are: whoever renders them escapes them.
        """
        told = []
        for counts, verb in ((self.added, "added"), (self.removed, "removed")):
            if counts:
                whys = "; ".join(f"{count:,}: {why}" for why, count in counts.items())
                told.append(f"{sum(counts.values()):,} rows {verb} ({whys}).")
        for fields, verb in ((self.fields_added, "added"), (self.fields_removed, "removed")):
            if fields:
                told.append(f"Fields {verb}: {', '.join(fields)}.")
        for field, count in self.values.items():
            told.append(f"{count:,} values of {field} changed.")
        for name, (old, new) in self.columns.items():
            told.append(f"Column {name}: {old or 'none'} before, {new or 'none'} now.")
        for name, (old, new) in self.models.items():
            told.append(f"{name}: {old or 'none'} before, {new or 'none'} now.")
        return told or ["No row and no value changed."]


def compare(first: Released, second: Released) -> Changes:
    """Compare two releases.

    Reads a row group of each at a time, and holds no more than the ids of all rows.

    Args:
        first: The earlier one.
        second: The later one.

    Raises:
        RebuildError: A shard is missing or damaged, or its rows are not in the order of slots.
    """
    one, two = first.ids().combine_chunks(), second.ids().combine_chunks()
    in_two, in_one = pc.is_in(one, value_set=two), pc.is_in(two, value_set=one)
    kept = one.filter(in_two)
    if not kept.equals(two.filter(in_one)):
        raise RebuildError(
            "the two releases do not have their rows in the same order",
            f"{first.where}; {second.where}",
            "a release has its rows in slot order: see whether one was changed, prequery verify",
        )
    fields = first.schema().names, second.schema().names
    common = [name for name in fields[0] if name in fields[1] and name != "id"]
    values = _changed_values(first, second, in_two, in_one, common) if len(kept) else {}
    return Changes(
        before=first.title,
        after=second.title,
        rows=(len(one), len(two)),
        kept=len(kept),
        added=_why(second, in_one, first),
        removed=_why(first, in_two, second),
        fields_added=[name for name in fields[1] if name not in fields[0]],
        fields_removed=[name for name in fields[0] if name not in fields[1]],
        values=values,
        columns=_pairs(_columns(first.lock), _columns(second.lock)),
        models=_pairs(_models(first.lock), _models(second.lock)),
        packages=_pairs(first.lock.get("packages", {}), second.lock.get("packages", {})),
        recipe=_recipe_changes(first, second),
    )


def _taken(release: Released, mask: pa.Array, names: Sequence[str]) -> Iterator[pa.Table]:
    """Yield the rows of a release that a mask over all of them takes, a row group at a time."""
    start = 0
    for table in release.tables(names):
        taken = table.filter(mask.slice(start, len(table)))
        start += len(table)
        if len(taken):
            yield taken


def _changed_values(
    first: Released, second: Released, in_two: pa.Array, in_one: pa.Array, names: Sequence[str]
) -> dict[str, int]:
    """Count the values of kept rows that differ, by field."""
    counts: Counter[str] = Counter()
    pairs = _aligned(_taken(first, in_two, names), _taken(second, in_one, names))
    for one, two in pairs:
        for name in names:
            old, new = one[name], two[name]
            if not old.equals(new):
                counts[name] += _differing(old.combine_chunks(), new.combine_chunks())
    return {name: counts[name] for name in names if counts[name]}


def _aligned(
    first: Iterator[pa.Table], second: Iterator[pa.Table]
) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Yield the same rows of two streams, whatever their row groups are."""
    one, two = next(first, None), next(second, None)
    while one is not None and two is not None:
        count = min(len(one), len(two))
        yield one.slice(0, count), two.slice(0, count)
        one = one.slice(count) if count < len(one) else next(first, None)
        two = two.slice(count) if count < len(two) else next(second, None)


def _differing(old: pa.Array, new: pa.Array) -> int:
    """Count the places at which two arrays differ; null equals null, and NaN equals NaN."""
    if old.type != new.type or pa.types.is_nested(old.type):
        pairs = zip(old.to_pylist(), new.to_pylist(), strict=True)
        return sum(one != two for one, two in pairs)
    differs = pc.fill_null(pc.not_equal(old, new), False)
    if pa.types.is_floating(old.type):
        both = pc.and_(pc.is_nan(old), pc.is_nan(new))
        differs = pc.and_not(differs, pc.fill_null(both, False))
    differs = pc.or_(differs, pc.xor(pc.is_null(old), pc.is_null(new)))
    return int(pc.sum(differs).as_py() or 0)


def _why(here: Released, is_there: pa.Array, there: Released) -> dict[str, int]:
    """Say why rows of one release are not in the other, by its recipe and their values here."""
    absent = pc.invert(is_there)
    missing = int(pc.sum(absent).as_py() or 0)
    if not missing:
        return {}
    if here.lock["config"]["fingerprint"] != there.lock["config"]["fingerprint"]:
        return {ANEW: missing}
    try:
        recipe = there.recipe()
    except BuildError:
        return {f"{UNTOLD}: the recipe of {there.title} cannot be read here": missing}
    judge = _Judge(recipe, there, here.schema().names)
    counts: Counter[str] = Counter()
    for table in _taken(here, absent, judge.reads):
        counts.update(judge.reasons(table))
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


class _Judge:
    """Applies one release's recipe to another's rows.

    Args:
        recipe: That decides.
        release: Whose it is.
        known: Fields that the rows have.
    """

    def __init__(self, recipe: AnyRecipe, release: Released, known: Sequence[str]) -> None:
        steps = Steps(recipe)
        self._end = int(release.lock["build"]["attempts"])
        self._filters: list[Filter] = [one for one in steps.leading if one.reads <= set(known)]
        unread = [one.text for one in steps.leading if not one.reads <= set(known)]
        following = [one.text for one in steps.following]
        # What no filter that can be applied rejects was rejected by one of these.
        left = [f"filter: {text}" for text in (*unread, *following)]
        self._else = left[0] if len(left) == 1 else f"one of: {'; '.join(left)}" if left else UNTOLD
        self._behind = f"{BEHIND} of {release.title}"
        self.reads = sorted({"id"}.union(*(one.reads for one in self._filters)))

    def reasons(self, table: pa.Table) -> list[str]:
        """Return why each of some rows is not in the release."""
        batch = {name: table[name].to_pylist() for name in self.reads}
        found: list[str | None] = [
            self._behind if slot_of(row_id) >= self._end else None for row_id in batch["id"]
        ]
        for step in self._filters:
            for at, kept in enumerate(step.keep(batch)):
                if not kept and found[at] is None:
                    found[at] = f"filter: {step.text}"
        return [self._else if reason is None else reason for reason in found]


def _pairs(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, Pair]:
    """Return what differs between two mappings."""
    return {
        name: (before.get(name), after.get(name))
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    }


def _columns(held: Lock) -> dict[str, str]:
    """Return version and pins of every column, in a few words."""
    told = {}
    for name, column in held.get("columns", {}).items():
        pins = ", ".join(f"{key} {value}" for key, value in sorted(column["pins"].items()))
        told[name] = f"version {column['version']}" + (f" ({pins})" if pins else "")
    return told


def _models(held: Lock) -> dict[str, str]:
    """Return what wrote and judged, in a few words each."""

    def told(model: Mapping[str, Any]) -> str:
        weights = model.get("weights_sha256")
        shown = f"{model['model_id']}@{model['revision'][:12]}"
        return shown + (f", weights {weights[:12]}" if weights else "")

    found = {}
    for role, voice in (("Generator", held), ("Responder", held.get("responder"))):
        if voice and voice.get("generator") and voice.get("prefix"):
            found[role] = told(voice["generator"])
            found[f"{role}'s prefix"] = json.dumps(voice["prefix"]["text"])
    for name, judge in held.get("judges", {}).items():
        found[f"Judge {name}"] = told(judge["model"])
    return found


def _recipe_changes(first: Released, second: Released) -> dict[str, Pair]:
    """Return the keys at which two recipes differ."""
    before, after = _flat(first), _flat(second)
    changes: dict[str, Pair] = {}
    for key in (*before, *(key for key in after if key not in before)):
        old, new = before.get(key), after.get(key)
        if old == new:
            continue
        if isinstance(old, list) and isinstance(new, list):
            gone = [entry for entry in old if entry not in new]
            come = [entry for entry in new if entry not in old]
            moved = not gone and not come
            old, new = (old, new) if moved else (gone or None, come or None)
        changes[key] = (_json(old), _json(new))
    return changes


def _flat(release: Released) -> dict[str, object]:
    """Return a recipe's keys, those of mappings joined by dots, with their values."""
    text = release.recipe_text()
    try:
        top = parse(text, f"{release.where}, {release.config}.yaml").plain()
    except BuildError:
        return {"(the recipe cannot be read)": text}

    def spread(value: object, path: str) -> Iterator[tuple[str, object]]:
        if isinstance(value, dict):
            for key, inner in value.items():
                yield from spread(inner, f"{path}.{key}" if path else str(key))
        else:
            yield path, value

    return dict(spread(top, ""))


def _json(value: object) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False, default=str)
