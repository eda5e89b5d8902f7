"""Arguments and options that several commands have, and what a build makes of them."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

RecipeArgument = Annotated[
    str, typer.Argument(help="A recipe's path, or the name of a bundled one.", metavar="RECIPE")
]
EndpointOption = Annotated[
    list[str] | None,
    typer.Option(
        help="Address of an endpoint, or `local`; instead of the recipe's. It is asked whether it "
        "speaks TGI's protocol or raw completions. May be repeated: all must serve the same model."
    ),
]
TokenOption = Annotated[
    str | None,
    typer.Option(help="Environment variable with the bearer token for these endpoints."),
]
ResponderOption = Annotated[
    list[str] | None,
    typer.Option(help="The same of the model that responds, where the recipe has a responder."),
]
JournalOption = Annotated[
    str | None,
    typer.Option(help="Folder or fsspec URL of all journals; default the user's data folder."),
]
JudgeOption = Annotated[
    list[str] | None,
    typer.Option(
        help="NAME=ADDRESS of one of the recipe's judges, instead of the recipe's; without a token."
    ),
]
OutOption = Annotated[
    str | None, typer.Option("--out", help="Output folder or fsspec URL; default out/NAME.")
]
MaxTokensOption = Annotated[
    int | None, typer.Option(min=1, help="Stop when this run has spent so many tokens.")
]
MaxCostOption = Annotated[
    float | None,
    typer.Option(min=0, help="Stop at so many USD, by the prices in the recipe's endpoints."),
]
MaxSecondsOption = Annotated[float | None, typer.Option(min=1, help="Stop after so many seconds.")]
ExactOption = Annotated[
    bool,
    typer.Option(help="Embedded model: one request at a time, so greedy texts repeat; slower."),
]
WeightsOption = Annotated[
    Path | None, typer.Option(help="A GGUF file of your own instead of the packaged weights.")
]


def chosen(
    endpoint: list[str] | None,
    token_env: str | None,
    *,
    journal: str | None = None,
    responder: list[str] | None = None,
    responder_token_env: str | None = None,
    judges: list[str] | None = None,
) -> Any:
    """Return the `Options` of what was given on the command line.

    Raises:
        RecipeError: An address is none, or holds credentials.
    """
    from prequery.options import Options
    from prequery.recipe import check_url

    named: dict[str, tuple[str, ...]] = {}
    for given in judges or ():
        name, _, address = given.partition("=")
        named[name] = (*named.get(name, ()), check_url(address, "--judge-endpoint"))
    return Options(
        endpoints=tuple(check_url(one, "--endpoint") for one in endpoint or ()),
        token_env=token_env,
        responder_endpoints=tuple(
            check_url(one, "--responder-endpoint") for one in responder or ()
        ),
        responder_token_env=responder_token_env,
        judge_endpoints=named,
        journal=Path(journal) if journal and "://" not in journal else journal,
        resume=f"prequery {shlex.join(sys.argv[1:])}",
    )
