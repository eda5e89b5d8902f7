"""The chat template that is served, and what follows from it: tokens, turns, and where they end."""

import re
import zlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from prequery.simulation.settings import Settings

SYSTEM = "You are a helpful assistant."
USER = "<|im_start|>user\n"
END = "<|im_end|>"
END_ID = 2
THINK = ("<think>", "</think>")
TODAY = "2000-01-01"
"""For templates that write the date."""

_CONTROL = re.compile(r"<[^<>\s]{1,60}>|\[/?[A-Z_]{2,30}\]")
_PLAIN = r"<\|\w+\|>| ?\w+|\s|[^\w\s]"
_SAID = ("First words", "Words between", "Last words")

Message = dict[str, str]


class RefusedError(Exception):
    """The template refuses a conversation; its words say why."""


class ChatTemplate:
    """A chat template and a tokenizer that fits it: its control tokens are single ones.

    Nothing is known of the template but what it renders. A prompt asks for an instruction where
    the header of a user's turn comes last in it, whatever follows that header.

    Args:
        settings: Its template and its BOS.

    Raises:
        RefusedError: The template does not take a user's message.
    """

    def __init__(self, settings: Settings) -> None:
        self.bos = settings.bos
        self._render = _jinja(settings) if settings.template else _chatml
        first, answer, second = _SAID
        alone = self.render([_message("user", first)])
        before, found, behind = alone.partition(first)
        if not found:
            raise RefusedError("it does not show a user's words")
        again = [_message("user", first), _message("assistant", answer), _message("user", second)]
        try:
            talk = self.render(again)
        except RefusedError:
            talk, answering, asking = alone, behind, before  # it takes one turn alone
        else:
            answering = talk.partition(first)[2].partition(answer)[0]
            asking = talk.partition(answer)[2].partition(second)[0]
        header = _header(before, asking)
        ends = _CONTROL.findall(asking.removesuffix(header)) + _CONTROL.findall(behind)
        self.end = next(iter(ends), END)
        """Token at which a turn is over."""
        self.thought_end = THINK[1] if behind.rstrip().endswith(THINK[0]) else ""
        """Token at which thoughts are over; empty where the template opens none."""
        self._asks = header.removeprefix(self.end).lstrip()
        self._answers = _common_start(behind, answering)
        tokens = {*_CONTROL.findall(alone + talk), self.end, self.thought_end, self.bos} - {""}
        longest_first = sorted(map(re.escape, tokens), key=len, reverse=True)
        self._token = re.compile("|".join([*longest_first, _PLAIN]))
        self.count = lru_cache(maxsize=256)(self._count)  # of pass 1 all prompts are the same

    def render(self, messages: Sequence[Message]) -> str:
        """Return a conversation with the assistant's turn opened.

        Raises:
            RefusedError: The template refuses it.
        """
        return self._render(messages)

    def asks(self, prompt: str) -> bool:
        """Tell whether a prompt is to be continued by a user's words."""
        return prompt.endswith(self._asks) or prompt.rfind(self._asks) > prompt.rfind(self._answers)

    def tokens(self, text: str, special: bool = False) -> list[dict[str, Any]]:
        """Split a text as the simulated tokenizer does: control tokens, words, the rest.

        Args:
            text: To be split.
            special: With the BOS that the tokenizer adds, if it does.
        """
        found = [
            {"id": self.token_id(m[0]), "text": m[0], "start": m.start(), "stop": m.end()}
            for m in self._token.finditer(text)
        ]
        if special and self.bos:
            bos = {"id": self.token_id(self.bos), "text": self.bos, "start": 0, "stop": 0}
            return [bos, *found]
        return found

    def token_id(self, text: str) -> int:
        """Return the id of a token."""
        if text == self.end:
            return END_ID
        return 3 + zlib.crc32(text.encode("utf-8", "replace")) % 130_000

    def _count(self, prompt: str) -> int:
        """Return how many tokens a prompt has, with the BOS that the tokenizer adds."""
        return len(self._token.findall(prompt)) + bool(self.bos)


def _chatml(messages: Sequence[Message]) -> str:
    """Render in ChatML, with a default system prompt."""
    given = list(messages)
    if not given or given[0]["role"] != "system":
        given = [_message("system", SYSTEM), *given]
    turns = [f"<|im_start|>{one['role']}\n{one['content']}{END}\n" for one in given]
    return "".join(turns) + "<|im_start|>assistant\n"


def _jinja(settings: Settings) -> Callable[[Sequence[Message]], str]:
    """Return what renders a template, in the sandbox that recipes' templates have."""
    # It takes longer to import than the whole server does without.
    import jinja2

    from prequery.prefix.rendering_process import environment

    compiled = environment(TODAY).from_string(settings.template or "")
    tokens = {"bos_token": settings.bos, "eos_token": settings.eos}

    def render(messages: Sequence[Message]) -> str:
        try:
            return compiled.render(messages=messages, add_generation_prompt=True, **tokens)
        except jinja2.TemplateError as error:
            raise RefusedError(str(error)) from None

    return render


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _header(first: str, later: str) -> str:
    """Return what the first and a later turn of the user begin with, without half a token."""
    begins = len(first) - len(_common_start(first[::-1], later[::-1]))
    borders = [edge for token in _CONTROL.finditer(first) for edge in token.span()]
    return first[min((edge for edge in borders if edge >= begins), default=begins) :]


def _common_start(one: str, other: str) -> str:
    length = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
    return one[:length] if length is not None else min(one, other, key=len)
