"""card."""

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from prequery.cli.apps import app
from prequery.cli.screen import err, out


@app.command()
def card(
    place: Annotated[
        str, typer.Argument(metavar="OUT", help="Output folder, or a copy of a repository.")
    ],
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; compare every number with the data.")
    ] = False,
    template: Annotated[
        Path | None, typer.Option(help="A Jinja file of your own; it is kept beside the card.")
    ] = None,
    previous: Annotated[
        str | None,
        typer.Option(
            help="The release before: a folder, a URL or org/repo@tag. Tells what changed."
        ),
    ] = None,
    note: Annotated[
        list[str] | None, typer.Option(help="What else changed in the data; may be repeated.")
    ] = None,
) -> None:
    """Make the cards of a finished folder anew, or check every number on them."""
    from prequery import cards
    from prequery.folder import read_template

    if check:
        if template is not None or previous is not None or note:
            raise typer.BadParameter("a card is checked with what stands beside it")
        wrong = 0
        for checked in cards.check(place):
            for one in checked.found:
                err.print(Text(f"{checked.config}: {one}"), soft_wrap=True)
            wrong += len(checked.found)
            if not checked.found:
                told = f"{checked.config}: {checked.numbers:,} numbers, all what the data gives"
                out.print(Text(told), soft_wrap=True)
        if wrong:
            err.print(Text(f"{wrong} differ. To make the card anew: prequery card {place}"))
            raise typer.Exit(1)
        return
    if note and previous is None:
        raise typer.BadParameter("a change is noted together with --previous")
    text = None if template is None else read_template(template)
    for config in cards.rewrite(place, text, previous, note or ()):
        out.print(Text(f"{config}: the card in {place} is made from its data"), soft_wrap=True)
