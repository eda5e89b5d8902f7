"""How fast an endpoint answers, from its answers alone: a wait, and a time for each token.

Answers differ in length by a factor of a hundred, so their latency says little by itself. A line
through latency over tokens tells two things apart: what each token takes, and what passes before
the first one, in a queue or on the way.
"""

from dataclasses import dataclass

RIDGE = 0.05
"""Weight of the guess that latency is in proportion to tokens; it decides where all answers are
of one length, and hardly matters elsewhere."""
MEMORY = 512
"""Answers that the pace is known from."""
KNOWN = 32
"""So many answers, and the pace is known."""
EVERY = 16
"""Answers between two lines: one for each would cost as much as all else here."""
MARGIN = 1.25
"""A request may take so many times what the slowest of the last answers would have taken."""


@dataclass(frozen=True)
class Line:
    """Latency over tokens.

    Args:
        wait_s: Before the first token; 0 or more.
        token_s: For each token; 0 or more.
    """

    wait_s: float
    token_s: float

    def latency_s(self, tokens: float) -> float:
        """Return how long an answer of so many tokens takes."""
        return self.wait_s + self.token_s * tokens


class Fit:
    """Least squares of latency on tokens, one answer after the other."""

    __slots__ = ("_products", "_seconds", "_squares", "_tokens", "count")

    def __init__(self) -> None:
        self.count = self._tokens = self._seconds = self._squares = self._products = 0.0

    def add(self, tokens: int, latency_s: float, kept: float = 1.0) -> None:
        """Take an answer in; what came before keeps this share of its weight."""
        self.count = self.count * kept + 1
        self._tokens = self._tokens * kept + tokens
        self._seconds = self._seconds * kept + latency_s
        self._squares = self._squares * kept + tokens * tokens
        self._products = self._products * kept + tokens * latency_s

    @property
    def mean_tokens(self) -> float:
        """Tokens of an answer."""
        return self._tokens / self.count

    @property
    def mean_latency_s(self) -> float:
        """Latency of an answer."""
        return self._seconds / self.count

    def line(self) -> Line:
        """Return the line; at least one answer has come."""
        tokens, seconds = self.mean_tokens, self.mean_latency_s
        ridge = RIDGE * tokens * tokens
        spread = self._squares / self.count - tokens * tokens
        common = self._products / self.count - tokens * seconds
        token_s = max(0.0, (common + ridge * seconds / tokens) / (spread + ridge))
        # No answer comes before it was asked for.
        return Line(max(0.0, seconds - token_s * tokens), min(token_s, seconds / tokens))


class Pace:
    """What is known of an endpoint's pace now, and how long a request may take."""

    def __init__(self) -> None:
        self._fit = Fit()
        self._line = Line(0.0, 0.0)
        self._slowest = 1.0
        self._answers = 0

    def note(self, tokens: int, latency_s: float) -> None:
        """Take an answer in."""
        self._answers += 1
        self._fit.add(tokens, latency_s, 1 - 1 / MEMORY)
        if self._answers % EVERY == 0:
            self._line = self._fit.line()
        if self._answers >= KNOWN:
            # An answer's own length counts little where it is short: a hiccup is no pace.
            usual_s = self._fit.mean_latency_s
            expected_s = self._line.latency_s(tokens)
            slowness = (latency_s + usual_s) / (expected_s + usual_s)
            self._slowest = max(slowness, 1 + (self._slowest - 1) * (1 - 1 / MEMORY))

    @property
    def mean_tokens(self) -> float:
        """Tokens of an answer; some answer has come."""
        return self._fit.mean_tokens

    @property
    def mean_latency_s(self) -> float:
        """Latency of an answer; 0 before the first."""
        return self._fit.mean_latency_s if self._answers else 0.0

    @property
    def token_s(self) -> float:
        """Seconds between two tokens, waits included; 0 before the first answer."""
        fit = self._fit
        return fit.mean_latency_s / fit.mean_tokens if self._answers else 0.0

    def deadline_s(self, max_new_tokens: int) -> float | None:
        """Return how long a request may take; null while too few answers came to tell."""
        if self._answers < KNOWN:
            return None
        longest_s = self._line.latency_s(max_new_tokens) + self._fit.mean_latency_s
        return MARGIN * self._slowest * longest_s
