"""A row as somebody's dataset has it, before any column: their fields under our names."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from prequery import rows
from prequery.births import Check, Flat
from prequery.conversation import Candidate
from prequery.errors import DatasetError
from prequery.recipe import ROLES, Annotation

if TYPE_CHECKING:
    from datasets import Features

OWN: Mapping[str, str] = {
    "id": "string",  # fingerprint[:12]-number of the row in the dataset
    "instruction": "string",  # null: the dataset's is
    "response": "string",  # null: the dataset's is, or it has none
    "turns": "int32",  # what users say; null: there is no conversation
}
"""Flat fields of ours in every row, with their dtypes; `messages` is another."""

RENAMED = "source_"
"""Stands before the name of a field of the dataset that is taken."""

_SPEAKER, _WORDS = ("role", "from"), ("content", "value")
_FILTERED = {
    "string": "string",
    "large_string": "string",
    "bool": "bool",
    **dict.fromkeys(("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32"), "int64"),
    **dict.fromkeys(("float16", "float32", "float64"), "float64"),
}
"""Types of the dataset's fields that filters can compare, and as what."""


@dataclass(frozen=True)
class Given:
    """Rows that are there already.

    A field of the dataset keeps its name, unless the name is one of ours, a column's or one that
    trainers misread beside `messages`: then it is `source_` and the name. A field that `fields`
    names is not kept a second time.

    Args:
        recipe: Says which of their fields is what.
        theirs: Features of the dataset.
    """

    recipe: Annotation
    theirs: "Features"

    def __post_init__(self) -> None:
        fields = self.recipe.dataset.fields
        for key, name in vars(fields).items():
            if name is None:
                continue
            if name not in self.theirs:
                raise self._bad(
                    f"the dataset has no field {name!r}",
                    key,
                    f"choose one of: {', '.join(self.theirs)}",
                )
            if key != "messages" and not _is_text(self.theirs[name]):
                raise self._bad(
                    f"the field {name!r} is no text: {self.theirs[name]!r:.200}",
                    key,
                    "choose a field of texts; a conversation is named as messages",
                )
        if fields.messages is not None and self._keys is None:
            raise self._bad(
                f"the field {fields.messages!r} is no list of messages: "
                f"{self.theirs[fields.messages]!r:.200}",
                "messages",
                "choose a list of {role, content} or {from, value}",
            )
        self._refuse_clashes()
        self._refuse_reads()

    def features(self, columns: Mapping[str, str]) -> "Features":
        """Return the schema of rows with these columns: ours, theirs, the columns."""
        from datasets import Features, List, Value

        ours: dict[str, Any] = {name: Value(dtype) for name, dtype in OWN.items()}
        said = List({"role": Value("string"), "content": Value("string")})
        kept = {new: self.theirs[old] for old, new in self.kept.items()}
        flat = rows.features(columns)
        measured = {name: flat[name] for name in columns}
        return Features({"id": ours.pop("id"), "messages": said, **ours, **kept, **measured})

    def row(self, candidate: Candidate, choice: Mapping[str, Any]) -> Flat:
        """Return a row of the dataset with our fields in it."""
        messages = self._messages(candidate.slot, choice)
        return {
            "id": rows.id_of(self.recipe.fingerprint, candidate.slot),
            "messages": messages,
            "instruction": self._text("instruction", choice, messages),
            "response": self._text("response", choice, messages),
            "turns": None if messages is None else sum(one["role"] == "user" for one in messages),
            **{new: choice[old] for old, new in self.kept.items()},
        }

    def check(self, columns: Mapping[str, str]) -> Check | None:
        """Return nothing: Arrow refuses what is not as their own types say."""
        return None

    @cached_property
    def kept(self) -> dict[str, str]:
        """Names of the fields that are kept, each with its name in a row."""
        mapped = set(vars(self.recipe.dataset.fields).values())
        kept = (name for name in self.theirs if name not in mapped)
        return {name: RENAMED + name if name in self._taken else name for name in kept}

    @cached_property
    def dtypes(self) -> dict[str, str]:
        """Fields that filters can compare before columns, with their dtypes."""
        simple = {
            new: _FILTERED[self.theirs[old].dtype]
            for old, new in self.kept.items()
            if getattr(self.theirs[old], "dtype", None) in _FILTERED
        }
        return {**OWN, **simple}

    @cached_property
    def _taken(self) -> frozenset[str]:
        """Names that no field of the dataset keeps."""
        given = (name for column in self.recipe.columns for name in column.gives())
        return frozenset((*OWN, *rows.EVIDENCE, *rows.RESERVED, *given))

    @cached_property
    def _roles(self) -> dict[str, str]:
        """What the dataset calls who speaks, and what `messages` call it."""
        return {**ROLES, **(self.recipe.dataset.roles or {})}

    @cached_property
    def _keys(self) -> tuple[str, str] | None:
        """What a message calls who speaks and what is said; null: it is no message."""
        kind = self.theirs[self.recipe.dataset.fields.messages]
        inner = getattr(kind, "feature", kind[0] if isinstance(kind, list) else None)
        names = set(inner) if isinstance(inner, Mapping) else set()
        pairs = (pair for pair in zip(_SPEAKER, _WORDS, strict=True) if names.issuperset(pair))
        return next(pairs, None)

    def _messages(self, slot: int, choice: Mapping[str, Any]) -> list[dict[str, str | None]] | None:
        """Return the conversation; null where the dataset's is, or a text of it."""
        fields = self.recipe.dataset.fields
        if fields.messages is None:
            said = choice[fields.instruction or ""]
            if said is None or (fields.response and choice[fields.response] is None):
                return None
            user: dict[str, str | None] = {"role": "user", "content": said}
            if fields.response is None:
                return [user]
            return [user, {"role": "assistant", "content": choice[fields.response]}]
        if choice[fields.messages] is None:
            return None
        assert self._keys is not None
        speaker, words = self._keys
        roles, made = self._roles, []
        for number, message in enumerate(choice[fields.messages]):
            if message is None or message[speaker] not in roles:
                who = None if message is None else message[speaker]
                raise DatasetError(
                    f"nobody is known who speaks as {who!r:.80}",
                    f"{self.recipe.dataset.path}, row {slot}, message {number} of "
                    f"{fields.messages!r}",
                    f"say who that is: roles: {{{who}: user}}, or --role {who}=user",
                )
            made.append({"role": roles[message[speaker]], "content": message[words]})
        return made

    def _text(
        self, key: str, choice: Mapping[str, Any], messages: list[dict[str, Any]] | None
    ) -> Any:
        """Return the instruction, or the response; null where there is none."""
        fields = self.recipe.dataset.fields
        if fields.messages is None:
            name = vars(fields)[key]
            return None if name is None else choice[name]
        said = iter(messages or ())
        asked = next((one["content"] for one in said if one["role"] == "user"), None)
        if key == "instruction":
            return asked
        return next((one["content"] for one in said if one["role"] == "assistant"), None)

    def _refuse_clashes(self) -> None:
        names = list(self.kept.values())
        twice = next((name for name in names if names.count(name) > 1 or name in self._taken), None)
        if twice is not None:
            raise self._bad(
                f"two fields would be named {twice!r}",
                "path",
                f"rename the dataset's field {twice!r}: {RENAMED!r} is put before names that "
                "are taken",
            )

    def _refuse_reads(self) -> None:
        there = {*OWN, "messages", *self.kept.values()}
        for column in self.recipe.columns:
            missing = [name for name in column.reads if name not in there]
            if missing:
                raise DatasetError(
                    f"column {column.name!r} reads {missing[0]!r}, which is told of a model's own "
                    "answers and of no dataset",
                    f"{self.recipe.source}, columns",
                    "remove the column",
                )

    def _bad(self, what: str, key: str, fix: str) -> DatasetError:
        where = "dataset.path" if key == "path" else f"dataset.fields.{key}"
        return DatasetError(what, f"{self.recipe.source}, {where}", fix)


def _is_text(kind: Any) -> bool:
    return getattr(kind, "dtype", None) in ("string", "large_string")
