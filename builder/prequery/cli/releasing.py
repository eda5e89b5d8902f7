"""release."""

from typing import Annotated, Any

import typer
from rich.text import Text

from prequery.cli.apps import app
from prequery.cli.screen import out, visible


@app.command()
def release(
    out_folder: Annotated[
        str,
        typer.Argument(metavar="OUT", help="What `prequery build --out` wrote: folder or URL."),
    ],
    to: Annotated[
        str, typer.Option(metavar="FOLDER_OR_URL", help="Release into a folder or fsspec URL.")
    ],
    config: Annotated[
        str | None, typer.Option(help="Which config, where OUT holds several.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show exactly what would change, and change nothing.")
    ] = False,
    allow_chance_labels: Annotated[
        bool,
        typer.Option(
            "--allow-chance-labels",
            help="Release labels of a judge that `judge-check` found at chance, or never tried.",
        ),
    ] = False,
) -> None:
    """Release a build: whole or not at all, and never other content under a version that exists.

    Exit codes: 0 released, or there already; 1 refused or stopped, and the same command carries
    on; 2 wrong usage.
    """
    from prequery.release import content, folder

    read = content.read(out_folder, config, allow_chance_labels=allow_chance_labels)
    _show(folder.release(read, to, dry_run=dry_run), read)


def _show(outcome: Any, content: Any) -> None:
    """Say what came of it, what changed, and how it is loaded."""
    title = f"{content.config} {content.version}"
    said = {
        "released": f"Released {title} to {outcome.where}.",
        "unchanged": f"{outcome.where} holds {title} already: nothing was changed.",
        "planned": f"To release {title} to {outcome.where} would:",
    }
    out.print(Text(visible(said[outcome.kind])), soft_wrap=True)
    if outcome.kind == "unchanged":
        return
    changes = outcome.changes
    for line in changes.lines():
        out.print(Text(f"  {visible(line)}"), soft_wrap=True)
    out.print(Text(f"  send     {changes.send_bytes:,} bytes of data"))
    if outcome.kind == "planned":
        out.print(Text(visible(changes.readme)), soft_wrap=True)
        return
    out.print(Text("Load it:\n"))
    out.print(Text("    from datasets import load_dataset"))
    load = f'    ds = load_dataset("{outcome.where}", "{content.config}", split="train")'
    out.print(Text(visible(load)), soft_wrap=True)
