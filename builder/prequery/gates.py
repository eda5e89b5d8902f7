"""Gates between the passes: never pay for a response to an instruction that cannot stay.

Each reason below is counted and shown. The gates look at one instruction; that it repeats an
earlier one is known only where all instructions are known, in `synthesis`.
"""

import re
from collections.abc import Sequence

from prequery.columns.repetition import is_loop
from prequery.endpoint import Answer
from prequery.thinking import Reply

REFUSED = "refused by the endpoint"
FAILED = "no answer after all tries"
CUT_OFF = "cut off at max_new_tokens"
EMPTY = "empty"
CONTROL = "control tokens in the text"
LOOP = "runaway repetition"
DUPLICATE = "exact duplicate of an earlier instruction"
EMPTY_RESPONSE = "empty response"
UNFINISHED_THOUGHT = "think block never closed"
CUT_OFF_RESPONSE = "response cut off at max_new_tokens"
REPEATED_TURN = "the user repeats an earlier turn"
CONTROL_RESPONSE = "control tokens in the response"

_CONTROL = re.compile(r"<\|[^<>|\s]{1,60}\|>")


def instruction_reason(answer: Answer, control: Sequence[str]) -> str | None:
    """Say why an instruction gets no response.

    Args:
        answer: Of pass 1.
        control: Control strings of this model's template.

    Returns:
        One of the reasons above; null when it gets one.
    """
    text = answer.text.strip()
    if answer.error is not None:
        return FAILED if answer.failed else REFUSED
    if answer.finish_reason == "length":
        return CUT_OFF
    if not text:
        return EMPTY
    if _has_control(text, control):
        return CONTROL
    if is_loop(text):
        return LOOP
    return None


def response_reason(answer: Answer, reply: Reply, control: Sequence[str]) -> str | None:
    """Say why a response makes no row; null when it makes one.

    A response that was cut off or loops is a row: columns measure it and the recipe's filters
    decide.

    Args:
        answer: Of pass 2.
        reply: Its think block and its words.
        control: Control strings of this model's template.
    """
    if answer.error is not None:
        return FAILED if answer.failed else REFUSED
    if not reply.words:
        return EMPTY_RESPONSE if reply.thought is None else UNFINISHED_THOUGHT
    if _has_control(reply.words, control):
        return CONTROL_RESPONSE
    return None


def _has_control(text: str, control: Sequence[str]) -> bool:
    return bool(_CONTROL.search(text)) or any(token in text for token in control)
