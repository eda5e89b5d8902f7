"""Where a chat template comes from when it is not the endpoint that renders it."""

import datetime
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prequery.endpoint import Token
from prequery.errors import PrefixError
from prequery.prefix import gguf, tokenizer
from prequery.prefix.sandbox import Conversation, Outcome, render
from prequery.recipe import Generator, Template


def _knows_no_ids(text: str) -> list[Token] | None:
    return None


@dataclass(frozen=True)
class ChatTemplate:
    """A chat template, and what its source tells of the tokenizer.

    Args:
        text: Jinja.
        source: In a few words; of a path only the name.
        special: Named special tokens that it may write, as `bos_token`.
        control: Id of each control token, where the source tells.
        encode: The model's own ids of a text; null where the source has no tokenizer.
        adds_bos: Whether the model's tokenizer adds BOS; null: unknown.
    """

    text: str
    source: str
    special: Mapping[str, str]
    control: Mapping[str, int] = field(default_factory=dict)
    encode: Callable[[str], list[Token] | None] = _knows_no_ids
    adds_bos: bool | None = None

    @property
    def sha256(self) -> str:
        """Of the template's text."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def bos(self) -> str | None:
        """Text of BOS."""
        return self.special.get("bos_token")

    def render(self, conversations: Mapping[str, Conversation], model: Generator) -> Outcome:
        """Render conversations with what the recipe freezes.

        Raises:
            PrefixError: It cannot be rendered, or asks for what the recipe leaves open.
        """
        outcome = render(
            self.text, conversations, {**self.special, **_frozen(model)}, model.date, self.source
        )
        if outcome.wants_date:
            raise PrefixError(
                "the chat template writes the date of the day, so the prefix would change with it",
                self.source,
                "freeze one in the recipe, as generator.date: 2026-01-31",
            )
        if "bos_token" in outcome.names and self.bos is None and _is_file(model.template):
            raise PrefixError(
                "the chat template writes a BOS token that a template file does not tell",
                self.source,
                "add it: generator.template: {file: PATH, bos_token: TEXT, eos_token: TEXT}",
            )
        return outcome


def find(model: Generator, base: Path) -> ChatTemplate | None:
    """Return the template that a recipe names; null: the endpoint renders its own.

    Args:
        model: Names it.
        base: Folder that paths in the recipe are relative to.

    Raises:
        PrefixError: It cannot be had.
    """
    named = model.template
    if named is None:
        return None
    if named.gguf is not None:
        path = base / named.gguf
        found = gguf.read(path)
        special = {"bos_token": found.bos, "eos_token": found.eos}
        return ChatTemplate(
            found.template,
            f"GGUF {path.name}",
            {key: text for key, text in special.items() if text is not None},
            found.control,
            adds_bos=found.adds_bos,
        )
    if named.file is not None:
        path = base / named.file
        special = {"bos_token": named.bos_token, "eos_token": named.eos_token}
        return ChatTemplate(
            _read(path),
            f"file {path.name}",
            {key: text for key, text in special.items() if text is not None},
        )
    if not named.tokenizer:
        folder = tokenizer.download(model.model, model.revision)
        source = f"tokenizer {model.model}@{model.revision}"
    else:
        folder = base / named.tokenizer
        source = f"tokenizer in {folder.name}"
        if not folder.is_dir():
            what = f"there is no folder {named.tokenizer!r} of tokenizer files"
            raise PrefixError(what, str(folder), "correct generator.template.tokenizer")
    held = tokenizer.read(folder)
    return ChatTemplate(held.template, source, held.special, encode=held.encode)


def _is_file(named: Template | None) -> bool:
    return named is not None and named.file is not None


def _frozen(model: Generator) -> dict[str, Any]:
    frozen: dict[str, Any] = {}
    if model.date is not None:
        # Llama 3.1 reads its date from here, and writes it so.
        frozen["date_string"] = datetime.date.fromisoformat(model.date).strftime("%d %b %Y")
    if model.thinking is not None:
        frozen |= {"enable_thinking": model.thinking, "thinking": model.thinking}
    return frozen


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        what = "the template file is not UTF-8"
    except OSError as error:
        what = f"the template file cannot be read: {error.strerror}"
    raise PrefixError(what, str(path), "correct generator.template.file")
