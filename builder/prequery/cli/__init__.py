"""The command line: one module for a few commands that belong together."""

import sys
from typing import Annotated, NoReturn

import typer

from prequery import __version__
from prequery.cli import (  # noqa: F401 - they add their commands
    annotating,
    building,
    cards,
    checking,
    filtering,
    probing,
    recipes,
    releasing,
    serving,
)
from prequery.cli.apps import app
from prequery.cli.screen import err, out, show_error
from prequery.errors import BuildError

__all__ = ["app", "main"]


def main() -> NoReturn:
    """Run the command line. An error on purpose is three lines; any other is a bug and shows all.

    Exit codes: 0 done; 1 stopped by an error, resumable; 2 wrong use or recipe; 3 the
    run's budget is spent; 130 interrupted.
    """
    try:
        # Without standalone mode click lets errors and Ctrl-C through to the lines below.
        code = app(standalone_mode=False)
    except BuildError as error:
        show_error(error)
        code = error.exit_code
    except typer.Abort:
        code = 130
    except KeyboardInterrupt:
        err.print("interrupted; run the same command to carry on")
        code = 130
    except Exception as error:
        # Wrong usage is click's own kind of error, which typer does not re-export.
        if not hasattr(error, "format_message") or not hasattr(error, "show"):
            raise
        error.show()
        code = 2
    sys.exit(code or 0)


@app.callback(invoke_without_command=True)
def version(
    show_version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    """Take the options that stand before any command."""
    if show_version:
        out.print(f"prequery {__version__}")
        raise typer.Exit
