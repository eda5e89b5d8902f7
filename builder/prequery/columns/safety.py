"""Whether a conversation is safe, in the words of a judge."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from prequery.columns.base import Prompt
from prequery.columns.prompted import LONGEST_CHARS, PromptColumn

_GUARD = re.compile(r"\s*(safe|unsafe)\s*(?:\n\s*([A-Z0-9, ]{1,80}))?\s*")
_CATEGORIES = (
    "violence",
    "crime",
    "sexual",
    "hate",
    "self-harm",
    "privacy",
    "advice",
    "other",
)


@dataclass(frozen=True, kw_only=True)
class Safety(PromptColumn):
    """Verdict and kinds of harm, of a chat model or of a model made for this such as Llama Guard.

    Args:
        judge: One of the recipe's judges whose endpoint writes.
        guard: The judge is a guard model: its own chat template holds its policy, it sees the
            instruction alone, and answers `safe`, or `unsafe` and the codes of its categories.

    Source:
        MAGPIE, arXiv 2406.08464, 3.2: Llama-Guard-2 on instruction and response. We differ: a guard
        sees the instruction alone, because a template is derived with a place for a user's words.
    """

    name: ClassVar[str] = "safety"
    hides = True
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ("instruction", "response")
    features: ClassVar[Mapping[str, str]] = {"safety_categories": "string[]", "safety": "string"}
    labels: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "safety": ("unsafe", "safe"),
        "harm": _CATEGORIES,
    }
    lists: ClassVar[Mapping[str, str]] = {"safety_categories": "harm"}

    guard: bool = False

    def ask(self, row: Mapping[str, Any]) -> Prompt | None:
        """Return the prompt; a guard is given the bare instruction."""
        if not self.guard or not (row["instruction"] or "").strip():
            return super().ask(row)
        return Prompt(row["instruction"][:LONGEST_CHARS], max_new_tokens=32)

    def read(self, said: str, model: str) -> dict[str, Any]:
        """Return verdict and kinds; null where the answer is neither."""
        if not self.guard:
            return super().read(said, model)
        found = _GUARD.fullmatch(said)
        if found is None:
            return dict.fromkeys(self.features)
        codes = [code.strip() for code in (found[2] or "").split(",") if code.strip()]
        return {"safety_categories": codes, "safety": found[1]}
