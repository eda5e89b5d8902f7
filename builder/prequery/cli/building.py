"""build, plan and rehearse."""

from dataclasses import replace
from typing import Annotated, Any, Literal

import typer
from rich.panel import Panel
from rich.text import Text

from prequery.cli.apps import app
from prequery.cli.arguments import (
    EndpointOption,
    ExactOption,
    JournalOption,
    JudgeOption,
    MaxCostOption,
    MaxSecondsOption,
    MaxTokensOption,
    OutOption,
    RecipeArgument,
    ResponderOption,
    TokenOption,
    chosen,
)
from prequery.cli.screen import err, filter_steps, funnel, loading, out, quantities, short


@app.command()
def build(
    recipe: RecipeArgument,
    out_folder: OutOption = None,
    endpoint: EndpointOption = None,
    token_env: TokenOption = None,
    responder_endpoint: ResponderOption = None,
    responder_token_env: TokenOption = None,
    judge_endpoint: JudgeOption = None,
    journal: JournalOption = None,
    num_proc: Annotated[int | None, typer.Option(min=1, help="Processes for conversion.")] = None,
    max_tokens: MaxTokensOption = None,
    max_seconds: MaxSecondsOption = None,
    max_cost: MaxCostOption = None,
    exact: ExactOption = False,
) -> None:
    """Build a dataset: both passes, columns, filters, shards, card and lock."""
    from prequery.recipe import load

    loaded = load(recipe)
    place = out_folder or f"out/{loaded.name}"
    options = replace(
        chosen(
            endpoint,
            token_env,
            journal=journal,
            responder=responder_endpoint,
            responder_token_env=responder_token_env,
            judges=judge_endpoint,
        ),
        max_tokens=max_tokens,
        max_seconds=max_seconds,
        max_cost_usd=max_cost,
        exact=exact,
    )
    import datasets

    datasets.disable_progress_bars()
    from prequery.magpie import Magpie

    builder = Magpie(loaded, options=options)
    builder.download_and_prepare(place, file_format="parquet", num_proc=num_proc)
    _summary(builder, place)


def _summary(builder: Any, place: str) -> None:
    """Say where the data is, how to load it, what was rejected and why, and show three rows."""
    lock = builder.folder_lock()
    counts, name = lock["build"], builder.recipe.name
    if builder.build is None:
        out.print(f"Reusing {place}: it holds this very build, complete and unchanged.")
    table = funnel(f"{counts['attempts']} attempts", counts)
    for reason, count in counts["ended"].items():
        table.add_row(str(count), Text(f"accepted with fewer turns than drawn: {reason}"))
    out.print(table)
    if counts.get("steps"):
        out.print(filter_steps(counts["steps"]))
    for row in builder.sample_rows(3):
        said = Text()
        said.append(short(row["instruction"]) + "\n", style="bold")
        said.append(short(row["response"]))
        out.print(Panel(said, title=Text(row["id"]), title_align="left"))
    out.print(Text(f"The dataset is in {place}. Load it:\n"), soft_wrap=True)
    out.print(loading(place, name), soft_wrap=True)


@app.command()
def plan(
    recipe: RecipeArgument,
    endpoint: EndpointOption = None,
    token_env: TokenOption = None,
    responder_endpoint: ResponderOption = None,
    responder_token_env: TokenOption = None,
    judge_endpoint: JudgeOption = None,
    journal: JournalOption = None,
    rows: Annotated[int, typer.Option(min=4, help="Rows to attempt for the estimate.")] = 32,
) -> None:
    """Estimate requests, tokens, time and cost, from the first rows of the build itself."""
    from prequery.planning import plan as estimate
    from prequery.progress import Progress
    from prequery.recipe import load

    loaded = load(recipe)
    options = chosen(
        endpoint,
        token_env,
        journal=journal,
        responder=responder_endpoint,
        responder_token_env=responder_token_env,
        judges=judge_endpoint,
    )
    with Progress(min(rows, loaded.goal), err) as shown:
        made = estimate(loaded, options, rows, shown)
    table = quantities(
        f"{made.rows} rows of {loaded.name}",
        {"probe": made.probe, "expected": made.expected, "cautious": made.cautious},
    )
    out.print(table)
    for reason, count in made.rejected.items():
        out.print(Text(f"{count} of {made.probe.attempts} attempts rejected: {reason}"))
    out.print(
        Text(
            "The probe is in the journal: the build does not pay for it again. Cautious: "
            "acceptance two standard errors lower. Time is at the speed of so few rows at once: "
            "an endpoint with room for more is faster. Filters over all rows are not in it."
        ),
        soft_wrap=True,
    )


