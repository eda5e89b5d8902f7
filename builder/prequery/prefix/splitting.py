"""Conversations of known words, and what a template puts around those words.

The same few conversations are rendered whatever the template is. Nothing is looked up: where the
pieces do not rebuild each rendering letter by letter, the form is refused with its reason.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from prequery.errors import PrefixError
from prequery.prefix.shape import Pair, Prefix, Role

T = TypeVar("T")
Messages = list[dict[str, str]]

# Capitals, digits, marks that some templates escape, a line break: words of every kind.
USER = ("Sentinel words", 'another, 42 "lines" & <more>\nof {it}', "third: it's\n\n- said")
ASSISTANT = ("Reply one", 'the 2nd <reply> & "so"\n{on}')
SYSTEM = ("System sentinel", 'other "rules" <1> &\n{more}')
THOUGHTS = "musing"

MARKS = (
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
)
"""Marks of thoughts that are looked for where a template does not show its own."""

REASONING: Messages = [
    {"role": "user", "content": USER[0]},
    # Templates differ in the name; each reads its own.
    {
        "role": "assistant",
        "content": ASSISTANT[0],
        "reasoning_content": THOUGHTS,
        "thinking": THOUGHTS,
        "reasoning": THOUGHTS,
    },
]
"""A response whose thoughts stand apart from its words."""

_CONTROL = re.compile(r"(?<!<)<[^<>\s]{1,60}>(?!>)|\[/?[A-Z_]{2,30}\]")
_ROLE_WORD = re.compile(r"((?:#+ )?[^\s<>\[\]]{1,30}:)\s*$")


@dataclass(frozen=True)
class Refused:
    """A conversation that the template does not take, and why, in its own words."""

    why: str


Rendered = Mapping[str, str | Refused]


class _NoFormError(Exception):
    """A form of conversation that the template does not have."""


def conversations(marks: Sequence[Pair] = MARKS, lead: str | None = None) -> dict[str, Messages]:
    """Return what is to be rendered with the generation prompt, by name.

    Args:
        marks: Of thoughts.
        lead: System prompt of those conversations that are about none; for a template that takes
            no conversation without.
    """
    one, two, three = USER
    yes, no = ASSISTANT
    return {
        "one": _talk(lead, one),
        "other": _talk(lead, two),
        "padded": _talk(lead, _padded(one)),
        "two turns": _talk(lead, one, yes, two),
        "three turns": _talk(lead, one, yes, two, no, three),
        "padded turns": _talk(lead, one, _padded(yes), two),
        "system": _talk(SYSTEM[0], one),
        "other system": _talk(SYSTEM[1], two),
        "padded system": _talk(_padded(SYSTEM[0]), one),
        "system with turns": _talk(SYSTEM[0], one, yes, two, no, three),
    } | {f"thoughts in {marked[0]}": _talk(lead, one, _thinking(marked), two) for marked in marks}


def shown_marks(rendered: str | Refused, pieces: Prefix) -> Pair | None:
    """Return the marks that a template puts around thoughts that a message carries apart.

    Args:
        rendered: Of `REASONING`, without generation prompt.
        pieces: Of the same template.
    """
    begin = pieces.begin() + USER[0]
    if isinstance(rendered, Refused) or not rendered.startswith(begin):
        return None
    before, found, behind = rendered.removeprefix(begin).partition(THOUGHTS)
    closing, follows, _ = behind.partition(ASSISTANT[0])
    if not found or not follows or not closing.strip():
        return None
    # What opens the assistant's turn is no mark of thoughts.
    for header in ((pieces.answer or ("",))[0], pieces.suffix):
        opening = before.removeprefix(header).strip()
        if header and before.startswith(header) and opening:
            return opening, closing.strip()
    controls = control_tokens(before)
    return (controls[-1], closing.strip()) if controls else None


def split(
    rendered: Rendered,
    where: str,
    marks: Sequence[Pair] = MARKS,
    own: Sequence[Pair] = (),
    lead: str | None = None,
) -> Prefix:
    """Return the pieces of a template, as yet without token ids.

    Args:
        rendered: What the template made of each of `conversations(marks, lead)`.
        where: Source of the template, for errors.
        marks: Of thoughts, that the conversations were made with.
        own: Those of them that the template itself is known to use.
        lead: That the conversations were made with.

    Raises:
        PrefixError: There is no prefix.
    """
    text, suffix = _first_turn(rendered, where)
    refused: dict[str, str] = {}
    system = _or_refuse(refused, "system", lambda: _system(rendered, suffix))
    answer = _or_refuse(refused, "answer", lambda: _answer(rendered, text, suffix))
    if system and answer:
        whole = system[0] + SYSTEM[0] + system[1] + _rebuilt(answer) + suffix
        if rendered["system with turns"] != whole:
            refused["system with turns"] = _why(
                rendered["system with turns"],
                "it moves or changes a system prompt when the conversation goes on",
            )
    think, history = _thoughts(rendered, text, suffix, answer, marks, own)
    return Prefix(
        text=text,
        suffix=suffix,
        ids=(),
        system_prompt=lead if lead is not None else _default_system_prompt(text, system),
        stop=stop_strings(text, suffix),
        bos="",
        system=system,
        answer=answer,
        think=think,
        think_open=think is not None and suffix.rfind(think[0]) > suffix.rfind(think[1]),
        history=history,
        trims=_trims(rendered, text, suffix, system, answer),
        refused=refused,
    )


def control_tokens(text: str) -> list[str]:
    """Return what looks like a control token, in order."""
    return _CONTROL.findall(text)


def stop_strings(text: str, suffix: str) -> tuple[str, ...]:
    """Return where a turn is over: what ends the user's words, and what begins them.

    They are control tokens where there are some, otherwise the words that name the roles, as
    `ASSISTANT:` and `USER:`.
    """
    behind = _CONTROL.search(suffix)
    ends = behind[0] if behind else next(iter(suffix.strip().splitlines()), "")
    controls = list(_CONTROL.finditer(text))
    word = _ROLE_WORD.search(text, controls[-1].end() if controls else 0)
    begins = word[1] if word else controls[-1][0] if controls else ""
    return tuple(dict.fromkeys(one.strip() for one in (ends, begins) if one.strip()))


def _talk(system: str | None, *words: str) -> Messages:
    roles = ("user", "assistant")
    said = [{"role": roles[at % 2], "content": text} for at, text in enumerate(words)]
    return said if system is None else [{"role": "system", "content": system}, *said]


def _padded(words: str) -> str:
    return f" \n{words}\n "


def _thinking(marks: Pair) -> str:
    return f"{marks[0]}\n{THOUGHTS}\n{marks[1]}\n\n{ASSISTANT[0]}"


def _first_turn(rendered: Rendered, where: str) -> tuple[str, str]:
    one = rendered["one"]
    if isinstance(one, Refused):
        raise PrefixError(
            f"the chat template takes no user message: {one.why}",
            where,
            "use a chat model whose template takes one",
        )
    found = one.count(USER[0])
    if found != 1:
        how = "does not show the user's words as they are" if found == 0 else "repeats them"
        raise PrefixError(
            f"the chat template {how}: {found} sentinels in {one[:200]!r}",
            where,
            "this template cannot be split into a prefix; use another model",
        )
    text, _, suffix = one.partition(USER[0])
    if not text:
        raise PrefixError(
            "the chat template puts nothing before a user's words",
            where,
            "without a prefix a model has nothing to continue; use an aligned chat model",
        )
    if rendered["other"] != text + USER[1] + suffix:
        raise PrefixError(
            "the chat template writes other text around other user messages",
            where,
            "this template cannot be used: no prefix would fit every instruction",
        )
    return text, suffix


def _or_refuse(refused: dict[str, str], form: str, find: Callable[[], T]) -> T | None:
    try:
        return find()
    except _NoFormError as reason:
        refused[form] = str(reason)
        return None


def _system(rendered: Rendered, suffix: str) -> Pair:
    before, between, after = _around(rendered["system"], (SYSTEM[0], USER[0]))
    if after != suffix:
        raise _NoFormError("it ends a user's turn otherwise under a system prompt")
    if rendered["other system"] != before + SYSTEM[1] + between + USER[1] + suffix:
        raise _NoFormError("it writes other text around other system prompts")
    return before, between


def _answer(rendered: Rendered, text: str, suffix: str) -> Pair:
    words = (USER[0], ASSISTANT[0], USER[1], ASSISTANT[1], USER[2])
    begin, first, second, third, fourth, end = _around(rendered["three turns"], words)
    if begin != text or end != suffix:
        raise _NoFormError("it begins or ends a conversation of several turns otherwise")
    if (first, second) != (third, fourth):
        raise _NoFormError("it writes other text between the words of the third turn")
    shorter = text + USER[0] + first + ASSISTANT[0] + second + USER[1] + suffix
    if rendered["two turns"] != shorter:
        raise _NoFormError("it writes an earlier turn otherwise when a later one follows")
    return first, second


def _rebuilt(answer: Pair) -> str:
    """Return the three turns from the first words to the last ones."""
    one, two, three = USER
    yes, no = ASSISTANT
    return one + answer[0] + yes + answer[1] + two + answer[0] + no + answer[1] + three


def _around(rendered: str | Refused, words: Sequence[str]) -> list[str]:
    """Return what stands before, between and behind words, each of which stands there once."""
    if isinstance(rendered, Refused):
        raise _NoFormError(f"it refuses that: {rendered.why}")
    pieces, rest = [], rendered
    for one in words:
        if rendered.count(one) != 1 or one not in rest:
            how = "leaves out or changes" if one not in rendered else "repeats or reorders"
            raise _NoFormError(f"it {how} what was said: {one!r}")
        piece, _, rest = rest.partition(one)
        pieces.append(piece)
    return [*pieces, rest]


def _why(rendered: str | Refused, otherwise: str) -> str:
    return f"it refuses that: {rendered.why}" if isinstance(rendered, Refused) else otherwise


def _default_system_prompt(text: str, system: Pair | None) -> str | None:
    """Return what stands, without being asked for, where a system prompt would."""
    if system is None or len(text) < len(system[0]) + len(system[1]):
        return None
    if not (text.startswith(system[0]) and text.endswith(system[1])):
        return None
    return text[len(system[0]) : len(text) - len(system[1])] or None


def _trims(
    rendered: Rendered, text: str, suffix: str, system: Pair | None, answer: Pair | None
) -> tuple[Role, ...]:
    """Return whose words lose white space around them, all of it or some."""
    as_given: dict[Role, tuple[str, str]] = {"user": ("padded", text + _padded(USER[0]) + suffix)}
    if system:
        padded = system[0] + _padded(SYSTEM[0]) + system[1] + USER[0] + suffix
        as_given["system"] = ("padded system", padded)
    if answer:
        padded = text + USER[0] + answer[0] + _padded(ASSISTANT[0]) + answer[1] + USER[1] + suffix
        as_given["assistant"] = ("padded turns", padded)
    return tuple(role for role, (name, padded) in as_given.items() if rendered[name] != padded)


def _thoughts(
    rendered: Rendered,
    text: str,
    suffix: str,
    answer: Pair | None,
    marks: Sequence[Pair],
    own: Sequence[Pair],
) -> tuple[Pair | None, Literal["whole", "cut", "trimmed", "unknown"]]:
    """Return the template's marks of thoughts, and how it shows those of an earlier turn."""
    header = suffix + (answer[0] if answer else "")
    for marked in sorted(marks, key=lambda one: (one not in own, one[0] not in header)):
        known = marked in own or marked[0] in header
        if answer is None:
            if known:
                return marked, "unknown"
            continue
        shown = rendered[f"thoughts in {marked[0]}"]
        around = (text + USER[0] + answer[0], answer[1] + USER[1] + suffix)
        if shown == around[0] + _thinking(marked) + around[1]:
            if known:
                return marked, "whole"
        elif shown == around[0] + ASSISTANT[0] + around[1]:
            return marked, "trimmed"
        elif shown == around[0] + "\n\n" + ASSISTANT[0] + around[1]:
            return marked, "cut"
        elif known:
            return marked, "unknown"
    return None, "whole"
