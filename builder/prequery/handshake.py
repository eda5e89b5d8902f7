"""Find out which protocol an endpoint speaks, and return its client."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prequery.completions import CompletionsEndpoint
from prequery.endpoint import Client, TgiEndpoint
from prequery.errors import EndpointError
from prequery.recipe import EndpointProtocol
from prequery.tei import TeiEndpoint
from prequery.transport import AbsentError, Patience


@asynccontextmanager
async def connect(
    address: str,
    token: str | None = None,
    patience: Patience | None = None,
    protocol: EndpointProtocol = "auto",
    model: str | None = None,
) -> AsyncIterator[Client]:
    """Yield a client of an endpoint, as long as the block.

    Args:
        address: http(s)://host[:port][/path], without credentials.
        token: Bearer token.
        patience: How long faults are borne.
        protocol: `auto` asks for `/info` first, which tells TEI and TGI apart, because TGI also
            answers the routes of raw completions, and its own protocol says more.
        model: The one that is meant, where an endpoint serves several.

    Raises:
        EndpointError: Nothing answers, or nothing that is known here.
    """
    patience = patience or Patience()
    if protocol in ("auto", "tei"):
        async with TeiEndpoint(address, token, patience) as tei:
            if protocol == "tei" or await tei.is_spoken():
                yield tei
                return
    if protocol in ("auto", "tgi"):
        async with TgiEndpoint(address, token, patience) as tgi:
            if protocol == "tgi" or await tgi.is_spoken():
                yield tgi
                return
    async with CompletionsEndpoint(address, token, patience, model=model) as raw:
        try:
            await raw.info()
        except AbsentError as error:
            if protocol != "auto":
                raise
            raise EndpointError(
                f"neither TGI's protocol nor that of raw completions is spoken here: "
                f"no GET /info, and {error.what.partition(': ')[2]}",
                address,
                f"point the recipe's endpoint.url, or --endpoint, at {raw.server}",
            ) from None
        yield raw
