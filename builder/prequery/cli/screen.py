"""What the command line writes: results to standard output, everything else to standard error."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from prequery.errors import BuildError

out = Console()
err = Console(stderr=True)


def show_error(error: BuildError) -> None:
    """Print what, where and fix. Plain text: a path or an answer may hold square brackets."""
    text = Text(f"{type(error).__name__}: ", style="bold red")
    text.append(f"{visible(error.what)}\n", style="default")
    text.append(f"  where: {visible(error.where)}\n  fix:   {visible(error.fix)}", style="default")
    err.print(text, soft_wrap=True)


def say(text: str) -> None:
    """Show a line for the user to read, unbroken, so that a path in it can be copied."""
    err.print(Text(visible(text)), soft_wrap=True)


def visible(text: str) -> str:
    """Return a text without what a terminal would obey; line breaks stay."""
    return "".join(c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" for c in text)


def quantities(title: str, columns: dict[str, Any]) -> Table:
    """Draw what attempts need, one column for each case."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("")
    for name in columns:
        table.add_column(Text(name), justify="right")

    def row(name: str, shown: Callable[[Any], str]) -> None:
        table.add_row(name, *(shown(quantity) for quantity in columns.values()))

    row("attempts", lambda q: f"{q.attempts:,}")
    row("requests", lambda q: f"{q.requests:,}")
    row("prompt tokens", lambda q: "?" if q.prompt_tokens is None else f"{q.prompt_tokens:,}")
    row("generated tokens", lambda q: f"{q.generated_tokens:,}")
    row("time", lambda q: "?" if q.seconds is None else clock(q.seconds))
    row("cost", lambda q: "no price in endpoint" if q.usd is None else f"{q.usd:,.4f} USD")
    return table


def funnel(title: str, counts: Mapping[str, Any]) -> Table:
    """Draw how many rows were accepted, and why the others were not.

    Args:
        title: How many there were.
        counts: As a lock's `build`.
    """
    table = Table(title=title, title_justify="left", box=None)
    table.add_column(justify="right")
    table.add_column()
    table.add_row(f"[green]{counts['accepted']}[/]", "accepted")
    for reason, count in counts["rejected"].items():
        table.add_row(f"[yellow]{count}[/]", Text(reason))
    return table


def loading(place: str, config: str, revision: str | None = None) -> Text:
    """Return the lines of Python that load a config."""
    tag = f'revision="{revision}", ' if revision else ""
    return Text(
        "    from datasets import load_dataset\n"
        f'    ds = load_dataset("{place}", "{config}", {tag}split="train")'
    )


def filter_steps(steps: Sequence[Mapping[str, Any]]) -> Table:
    """Draw what each filter was given, what it let pass, and a few of the rows that it did not.

    Args:
        steps: As a lock's `build.steps`.
    """
    table = Table(title="filters", title_justify="left", box=None, pad_edge=False)
    table.add_column("rows in", justify="right")
    table.add_column("rows out", justify="right")
    table.add_column("filter, and rows that it rejected", overflow="fold")
    for step in steps:
        told = Text(visible(step["step"]))
        for example in step["examples"]:
            told.append("\n  " + _example(example), style="dim")
        table.add_row(f"{step['rows_in']:,}", f"{step['rows_out']:,}", told)
    return table


def _example(example: Mapping[str, Any]) -> str:
    """Return one rejected row on one line."""
    measured = ", ".join(
        f"{name} {short(str(value), 40)}"
        for name, value in example["values"].items()
        if name not in ("instruction", "response")
    )
    said = "not shown" if example["instruction"] is None else short(example["instruction"], 60)
    line = f"{said} ({measured})" if measured else said
    return line.replace("\n", " ")


def clock(seconds: float) -> str:
    """Return a time as hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def short(text: str, most: int = 320) -> str:
    """Return the begin of a text, visible."""
    shown = visible(text)
    return shown if len(shown) <= most else shown[: most - 1] + "…"
