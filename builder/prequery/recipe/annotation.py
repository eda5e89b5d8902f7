"""The recipe of somebody else's dataset: where its rows are, and which of its fields say what."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property

from prequery.columns.base import Column
from prequery.filters import Filter, Pick
from prequery.recipe.parts import Config, Other, Recipe, Release, digest
from prequery.recipe.section import Section, short

ALL_ROWS = 10**9
ROLES: Mapping[str, str] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
}
"""What datasets call who speaks, and what `messages` call it."""


@dataclass(frozen=True)
class Fields:
    """Which field of the dataset says what: `messages`, or `instruction` and, if any, `response`.

    Args:
        instruction: Field with the instruction's text.
        response: Field with the response's text; null: there is none.
        messages: Field with a conversation: a list of {role, content} or {from, value}.
    """

    instruction: str | None = None
    response: str | None = None
    messages: str | None = None


@dataclass(frozen=True)
class Dataset:
    """Somebody's dataset.

    Args:
        path: Its id on the Hub, or a file (Parquet, JSON lines, CSV), a pattern of files, or a
            folder: relative to the recipe, or an fsspec URL.
        revision: Full commit hash, of a dataset on the Hub.
        sha256: Of the files together, of any other.
        config: Which of its configs; null: it has one.
        split: Which of its splits.
        fields: Which of its fields say what.
        roles: What it calls those who speak, besides the names of `ROLES`.
    """

    path: str
    fields: Fields
    revision: str | None = None
    sha256: str | None = None
    config: str | None = None
    split: str = "train"
    roles: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Annotation(Config):
    """What to measure of somebody's dataset, checked.

    Args:
        dataset: Whose rows are measured.
        rows: At most so many accepted rows.
        candidates: Rows that pass the filters before the first choice among rows, and are chosen
            from; null: all.
        judges: Models that columns ask about rows, by the name that the columns use.
        source: File that it was read from.
        text: That file, letter by letter.
    """

    name: str
    version: str
    dataset: Dataset
    rows: int
    candidates: int | None
    judges: Mapping[str, Other]
    columns: tuple[Column, ...]
    filters: tuple[Filter | Pick, ...]
    release: Release
    source: str
    text: str

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of what decides a row before it is measured, in hexadecimal.

        It begins every row id. Where the dataset lies is no part of it, but on the Hub.
        """
        place = None if self.dataset.revision is None else self.dataset.path
        return digest({"dataset": asdict(self.dataset) | {"path": place}})

    @property
    def goal(self) -> int:
        """How many rows must pass before the reading can end."""
        return self.candidates or (ALL_ROWS if self.following else self.rows)

    @property
    def preference(self) -> None:
        """No response is compared with another one."""
        return None


AnyRecipe = Recipe | Annotation
"""A recipe of rows that are written, or of rows that are there."""


def read_dataset(section: Section) -> Dataset:
    """Check the section `dataset`.

    Raises:
        RecipeError: It is not pinned, or does not say which field is which.
    """
    pins = {
        "revision": section.text("revision", r"[0-9a-f]{40}", _REVISION_HINT, default=None),
        "sha256": section.text("sha256", r"[0-9a-f]{64}", "64 hexadecimal digits", default=None),
    }
    if len([pin for pin in pins.values() if pin]) != 1:
        what = "the dataset is pinned by both revision and sha256"
        if not any(pins.values()):
            what = "the dataset is not pinned, and what is read could change"
        fix = "give a revision to a dataset on the Hub, sha256 to files"
        hint = "`prequery annotate DATASET --recipe FILE` pins what FILE does not name"
        raise section.bad("revision", what, f"{fix}; {hint}")
    return Dataset(
        path=section.text("path"),
        fields=_fields(section.section("fields", Fields)),
        config=section.text("config", default=None),
        split=section.text("split", pattern=r"\w+(\.\w+)*", hint="a split's name", default="train"),
        roles=_roles(section),
        **pins,
    )


_REVISION_HINT = "the full commit hash, 40 hexadecimal digits; a branch or tag can move"


def _fields(section: Section) -> Fields:
    found = Fields(**{name: section.text(name, default=None) for name in section.nodes})
    if (found.messages is None) == (found.instruction is None):
        what = "fields names neither messages nor instruction"
        if found.messages is not None:
            what = "fields names messages and instruction, and the first holds the second"
        fix = "write {messages: FIELD}, or {instruction: FIELD, response: FIELD}"
        raise section.bad("messages", what, fix)
    if found.messages is not None and found.response is not None:
        what = "fields names messages and response, and the first holds the second"
        raise section.bad("response", what, "remove response")
    return found


def _roles(section: Section) -> dict[str, str] | None:
    roles = {}
    for name, node in section.mapping("roles").items():
        if node.value not in ROLES.values():
            allowed = f"allowed: {', '.join(dict.fromkeys(ROLES.values()))}"
            raise section.bad("roles", f"the role {name!r} is {short(node)}", allowed)
        roles[name] = str(node.value)
    return roles or None
