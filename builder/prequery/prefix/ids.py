"""Token ids of the prefix: what the template means, and what the endpoint reads."""

from prequery.endpoint import Asks, Request, Token
from prequery.errors import PrefixError
from prequery.prefix.shape import Prefix
from prequery.prefix.splitting import control_tokens
from prequery.recipe import Sampling


async def agree(
    endpoint: Asks, pieces: Prefix, tokens: list[Token]
) -> tuple[str, tuple[int, ...], str]:
    """See that the endpoint reads the prefix as the template means it.

    Args:
        endpoint: Is asked what it would see.
        pieces: Of the template, from `split`.
        tokens: Of the template's whole rendering, as the endpoint itself tokenizes it.

    Returns:
        The text to send, its ids, and what was done about BOS.

    Raises:
        PrefixError: It does not.
    """
    meant = _ids_before(tokens, pieces.text, endpoint.address)
    _control_tokens_are_single(tokens, pieces, endpoint.address)
    return await _one_bos(endpoint, pieces.text, tokens, meant)


def _ids_before(tokens: list[Token], text: str, address: str) -> tuple[int, ...]:
    before = [token for token in tokens if token.start < len(text)]
    last = before[-1] if before else None
    if last is None or last.stop != len(text):
        raise PrefixError(
            "the tokenizer merges the end of the prefix with the user's first word",
            f"{address}, prefix {text[-40:]!r}",
            "this template has no clean border before the user's words; use another model",
        )
    return tuple(token.id for token in before)


def _control_tokens_are_single(tokens: list[Token], pieces: Prefix, address: str) -> None:
    whole = {token.text for token in tokens}
    # A default system prompt may speak of tags, thoughts may be marked by plain words, and the
    # brackets of `[INST]` are plain words to the models that had them first.
    spoken = control_tokens(pieces.system_prompt or "") + list(pieces.think or ())
    for control in control_tokens(pieces.text + pieces.suffix):
        if control not in whole and control not in spoken and not control.startswith("["):
            raise PrefixError(
                f"the control token {control!r} is not one token for this endpoint",
                f"{address}, /chat_tokenize",
                "the served tokenizer does not fit the chat template; serve the model's own",
            )


async def _one_bos(
    endpoint: Asks, text: str, tokens: list[Token], meant: tuple[int, ...]
) -> tuple[str, tuple[int, ...], str]:
    """Return the text to send, its ids, and what was done about BOS.

    `/generate` always adds the tokenizer's special tokens. A prefix that starts with BOS text
    would then carry two.
    """
    sent = await _ids(endpoint, text)
    if sent is None:
        return await _one_bos_by_count(endpoint, text, tokens[0].text, meant)
    if sent == meant:
        return text, sent, "the endpoint adds no token of its own"
    if sent[1:] == meant and sent[:1] != meant[:1]:
        return text, sent, f"the endpoint adds BOS (id {sent[0]}), the template has none"
    first = tokens[0].text
    if sent[1:] == meant and first and text.startswith(first):
        stripped = text[len(first) :]
        if await _ids(endpoint, stripped) == meant:
            said = f"the endpoint adds BOS (id {meant[0]}); the template's own was taken off"
            return stripped, meant, said
    at = next(
        (i for i, (a, b) in enumerate(zip(sent, meant, strict=False)) if a != b),
        min(len(sent), len(meant)),
    )
    raise PrefixError(
        f"the endpoint reads the prefix otherwise than the template means it, from token {at} on: "
        f"{list(sent[at : at + 8])} for {list(meant[at : at + 8])}",
        f"{endpoint.address}, /tokenize against /chat_tokenize",
        "serve the model with its own tokenizer",
    )


async def _ids(endpoint: Asks, text: str) -> tuple[int, ...] | None:
    found = await endpoint.tokenize(text)
    return None if found is None else tuple(found)


async def _one_bos_by_count(
    endpoint: Asks, text: str, first: str, meant: tuple[int, ...]
) -> tuple[str, tuple[int, ...], str]:
    """Do what `_one_bos` does where the endpoint shows no ids: it counts the tokens of a prompt."""
    counted = await _count(endpoint, text)
    if counted == len(meant):
        return text, meant, "the endpoint adds no token of its own, by its count"
    if counted == len(meant) + 1 and first and text.startswith(first):
        stripped = text[len(first) :]
        if await _count(endpoint, stripped) == len(meant):
            return stripped, meant, "the endpoint adds BOS, by its count; the template's is off"
    raise PrefixError(
        f"the endpoint counts {counted} tokens in the prefix, the template means {len(meant)}",
        f"{endpoint.address}, usage.prompt_tokens",
        "serve the model with its own tokenizer, from a server that has /tokenize",
    )


async def _count(endpoint: Asks, text: str) -> int | None:
    request = Request(prompt=text, sampling=Sampling(max_new_tokens=1))
    return (await endpoint.generate(request, "prefix")).prompt_tokens
