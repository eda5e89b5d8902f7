"""How many requests an endpoint is given at a time, found from its answers alone.

The limit is looked at once a *round*: when about as many requests as it allows were sent since the
last look, and answered. By Little's law, requests in flight over the latency of an answer of mean
length are the throughput; and the share of this latency that passes before the first token is the
share of the requests that only wait. So

- the limit grows while throughput grows: it doubles until a doubling brings less than a tenth, and
  goes on in small steps while nobody waits. That an endpoint slows down as its batch grows is no
  reason to stop;
- it falls where more than a tenth wait, two rounds long, to those who do not and a tenth. A fall
  that costs throughput is taken back: a long prompt is work too;
- it falls on 429, and comes near where it was refused once again only now and then.

It never falls below one: an endpoint that others keep busy is not left to them.
"""

from collections import deque
from dataclasses import dataclass

from prequery.pace import Fit, Line

START = 16
"""Where the endpoint does not say what it takes."""
DOUBLING_PAYS = 1.1
"""Throughput over that of half the requests, at least, to double once more."""
FULL_RATIO = 0.7
"""A round with fewer of the allowed requests in flight says nothing of the limit."""
BUSY_RATIO = 0.95
"""With fewer in flight, it may be this process that keeps answers waiting."""
MANY_WAIT_RATIO = 0.15
FEW_WAIT_RATIO = 0.05
SPARE = 1.1
"""Requests for each that is worked on: those that wait fill every gap at once."""
LARGEST_FALL_RATIO = 0.7
STEP = 1.05
STEPS = 1.2
"""Small steps are looked back upon when they made so much together."""
STEPS_PAY = 1.05
HOLD_ROUNDS = 16
"""Rounds until what was taken back is tried again; doubles."""
HOLD_ANSWERS = 4
"""Answers for each allowed request until a level that was refused is tried again; doubles."""
MOST_HOLD_ANSWERS = 64
MANY_REFUSED_RATIO = 0.15
MANY_REFUSED = 8
"""So many, and such a share of what was sent in a round, and the limit halves."""
FEW_REFUSED_RATIO = 0.03
"""With a larger share refused the limit does not grow."""


@dataclass(frozen=True)
class Round:
    """What a limit brought.

    Args:
        limit: The limit.
        level: Requests in flight, on average.
        line: Latency over tokens.
    """

    limit: float
    level: float
    line: Line

    def tokens_per_s(self, mean_tokens: float) -> float:
        """Return the throughput, by Little's law, with answers of so many tokens."""
        return self.level * mean_tokens / max(self.line.latency_s(mean_tokens), 1e-9)

    def waiting_ratio(self, mean_tokens: float) -> float:
        """Return the share of the requests in flight that wait for their first token."""
        return self.line.wait_s / max(self.line.latency_s(mean_tokens), 1e-9)


