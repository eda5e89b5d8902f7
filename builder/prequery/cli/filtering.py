"""filter: what other filters and columns would make of the answers that are there."""

import re
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from prequery.cli.apps import app
from prequery.cli.arguments import JournalOption, RecipeArgument, chosen
from prequery.cli.screen import filter_steps, out

if TYPE_CHECKING:
    from prequery.strict_yaml import Node


@app.command("filter")
def filter_(
    recipe: RecipeArgument,
    filters: Annotated[
        list[str] | None,
        typer.Option(
            "--filter",
            help="Instead of the recipe's, as an entry of its list; may be repeated.",
        ),
    ] = None,
    rows: Annotated[int | None, typer.Option(min=1, help="Instead of the recipe's.")] = None,
    candidates: Annotated[int | None, typer.Option(min=1, help="Instead of the recipe's.")] = None,
    journal: JournalOption = None,
) -> None:
    """Try filters and columns on the answers that are there: nothing is asked or written."""
    from prequery import shards
    from prequery.recipe import load
    from prequery.strict_yaml import Node
    from prequery.trial import attempt

    changed = {
        name: Node(value, 1)
        for name, value in (("rows", rows), ("candidates", candidates))
        if value is not None
    }
    if filters is not None:
        changed["filters"] = Node([_entry(one) for one in filters], 1)
    loaded = load(recipe, changed)
    with shards.work_folder() as work:
        tried = attempt(loaded, chosen(None, None, journal=journal), work)
    found = tried.selection
    out.print(Text(f"{found.attempts} attempts, {found.accepted} accepted of {loaded.rows} rows"))
    steps = {step.step for step in found.steps}
    for reason, count in found.rejected.items():
        if reason.removeprefix("filter: ") not in steps:
            out.print(Text(f"{count} rejected: {reason}"))
    out.print(filter_steps([step.told() for step in found.steps]))
    for text in tried.left_out:
        out.print(Text(f"not applied, a judge was not asked yet: {text}"), soft_wrap=True)
    for name, count in tried.unasked.items():
        out.print(Text(f"a build would ask for {name}: {count} requests"))
    for name, count in tried.unchecked.items():
        out.print(Text(f"a build would check the judge {name}: {count} requests"))
    if tried.enough:
        out.print(Text("A build asks for no instruction and no response."))
    else:
        out.print(Text("These answers are not enough: a build would ask for more."))


def _entry(text: str) -> "Node":
    """Return an entry of a recipe's filters: a choice among rows is a mapping."""
    from prequery.filters import PICKS
    from prequery.strict_yaml import Node, parse

    if re.match(rf"\{{|({'|'.join(PICKS)})\s*:", text.strip()):
        return parse(text, "--filter")
    return Node(text, 1)
