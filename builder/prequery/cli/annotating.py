"""annotate."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import typer
from rich.text import Text

from prequery.cli.apps import app
from prequery.cli.arguments import (
    JournalOption,
    JudgeOption,
    MaxCostOption,
    MaxSecondsOption,
    MaxTokensOption,
    OutOption,
    chosen,
)
from prequery.cli.screen import err, filter_steps, funnel, loading, out, say


@app.command()
def annotate(
    dataset: Annotated[
        str | None,
        typer.Argument(
            help="Id on the Hub, or path, pattern or URL of Parquet, JSON lines or CSV files, or "
            "of a folder. With a recipe that names one: where its files are now.",
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="Recipe; what it does not have is taken from the options below."),
    ] = None,
    out_folder: OutOption = None,
    name: Annotated[str | None, typer.Option(help="Config that consumers load.")] = None,
    field: Annotated[
        list[str] | None,
        typer.Option(help="OURS=THEIRS, for instruction, response or messages; may be repeated."),
    ] = None,
    role: Annotated[
        list[str] | None,
        typer.Option(help="THEIRS=OURS: who speaks, as human=user; may be repeated."),
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit on the Hub; default its main branch.")
    ] = None,
    config: Annotated[str | None, typer.Option(help="One of the dataset's configs.")] = None,
    split: Annotated[str, typer.Option(help="One of the dataset's splits.")] = "train",
    columns: Annotated[
        str | None, typer.Option(help="With commas between, as in a recipe: length, language.")
    ] = None,
    filter_: Annotated[
        list[str] | None, typer.Option("--filter", help="Expression; may be repeated, in order.")
    ] = None,
    judge_endpoint: JudgeOption = None,
    journal: JournalOption = None,
    max_tokens: MaxTokensOption = None,
    max_seconds: MaxSecondsOption = None,
    max_cost: MaxCostOption = None,
) -> None:
    """Measure somebody's dataset: columns, filters, shards, card and lock."""
    from prequery.recipe import read_annotation

    options = replace(
        chosen(None, None, journal=journal, judges=judge_endpoint),
        max_tokens=max_tokens,
        max_seconds=max_seconds,
        max_cost_usd=max_cost,
    )
    text, source = _text_of(recipe)
    added: dict[str, Any] = {}
    if name is not None:
        added["name"] = name
    if columns is not None:
        added["columns"] = _listed(columns)
    if filter_:
        added["filters"] = filter_
    wish = {
        "revision": revision,
        "config": config,
        "fields": _pairs(field, "--field"),
        "roles": _pairs(role, "--role"),
    }
    text = _whole(text, source, dataset, wish, split, added)
    read = read_annotation(text, source)
    place = out_folder or f"out/{read.name}"
    import datasets

    datasets.disable_progress_bars()
    from prequery.annotation import annotate as run
    from prequery.progress import Progress

    done = run(read, place, options, lambda wanted: Progress(wanted, err), dataset)
    _summary(done, place, read.name)


def _text_of(recipe: str | None) -> tuple[str, str]:
    """Return the text of a recipe so far, and the name of its file."""
    from prequery.recipe import read_text
    from prequery.recipe.reading import find

    if recipe is None:
        return "", "the recipe of this command"
    file = find(recipe)
    return read_text(file), str(file)


def _whole(
    text: str,
    source: str,
    dataset: str | None,
    wish: dict[str, Any],
    split: str,
    added: dict[str, Any],
) -> str:
    """Return a whole recipe: what is missing is pinned now, and shown."""
    from prequery.annotation import Wish, completed, default_name, pinned
    from prequery.errors import RecipeError
    from prequery.strict_yaml import parse

    there = parse(text, source).plain() if text.strip() else {}
    has = there if isinstance(there, dict) else {}
    if "dataset" not in has:
        if dataset is None:
            raise RecipeError(
                "there is no dataset to annotate", source, "name one: prequery annotate DATASET"
            )
        first = {} if "name" in has or "name" in added else {"name": default_name(dataset)}
        first |= {} if "version" in has else {"version": "1.0.0"}
        added = {**first, **added, "dataset": pinned(Wish(dataset, split=split, **wish))}
    elif given := [option for option, value in wish.items() if value]:
        raise RecipeError(
            f"the recipe says already which dataset it is for, and --{given[0].rstrip('s')} too",
            source,
            "change it there, and leave the option out",
        )
    whole = completed(text, source, added)
    if added:
        say(f"the recipe, which is kept beside the data:\n{whole}")
    return whole


def _listed(columns: str) -> Any:
    """Return the columns of an option, read as in a recipe."""
    from prequery.strict_yaml import parse

    return parse(f"[{columns}]", "--columns").plain()


def _pairs(given: Sequence[str] | None, option: str) -> dict[str, str] | None:
    """Return NAME=NAME as a mapping; null where there is none."""
    pairs = {}
    for one in given or ():
        left, equals, right = one.partition("=")
        if not (left and equals and right):
            raise typer.BadParameter(f"{one!r} is not NAME=NAME", param_hint=option)
        pairs[left] = right
    return pairs or None


def _summary(done: Any, place: str, name: str) -> None:
    """Say where the data is, how to load it, and what was rejected and why."""
    counts = done.lock["build"]
    if done.reused:
        out.print(Text(f"Reusing {place}: it holds this very dataset, complete and unchanged."))
    out.print(funnel(f"{counts['attempts']} rows read", counts))
    if counts.get("steps"):
        out.print(filter_steps(counts["steps"]))
    out.print(Text(f"The dataset is in {place}. Load it:\n"), soft_wrap=True)
    out.print(loading(place, name), soft_wrap=True)
