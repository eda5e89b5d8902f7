"""verify, rebuild and diff: is a release what it says, does it come again, what changed?"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from prequery.cli.apps import app
from prequery.cli.arguments import EndpointOption, JudgeOption, ResponderOption, TokenOption, chosen
from prequery.cli.screen import out, say, visible

ReleaseArgument = Annotated[
    str, typer.Argument(help="A folder, an fsspec URL, or org/repo[@tag].", metavar="RELEASE")
]
ConfigArgument = Annotated[
    str | None, typer.Argument(help="Its name, where there are several.", metavar="[CONFIG]")
]
JsonOption = Annotated[bool, typer.Option("--json", help="As JSON.")]

MARKS = {"same": ("ok", "green"), "differs": ("DIFFERS", "bold red"), "unknown": ("?", "yellow")}


@app.command()
def verify(
    release: ReleaseArgument,
    config: ConfigArgument = None,
    digest: Annotated[
        str | None, typer.Option(help="The lock's digest, as you know it from elsewhere.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Recompute files, rows, counts and recipe of a release, and hold them against its lock.

    Exit codes: 0 all the same, 1 something differs.
    """
    from prequery.released import open_release
    from prequery.verification import verify as held

    opened = open_release(release, config)
    findings = []
    for finding in held(opened, digest):
        findings.append(finding)
        if not as_json:
            _mark(finding.verdict, f"{finding.name}: {finding.told}")
    differs = any(finding.verdict == "differs" for finding in findings)
    if as_json:
        told = {
            "release": opened.where,
            "config": opened.config,
            "version": opened.lock["config"]["version"],
            "same": not differs,
            "findings": [asdict(finding) for finding in findings],
        }
        typer.echo(json.dumps(told, indent=1))
    else:
        said = "is not what its lock says" if differs else "is what its lock says"
        out.print(Text(visible(f"{opened.title} in {opened.where} {said}.")), soft_wrap=True)
    if differs:
        raise typer.Exit(1)


@app.command()
def rebuild(
    release: ReleaseArgument,
    config: ConfigArgument = None,
    out_folder: Annotated[
        str | None, typer.Option("--out", help="Output folder or fsspec URL; default out/CONFIG.")
    ] = None,
    endpoint: EndpointOption = None,
    token_env: TokenOption = None,
    responder_endpoint: ResponderOption = None,
    responder_token_env: TokenOption = None,
    judge_endpoint: JudgeOption = None,
    journal: Annotated[
        str | None,
        typer.Option(
            help="Live: folder or fsspec URL for the new answers; default OUT-journal. What it "
            "holds is not asked for again."
        ),
    ] = None,
    min_identical: Annotated[
        float,
        typer.Option(min=0, max=1, help="Live: share of rows that must come again, text by text."),
    ] = 0.99,
    files: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            file_okay=False,
            help="Folder with the files that the recipe names, as benchmarks or references.",
        ),
    ] = None,
    shown: Annotated[int, typer.Option(min=0, help="Live: differing rows to show.")] = 10,
    as_json: JsonOption = False,
) -> None:
    """Build a release once more: from its recorded answers, or live against --endpoint.

    Exit codes: 0 the same bytes, or live enough rows the same; 1 not, or stopped by an error;
    2 wrong usage.
    """
    import datasets

    from prequery import rebuild as again
    from prequery.released import open_release

    datasets.disable_progress_bars()
    opened = open_release(release, config)
    place = out_folder or f"out/{opened.config}"
    if not endpoint:
        made = again.from_recording(opened, place, files)
        if as_json:
            typer.echo(json.dumps(again.to_json(made), indent=1))
        else:
            _tell(made)
            out.print(Text(visible(f"{opened.title} is rebuilt in {place}.")), soft_wrap=True)
        if not made.identical:
            raise typer.Exit(1)
        return
    options = chosen(
        endpoint,
        token_env,
        journal=journal or f"{place}-journal",
        responder=responder_endpoint,
        responder_token_env=responder_token_env,
        judges=judge_endpoint,
    )
    compared = again.live(opened, place, options, say, files=files)
    enough = compared.identical_ratio >= min_identical
    if as_json:
        typer.echo(json.dumps(again.to_json(compared), indent=1))
    else:
        _tell_rows(compared, shown)
        _tell(compared.rebuilt)
        said = "enough" if enough else "too few"
        line = f"{compared.identical_ratio:.2%} of the rows came again: {said} for {min_identical}."
        out.print(Text(line))
    if not enough:
        raise typer.Exit(1)


def _mark(verdict: str, told: str) -> None:
    """Show what was found of one thing."""
    mark, style = MARKS[verdict]
    line = Text(f"{mark:8}", style=style)
    line.append(visible(told), style="default")
    out.print(line, soft_wrap=True)


def _tell(made: Any) -> None:
    """Say which shards have the same bytes, and why others may not."""
    for name, same in made.files.items():
        _mark("same" if same else "differs", name)
    if not made.identical and made.same_rows:
        out.print(Text("All rows are the same: only the files' form differs."))
    for name, (then, now) in made.packages.items():
        out.print(Text(visible(f"The release was made with {name} {then}, here is {now}.")))


def _tell_rows(compared: Any, shown: int) -> None:
    """Say how like the new rows are, and where the first of them part."""
    for likeness, count in compared.counts.items():
        out.print(Text(f"{count:8,} {likeness}"))
    for one in compared.differences[:shown]:
        where = (
            f", token {one.token}: {one.ids[0]} -> {one.ids[1]}" if one.token is not None else ""
        )
        line = f"{one.id}: {one.likeness}"
        if one.part:
            line += f", {one.part}{where}, {one.texts[0]!r} -> {one.texts[1]!r}"
        out.print(Text(visible(line)), soft_wrap=True)


@app.command()
def diff(
    first: Annotated[str, typer.Argument(help="As RELEASE of `verify`.", metavar="A")],
    second: Annotated[str, typer.Argument(help="The same, the later one.", metavar="B")],
    config: ConfigArgument = None,
    as_json: JsonOption = False,
) -> None:
    """Say what changed between two releases: rows and why, values, columns, models, recipe."""
    from prequery.released import open_release
    from prequery.versions import compare

    changes = compare(open_release(first, config), open_release(second, config))
    if as_json:
        typer.echo(json.dumps(changes.to_json(), indent=1))
        return
    rows, again = changes.rows
    table = Table(
        title=Text(visible(f"{changes.before} -> {changes.after}")), title_justify="left", box=None
    )
    table.add_column(justify="right")
    table.add_column(overflow="fold")
    table.add_row(f"{rows:,}", "rows before")
    for why, count in changes.removed.items():
        table.add_row(f"-{count:,}", Text(visible(why)))
    for why, count in changes.added.items():
        table.add_row(f"+{count:,}", Text(visible(why)))
    table.add_row(f"{again:,}", f"rows now, {changes.kept:,} of them in both")
    for name, count in changes.values.items():
        table.add_row(f"{count:,}", Text(visible(f"values of {name} changed")))
    out.print(table)
    for sign, fields in (("-", changes.fields_removed), ("+", changes.fields_added)):
        for name in fields:
            out.print(Text(visible(f"{sign} field {name}")), soft_wrap=True)
    for told in (changes.columns, changes.models, changes.packages, changes.recipe):
        for name, (old, new) in told.items():
            line = f"{name}: {old or 'none'} -> {new or 'none'}"
            out.print(Text(visible(line)), soft_wrap=True)
    if changes.same_data:
        out.print("No row, field or value differs.")
