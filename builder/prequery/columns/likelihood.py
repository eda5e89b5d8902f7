"""How likely the generator found its own words."""

import math
from collections.abc import Mapping
from typing import ClassVar

from prequery.columns.base import Batch, RowColumn, Values

# Four roundings of half a unit in the last place each, with room to spare.
ROUNDING = 2.0**-50


class Likelihood(RowColumn):
    """Log-probability that the generator gave to the tokens of both texts, as it wrote them.

    `*_logprob_mean` and `*_logprob_min` are natural logarithms, at most 0, over the tokens up to
    and with the end-of-turn token; `*_logprob_std` is their population standard deviation, from 0:
    how unevenly the generator was sure of its words. `*_perplexity` is exp(-mean), from 1. Null:
    the endpoint reported no log-probability, or none that is finite; the spread also where an
    answer was recorded before its sum of squares was.

    It is likelihood, not quality: dull text is likely, and so is a loop. TGI reports
    log-probabilities *after* temperature, top_p and penalties, so a token that was the only
    one left has 0. Compare values only between rows that were made with the same settings.
    """

    name = "likelihood"
    version = 2
    reads = tuple(
        f"{text}_logprob_{part}"
        for text in ("instruction", "response")
        for part in ("sum", "squares", "lowest", "count")
    )
    features: ClassVar[Mapping[str, str]] = {
        "instruction_logprob_mean": "float64",
        "instruction_logprob_min": "float64",
        "instruction_logprob_std": "float64",
        "instruction_perplexity": "float64",
        "response_logprob_mean": "float64",
        "response_logprob_min": "float64",
        "response_logprob_std": "float64",
        "response_perplexity": "float64",
    }

    def compute(self, batch: Batch) -> Values:
        """Divide sums by counts."""
        values: Values = {}
        for text in ("instruction", "response"):
            counts = batch[f"{text}_logprob_count"]
            means, squares = (
                [_mean(total, count) for total, count in zip(sums, counts, strict=True)]
                for sums in (batch[f"{text}_logprob_sum"], batch[f"{text}_logprob_squares"])
            )
            lowest = batch[f"{text}_logprob_lowest"]
            spreads = [_spread(mean, square) for mean, square in zip(means, squares, strict=True)]
            values[f"{text}_logprob_mean"] = means
            values[f"{text}_logprob_min"] = [_finite(value) for value in lowest]
            values[f"{text}_logprob_std"] = spreads
            values[f"{text}_perplexity"] = [_perplexity(mean) for mean in means]
        return values


def _mean(total: float | None, count: int | None) -> float | None:
    return None if total is None or not count else _finite(total / count)


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value


def _spread(mean: float | None, square: float | None) -> float | None:
    """Return the standard deviation, from the mean and the mean of squares.

    Each is rounded, so the difference of the two squares is noise below `ROUNDING` of either, and
    such a spread is none.
    """
    if mean is None or square is None:
        return None
    variance = square - mean * mean
    return math.sqrt(variance) if variance > ROUNDING * square else 0.0


def _perplexity(mean: float | None) -> float | None:
    try:
        return None if mean is None else math.exp(-mean)
    except OverflowError:
        return None
