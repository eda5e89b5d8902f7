"""Stop a build before it spends more than it may."""

import time
from collections.abc import Iterable
from dataclasses import dataclass

from prequery.endpoint import Answer
from prequery.errors import RecipeError
from prequery.recipe import Endpoint, Recipe


@dataclass(frozen=True)
class Price:
    """What tokens cost.

    Args:
        usd_per_million_prompt_tokens: 0 or more.
        usd_per_million_generated_tokens: 0 or more.
    """

    usd_per_million_prompt_tokens: float = 0.0
    usd_per_million_generated_tokens: float = 0.0

    @classmethod
    def at(cls, endpoint: Endpoint) -> "Price":
        """Return what a recipe says that its endpoint takes."""
        return cls(
            endpoint.usd_per_million_prompt_tokens, endpoint.usd_per_million_generated_tokens
        )

    def usd(self, prompt_tokens: int | None, generated_tokens: int) -> float:
        """Return what so many tokens cost; prompt tokens that nobody counted cost nothing."""
        return (
            self.usd_per_million_prompt_tokens * (prompt_tokens or 0)
            + self.usd_per_million_generated_tokens * generated_tokens
        ) / 1e6


FREE = Price()
"""Of tokens that nobody names a price for."""


def cost_usd(recipe: Recipe, prompt_tokens: int | None, generated_tokens: int) -> float | None:
    """Return what the tokens of both passes cost.

    Null where they have no price, and where the responder has prices of its own: a lock counts the
    tokens of both passes together.
    """
    price = Price.at(recipe.endpoint)
    if recipe.responder and Price.at(recipe.responder.endpoint) != price:
        return None
    return price.usd(prompt_tokens, generated_tokens) or None


def check_priced(max_cost_usd: float | None, prices: Iterable[Price], where: str) -> None:
    """Refuse a limit in USD where nothing has a price: no run would ever reach it.

    Args:
        max_cost_usd: The limit; null is none.
        prices: Of everybody who may be asked.
        where: For the error: recipe and key.

    Raises:
        RecipeError: There is a limit and no price.
    """
    if max_cost_usd is not None and all(price == FREE for price in prices):
        raise RecipeError(
            f"this run may cost {max_cost_usd:g} USD, and the recipe names no price",
            where,
            "add usd_per_million_prompt_tokens and usd_per_million_generated_tokens there, or "
            "limit the run by --max-tokens",
        )


@dataclass
class Budget:
    """What this run may spend; answers that the journal holds already are free.

    Rows in flight when a limit is reached are finished, so it is passed by as much as these take.

    Args:
        max_tokens: Prompt and generated tokens together; null is no limit.
        max_seconds: From the first request on; null is no limit.
        max_cost_usd: By the price of whom was asked; null is no limit.
    """

    max_tokens: int | None = None
    max_seconds: float | None = None
    max_cost_usd: float | None = None
    prompt_tokens: int = 0
    generated_tokens: int = 0
    cost_usd: float = 0.0
    _started: float | None = None

    def start(self) -> None:
        """Begin to count the seconds."""
        self._started = time.monotonic()

    def spend(self, answer: Answer, price: Price) -> None:
        """Count an answer that came from an endpoint, at its price."""
        self.prompt_tokens += answer.prompt_tokens or 0
        self.generated_tokens += answer.generated_tokens
        self.cost_usd += price.usd(answer.prompt_tokens, answer.generated_tokens)

    def spent(self) -> str | None:
        """Say which limit is reached; null when none is."""
        tokens = self.prompt_tokens + self.generated_tokens
        if self.max_tokens is not None and tokens >= self.max_tokens:
            return f"{tokens} tokens are spent, {self.max_tokens} may be"
        if self.max_cost_usd is not None and self.cost_usd >= self.max_cost_usd:
            return f"{self.cost_usd:.4f} USD are spent, {self.max_cost_usd:g} may be"
        seconds = time.monotonic() - self._started if self._started is not None else 0.0
        if self.max_seconds is not None and seconds >= self.max_seconds:
            return f"{seconds:.0f} s are spent, {self.max_seconds:g} may be"
        return None
