"""What a quality column is.

Column             a name, a version, what it reads and what it gives
├── RowColumn      sees a batch of rows
├── JudgeColumn    asks a model about one row at a time; QuestionColumn, one question
└── CorpusColumn   sees every candidate row

A column measures and nothing else: it never drops, reorders or edits rows. What a recipe may set
is a dataclass field of the column; what is always true of it is a class attribute.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar

Batch = Mapping[str, Sequence[Any]]
"""Field name to one value a row. Texts are valid Unicode; any value but `id` may be null."""

Values = dict[str, list[Any]]
"""Field name to one measured value a row, in the batch's order."""


@dataclass(frozen=True)
class Score:
    """A text for a model that scores.

    Args:
        text: To be scored.
        pair: Second text, for models that score pairs; null: there is none.
    """

    text: str
    pair: str | None = None


@dataclass(frozen=True)
class Prompt:
    """A message for a model that writes; it answers greedily.

    Args:
        text: The whole message.
        schema: JSON schema that the answer follows; null: the model's own way.
        max_new_tokens: Of the answer.
    """

    text: str
    schema: Mapping[str, Any] | None = None
    max_new_tokens: int = 256


@dataclass(frozen=True)
class Reading:
    """A text for a model to read: how likely does it find it?

    Args:
        text: To be read.
        instruction: User's words that the text is the response to; null: nothing stands before it.
    """

    text: str
    instruction: str | None = None


@dataclass(frozen=True)
class Continuation:
    """A text for a model to go on from, greedily, without any chat template.

    Args:
        text: Up to where the model goes on.
        stop: Strings that end what it writes; at most 4.
        max_new_tokens: Of what it writes.
    """

    text: str
    stop: tuple[str, ...] = ()
    max_new_tokens: int = 256


@dataclass(frozen=True)
class Embed:
    """A text for a model that embeds; one that is longer than the model reads is cut there.

    Args:
        text: To be embedded.
    """

    text: str


Question = Score | Prompt | Reading | Continuation | Embed
"""What a judge is asked about one row."""


class To(NamedTuple):
    """A question, and who asks it.

    Args:
        column: Its judge is asked, and its journal keeps the answer.
        question: What is asked.
        number: Of the question, where the column has several about a row.
    """

    column: "JudgeColumn"
    question: Question
    number: int = 0


class Said(NamedTuple):
    """What a judge answered.

    Args:
        text: Of a model that scores, its predictions as JSON; of one that embeds, the vector as
            `vectors.packed` writes it down; empty of one that read.
        model: Who said it: model@revision.
        logprob_sum: Of a text that was read: natural logarithm, over all its tokens.
        logprob_count: Of these tokens.
    """

    text: str
    model: str
    logprob_sum: float | None = None
    logprob_count: int = 0


Inquiry = Generator[Sequence[To], Sequence[Said | None], dict[str, Any]]
"""Yields what can be asked at the same time, is sent the answers in that order, null where there
is none, and returns the field values."""


Cost = Literal["cpu", "weights", "endpoint"]
"""What a column needs: nothing, a model file that comes with a package, or an endpoint."""

T = TypeVar("T")

_FOLDER = "_folder"
_VOUCHED = "_vouched"


