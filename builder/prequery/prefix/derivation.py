"""Derive the prefix: render, split, and see that the endpoint reads it as the template means it."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

from prequery.endpoint import Asks, Token
from prequery.errors import PrefixError, RefusalError
from prequery.prefix import ids
from prequery.prefix.sandbox import Conversation
from prequery.prefix.shape import Pair, Prefix
from prequery.prefix.splitting import (
    MARKS,
    REASONING,
    USER,
    Refused,
    conversations,
    shown_marks,
    split,
)
from prequery.prefix.template import ChatTemplate, find
from prequery.recipe import Generator

_DATES = ("%Y-%m-%d", "%d %b %Y", "%d %B %Y", "%B %d, %Y", "%d/%m/%Y", "%m/%d/%Y")
"""How templates write the date of the day."""


async def derive(
    endpoint: Asks, model: Generator | None = None, base: Path | str = Path()
) -> Prefix:
    """Derive the prefix of the served model.

    Args:
        endpoint: Serves it.
        model: Names the source of the template; null: the endpoint renders it.
        base: Folder that the paths of a recipe are relative to.

    Raises:
        PrefixError: The template cannot be split, or the endpoint would not read the prefix as
            the template means it.
        EndpointError: The endpoint cannot render its template, or does not answer.
    """
    template = await asyncio.to_thread(find, model, Path(base)) if model else None
    source: Source = _Rendered(template, model) if template and model else _Served(endpoint)
    pieces, whole = await cut(source)
    if template is None:
        _has_no_date(pieces.text, source.where)
    pieces, meant = ids.border(pieces, whole, await source.tokens(whole), endpoint.address)
    text, found, bos = await ids.agree(endpoint, pieces, meant, template)
    pieces = _without(pieces, pieces.text.removesuffix(text))
    return replace(
        pieces,
        ids=found,
        bos=bos,
        source=template.source if template else "endpoint",
        template_sha256=template.sha256 if template else None,
    )


async def unproven(template: ChatTemplate, model: Generator) -> Prefix:
    """Return the pieces of a template as far as they can be known without an endpoint.

    Raises:
        PrefixError: The template cannot be split.
    """
    pieces, _ = await cut(_Rendered(template, model))
    return replace(pieces, source=template.source, template_sha256=template.sha256)


class Source(Protocol):
    """Renders conversations."""

    @property
    def where(self) -> str:
        """What it is, for errors."""

    async def render(self, asked: Mapping[str, Conversation]) -> dict[str, str | Refused]:
        """Render conversations by name."""

    async def marks(self, pieces: Prefix) -> list[Pair]:
        """Return the marks of thoughts that the template is seen to know."""

    async def tokens(self, whole: str) -> list[Token] | None:
        """Return the model's own tokens of what was rendered; null: unknown."""


@dataclass
class _Served:
    """The endpoint renders."""

    endpoint: Asks
    _tokens: dict[str, list[Token]] = field(default_factory=dict)

    @property
    def where(self) -> str:
        return f"{self.endpoint.address}, its chat template"

    async def render(self, asked: Mapping[str, Conversation]) -> dict[str, str | Refused]:
        async def one(messages: Sequence[Mapping[str, str]]) -> str | Refused:
            try:
                found = await self.endpoint.render(messages)
            except RefusalError as refusal:
                return Refused(refusal.what)
            self._tokens[found.templated_text] = found.tokenize_response
            return found.templated_text

        found = await asyncio.gather(*(one(each.messages) for each in asked.values()))
        return dict(zip(asked, found, strict=True))

    async def marks(self, pieces: Prefix) -> list[Pair]:
        return []

    async def tokens(self, whole: str) -> list[Token] | None:
        return self._tokens[whole]


@dataclass
class _Rendered:
    """A template that is rendered here.

    Args:
        template: What is rendered.
        model: With what its recipe freezes.
    """

    template: ChatTemplate
    model: Generator
    _in_parts: bool = False

    @property
    def where(self) -> str:
        return f"{self.template.source}, its chat template"

    async def render(self, asked: Mapping[str, Conversation]) -> dict[str, str | Refused]:
        rendered = await self._once(asked)
        one = rendered.get("one")
        if not self._in_parts and isinstance(one, str) and USER[0] not in one:
            # Templates of models that see images take lists of parts only.
            self._in_parts = True
            rendered = await self._once(asked)
        return rendered

    async def _once(self, asked: Mapping[str, Conversation]) -> dict[str, str | Refused]:
        if self._in_parts:
            asked = {name: one.in_parts() for name, one in asked.items()}
        outcome = await asyncio.to_thread(self.template.render, asked, self.model)
        return outcome.rendered

    async def marks(self, pieces: Prefix) -> list[Pair]:
        told = await self.render({"": Conversation(REASONING, add_generation_prompt=False)})
        shown = shown_marks(told[""], pieces)
        named = [marks for marks in MARKS if marks[1] in self.template.text]
        return ([shown] if shown else []) + [marks for marks in named if marks != shown]

    async def tokens(self, whole: str) -> list[Token] | None:
        return await asyncio.to_thread(self.template.encode, whole)


async def cut(source: Source) -> tuple[Prefix, str]:
    """Return the pieces, and the rendering of one turn that they were cut from."""

    async def render(marks: tuple[Pair, ...], lead: str | None) -> dict[str, str | Refused]:
        asked = conversations(marks, lead)
        return await source.render({name: Conversation(said) for name, said in asked.items()})

    lead = None
    rendered = await render(MARKS, lead)
    if isinstance(rendered["one"], Refused):
        # Some templates want a system message before any other.
        again = await render(MARKS, "")
        if not isinstance(again["one"], Refused):
            lead, rendered = "", again
    pieces = split(rendered, source.where, lead=lead)
    own = await source.marks(pieces)
    new = tuple(marks for marks in own if marks not in MARKS)
    if new:
        rendered |= await render(new, lead)
    if own:
        pieces = split(rendered, source.where, (*new, *MARKS), own, lead)
    whole = rendered["one"]
    assert isinstance(whole, str)
    return pieces, whole


def _has_no_date(text: str, where: str) -> None:
    """Refuse a prefix that an endpoint renders anew each day."""
    now = datetime.now(UTC)
    days = [now + timedelta(days=off) for off in (-1, 0, 1)]
    for form in _DATES:
        for day in days:
            if (written := day.strftime(form)) in text:
                raise PrefixError(
                    f"the chat template writes the date of the day, {written!r}, so the prefix "
                    "would change with it",
                    where,
                    "name the template and freeze a date: generator.template: tokenizer, "
                    "and generator.date: 2026-01-31",
                )


def _without(pieces: Prefix, bos_text: str) -> Prefix:
    """Return the pieces without the BOS text at the beginning of a prompt."""
    system, refused = pieces.system, dict(pieces.refused)
    if system and not system[0].startswith(bos_text):
        system, refused["system"] = None, "it begins otherwise under a system prompt"
    if system:
        system = (system[0].removeprefix(bos_text), system[1])
    text = pieces.text.removeprefix(bos_text)
    return replace(pieces, text=text, system=system, refused=refused)
