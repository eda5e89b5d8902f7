"""Judge columns whose question is made of a text in a file: what they share."""

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from importlib.resources import files
from typing import Any, ClassVar

from prequery.columns.base import Prompt, QuestionColumn

QUALITY = ("very poor", "poor", "average", "good", "excellent")
LONGEST_CHARS = 8_000
"""A judged text is cut behind so many characters, so that it fits the judge's context."""
EXPLANATION_CHARS = 300


class PromptFile:
    """What a column has, besides its form, that asks by the text in `prompts/` of its name."""

    name: ClassVar[str]

    @cached_property
    def prompt(self) -> str:
        """The text of the file, without white space around it."""
        path = files("prequery.columns") / "prompts" / f"{self.name}.txt"
        return path.read_text(encoding="utf-8").strip()


def pinned(file: str, text: str) -> dict[str, str]:
    """Return what a column's pins say of a text that it asks by, under the name of its file."""
    return {file: f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"}


class PromptColumn(QuestionColumn, PromptFile):
    """A column that asks a chat model, by a prompt in `prompts/`, for an answer in JSON.

    The judged texts are data. Each stands between two lines with a mark that is made of the texts
    themselves, so that no text can hold the mark that would end it, and the prompt says that
    nothing between them is an instruction to the judge.

    Attributes:
        labels: Field to its labels.
        ordered: Fields whose labels stand in their order, lowest first.
        lists: Fields that hold several of the labels of another field, by that field's name.
    """

    labels: ClassVar[Mapping[str, tuple[str, ...]]]
    ordered: ClassVar[frozenset[str]] = frozenset()
    lists: ClassVar[Mapping[str, str]] = {}
    asks: ClassVar[type[Prompt]] = Prompt

    def ask(self, row: Mapping[str, Any]) -> Prompt | None:
        """Return the prompt with the row's texts in it."""
        texts = [row[name] for name in self.reads]
        if any(text is None or not text.strip() for text in texts):
            return None
        mark = hashlib.sha256("\0".join((self.name, *texts)).encode()).hexdigest()[:16]
        fenced = {
            name: f"<{name} {mark}>\n{text[:LONGEST_CHARS]}\n</{name} {mark}>"
            for name, text in zip(self.reads, texts, strict=True)
        }
        whole = "\n\n".join(fenced.values())
        return Prompt(f"{self.prompt}\n\n{whole}\n\n{self._reminder}", self.schema)

    def read(self, said: str, model: str) -> dict[str, Any]:
        """Return what the JSON says; null where it is no JSON, or a label that there is not."""
        try:
            answer = json.loads(said)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            return dict.fromkeys(self.features)
        return {name: self._value(name, answer.get(name)) for name in self.features}

    def pins(self) -> dict[str, str]:
        """Hashes of the prompt and of the schema that answers follow."""
        schema = json.dumps(self.schema, separators=(",", ":"))
        return pinned(f"{self.name}.txt", self.prompt) | pinned(f"{self.name}.schema", schema)

    @cached_property
    def schema(self) -> dict[str, Any]:
        """What the answer has to look like, its fields in the order of `features`."""
        properties = {name: self._property(name) for name in self.features}
        return {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        }

    def _property(self, name: str) -> dict[str, Any]:
        if name in self.labels:
            return {"type": "string", "enum": list(self.labels[name])}
        if name in self.lists:
            items = {"type": "string", "enum": list(self.labels[self.lists[name]])}
            return {"type": "array", "items": items, "maxItems": 4}
        return {"type": "string", "maxLength": EXPLANATION_CHARS}

    def _value(self, name: str, said: Any) -> Any:
        if name in self.labels:
            return said if said in self.labels[name] else None
        if name in self.lists:
            known = self.labels[self.lists[name]]
            return [one for one in said if one in known] if isinstance(said, list) else None
        return said[:EXPLANATION_CHARS] if isinstance(said, str) else None

    @property
    def _reminder(self) -> str:
        return f"Answer in JSON with the fields {', '.join(self.features)}, and nothing else."
