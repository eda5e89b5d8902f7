"""How good a response is, in the words of a judge."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from prequery.columns.prompted import QUALITY, PromptColumn


@dataclass(frozen=True, kw_only=True)
class ResponseQuality(PromptColumn):
    """Quality of the response to the instruction, with the judge's reasons.

    Args:
        judge: One of the recipe's judges whose endpoint writes.

    Source:
        The labels of MAGPIE's instruction quality, arXiv 2406.08464, 3.2; it has none of responses.
    """

    name: ClassVar[str] = "response_quality"
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ("instruction", "response")
    features: ClassVar[Mapping[str, str]] = {
        "response_quality_explanation": "string",
        "response_quality": "string",
    }
    labels: ClassVar[Mapping[str, tuple[str, ...]]] = {"response_quality": QUALITY}
    ordered: ClassVar[frozenset[str]] = frozenset({"response_quality"})