class Limit:
    """The limit of one endpoint.

    Args:
        ceiling: Requests that it takes by its own word, where the limit starts; null when it does
            not say.
        adapts: Whether the limit is looked for. Where a user set it, only 429 moves it.
    """

    def __init__(self, ceiling: int | None, adapts: bool = True) -> None:
        self.ceiling = ceiling
        self.value = float(ceiling or START)
        self.round = 0
        """Number of the round; a request belongs to the one that it was sent in."""
        self._adapts = adapts
        self._doubling = ceiling is None
        self._settling = True
        self._waited = False
        self._answers = 0
        self._levels_answered: deque[int] = deque([0], maxlen=64)
        self._best_before_refusal = 0.0
        self._refused_level = 0
        self._barrier = 0
        self._barrier_until = 0
        self._barrier_hold = HOLD_ANSWERS
        self._fell_from: Round | None = None
        self._grew_from: Round | None = None
        self._hold = 0
        self._next_hold = HOLD_ROUNDS
        self._begin()

    def note_sent(self) -> int:
        """Count a request; return the number of its round."""
        self._sent += 1
        return self.round

    def note_answer(
        self, sent_in: int, level: int, tokens: int, latency_s: float, mean_tokens: float
    ) -> None:
        """Take a good answer in.

        Args:
            sent_in: Its round.
            level: Requests in flight when it was sent, itself included.
            tokens: Of the answer; 1 or more.
            latency_s: From sending to the answer.
            mean_tokens: Of all answers of this endpoint.
        """
        self._answers += 1
        self._levels_answered.append(level)
        if sent_in != self.round:
            return
        self._fit.add(tokens, latency_s)
        self._levels += level
        if self._fit.count >= self._round_size():
            self._look(mean_tokens)

    def note_overload(self, sent_in: int, level: int) -> None:
        """Lower the limit, once for all requests of a round.

        It halves where many of the requests that were sent are refused. Where few are, it falls
        below the level that was refused if nothing was answered at that level lately; if
        something was, the refusal had another cause, and a limit that fell for it would never
        recover.
        """
        if sent_in != self.round:
            return
        self._refused += 1
        if self._refused >= max(MANY_REFUSED, MANY_REFUSED_RATIO * self._sent):
            lower = min(self.value, level) / 2
        elif level >= int(self.value) and level > max(self._levels_answered) > 0:
            lower = level - 1.0
        else:
            return
        # Refused about where it was refused before: this is its limit, and no busy moment.
        again = self._refused_level and 0.8 < level / self._refused_level < 1.25
        doubled = min(self._barrier_hold * 2, MOST_HOLD_ANSWERS)
        self._barrier_hold = doubled if again else HOLD_ANSWERS
        self._refused_level = self._barrier = level
        self._barrier_until = self._answers + int(self._barrier_hold * max(lower, 1))
        self._best_before_refusal = max(0.9 * self._best_before_refusal, self.value)
        self._doubling = False
        self._set(lower)

    def start_again(self) -> None:
        """Begin with half of the limit, where an endpoint is back that was away."""
        self._best_before_refusal = max(self._best_before_refusal, self.value)
        self._doubling = True
        self._set(self.value / 2)

    def _begin(self) -> None:
        self.round += 1
        self._fit, self._levels = Fit(), 0
        self._sent = self._refused = 0

    def _set(self, value: float) -> None:
        """Change the limit, and begin a round that nothing is compared with."""
        self._fell_from = self._grew_from = None
        self._change(value)

    def _change(self, value: float) -> None:
        before = self.value
        self.value = max(1.0, min(value, self.ceiling or value))
        # Of many requests that are sent at once the first wait for nobody, and the short answers
        # come first: a look at them alone would mislead.
        self._settling = self.value > STEPS * before
        self._begin()

    def _round_size(self) -> float:
        if self._doubling:
            return max(4.0, self.value / 4)
        return max(16.0, 2 * self.value)

    def _look(self, mean_tokens: float) -> None:
        """Decide at the end of a round."""
        now = Round(self.value, self._levels / self._fit.count, self._fit.line())
        known = self._fit.count >= 8
        refuses = self._refused > FEW_REFUSED_RATIO * self._sent
        self._begin()
        settling, self._settling = self._settling, False
        if refuses or now.level < FULL_RATIO * self.value:
            return
        if self._doubling:
            self._double(now if known else None, mean_tokens)
            return
        if settling:
            return
        self._hold = max(0, self._hold - 1)
        if not self._adapts:
            self._grow(now)
        elif self._stands(now, mean_tokens) and not self._hold:
            waiting = now.waiting_ratio(mean_tokens)
            many = waiting > MANY_WAIT_RATIO and now.level >= BUSY_RATIO * now.limit
            again, self._waited = self._waited, many
            if many and again:
                self._fell_from, self._grew_from = now, None
                self._change(
                    max(now.level * (1 - waiting) * SPARE, self.value * LARGEST_FALL_RATIO)
                )
            elif waiting < FEW_WAIT_RATIO:
                self._grow(now)

    def _stands(self, now: Round, mean_tokens: float) -> bool:
        """Take the last change back if it was for the worse; false if it was."""
        speed, before = now.tokens_per_s(mean_tokens), self._fell_from or self._grew_from
        if before is None:
            return True
        was = before.tokens_per_s(mean_tokens)
        if self._fell_from:
            # Where nobody waited throughput falls with the limit, where many did it stays.
            stands = speed >= was * (1 + self.value / before.limit) / 2
        elif self.value < STEPS * before.limit:
            return True  # steps go on
        else:
            stands = speed >= STEPS_PAY * was
        self._fell_from = self._grew_from = None
        if stands:
            self._next_hold = HOLD_ROUNDS
            return True
        self._hold = self._next_hold
        self._next_hold *= 2
        self._change(before.limit)
        return False

    def _double(self, now: Round | None, mean_tokens: float) -> None:
        """Double the limit while this pays."""
        before, self._grew_from = self._grew_from, now
        if before and now and self._adapts:
            paid = now.tokens_per_s(mean_tokens) / before.tokens_per_s(mean_tokens)
            if paid < DOUBLING_PAYS:
                self._doubling = False
                self._set(before.limit)
                return
        highest = min(self.ceiling or float("inf"), self._allowed())
        self._doubling = self.value * 2 <= highest
        self._change(max(self.value, min(self.value * 2, highest)))

    def _grow(self, now: Round) -> None:
        """Make a small step, or a large one to where the limit was before it was refused."""
        self._grew_from = self._grew_from or now
        step = max(self.value + 1, self.value * STEP)
        if self._refused_level and self.value * 2 < self._best_before_refusal:
            step = self.value * 2
        self._change(min(step, max(self.value, self._allowed())))

    def _allowed(self) -> float:
        """Return the highest limit that is not known to be refused."""
        if not self._barrier:
            return float("inf")
        if self._answers < self._barrier_until:
            return self._barrier - 1.0
        # By one beyond it; if this is answered, the barrier is gone.
        allowed = float(self._barrier)
        if self.value >= self._barrier:
            self._barrier, allowed = 0, self.value + 1
        return allowed
