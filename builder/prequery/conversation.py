"""What one slot asks, answer after answer, until it is a conversation or has failed.

The script of a slot knows neither endpoint nor journal: it yields what it wants to have answered
and is sent the answers, fresh or recorded. So a replay and a build run the very same lines.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import msgspec

from prequery import gates, instructions, responses, slots
from prequery.endpoint import Answer, Request
from prequery.journal import Key
from prequery.prefix import Prefix
from prequery.recipe import Recipe
from prequery.slots import Slot
from prequery.thinking import Reply
from prequery.voices import Voices

T = TypeVar("T")

NOT_A_CHARACTER = "\ufffd"


class Ask(NamedTuple):
    """Something to have answered.

    Args:
        key: What it is for.
        request: Makes the request; not called where the journal has the answer.
        column: The judge column that asks; null: the conversation itself.
    """

    key: Key
    request: Callable[[], Request]
    column: str | None = None


@dataclass(frozen=True)
class Turn:
    """An instruction and its response.

    Args:
        instruction: Answer of pass 1; its text is whole, with words that the recipe began.
        response: Answer of pass 2.
        reply: The response in two parts: think block and words.
    """

    instruction: Answer
    response: Answer
    reply: Reply

    @property
    def words(self) -> tuple[str, str]:
        """What both said, without white space around it and without the think block."""
        return self.instruction.text.strip(), self.reply.words


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """What can become a row, finished.

    Args:
        slot: Its number.
        choices: What a row can be made of, several only where the recipe compares them. None where
            `reason` is set.
        reason: Why it makes no row; null when nothing yet speaks against it.
        ended: Why the conversation has fewer turns than were drawn; null: it has them all.
        verdicts: What judges said of it: column, number of its question and choice to answer.
    """

    slot: int
    choices: tuple[Any, ...]
    reason: str | None = None
    ended: str | None = None
    verdicts: Mapping[tuple[str, int, int], Answer] = field(default_factory=dict)

    @property
    def unanswered(self) -> Answer | None:
        """The first request that got no answer; null: there is none.

        A judge that refuses a row is no fault: the row cannot be measured.
        """
        return next((verdict for verdict in self.verdicts.values() if verdict.failed), None)

    @property
    def costs(self) -> tuple[Answer, ...]:
        """The answers that it needed, whatever came first."""
        return tuple(self.verdicts.values())


@dataclass(frozen=True, kw_only=True)
class Attempt(Candidate):
    """One slot, finished: its answers, or why it got none.

    Args:
        drawn: What it drew.
        instruction: Of the first turn.
        choices: Every response to it that can stay, with the instruction.
        later: The turns behind the first.
        answers: Every answer that it took, in the order of asking.
        instructed: How many of these brought the first instruction.
        repeats: Its instruction is that of a lower slot.
    """

    drawn: Slot
    instruction: Answer
    choices: tuple[Turn, ...]
    later: tuple[Turn, ...]
    answers: tuple[Answer, ...]
    instructed: int
    repeats: bool = False

    @property
    def responded(self) -> bool:
        """Whether the first instruction was sent back for a response."""
        return len(self.answers) > self.instructed

    @property
    def unanswered(self) -> Answer | None:
        """The first request that got no answer, a judge's refusal aside; null: there is none."""
        refused = (answer for answer in self.answers if answer.error is not None)
        return next(refused, super().unanswered)

    @property
    def costs(self) -> tuple[Answer, ...]:
        """The answers that it needed, whatever came first."""
        if self.repeats:
            return self.answers[: self.instructed]
        return (*self.answers, *super().costs)


Script = Generator[Sequence[Ask], Sequence[Answer], Attempt]
"""Yields what can be answered at the same time, is sent the answers in that order."""


def advance(
    running: Generator[Sequence[Ask], Sequence[Answer], T], answers: Sequence[Answer] | None
) -> Sequence[Ask] | T:
    """Return what a script asks next, or what has come of it.

    Args:
        running: The script.
        answers: To what it asked last; null: nothing yet.
    """
    try:
        return running.send(answers)  # type: ignore[arg-type]
    except StopIteration as finished:
        came: T = finished.value
        return came


def script(
    recipe: Recipe, voices: Voices, number: int, first_slot: Callable[[str, int], int]
) -> Script:
    """Have one slot's conversation.

    Args:
        recipe: What to build.
        voices: The models.
        number: Of the slot.
        first_slot: Notes that a slot has an instruction, and returns the lowest slot that has it.
            A repeated one gets no response.
    """
    return _Conversation(recipe, voices, slots.draw(recipe, number), first_slot).run()


