"""Derive the pre-query prefix from a chat template, and prove it against the endpoint.

There is no table of models. The model's own template is rendered with a sentinel where the user's
words go, and split at the sentinel: before it is the *prefix*, behind it the *suffix*, which ends
the user's turn and opens the assistant's.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from prequery.endpoint import Asks, Info, Request, Token
from prequery.errors import EndpointError, PrefixError
from prequery.recipe import Generator, Sampling

SENTINEL = "Sentinel words"
OTHER_SENTINEL = "another, 42 lines\nof it"
SYSTEM_SENTINEL = "system sentinel"
OTHER_SYSTEM_SENTINEL = "another, for 1 system"
THINK = ("<think>", "</think>")

_CONTROL = re.compile(r"<[^<>\s]{1,60}>|\[/?[A-Z_]{2,30}\]")
_GREETING = re.compile(
    r"how (can|may) i (help|assist)|i('m| am) (here|ready) to (help|assist)|"
    r"what can i (do|help)|i('m| am) an ai",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Prefix:
    """What is sent for pass 1, and what turns its answer into a request for pass 2.

    Args:
        text: Sent as the prompt of pass 1. Without the BOS text where the endpoint adds BOS.
        suffix: From the end of the instruction to the first character of the response.
        ids: What the endpoint makes of `text`.
        system_prompt: What the template puts there by itself; null when it puts none.
        stop: Strings at which a user's turn is over, should the model not know its own.
        bos: One sentence on the beginning-of-sequence token.
        system: Texts before and behind a system prompt of the recipe's, up to the user's words;
            null where the template takes no system message.
        answer: In a conversation, the texts between a user's words and the assistant's, and
            between these and the next user's; null where the template has no such form.
        think: Markers of a think block; null where the model has none.
    """

    text: str
    suffix: str
    ids: tuple[int, ...]
    system_prompt: str | None
    stop: tuple[str, ...]
    bos: str
    system: tuple[str, str] | None = None
    answer: tuple[str, str] | None = None
    think: tuple[str, str] | None = None

    @classmethod
    def from_json(cls, noted: Mapping[str, Any]) -> Self:
        """Return a prefix that was written down as JSON."""
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in noted.items()
        }
        return cls(**values)

    def ask_instruction(
        self, turns: Sequence[tuple[str, str]] = (), system: str | None = None
    ) -> str:
        """Return the prompt of pass 1.

        Args:
            turns: Instruction and response of the turns so far.
            system: System prompt instead of the template's own.

        Raises:
            PrefixError: The template takes no system message, or no second user turn.
        """
        said = self.text if system is None else system.join(self._form("system", self.system))
        for instruction, response in turns:
            behind_user, behind_assistant = self._form("second user turn", self.answer)
            said += instruction + behind_user + response + behind_assistant
        return said

    def ask_response(
        self,
        instruction: str,
        turns: Sequence[tuple[str, str]] = (),
        system: str | None = None,
    ) -> str:
        """Return the prompt of pass 2; the arguments are those of `ask_instruction`."""
        return self.ask_instruction(turns, system) + instruction + self.suffix

    def _form(self, what: str, form: tuple[str, str] | None) -> tuple[str, str]:
        if form is None:
            raise PrefixError(
                f"the chat template has no form for a {what}",
                "the recipe's steering or turns",
                "use another model, or a recipe with one turn and the template's own system prompt",
            )
        return form


def check_model(info: Info, generator: Generator, address: str) -> None:
    """Refuse an endpoint that serves another model than the recipe names.

    Raises:
        EndpointError: The id differs, or the revision where the endpoint tells one.
    """
    served = f"{info.model_id}@{info.model_sha or 'unknown revision'}"
    wanted = f"{generator.model}@{generator.revision}"
    same_revision = info.model_sha in (None, generator.revision)
    if info.model_id != generator.model or not same_revision:
        raise EndpointError(
            f"the endpoint serves {served}, the recipe asks for {wanted}",
            address,
            "point --endpoint at the right model, or change generator.model and .revision",
        )


async def derive(endpoint: Asks) -> Prefix:
    """Derive the prefix of the served model.

    Raises:
        PrefixError: The template cannot be split, or the endpoint would not read the prefix as
            the template means it.
        EndpointError: The endpoint has no chat template, or does not answer.
    """
    rendering = await endpoint.render([{"role": "user", "content": SENTINEL}])
    text, suffix = _split(rendering.templated_text, SENTINEL, endpoint.address)
    other = await endpoint.render([{"role": "user", "content": OTHER_SENTINEL}])
    if _split(other.templated_text, OTHER_SENTINEL, endpoint.address) != (text, suffix):
        raise PrefixError(
            "the chat template writes other text around other user messages",
            f"{endpoint.address}, /chat_tokenize",
            "this template cannot be used: no prefix would fit every instruction",
        )
    meant = _ids_before(rendering.tokenize_response, text, endpoint.address)
    _control_tokens_are_single(rendering.tokenize_response, text, suffix, endpoint.address)
    whole = text
    text, ids, bos = await _one_bos(endpoint, text, rendering.tokenize_response, meant)
    system = await _system_form(endpoint, suffix)
    default = _default_system(whole, system)
    if system is not None:
        # What was taken off the prefix is taken off here: the endpoint adds it to every prompt.
        system = (system[0].removeprefix(whole[: len(whole) - len(text)]), system[1])
    return Prefix(
        text=text,
        suffix=suffix,
        ids=ids,
        system_prompt=default,
        stop=_stop(text, suffix),
        bos=bos,
        system=system,
        answer=await _answer_form(endpoint, whole, suffix),
        think=await _think_markers(endpoint, suffix),
    )


async def prove(endpoint: Asks, prefix: Prefix, sampling: Sampling) -> None:
    """Ask the endpoint four times, and see that it continues the prefix as it stands.

    An endpoint that puts raw prompts into a chat template of its own makes the model greet
    instead of ask, and counts more prompt tokens than were sent.

    Raises:
        EndpointError: It does one of both.
    """
    short = Sampling(sampling.temperature, sampling.top_p, sampling.top_k, None, 32)
    answers = []
    for seed in range(1, 5):
        request = Request(
            prompt=prefix.text, sampling=short, seed=seed, stop=prefix.stop, logprobs=False
        )
        answer = await endpoint.generate(request, "proof of the prefix")
        if answer.error is not None:
            raise EndpointError(
                f"the endpoint refuses the prefix: {answer.error}",
                f"{endpoint.address}, pass 1",
                "lower max_new_tokens or correct the sampling of the recipe's instructions",
            )
        answers.append(answer)
    counted = answers[0].prompt_tokens
    greetings = sum(bool(_GREETING.search(answer.text)) for answer in answers)
    wrapped = counted is not None and counted != len(prefix.ids)
    if wrapped or greetings >= 2:
        why = (
            f"it counts {counted} prompt tokens where {len(prefix.ids)} were sent"
            if wrapped
            else f"{greetings} of 4 answers greet, as {answers[0].text[:60]!r}"
        )
        raise EndpointError(
            f"the endpoint applies a chat template of its own to raw prompts: {why}",
            f"{endpoint.address}, /generate",
            "use an endpoint with raw completions; a greeting is no instruction",
        )


def _split(rendered: str, sentinel: str, address: str) -> tuple[str, str]:
    found = rendered.count(sentinel)
    if found != 1:
        how = "does not show the user's words as they are" if found == 0 else "repeats them"
        raise PrefixError(
            f"the chat template {how}: {found} sentinels in {rendered[:200]!r}",
            f"{address}, /chat_tokenize",
            "this template cannot be split into a prefix; use another model",
        )
    before, _, after = rendered.partition(sentinel)
    if not before:
        raise PrefixError(
            "the chat template puts nothing before a user's words",
            f"{address}, /chat_tokenize",
            "without a prefix a model has nothing to continue; use an aligned chat model",
        )
    return before, after


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


def _control_tokens_are_single(tokens: list[Token], text: str, suffix: str, address: str) -> None:
    whole = {token.text for token in tokens}
    for control in _CONTROL.findall(text + suffix):
        if control not in whole:
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


async def _rendered(endpoint: Asks, *said: str, roles: str) -> str | None:
    """Render messages; null where the template refuses them."""
    names = {"s": "system", "u": "user", "a": "assistant"}
    messages = [{"role": names[r], "content": text} for r, text in zip(roles, said, strict=True)]
    try:
        return (await endpoint.render(messages)).templated_text
    except EndpointError:
        return None


async def _system_form(endpoint: Asks, suffix: str) -> tuple[str, str] | None:
    """Return the texts around a system prompt; null where there is no place for one."""
    found = []
    for system, user in ((SYSTEM_SENTINEL, SENTINEL), (OTHER_SYSTEM_SENTINEL, OTHER_SENTINEL)):
        text = await _rendered(endpoint, system, user, roles="su")
        if text is None or text.count(system) != 1 or not text.endswith(user + suffix):
            return None
        before, _, behind = text.removesuffix(user + suffix).partition(system)
        found.append((before, behind))
    return found[0] if found[0] == found[1] else None


def _default_system(text: str, system: tuple[str, str] | None) -> str | None:
    """Return what stands, without being asked for, where a system prompt would."""
    if system is None:
        return None
    before, behind = system
    fits = text.startswith(before) and text.endswith(behind)
    return (text[len(before) : len(text) - len(behind)] if fits else "") or None


async def _answer_form(endpoint: Asks, text: str, suffix: str) -> tuple[str, str] | None:
    """Return the texts around an assistant's words between two users' words.

    Null where they differ from turn to turn, or where the template changes what was said before.
    """
    said = ("First question", "First answer", "Second question", "Second answer", "Third question")
    two = await _rendered(endpoint, *said[:3], roles="uau")
    if two is None or not two.startswith(text + said[0]) or not two.endswith(said[2] + suffix):
        return None
    between = two[len(text + said[0]) : len(two) - len(said[2] + suffix)]
    if between.count(said[1]) != 1:
        return None
    behind_user, _, behind_assistant = between.partition(said[1])
    middle = behind_user + said[3] + behind_assistant
    expected = f"{text}{said[0]}{between}{said[2]}{middle}{said[4]}{suffix}"
    three = await _rendered(endpoint, *said, roles="uauau")
    return (behind_user, behind_assistant) if three == expected else None


async def _think_markers(endpoint: Asks, suffix: str) -> tuple[str, str] | None:
    """Return the markers of a think block, where the template opens one or drops one of old."""
    opening, closing = THINK
    thought = f"{opening}\nA thought\n{closing}\n\nAn answer"
    history = await _rendered(endpoint, "First question", thought, "Second question", roles="uau")
    drops = history is not None and "An answer" in history and "A thought" not in history
    return THINK if drops or opening in suffix else None


def _stop(text: str, suffix: str) -> tuple[str, ...]:
    """Return where a turn is over: the first control token behind and in front of the words."""
    behind = _CONTROL.search(suffix)
    front = _CONTROL.findall(text)[-1:]
    plain = [suffix.strip().splitlines()[0]] if not behind and suffix.strip() else []
    found = ([behind[0]] if behind else plain) + front
    return tuple(dict.fromkeys(found))
