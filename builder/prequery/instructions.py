"""Pass 1: prefix -> instruction."""

from collections.abc import Sequence
from dataclasses import replace

import msgspec

from prequery.draws import draw
from prequery.endpoint import Answer, Request
from prequery.prefix import Prefix
from prequery.recipe import Recipe, Setting
from prequery.slots import Slot

NO_HEADING = r"[^\s#*>\-][\s\S]*"
"""What an instruction is that begins like no Markdown heading, list, quote or bold text."""


def kind(setting: Setting) -> Request:
    """Return what every request with this setting has in common."""
    return Request(
        prompt="", sampling=setting, grammar=NO_HEADING if setting.heading is False else None
    )


def request(
    recipe: Recipe,
    prefix: Prefix,
    slot: Slot,
    turns: Sequence[tuple[str, str]] = (),
    begun: str = "",
) -> Request:
    """Return what to ask for a user turn.

    Args:
        recipe: What to build.
        prefix: Of the model that writes instructions.
        slot: The attempt.
        turns: Instruction and response of the turns so far.
        begun: What the instruction begins with already.
    """
    made = kind(slot.setting)
    return replace(
        made,
        prompt=prefix.ask_instruction(turns, _system(recipe, slot, turns)) + prefix.joined(begun),
        seed=draw(recipe.fingerprint, slot.number, "instruction", len(turns)),
        stop=prefix.stop,
        # What the instruction begins with already cannot begin it again.
        grammar=None if begun else made.grammar,
    )


def opening(
    recipe: Recipe, prefix: Prefix, slot: Slot, turns: Sequence[tuple[str, str]] = ()
) -> Request:
    """Return what to ask for the first token of a user turn, at a temperature of its own."""
    asked = request(recipe, prefix, slot, turns)
    temperature = slot.setting.first_temperature
    return replace(
        asked,
        sampling=replace(slot.setting, temperature=temperature, max_new_tokens=1),
        seed=draw(recipe.fingerprint, slot.number, "opening", len(turns)),
    )


def joined(first: Answer, rest: Answer) -> Answer:
    """Return the answer to two requests of which the second went on where the first ended."""
    sums = [one.logprob_sum for one in (first, rest) if one.logprob_sum is not None]
    squares = [one.logprob_squares for one in (first, rest) if one.logprob_count]
    lowest = [one.logprob_min for one in (first, rest) if one.logprob_min is not None]
    return msgspec.structs.replace(
        rest,
        text=first.text + rest.text,
        generated_tokens=first.generated_tokens + rest.generated_tokens,
        prompt_tokens=first.prompt_tokens,
        logprob_sum=sum(sums) if sums else None,
        logprob_squares=_whole_sum(squares),
        logprob_min=min(lowest, default=None),
        logprob_count=first.logprob_count + rest.logprob_count,
        repaired=first.repaired or rest.repaired,
    )


def _whole_sum(values: Sequence[float | None]) -> float | None:
    """Return the sum; null where a part of it is, or there is none."""
    known = [value for value in values if value is not None]
    return sum(known) if values and len(known) == len(values) else None


def _system(recipe: Recipe, slot: Slot, turns: Sequence[tuple[str, str]]) -> str | None:
    if turns and recipe.follow_up:
        return recipe.follow_up.system
    return slot.system