class _Conversation:
    """The state of one script."""

    def __init__(
        self, recipe: Recipe, voices: Voices, slot: Slot, first_slot: Callable[[str, int], int]
    ) -> None:
        self.recipe, self.voices, self.slot = recipe, voices, slot
        self.first_slot = first_slot
        self.turns: list[Turn] = []
        self.answers: list[Answer] = []

    def run(self) -> Script:
        """Have the first turn, then the others for as long as they succeed."""
        number = self.slot.number
        instruction, reason = yield from self.instruct()
        instructed = len(self.answers)
        if reason is None and self.first_slot(instruction.text.strip(), number) < number:
            reason = gates.DUPLICATE
        choices: list[Turn] = []
        if reason is None:
            choices, reason = yield from self.respond(instruction, self.wanted)
        ended = None
        if reason is None:
            self.turns = choices[:1]
            ended = yield from self.go_on()
        return Attempt(
            slot=number,
            drawn=self.slot,
            instruction=instruction,
            choices=tuple(choices) if reason is None else (),
            later=tuple(self.turns[1:]),
            reason=reason,
            ended=ended,
            answers=tuple(self.answers),
            instructed=instructed,
        )

    @property
    def wanted(self) -> int:
        """How many responses the first instruction gets."""
        return self.recipe.preference.responses if self.recipe.preference else 1

    @property
    def words(self) -> list[tuple[str, str]]:
        """What was said so far, as a template shows it: without think blocks."""
        return [turn.words for turn in self.turns]

    def go_on(self) -> Generator[Sequence[Ask], Sequence[Answer], str | None]:
        """Have the later turns. A failed one ends the conversation at the last whole pair."""
        while len(self.turns) < self.slot.turns:
            if self.turns[-1].response.finish_reason == "length":
                return gates.CUT_OFF_RESPONSE  # nobody goes on from half of a first response
            instruction, reason = yield from self.instruct()
            if reason is None and instruction.text.strip() in (said for said, _ in self.words):
                reason = gates.REPEATED_TURN
            if reason is not None:
                return reason
            choices, reason = yield from self.respond(instruction, 1)
            if reason is None and choices[0].response.finish_reason == "length":
                reason = gates.CUT_OFF_RESPONSE
            if reason is not None:
                return reason
            self.turns += choices
        return None

    def instruct(self) -> Generator[Sequence[Ask], Sequence[Answer], tuple[Answer, str | None]]:
        """Get a user turn, and say why it cannot be answered."""
        recipe, prefix, slot, turn = self.recipe, self.prefix, self.slot, len(self.turns)
        begun = slot.start if not turn else ""
        first = None
        if slot.setting.first_temperature is not None:
            first = yield from self.ask(
                Key(slot.number, "opening", turn),
                lambda: instructions.opening(recipe, prefix, slot, self.words),
            )
            # Half of a character cannot be sent back: the second request then draws its own.
            begun = "" if NOT_A_CHARACTER in first.text else first.text
        if first is not None and (first.error is not None or first.finish_reason != "length"):
            instruction = first
        else:
            instruction = yield from self.ask(
                Key(slot.number, "instruction", turn),
                lambda: instructions.request(recipe, prefix, slot, self.words, begun),
            )
            if first is not None and begun:
                instruction = instructions.joined(first, instruction)
            elif begun and instruction.error is None:
                instruction = msgspec.structs.replace(instruction, text=begun + instruction.text)
        return instruction, gates.instruction_reason(instruction, self.voices.generator.forbidden)

    def respond(
        self, instruction: Answer, wanted: int
    ) -> Generator[Sequence[Ask], Sequence[Answer], tuple[list[Turn], str | None]]:
        """Get responses to an instruction, and say why none of them can stay."""
        recipe, slot, said = self.recipe, self.slot, instruction.text.strip()
        voice, turn = self.voices.responder, len(self.turns)

        def asked(choice: int) -> Ask:
            return Ask(
                Key(slot.number, "response", turn, choice),
                lambda: responses.request(recipe, voice.prefix, slot, said, self.words, choice),
            )

        answers = yield [asked(choice) for choice in range(wanted)]
        self.answers += answers
        replies = [voice.reply(answer.text) for answer in answers]
        reasons = [
            gates.response_reason(answer, reply, voice.prefix.stop)
            for answer, reply in zip(answers, replies, strict=True)
        ]
        turns = [
            Turn(instruction, answer, reply)
            for answer, reply, reason in zip(answers, replies, reasons, strict=True)
            if reason is None
        ]
        return turns, None if turns else reasons[0]

    def ask(
        self, key: Key, request: Callable[[], Request]
    ) -> Generator[Sequence[Ask], Sequence[Answer], Answer]:
        """Get one answer."""
        (answer,) = yield [Ask(key, request)]
        self.answers.append(answer)
        return answer

    @property
    def prefix(self) -> Prefix:
        """Of the model that writes instructions."""
        return self.voices.generator.prefix