@dataclass(frozen=True, kw_only=True)
class Column(ABC):
    """One measurement. Subclass `RowColumn`, `JudgeColumn` or `CorpusColumn`.

    Attributes:
        name: Name in a recipe, and of the module.
        version: From 1; raised whenever a value could change.
        reads: Fields of a row that it is given.
        features: Field name to `datasets` dtype, of every field that it gives. A dtype is one of
            `string`, `bool`, `int32`, `int64`, `float64`.
        evidence: As `features`, of fields that it gives to other columns and no row releases.
        cost: What it needs.
        hides: Whether rows that a filter rejects by it are not to be shown: what they hold is why.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    reads: ClassVar[tuple[str, ...]]
    features: ClassVar[Mapping[str, str]]
    evidence: ClassVar[Mapping[str, str]] = {}
    cost: ClassVar[Cost]
    hides: ClassVar[bool] = False

    def fingerprint(self) -> str:
        """SHA-256 of name, version, parameters and files, in hexadecimal: 64 characters."""
        content = {"name": self.name, "version": self.version, "parameters": asdict(self)}
        if self.reads_files():
            content["files"] = self.file_hashes()
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def inputs(self) -> tuple[str, ...]:
        """Return `reads`, and the evidence of other columns that its parameters want besides."""
        return self.reads

    def gives(self) -> dict[str, str]:
        """Return `features` and `evidence`."""
        return {**self.features, **self.evidence}

    def reads_files(self) -> tuple[str, ...]:
        """Return the files that its parameters name, as they are written there."""
        return ()

    def stand_in(self, folder: Path) -> None:
        """Say where relative names of files begin: the recipe's folder."""
        vars(self)[_FOLDER] = folder

    def vouch(self, hashes: Mapping[str, str]) -> None:
        """Take a lock's word for files that are not here: what was measured can be read without."""
        vars(self)[_VOUCHED] = hashes

    def path(self, name: str) -> Path:
        """Return where a file is that a parameter names."""
        folder: Path = vars(self).get(_FOLDER, Path())
        return folder / name

    def file_hashes(self) -> dict[str, str]:
        """Return each such file's `sha256:` with 64 hexadecimal digits, by its name."""
        hashes = {}
        vouched: Mapping[str, str] = vars(self).get(_VOUCHED, {})
        for name in self.reads_files():
            if name in vouched and not self.path(name).is_file():
                hashes[name] = vouched[name]
                continue
            with self.path(name).open("rb") as file:
                hashes[name] = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        return hashes

    def pins(self) -> dict[str, str]:
        """What decided the values besides this code, for the lock.

        Returns:
            Package name to version, and model file name to `sha256:` with 64 hexadecimal digits.
        """
        return {}

    def __getstate__(self) -> dict[str, Any]:
        # `datasets` copies and pickles builder configs; a loaded model must not travel with them.
        kept = {field.name: getattr(self, field.name) for field in fields(self)}
        return kept | {_FOLDER: vars(self)[_FOLDER]} if _FOLDER in vars(self) else kept


class RowColumn(Column):
    """A column whose value depends on its own row only."""

    cost: ClassVar[Cost] = "cpu"

    @abstractmethod
    def compute(self, batch: Batch) -> Values:
        """Measure a batch. The values must not depend on how rows are cut into batches."""


@dataclass(frozen=True, kw_only=True)
class JudgeColumn(Column):
    """A column that asks a model about each row.

    It says what to ask and reads what comes back; the build does the asking, through the faults of
    the endpoint and into a journal. A row that gets no answer is null.

    Args:
        judge: Name of one of the recipe's judges.
    """

    cost: ClassVar[Cost] = "endpoint"
    asks: ClassVar[type[Question]]

    judge: str

    @abstractmethod
    def inquire(self, row: Mapping[str, Any]) -> Inquiry:
        """Ask about a row, and return its field values.

        It may be gone through several times, and must ask the same each time.
        """

    def askers(self) -> "tuple[JudgeColumn, ...]":
        """Return the columns whose questions it asks: itself, where it needs no others."""
        return (self,)


class QuestionColumn(JudgeColumn):
    """A judge column of one question."""

    @abstractmethod
    def ask(self, row: Mapping[str, Any]) -> Question | None:
        """Return what to ask about a row; null: nothing, the row cannot be measured."""

    @abstractmethod
    def read(self, said: str, model: str) -> dict[str, Any]:
        """Return the field values of one answer, null for what it does not tell.

        Args:
            said: The answer's text: of a model that scores, its predictions as JSON.
            model: Who said it: model@revision.
        """

    def inquire(self, row: Mapping[str, Any]) -> Inquiry:
        """Ask about a row, and return its field values."""
        question = self.ask(row)
        if question is not None:
            (said,) = yield [To(self, question)]
            if said is not None:
                return self.read(said.text, said.model)
        return dict.fromkeys(self.gives())


class CorpusColumn(Column):
    """A column whose value depends on the other rows."""

    cost: ClassVar[Cost] = "cpu"

    @abstractmethod
    def compute(self, batches: Iterable[Batch]) -> Values:
        """Measure every candidate row.

        Args:
            batches: All rows in slot order, a part at a time, as often as they are gone through.
                Keep of them what the measurement needs: together their texts may not fit into
                memory. How rows are cut into batches must change no value.
        """


def each(function: Callable[[str], T], texts: Sequence[str | None]) -> list[T | None]:
    """Apply a function to every text and leave null where there is none."""
    return [None if text is None else function(text) for text in texts]
