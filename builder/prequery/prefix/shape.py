"""What a derivation gives: the pieces of a chat template, and prompts put together from them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from prequery.errors import PrefixError

Pair = tuple[str, str]
Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Prefix:
    """The pieces that a chat template puts around the words of a conversation.

    Args:
        text: Sent as the prompt of pass 1. Without the BOS text where the endpoint adds BOS.
        suffix: From the end of the instruction to the first character of the response.
        ids: What the endpoint makes of `text`.
        system_prompt: What the template puts there by itself; null when it puts none, empty when
            it takes no conversation without a system message.
        stop: Strings at which a user's turn is over, should the model not know its own.
        bos: One sentence on the beginning-of-sequence token.
        system: Before and behind a system prompt of one's own; both together end where the user's
            words begin, as `text` does. Null: see `refused`.
        answer: In a finished turn, between the user's and the assistant's words, and between those
            and the next user's words. The first may differ from `suffix`, as with thinking models.
            Null: see `refused`.
        think: Between what the model writes its thoughts, as `<think>` and `</think>`; null when
            the template shows no such marks.
        think_open: `suffix` has opened a block of thoughts: a response begins inside of it.
        history: How the template shows thoughts in an earlier response: `whole`; `cut`, with what
            follows the closing mark left as it is; or `trimmed`, cut and without white space
            around it. `unknown`: such a response cannot be shown.
        trims: Roles whose words the template shows without white space around them.
        refused: Why there is no `system`, no `answer`, or no `system with turns`.
        joint: White space between `text` and the user's words that the tokenizer joins to the
            first of them, as the space behind `[INST]`: the model writes it itself.
        source: Where the template is from.
        template_sha256: Of the template; null where only the endpoint has it.
    """

    text: str
    suffix: str
    ids: tuple[int, ...]
    system_prompt: str | None
    stop: tuple[str, ...]
    bos: str
    system: Pair | None = None
    answer: Pair | None = None
    think: Pair | None = None
    think_open: bool = False
    history: Literal["whole", "cut", "trimmed", "unknown"] = "whole"
    trims: tuple[Role, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    joint: str = ""
    source: str = "endpoint"
    template_sha256: str | None = None

    @classmethod
    def from_json(cls, noted: Mapping[str, Any]) -> Self:
        """Return a prefix that was written down as JSON."""
        lists = {key: tuple(value) for key, value in noted.items() if isinstance(value, list)}
        return cls(**{**noted, **lists})

    def begin(self, system: str | None = None) -> str:
        """Return all that stands before the first words of a user.

        Args:
            system: System prompt of one's own, not empty; null takes the template's.

        Raises:
            PrefixError: The template has no place for a system prompt.
        """
        if system is None:
            return self.text + self.joint
        if self.system is None:
            raise _unable("a system prompt", self.refused.get("system"))
        return self.system[0] + self._shown("system", system) + self.system[1]

    def ask_instruction(
        self, turns: Sequence[tuple[str, str]] = (), system: str | None = None
    ) -> str:
        """Return the prompt that makes the model write a user's words.

        It is what the template renders for this conversation up to where those words would begin,
        without `joint`.

        Args:
            turns: Instruction and response of each turn so far, in order, as they were written:
                white space and thoughts are taken off here where the template takes them off.
            system: System prompt of one's own, not empty; null takes the template's.

        Raises:
            PrefixError: The template has no such form; the message says why.
        """
        return self._conversation(turns, system).removesuffix(self.joint)

    def ask_response(
        self,
        instruction: str,
        turns: Sequence[tuple[str, str]] = (),
        system: str | None = None,
    ) -> str:
        """Return the prompt that makes the model answer an instruction.

        It is what the template renders for this conversation with its generation prompt.

        Args:
            instruction: The user's last words.
            turns: As of `ask_instruction`: the turns before.
            system: As of `ask_instruction`.

        Raises:
            PrefixError: The template has no such form; the message says why.
        """
        prompt = self._conversation(turns, system)
        return prompt + self._shown("user", instruction) + self.suffix

    def joined(self, begun: str) -> str:
        """Return what stands behind `ask_instruction` where the first words are given.

        Args:
            begun: First words of the user, with `joint` or without; empty: none.
        """
        return begun if not begun or begun[0].isspace() else self.joint + begun

    @property
    def response_stop(self) -> tuple[str, ...]:
        """Strings at which a response is over: those of `stop` that end no thoughts."""
        thoughts = "".join(self.think or ())
        return tuple(one for one in self.stop if one not in thoughts)

    @property
    def thinks_in_control_tokens(self) -> bool:
        """Whether thoughts stand between tokens that a server may leave out of its texts."""
        return any("<|" in mark for mark in self.think or ())

    def _conversation(self, turns: Sequence[tuple[str, str]], system: str | None) -> str:
        prompt = self.begin(system)
        if not turns:
            return prompt
        if self.answer is None:
            raise _unable("a second user turn", self.refused.get("answer"))
        if system is not None and "system with turns" in self.refused:
            raise _unable("a system prompt over several turns", self.refused["system with turns"])
        for instruction, response in turns:
            prompt += self._shown("user", instruction) + self.answer[0]
            prompt += self._shown("assistant", self._remembered(response)) + self.answer[1]
        return prompt

    def _shown(self, role: Role, words: str) -> str:
        return words.strip() if role in self.trims else words

    def _remembered(self, response: str) -> str:
        """Return what the template shows later of a response that holds thoughts."""
        if self.think is None or self.history == "whole" or self.think[1] not in response:
            return response
        if self.history == "unknown":
            raise _unable("a response that holds thoughts", self.refused.get("thoughts"))
        kept = response.rpartition(self.think[1])[2]
        return kept.strip() if self.history == "trimmed" else kept


def _unable(what: str, why: str | None) -> PrefixError:
    return PrefixError(
        f"this model's chat template has no place for {what}: {why or 'it was derived without'}",
        "generator, the pieces of its chat template",
        "leave it out of the recipe, or use another model",
    )
