"""Token ids of the prefix: what the template means, and what the endpoint reads."""

from collections.abc import Sequence
from dataclasses import replace
from difflib import SequenceMatcher

from prequery.endpoint import Asks, Request, Token
from prequery.errors import PrefixError
from prequery.prefix.shape import Prefix
from prequery.prefix.splitting import USER, control_tokens
from prequery.prefix.template import ChatTemplate
from prequery.recipe import Sampling

Ids = tuple[int, ...]

_SERVE_ITS_OWN = "serve the model with its own tokenizer"
_GAP = "-"
_AROUND = 3


def border(
    pieces: Prefix, whole: str, tokens: list[Token] | None, address: str
) -> tuple[Prefix, list[Token] | None]:
    """Return the pieces with the border of a token before the user's words, and all tokens.

    Where the tokenizer joins white space at the end of the prefix to the user's first word, that
    space is the model's to write.

    Args:
        pieces: Of the template, from `split`.
        whole: Its rendering of one turn.
        tokens: Of that rendering, as the model means them; null: unknown.
        address: For errors.

    Raises:
        PrefixError: The tokenizer joins more than white space.
    """
    if tokens is None:
        return pieces, None
    stops = [token.stop for token in tokens if token.stop <= len(pieces.text)]
    cut = max(stops, default=0)
    joint = pieces.text[cut:]
    if joint.strip() or not cut:
        raise _merges(pieces.text, address)
    return replace(pieces, text=pieces.text[:cut], joint=joint), tokens


async def agree(
    endpoint: Asks, pieces: Prefix, tokens: list[Token] | None, template: ChatTemplate | None
) -> tuple[str, Ids, str]:
    """See that the endpoint reads prompts as the template means them.

    Args:
        endpoint: Is asked what it would see.
        pieces: From `border`.
        tokens: Of one turn, `text`, `USER[0]` and `suffix`, as the model means them; null where
            nobody but the endpoint knows.
        template: Where it was not the endpoint that rendered.

    Returns:
        The text to send, its ids, and what was done about BOS.

    Raises:
        PrefixError: It does not, or nothing can tell.
    """
    if tokens is None:
        assert template is not None
        return await _by_the_endpoint(endpoint, pieces, template)
    meant = tuple(token.id for token in tokens if token.stop <= len(pieces.text))
    if template is None:
        # Another's tokenizer is seen only by what it does not know. A local one is compared id
        # by id, and may spell its control tokens as it likes.
        _control_tokens_are_single(tokens, pieces, endpoint.address)
    first = tokens[0].text
    sent = await _ids(endpoint, pieces.text)
    if sent is None:
        return await _by_count(endpoint, pieces.text, first, meant)
    text, found, bos = await _one_bos(endpoint, pieces.text, first, meant, sent, tokens)
    turn = text + pieces.joint + USER[0] + pieces.suffix
    whole = await _ids(endpoint, turn)
    rest = tuple(token.id for token in tokens)[len(meant) :]
    if whole is not None and whole[len(found) :] != rest:
        raise _otherwise("a whole turn", whole, found + rest, endpoint.address, None)
    return text, found, bos


def _control_tokens_are_single(tokens: list[Token], pieces: Prefix, address: str) -> None:
    whole = {token.text for token in tokens}
    for control in _controls(pieces):
        if control not in whole:
            raise _not_single(control, f"{address}, its chat template")


def _controls(pieces: Prefix) -> list[str]:
    """Return what must be single tokens.

    A default system prompt may speak of tags, thoughts may be marked by plain words, and the
    brackets of `[INST]` are plain words to the models that had them first.
    """
    spoken = control_tokens(pieces.system_prompt or "") + list(pieces.think or ())
    found = control_tokens(pieces.text + pieces.suffix)
    return [one for one in dict.fromkeys(found) if one not in spoken and not one.startswith("[")]


def _not_single(control: str, where: str) -> PrefixError:
    return PrefixError(
        f"the control token {control!r} is not one token for this endpoint",
        where,
        "serve the model with its own tokenizer; where that is so and the model spells it in "
        "several tokens, say so by naming the tokenizer: generator.template: tokenizer",
    )


async def _one_bos(
    endpoint: Asks, text: str, first: str, meant: Ids, sent: Ids, tokens: Sequence[Token]
) -> tuple[str, Ids, str]:
    """Return the text to send, its ids, and what was done about BOS.

    `/generate` always adds the tokenizer's special tokens. A prefix that starts with BOS text
    would then carry two.
    """
    if meant[:1] == meant[1:2] and first in control_tokens(first):
        what = f"the chat template begins with {first!r} twice"
        raise PrefixError(what, f"{endpoint.address}, prefix", _SERVE_ITS_OWN)
    if sent == meant:
        return text, sent, "the endpoint adds no token of its own"
    if sent[1:] == meant and sent[:1] != meant[:1]:
        return text, sent, f"the endpoint adds BOS (id {sent[0]}), the template has none"
    if sent[1:] == meant and first and text.startswith(first):
        stripped = text[len(first) :]
        if await _ids(endpoint, stripped) == meant:
            said = f"the endpoint adds BOS (id {meant[0]}); the template's own was taken off"
            return stripped, meant, said
    raise _otherwise("the prefix", sent, meant, endpoint.address, tokens)


