"""How well an instruction is put, in the words of a judge."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from prequery.columns.prompted import QUALITY, PromptColumn


@dataclass(frozen=True, kw_only=True)
class InputQuality(PromptColumn):
    """Quality of the instruction, with the judge's reasons.

    Args:
        judge: One of the recipe's judges whose endpoint writes.

    Source:
        MAGPIE, arXiv 2406.08464, 3.2: its labels. We differ: a prompt of our own, and a grammar.
    """

    name: ClassVar[str] = "input_quality"
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ("instruction",)
    features: ClassVar[Mapping[str, str]] = {
        "quality_explanation": "string",
        "input_quality": "string",
    }
    labels: ClassVar[Mapping[str, tuple[str, ...]]] = {"input_quality": QUALITY}
    ordered: ClassVar[frozenset[str]] = frozenset({"input_quality"})
