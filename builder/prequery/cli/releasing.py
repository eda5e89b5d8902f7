"""release."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
from rich.text import Text

from prequery.cli.apps import app
from prequery.cli.arguments import JournalOption, chosen
from prequery.cli.screen import err, loading, out, say, visible


@app.command()
def release(
    out_folder: Annotated[
        str,
        typer.Argument(metavar="OUT", help="What `prequery build --out` wrote: folder or URL."),
    ],
    repo: Annotated[
        str | None,
        typer.Option(metavar="ORG/NAME", help="Release on the Hub; default the recipe's repo."),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(metavar="FOLDER_OR_URL", help="Release into a folder or fsspec URL instead."),
    ] = None,
    config: Annotated[
        str | None, typer.Option(help="Which config, where OUT holds several.")
    ] = None,
    branch: Annotated[
        str, typer.Option(help="Of the repository; made from main where it is missing.")
    ] = "main",
    private: Annotated[
        bool, typer.Option("--private", help="Make a repository that only members see.")
    ] = False,
    create_pr: Annotated[
        bool,
        typer.Option(
            "--create-pr",
            help="Propose it as a pull request; when it is merged the same command makes the tag.",
        ),
    ] = False,
    overwrite_edits: Annotated[
        bool,
        typer.Option(
            "--overwrite-edits",
            help="Replace what somebody edited by hand in the repository since the last release.",
        ),
    ] = False,
    with_journal: Annotated[
        bool,
        typer.Option(
            "--with-journal",
            help="Publish the recorded answers too: anybody can rebuild the same bytes from them.",
        ),
    ] = False,
    journal: JournalOption = None,
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

    On the Hub it is one commit and one tag, CONFIG-vVERSION. The token is that of `hf auth login`
    or HF_TOKEN.

    Exit codes: 0 released, or there already; 1 refused or stopped, and the same command carries
    on; 2 wrong usage.
    """
    from prequery.release import content

    if repo and to:
        raise typer.BadParameter("name one place: --repo or --to")
    if to and (branch != "main" or private or create_pr or overwrite_edits):
        raise typer.BadParameter(
            "--branch, --private, --create-pr and --overwrite-edits are for a repository"
        )
    read = content.read(out_folder, config, allow_chance_labels=allow_chance_labels)
    place = repo or (None if to else read.recipe.release.repo)
    if place is None and to is None:
        raise typer.BadParameter("name a place: --repo ORG/NAME or --to FOLDER_OR_URL")
    with TemporaryDirectory(prefix="prequery-recording-") as folder:
        if with_journal:
            read = _recorded(read, journal, Path(folder))
        if place is None:
            from prequery.release import folder as into

            _show(into.release(read, str(to), dry_run=dry_run), read)
            return
        from prequery.release.hub import Wishes

        wishes = Wishes(
            branch=branch,
            private=private,
            create_pr=create_pr,
            overwrite_edits=overwrite_edits,
            dry_run=dry_run,
        )
        _show(_on_hub(read, place, wishes), read, place)


def _recorded(read: Any, journal: str | None, folder: Path) -> Any:
    """Return a release with the answers that it rests on."""
    from fsspec.implementations.local import LocalFileSystem

    from prequery import recording
    from prequery.recipe import Recipe

    if not isinstance(read.recipe, Recipe):
        raise typer.BadParameter("rows of somebody's dataset rest on no answers: no --with-journal")
    root = folder / recording.place(read.config, read.version)
    root.mkdir(parents=True)
    options = chosen(None, None, journal=journal)
    recording.publish(read.recipe, read.lock, options, LocalFileSystem(), str(root))
    return read.beside(folder)


def _on_hub(read: Any, place: str, wishes: Any) -> Any:
    import logging

    from huggingface_hub.utils.tqdm import disable_progress_bars

    from prequery.release import hub
    from prequery.release.wire import Wire

    if not err.is_terminal:
        disable_progress_bars()
    # It would print the signed addresses of uploads that it tries again.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    return hub.release(read, Wire(place), wishes, say)


def _show(outcome: Any, content: Any, repo: str | None = None) -> None:
    """Say what came of it, what changed, and how it is loaded."""
    title = f"{content.config} {content.version}"
    said = {
        "released": f"Released {title} to {outcome.where}.",
        "unchanged": f"{outcome.where} holds {title} already: nothing was changed.",
        "planned": f"To release {title} to {outcome.where} would:",
        "proposed": f"Proposed {title}: {outcome.url}. When it is merged, run the same command: "
        "it makes the tag.",
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
    if outcome.kind == "proposed":
        return
    out.print(Text("Load it:\n"))
    tag = content.tag if repo else None
    out.print(loading(visible(outcome.where), content.config, tag), soft_wrap=True)
