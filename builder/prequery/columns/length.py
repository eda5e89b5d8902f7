"""Length of both texts."""

from collections.abc import Mapping
from typing import ClassVar

from prequery.columns.base import Batch, RowColumn, Values, each


class Length(RowColumn):
    """Length of instruction and response in characters and in whitespace-separated words.

    Characters are Unicode code points, so one emoji may count as several. Text in a script that
    is written without spaces is one word.
    """

    name = "length"
    version = 1
    reads = ("instruction", "response")
    features: ClassVar[Mapping[str, str]] = {
        "instruction_chars": "int32",
        "instruction_words": "int32",
        "response_chars": "int32",
        "response_words": "int32",
    }

    def compute(self, batch: Batch) -> Values:
        """Count characters and words."""
        return {
            "instruction_chars": each(len, batch["instruction"]),
            "instruction_words": each(_words, batch["instruction"]),
            "response_chars": each(len, batch["response"]),
            "response_words": each(_words, batch["response"]),
        }


def _words(text: str) -> int:
    return len(text.split())
