"""The commands are hung up here, by the modules that define them."""

import typer

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Instruction datasets that an aligned language model writes by itself (MAGPIE on TGI).",
)
recipes = typer.Typer(no_args_is_help=True, help="Check, show and pin recipes.")
app.add_typer(recipes, name="recipe")