FAULT_HELP = (
    "KIND=SHARE of the requests, may be repeated; kinds: overloaded (429), unhealthy (503), "
    "failed (424), reset, truncated, malformed, stall, drip."
)


@app.command()
def rehearse(
    recipe: RecipeArgument,
    rows: Annotated[int, typer.Option(min=1, help="At most so many of the recipe's.")] = 1000,
    endpoints: Annotated[int, typer.Option(min=1, max=256, help="Simulated endpoints.")] = 1,
    slots: Annotated[int, typer.Option(min=1, help="Answers that each decodes at once.")] = 256,
    tokens_per_s: Annotated[
        float, typer.Option(min=0.1, help="Of one answer, when its endpoint is busy.")
    ] = 50.0,
    instruction_tokens: Annotated[float, typer.Option(min=4, help="Median length.")] = 25.0,
    response_tokens: Annotated[float, typer.Option(min=4, help="Median length.")] = 350.0,
    fault: Annotated[list[str] | None, typer.Option(help=FAULT_HELP)] = None,
    protocol: Annotated[
        Literal["tgi", "completions"],
        typer.Option(help="TGI's, or raw completions as llama.cpp's server speaks them."),
    ] = "tgi",
    speed_up: Annotated[
        float, typer.Option(min=1, help="Run so many times as fast; times are told as they were.")
    ] = 10.0,
) -> None:
    """Rehearse a build against a simulated fleet: no model, no cost, nothing kept."""
    import datasets

    datasets.disable_progress_bars()
    from prequery.recipe import load
    from prequery.rehearsal import rehearse as run
    from prequery.simulation import Lengths, Machine, Settings

    loaded = load(recipe)
    settings = Settings(
        machines=(Machine(slots=slots, token_s=1 / tokens_per_s),) * endpoints,
        lengths=Lengths(instruction_median=instruction_tokens, response_median=response_tokens),
        faults=_faults(fault or []),
        protocol=protocol,
    )
    done = run(loaded, settings, rows, speed_up)
    title = f"{done.rows} rows of {loaded.name}, rehearsed"
    columns = {"rehearsed": done.spent, f"all {done.wanted} rows": done.whole}
    out.print(quantities(title, columns))
    out.print(
        Text("busy, tail included: " + ", ".join(f"{share:.0%}" for share in done.utilisation))
    )
    for kind, count in done.faults.items():
        out.print(Text(f"played: {count} x {kind}"))
    for reason, count in done.rejected.items():
        out.print(Text(f"{count} of {done.spent.attempts} attempts rejected: {reason}"))
    if done.cpu_ratio > 0.8:
        out.print(
            Text(
                f"The builder itself used {done.cpu_ratio:.0%} of a core: the times are too long. "
                "Rehearse with a smaller --speed-up."
            ),
            soft_wrap=True,
        )
    out.print(
        Text(
            "Simulated: the model, its chat template (ChatML), words, lengths and speed. Real: "
            "everything else, without filters on the language. The share of attempts that pass is "
            "the real model's affair: ask it with `prequery plan`."
        ),
        soft_wrap=True,
    )


def _faults(given: list[str]) -> Any:
    from prequery.simulation.settings import KINDS, Faults

    rates: dict[str, float] = {}
    for one in given:
        kind, _, share = one.partition("=")
        try:
            rates[kind] = float(share)
        except ValueError:
            rates[kind] = -1.0
        if kind not in KINDS or not 0 <= rates[kind] <= 1 or sum(rates.values()) > 1:
            raise typer.BadParameter(f"{one!r} is not a fault: {FAULT_HELP}")
    return Faults(**rates)