async def _by_the_endpoint(
    endpoint: Asks, pieces: Prefix, template: ChatTemplate
) -> tuple[str, Ids, str]:
    """Do what `agree` does where only the endpoint has a tokenizer."""
    where = f"{endpoint.address}, /tokenize"
    text = pieces.text
    sent, turn = await _ids(endpoint, text), await _ids(endpoint, text + USER[0] + pieces.suffix)
    if sent is None or turn is None:
        raise PrefixError(
            "nothing tells the token ids of the prefix: the endpoint has no /tokenize, and "
            f"{template.source} is no tokenizer",
            endpoint.address,
            "name the tokenizer: generator.template: tokenizer, or {tokenizer: FOLDER}",
        )
    if turn[: len(sent)] != sent:
        raise _merges(text, endpoint.address)
    for control in _controls(pieces):
        alone = await _ids(endpoint, control)
        known = template.control.get(control)
        if alone is None or alone[-1:] != ((known,) if known is not None else alone[-1:]):
            raise _not_single(control, where)
        if len(alone) > 2 or (len(alone) == 2 and alone[0] != sent[0]):
            raise _not_single(control, where)
    bos = template.bos
    if not bos or not text.startswith(bos):
        said = "the template writes no BOS; the endpoint adds what its tokenizer adds"
        return text, sent, said
    stripped = await _ids(endpoint, text.removeprefix(bos))
    if stripped == sent:
        raise _not_single(bos, where)
    if stripped is not None and sent[:1] == sent[1:2] and stripped == sent[1:]:
        said = f"the endpoint adds BOS (id {sent[0]}); the template's own was taken off"
        return text.removeprefix(bos), stripped, said
    if stripped == sent[1:]:
        return text, sent, "the endpoint adds no token of its own"
    raise _otherwise("the prefix", sent, stripped or (), endpoint.address, None)


async def _ids(endpoint: Asks, text: str) -> Ids | None:
    found = await endpoint.tokenize(text)
    return None if found is None else tuple(found)


async def _by_count(endpoint: Asks, text: str, first: str, meant: Ids) -> tuple[str, Ids, str]:
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


def _merges(text: str, address: str) -> PrefixError:
    return PrefixError(
        "the tokenizer merges the end of the prefix with the user's first word",
        f"{address}, prefix {text[-40:]!r}",
        "this template has no clean border before the user's words; use another model",
    )


def _otherwise(
    what: str, sent: Ids, meant: Ids, address: str, tokens: Sequence[Token] | None
) -> PrefixError:
    at = next(
        (i for i, (a, b) in enumerate(zip(sent, meant, strict=False)) if a != b),
        min(len(sent), len(meant)),
    )
    return PrefixError(
        f"the endpoint reads {what} otherwise than the template means it, from token {at} on:\n"
        + side_by_side(meant, sent, [token.text for token in tokens or ()]),
        f"{address}, /tokenize",
        _SERVE_ITS_OWN,
    )


def side_by_side(meant: Ids, sent: Ids, texts: Sequence[str] = ()) -> str:
    """Return both rows of ids, aligned, around the first difference.

    Args:
        meant: By the template.
        sent: As the endpoint reads it.
        texts: Of those that are meant; empty: unknown.
    """
    columns: list[tuple[str, str, str]] = []
    matcher = SequenceMatcher(None, meant, sent, autojunk=False)
    for _, a, b, c, d in matcher.get_opcodes():
        for offset in range(max(b - a, d - c)):
            i, j = a + offset, c + offset
            columns.append(
                (
                    repr(texts[i])[1:-1] if i < b and i < len(texts) else _GAP,
                    str(meant[i]) if i < b else _GAP,
                    str(sent[j]) if j < d else _GAP,
                )
            )
    differing = [at for at, (_, a, b) in enumerate(columns) if a != b]
    first = differing[0] if differing else 0
    shown = columns[max(first - _AROUND, 0) : first + 2 * _AROUND + 1]
    widths = [max(len(cell) for cell in column) for column in shown]
    rows = zip(*shown, strict=True)
    names = ("text", "template", "endpoint")
    return "\n".join(
        f"    {name:<8}  " + "  ".join(map(str.rjust, row, widths)).rstrip()
        for name, row in zip(names, rows, strict=True)
        if name != "text" or texts
    )
