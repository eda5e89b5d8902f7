"""Tell the user how a build gets on: a live line in a terminal, plain lines elsewhere."""

import time
from collections import Counter
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from prequery.conversation import Candidate
from prequery.endpoint import Answer
from prequery.journal import Pass

PLAIN_INTERVAL_S = 10.0


@dataclass
class Progress:
    """Shows attempts, accepted and rejected rows, rates and the time that is left.

    Args:
        wanted: Rows that there will be; null: nobody knows.
        console: Where to write; standard error, so that output can be piped.
    """

    wanted: int | None
    console: Console = field(default_factory=lambda: Console(stderr=True))
    attempts: int = 0
    accepted: int = 0
    replayed: int = 0
    tokens: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    _started: float = field(default_factory=time.monotonic)
    _told: float = field(default_factory=time.monotonic)
    _asked: bool = False
    _live: Live | None = None

    def __enter__(self) -> Self:
        """Start showing."""
        if self.console.is_terminal:
            self._live = Live(
                get_renderable=self._draw,
                console=self.console,
                refresh_per_second=4,
                transient=True,
            )
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the last state on the screen."""
        if self._live:
            self._live.stop()
        if self.attempts:
            self.console.print(self._line(), highlight=False, soft_wrap=True)

    def said(self, text: str) -> None:
        """Show a line above the progress."""
        # Text, not markup: a path or a model's words may hold square brackets.
        self.console.print(Text(text), highlight=False, soft_wrap=True)

    def answered(self, made: Pass, answer: Answer) -> None:
        """Count the tokens of a new answer."""
        if not self._asked:
            # Rates are of this run: what the journal held took no time.
            self._asked, self.replayed, self._started = True, self.attempts, time.monotonic()
        self.tokens += answer.generated_tokens

    def attempted(self, attempt: Candidate, reason: str | None) -> None:
        """Count a finished slot."""
        self.attempts += 1
        if reason is None:
            self.accepted += 1
        else:
            self.rejected[reason] += 1
        now = time.monotonic()
        if not self._live and self._asked and now - self._told >= PLAIN_INTERVAL_S:
            self._told = now
            self.console.print(self._line(), highlight=False, soft_wrap=True)

    def _rates(self) -> tuple[float, float, float | None]:
        """Return attempts/s, tokens/s and the seconds that are left, if that can be told."""
        spent = max(time.monotonic() - self._started, 1e-9)
        fresh = self.attempts - self.replayed
        speed, share = fresh / spent, self.accepted / max(self.attempts, 1)
        left = max((self.wanted or 0) - self.accepted, 0)
        eta = left / (speed * share) if fresh > 2 and share and self.wanted else None
        return speed, self.tokens / spent, eta

    def _done(self) -> str:
        if self.wanted is None:
            return str(self.accepted)
        return f"{min(self.accepted, self.wanted)}/{self.wanted}"

    def _line(self) -> str:
        speed, token_speed, eta = self._rates()
        parts = [
            f"{self._done()} rows",
            f"{self.attempts} attempts",
            f"{sum(self.rejected.values())} rejected",
        ]
        if self._asked:
            parts += [f"{speed:.2f} attempts/s", f"{token_speed:.0f} tokens/s"]
        if eta and self.accepted < (self.wanted or 0):
            parts.append(f"{_clock(eta)} left")
        if self.replayed:
            parts.append(f"{self.replayed} from the journal")
        return ", ".join(parts)

    def _draw(self) -> Group:
        bar = Table.grid(padding=(0, 1))
        if self.wanted is None:
            bar.add_row(ProgressBar(total=None, pulse=True, width=30), self._line())
        else:
            done = min(self.accepted, self.wanted)
            bar.add_row(ProgressBar(total=self.wanted, completed=done, width=30), self._line())
        reasons = Table.grid(padding=(0, 2))
        for reason, count in self.rejected.most_common(8):
            reasons.add_row(Text(f"{count:>7}", style="yellow"), Text(reason, style="dim"))
        return Group(bar, reasons)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
