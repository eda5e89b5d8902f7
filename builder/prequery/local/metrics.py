"""TGI's Prometheus metrics: names and meanings are TGI's, its histograms are summaries here."""

from collections import defaultdict
from dataclasses import dataclass, field


@dataclass
class Metrics:
    """Counters and sums since the server started."""

    counters: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    summaries: dict[str, tuple[int, float]] = field(default_factory=dict)

    def count(self, name: str, **labels: str) -> None:
        """Count one event."""
        text = ",".join(f'{label}="{value}"' for label, value in labels.items())
        self.counters[f"{name}{{{text}}}" if text else name] += 1

    def observe(self, name: str, value: float) -> None:
        """Add one measurement."""
        count, total = self.summaries.get(name, (0, 0.0))
        self.summaries[name] = (count + 1, total + value)

    def render(self, gauges: dict[str, int]) -> str:
        """Return everything in Prometheus' text format.

        Args:
            gauges: What is true now.
        """
        lines = []
        typed = set()
        for name, value in sorted(self.counters.items()):
            family = name.partition("{")[0]
            if family not in typed:
                lines.append(f"# TYPE {family} counter")
                typed.add(family)
            lines.append(f"{name} {value}")
        for name, value in gauges.items():
            lines += [f"# TYPE {name} gauge", f"{name} {value}"]
        for name, (count, total) in sorted(self.summaries.items()):
            lines += [f"# TYPE {name} summary", f"{name}_sum {total:g}", f"{name}_count {count}"]
        return "\n".join(lines) + "\n"
