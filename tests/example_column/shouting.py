"""Whether an instruction shouts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from prequery.columns.base import Batch, RowColumn, Values, each


@dataclass(frozen=True, kw_only=True)
class Shouting(RowColumn):
    """Whether the instruction ends with a mark. Null only where the instruction is.

    Args:
        mark: What it ends with.
    """

    name: ClassVar[str] = "shouting"
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ("instruction",)
    features: ClassVar[Mapping[str, str]] = {"instruction_shouts": "bool"}

    mark: str

    def compute(self, batch: Batch) -> Values:
        """Look at the end of each instruction."""
        shouts = each(lambda text: text.endswith(self.mark), batch["instruction"])
        return {"instruction_shouts": shouts}
