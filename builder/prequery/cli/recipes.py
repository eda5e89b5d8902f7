"""recipe list, check, show and pin."""

from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from prequery.cli.apps import recipes
from prequery.cli.arguments import (
    EndpointOption,
    JudgeOption,
    RecipeArgument,
    ResponderOption,
    TokenOption,
    chosen,
)
from prequery.cli.screen import out, say


@recipes.command("list")
def list_() -> None:
    """List the bundled recipes: model, rows, and what each is."""
    from prequery.recipe import bundled_names, load

    table = Table(box=None, pad_edge=False)
    for title in ("recipe", "model", "rows", "what"):
        table.add_column(title, overflow="fold", no_wrap=title == "recipe")
    for name in bundled_names():
        loaded = load(name)
        told = loaded.text.splitlines()[0].removeprefix("# ")
        model = loaded.generator.model
        table.add_row(Text(name), Text(model), f"{loaded.rows:,}", Text(told))
    out.print(table)


@recipes.command()
def check(recipe: RecipeArgument) -> None:
    """Check a recipe without asking anything."""
    from prequery.recipe import load

    loaded = load(recipe)
    out.print(
        Text(
            f"{loaded.source} is a valid recipe: {loaded.name} {loaded.version}, "
            f"{loaded.rows} rows, fingerprint {loaded.fingerprint[:12]}"
        ),
        soft_wrap=True,
    )


@recipes.command()
def show(
    recipe: RecipeArgument,
    yaml: Annotated[
        bool, typer.Option("--yaml", help="Its file, letter by letter: to keep and change.")
    ] = False,
) -> None:
    """Show a recipe with every default filled in, and what it is bound to."""
    import json
    from dataclasses import asdict

    from prequery import lock
    from prequery.recipe import load

    loaded = load(recipe)
    if yaml:
        typer.echo(loaded.text, nl=False)
        return
    held = lock.beside(loaded)
    shown = {
        "fingerprint": loaded.fingerprint,
        "build_hash": loaded.build_hash,
        "name": loaded.name,
        "version": loaded.version,
        "rows": loaded.rows,
        "candidates": loaded.candidates,
        "max_attempts": loaded.max_attempts,
        "seed": loaded.seed,
        "generator": asdict(loaded.generator),
        "instructions": [asdict(setting) for setting in loaded.instructions],
        "responses": asdict(loaded.responses),
        "turns": loaded.turns,
        "follow_up": loaded.follow_up and asdict(loaded.follow_up),
        "steering": loaded.steering,
        "think": loaded.think,
        "responder": loaded.responder and asdict(loaded.responder),
        "judges": {name: asdict(judge) for name, judge in loaded.judges.items()},
        "preference": loaded.preference and asdict(loaded.preference),
        "columns": [column.name for column in loaded.columns],
        "filters": [step.text for step in loaded.filters],
        "release": asdict(loaded.release),
        "endpoint": asdict(loaded.endpoint),
        "pinned_prefix": held["prefix"]["text"] if held else None,
    }
    out.print_json(json.dumps(shown))


@recipes.command()
def pin(
    recipe: RecipeArgument,
    endpoint: EndpointOption = None,
    token_env: TokenOption = None,
    responder_endpoint: ResponderOption = None,
    responder_token_env: TokenOption = None,
    judge_endpoint: JudgeOption = None,
) -> None:
    """Ask the endpoint what it serves, and write the lock beside the recipe."""
    from prequery import lock, models
    from prequery.errors import RecipeError
    from prequery.recipe import load
    from prequery.runner import run_async

    loaded = load(recipe)
    path = lock.path_beside(loaded)
    options = chosen(
        endpoint,
        token_env,
        responder=responder_endpoint,
        responder_token_env=responder_token_env,
        judges=judge_endpoint,
    )

    async def run() -> None:
        async with models.asked(loaded, options, say) as asked:
            voices = await models.meet(loaded, asked)
            try:
                path.write_text(lock.dump(lock.pin(loaded, voices)), encoding="utf-8")
            except OSError as error:
                what = f"the lock cannot be written: {error.strerror}"
                raise RecipeError(what, str(path), "correct the permissions") from None

    run_async(run())
    out.print(Text(f"wrote {path}"), soft_wrap=True)
