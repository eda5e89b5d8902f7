"""verify: is a release what its lock says?"""

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.text import Text

from prequery.cli.apps import app
from prequery.cli.screen import out, visible

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
            mark, style = MARKS[finding.verdict]
            line = Text(f"{mark:8}", style=style)
            line.append(visible(f"{finding.name}: {finding.told}"), style="default")
            out.print(line, soft_wrap=True)
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
