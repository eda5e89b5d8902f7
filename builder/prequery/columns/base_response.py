"""What a base model answers to the instruction."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from prequery.columns.base import Continuation, QuestionColumn
from prequery.columns.prompted import PromptFile, pinned

STOP = ("=== end ===", "=== message ===")


@dataclass(frozen=True, kw_only=True)
class BaseResponse(QuestionColumn, PromptFile):
    """A base model's answer to the instruction, which `reward_difference` compares with ours.

    The base model sees two examples and goes on from the instruction: it needs no chat template.
    Null: it refused the row, or wrote nothing.

    Args:
        judge: One of the recipe's judges: the base model, whose endpoint writes.
        max_new_tokens: An answer is cut behind so many, 1 or more.

    Source:
        MAGPIE, arXiv 2406.08464, 3.2, which has base models answer by URIAL, arXiv 2312.01552. We
        differ: a preamble and examples of our own, two instead of three.
    """

    name: ClassVar[str] = "base_response"
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ("instruction",)
    features: ClassVar[Mapping[str, str]] = {"base_response": "string", "base_model": "string"}
    asks: ClassVar[type[Continuation]] = Continuation

    max_new_tokens: int = 1024

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens is {self.max_new_tokens}, not 1 or more")

    def ask(self, row: Mapping[str, Any]) -> Continuation | None:
        """Return the examples, and the instruction as the next message."""
        instruction = row["instruction"]
        if instruction is None or not instruction.strip():
            return None
        text = f"{self.prompt}\n{instruction.strip()}\n=== answer ===\n"
        return Continuation(text, STOP, self.max_new_tokens)

    def read(self, said: str, model: str) -> dict[str, Any]:
        """Return what it wrote."""
        return {"base_response": said.strip() or None, "base_model": model}

    def pins(self) -> dict[str, str]:
        """Hash of the examples."""
        return pinned("base_response.txt", self.prompt)
