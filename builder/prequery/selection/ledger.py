"""What became of every slot, and what it cost."""

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from prequery.conversation import Candidate

FOLD_SLOTS = 4_096


class Ledger:
    """Reason and cost of every slot, in 30 bytes each until it is certain that they count."""

    def __init__(self) -> None:
        self._folded = 0
        self._counts: Counter[int] = Counter()
        self._ended_counts: Counter[int] = Counter()
        self._sums = [0, 0, 0, 0]
        self._is_counted = True
        self._is_timed = True
        self._names: list[str | None] = [None]
        self._reasons = array("H")
        self._ended = array("H")
        self._requests = array("H")
        self._prompt = array("l")
        self._generated = array("l")
        self._waited = array("l")

    def __len__(self) -> int:
        return self._folded + len(self._reasons)

    def add(self, attempt: Candidate, reason: str | None) -> None:
        """Add the next slot.

        What follows a duplicate's instruction costs nothing here: whether it was asked for
        depends on which of the two instructions arrived first, and a lock must not.
        """
        answered = [answer for answer in attempt.costs if answer.error is None]
        self._reasons.append(self._code(reason))
        self._ended.append(self._code(attempt.ended))
        self._requests.append(len(answered))
        self._prompt.append(_sum_or_unknown([answer.prompt_tokens for answer in answered]))
        self._generated.append(sum(answer.generated_tokens for answer in answered))
        waited = [answer.waited_ms for answer in attempt.costs]
        self._waited.append(_sum_or_unknown(waited))

    def fold(self) -> None:
        """Add up the slots so far: the end will not lie before them, nor a reason change."""
        if len(self._reasons) < FOLD_SLOTS:
            return
        self._folded += len(self._reasons)
        self._counts.update(self._reasons)
        self._ended_counts.update(self._ended_of_accepted(len(self._reasons)))
        self._is_counted = self._is_counted and -1 not in self._prompt
        self._is_timed = self._is_timed and -1 not in self._waited
        spent = (self._requests, self._prompt, self._generated, self._waited)
        for at, amounts in enumerate(spent):
            self._sums[at] += sum(amounts)
            del amounts[:]
        del self._reasons[:]
        del self._ended[:]

    def judge(self, slots: Sequence[int], reasons: Sequence[str | None]) -> None:
        """Replace the reasons of some slots."""
        for slot, reason in zip(slots, reasons, strict=True):
            self._reasons[slot] = self._code(reason)

    def until(self, end: int) -> dict[str, Any]:
        """Return what the slots below `end` came to; `end` is behind those that are folded."""
        slots = end - self._folded
        prompt = self._prompt[:slots]
        is_counted = self._is_counted and -1 not in prompt
        waited = self._waited[:slots]
        is_timed = self._is_timed and -1 not in waited
        ended = Counter(self._ended_of_accepted(slots))
        return {
            "rejected": self._named(self._counts + Counter(self._reasons[:slots])),
            "ended": self._named(self._ended_counts + ended),
            "requests": self._sums[0] + sum(self._requests[:slots]),
            "prompt_tokens": self._sums[1] + sum(prompt) if is_counted else None,
            "generated_tokens": self._sums[2] + sum(self._generated[:slots]),
            "seconds": round((self._sums[3] + sum(waited)) / 1000) if is_timed else None,
        }

    def _ended_of_accepted(self, slots: int) -> Iterator[int]:
        """Yield why conversations ended, of the accepted among the first slots not folded."""
        pairs = zip(self._reasons[:slots], self._ended, strict=False)
        return (ended for reason, ended in pairs if not reason)

    def _named(self, counts: Counter[int]) -> dict[str, int]:
        """Return counts by reason, most frequent first."""
        found = ((self._names[code], count) for code, count in counts.items())
        named = [(name, count) for name, count in found if name is not None]
        return dict(sorted(named, key=lambda item: (-item[1], item[0])))

    def _code(self, reason: str | None) -> int:
        if reason not in self._names:
            self._names.append(reason)
        return self._names.index(reason)


def _sum_or_unknown(amounts: Sequence[int | None]) -> int:
    """Return the sum; -1 where one of them is not known."""
    known = [amount for amount in amounts if amount is not None]
    return sum(known) if len(known) == len(amounts) else -1
