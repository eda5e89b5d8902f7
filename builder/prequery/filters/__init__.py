"""Which rows stay, and why each other row left.

A filter is one expression over the fields of a row; what makes it true stays::

    language == "en" and instruction_words >= 3
    instruction_finish_reason in ["eos_token", "stop_sequence"]
    response_logprob_mean == null or response_logprob_mean > -2
    0 < min_neighbor_distance < 1.5
    input_quality >= "good"

There are numbers, texts in quotes, `true`, `false`, `null`, `== != < <= > >=` (also chained),
`in [...]`, `not in [...]`, `and`, `or`, `not`, `+ - * /` and parentheses, and nothing else. In a
text a backslash takes the next character as it is.

Labels that have an order, as the grades of a judge, are compared by it; other texts have none.

Null is "not known". What is computed from null is null, but `false and null` is false and
`true or null` is true; a filter that comes out null rejects the row. Only `== null` and `!= null`
ask whether a value is there. A division by zero, or a result that is not finite, is null.

Some rows stay or leave only in comparison with all others: see `picks`.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from prequery.columns.base import Batch
from prequery.filters.nodes import Node
from prequery.filters.parser import Parser
from prequery.filters.picks import PICKS, Pick
from prequery.filters.tokens import Source

__all__ = ["PICKS", "Filter", "Pick", "apply", "parse"]


@dataclass(frozen=True)
class Filter:
    """One expression, checked.

    Attributes:
        text: The expression, as the recipe has it.
        reads: Names of the fields that it looks at; at least one.
        root: The checked expression.
    """

    text: str
    reads: frozenset[str]
    root: Node = field(repr=False)

    def keep(self, batch: Batch) -> list[bool]:
        """Tell for each row whether it stays. A null result rejects."""
        names = sorted(self.reads)
        columns = zip(*(batch[name] for name in names), strict=True)
        rows = (dict(zip(names, values, strict=True)) for values in columns)
        return [self.root(row) is True for row in rows]


def apply(filters: Sequence[Filter], batch: Batch) -> list[str | None]:
    """Return for each row the text of the first filter that rejects it; null: it is accepted."""
    reasons: list[str | None] = [None] * len(batch["id"])
    for step in filters:
        for row, kept in enumerate(step.keep(batch)):
            if not kept and reasons[row] is None:
                reasons[row] = step.text
    return reasons


def parse(
    expression: str,
    where: str,
    fields: Mapping[str, str],
    choices: Mapping[str, Sequence[str]] | None = None,
    ordered: Collection[str] = (),
) -> Filter:
    """Check an expression against the fields of a row.

    Args:
        expression: At most 2,000 characters, nested at most 30 deep.
        where: Place of the expression, for errors.
        fields: Every field of a row by name, with its `datasets` dtype.
        choices: Fields that hold one of a few texts, with these. Comparing such a field with
            another text is refused.
        ordered: Fields whose choices stand in their order, lowest first.

    Raises:
        RecipeError: Showing the expression with a caret under the character.
    """
    parser = Parser(Source(expression, where), fields, choices or {}, ordered)
    root = parser.root()
    return Filter(expression.strip(), frozenset(parser.reads), root)
