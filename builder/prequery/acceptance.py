"""How many slots are worth starting, as far as those that were started tell.

Rejected slots finish first: one whose instruction stops at a gate never waits for a response. So
the share of passed ones among the finished is too low for as long as most slots are in flight, and
a build of a few hundred rows would ask for twice as many slots as it needs. Hence each pass has a
share of its own, and what is in flight in it counts as getting through until it does not.
"""

import math
from typing import NamedTuple


class Started(NamedTuple):
    """What is known of the slots that were started.

    Args:
        gated: Finished without a response: a gate stopped the instruction.
        responded: Finished with a response.
        passed: Of these, as far as each tells by itself.
        opening: In flight, before their first response is asked for.
        responding: In flight, behind that.
    """

    gated: int
    responded: int
    passed: int
    opening: int
    responding: int

    @property
    def gate_ratio(self) -> float:
        """Share of the instructions that are sent back for a response, in (0, 1]."""
        through = self.responded + self.responding + max(self.opening, 1)
        return through / (through + self.gated)

    @property
    def response_ratio(self) -> float:
        """Share of the slots with a response that pass, in (0, 1]."""
        in_flight = max(self.responding, 1)
        return (self.passed + in_flight) / (self.responded + in_flight)

    def wanted(self, missing: int, unread: bool = False) -> float:
        """Return how many slots, of those started and new ones, are likely to be enough.

        Args:
            missing: Passed slots that are wanted besides those that are there.
            unread: The journal has slots that were not looked at: two standard errors more are
                believed to pass, so that nothing is asked for that their answers make needless.
        """
        ratio = self.gate_ratio * self.response_ratio
        if unread:
            ratio = min(ratio * (1 + 2 / math.sqrt(self.passed + 1)), 1.0)
        # An instruction that waits for its response is more than a slot that was not started.
        missing_yet = max(missing - self.responding * self.response_ratio, 0.0)
        finished = self.gated + self.responded
        return finished + self.responding + missing_yet / ratio
