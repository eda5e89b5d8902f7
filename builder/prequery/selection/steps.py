"""The columns and filters of a recipe, in the order in which they are gone through."""

from dataclasses import dataclass
from functools import cached_property

from prequery import filters, judging
from prequery.columns.base import Column, CorpusColumn, JudgeColumn
from prequery.recipe import AnyRecipe


@dataclass(frozen=True)
class Steps:
    """What is measured and decided, what is cheap to know first.

    Args:
        recipe: Whose columns and filters.
    """

    recipe: AnyRecipe

    @cached_property
    def own(self) -> list[Column]:
        """Columns that need nothing but their row."""
        return [column for column in self._of_one_row if column not in self.told]

    @cached_property
    def told(self) -> list[Column]:
        """Columns of one row that are measured by what a judge said of it to another column."""
        return [column for column in self._of_one_row if column.inputs() != column.reads]

    @property
    def _of_one_row(self) -> list[Column]:
        return [c for c in self.recipe.columns if not isinstance(c, CorpusColumn | JudgeColumn)]

    @cached_property
    def judged(self) -> dict[str, JudgeColumn]:
        """Columns that ask a judge, by name."""
        return {column.name: column for column in judging.judge_columns(self.recipe)}

    @cached_property
    def corpus(self) -> list[CorpusColumn]:
        """Columns that see every row."""
        return [c for c in self.recipe.columns if isinstance(c, CorpusColumn)]

    @cached_property
    def alone(self) -> dict[str, str]:
        """Field name to dtype, of all columns but those that see every row, for whom they stay."""
        alone = [c for c in self.recipe.columns if not isinstance(c, CorpusColumn)]
        return {name: dtype for c in alone for name, dtype in c.gives().items()}

    @cached_property
    def cheap(self) -> list[filters.Filter]:
        """The leading filters that a row's own columns decide."""
        late = [*self.judged.values(), *self.told, *self.corpus]
        unknown = {name for column in late for name in column.features}
        return [step for step in self.recipe.leading if step.reads.isdisjoint(unknown)]

    @cached_property
    def leading(self) -> list[filters.Filter]:
        """The filters before the first choice among all rows, what is cheap to know first.

        The first that rejects a row is the reason.
        """
        corpus = {name for column in self.corpus for name in column.features}
        late = [step for step in self.recipe.leading if not step.reads.isdisjoint(corpus)]
        judged = [s for s in self.recipe.leading if s not in self.cheap and s not in late]
        return [*self.cheap, *judged, *late]

    @cached_property
    def following(self) -> list[filters.Filter | filters.Pick]:
        """The first choice among all rows, and what comes behind it, in the recipe's order."""
        return list(self.recipe.following)

    @property
    def all(self) -> list[filters.Filter | filters.Pick]:
        """Every filter, in the order of going through them."""
        return [*self.leading, *self.following]

    @property
    def together(self) -> bool:
        """Whether rows must be looked at together."""
        return bool(self.corpus or self.following)
