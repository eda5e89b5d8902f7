"""How hard an instruction is to answer, in the words of a judge."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from prequery.columns.prompted import PromptColumn


@dataclass(frozen=True, kw_only=True)
class Difficulty(PromptColumn):
    """Difficulty of the instruction, with its intent and the knowledge that it takes.

    Args:
        judge: One of the recipe's judges whose endpoint writes.

    Source:
        MAGPIE, arXiv 2406.08464, 3.2: its labels. We differ: a prompt of our own, and a grammar.
    """

    name: ClassVar[str] = "difficulty"
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ("instruction",)
    features: ClassVar[Mapping[str, str]] = {
        "intent": "string",
        "knowledge": "string",
        "difficulty": "string",
    }
    labels: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "difficulty": ("very easy", "easy", "medium", "hard", "very hard")
    }
    ordered: ClassVar[frozenset[str]] = frozenset({"difficulty"})
