"""What kind of task an instruction is, in the words of a judge."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from prequery.columns.prompted import PromptColumn


@dataclass(frozen=True, kw_only=True)
class TaskCategory(PromptColumn):
    """Category of the instruction, and others that fit as well.

    Args:
        judge: One of the recipe's judges whose endpoint writes.

    Source:
        MAGPIE, arXiv 2406.08464, 3.2: its labels. We differ: a prompt of our own, and a grammar.
    """

    name: ClassVar[str] = "task_category"
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ("instruction",)
    features: ClassVar[Mapping[str, str]] = {
        "task_category": "string",
        "other_task_category": "string[]",
    }
    labels: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "task_category": (
            "Information seeking",
            "Reasoning",
            "Planning",
            "Editing",
            "Coding & Debugging",
            "Math",
            "Role playing",
            "Data analysis",
            "Creative writing",
            "Advice seeking",
            "Brainstorming",
            "Others",
        )
    }
    lists: ClassVar[Mapping[str, str]] = {"other_task_category": "task_category"}
