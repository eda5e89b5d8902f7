"""Derive the prefix: render, split, and see that the endpoint reads it as the template means it."""

import asyncio
from dataclasses import replace

from prequery.endpoint import Asks, Rendering
from prequery.errors import RefusalError
from prequery.prefix import ids
from prequery.prefix.shape import Prefix
from prequery.prefix.splitting import Messages, Refused, conversations, split


async def derive(endpoint: Asks) -> Prefix:
    """Derive the prefix of the served model.

    Raises:
        PrefixError: The template cannot be split, or the endpoint would not read the prefix as
            the template means it.
        EndpointError: The endpoint has no chat template, or does not answer.
    """
    lead = None
    rendered = await _render(endpoint, conversations())
    if isinstance(rendered["one"], Refused):
        # Some templates want a system message before any other.
        lead = ""
        again = await _render(endpoint, conversations(lead=lead))
        lead, rendered = (None, rendered) if isinstance(again["one"], Refused) else (lead, again)
    texts = {
        name: one if isinstance(one, Refused) else one.templated_text
        for name, one in rendered.items()
    }
    pieces = split(texts, f"{endpoint.address}, its chat template", lead=lead)
    first = rendered["one"]
    assert isinstance(first, Rendering)
    text, found, bos = await ids.agree(endpoint, pieces, first.tokenize_response)
    return replace(_without(pieces, pieces.text.removesuffix(text)), ids=found, bos=bos)


def _without(pieces: Prefix, bos_text: str) -> Prefix:
    """Return the pieces without the BOS text at the beginning of a prompt."""
    system, refused = pieces.system, dict(pieces.refused)
    if system and not system[0].startswith(bos_text):
        system, refused["system"] = None, "it begins otherwise under a system prompt"
    if system:
        system = (system[0].removeprefix(bos_text), system[1])
    text = pieces.text.removeprefix(bos_text)
    return replace(pieces, text=text, system=system, refused=refused)


async def _render(endpoint: Asks, asked: dict[str, Messages]) -> dict[str, Rendering | Refused]:
    async def one(messages: Messages) -> Rendering | Refused:
        try:
            return await endpoint.render(messages)
        except RefusalError as refusal:
            return Refused(refusal.what)

    found = await asyncio.gather(*(one(messages) for messages in asked.values()))
    return dict(zip(asked, found, strict=True))
