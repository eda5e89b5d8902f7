"""The command line: build, plan, rehearse, probe, serve, recipe, columns, weights."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from prequery import __version__
from prequery.errors import BuildError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Instruction datasets that an aligned language model writes by itself (MAGPIE on TGI).",
)
recipes = typer.Typer(no_args_is_help=True, help="Check, show and pin recipes.")
app.add_typer(recipes, name="recipe")

out = Console()
err = Console(stderr=True)

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
ExactOption = Annotated[
    bool,
    typer.Option(help="Embedded model: one request at a time, so greedy texts repeat; slower."),
]
WeightsOption = Annotated[
    Path | None, typer.Option(help="A GGUF file of your own instead of the packaged weights.")
]


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


def show_error(error: BuildError) -> None:
    """Print what, where and fix. Plain text: a path or an answer may hold square brackets."""
    text = Text(f"{type(error).__name__}: ", style="bold red")
    text.append(f"{visible(error.what)}\n", style="default")
    text.append(f"  where: {visible(error.where)}\n  fix:   {visible(error.fix)}", style="default")
    err.print(text, soft_wrap=True)


def say(text: str) -> None:
    """Show a line for the user to read, unbroken, so that a path in it can be copied."""
    err.print(Text(visible(text)), soft_wrap=True)


def visible(text: str) -> str:
    """Return a text without what a terminal would obey; line breaks stay."""
    return "".join(c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" for c in text)


@app.command()
def build(
    recipe: RecipeArgument,
    out_folder: Annotated[
        str | None, typer.Option("--out", help="Output folder or fsspec URL; default out/NAME.")
    ] = None,
    endpoint: EndpointOption = None,
    token_env: TokenOption = None,
    responder_endpoint: ResponderOption = None,
    responder_token_env: TokenOption = None,
    judge_endpoint: JudgeOption = None,
    journal: JournalOption = None,
    num_proc: Annotated[int | None, typer.Option(min=1, help="Processes for conversion.")] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Stop when this run has spent so many tokens.")
    ] = None,
    max_seconds: Annotated[
        float | None, typer.Option(min=1, help="Stop after so many seconds.")
    ] = None,
    max_cost: Annotated[
        float | None,
        typer.Option(min=0, help="Stop at so many USD, by the prices in the recipe's endpoint."),
    ] = None,
    exact: ExactOption = False,
) -> None:
    """Build a dataset: both passes, columns, filters, shards, card and lock."""
    from prequery.recipe import load

    loaded = load(recipe)
    place = out_folder or f"out/{loaded.name}"
    options = replace(
        _with_others(
            _options(endpoint, token_env, journal, f"prequery {_words(sys.argv[1:])}"),
            responder_endpoint,
            responder_token_env,
            judge_endpoint,
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
    funnel = Table(title=f"{counts['attempts']} attempts", title_justify="left", box=None)
    funnel.add_column(justify="right")
    funnel.add_column()
    funnel.add_row(f"[green]{counts['accepted']}[/]", "accepted")
    for reason, count in counts["rejected"].items():
        funnel.add_row(f"[yellow]{count}[/]", Text(reason))
    for reason, count in counts["ended"].items():
        funnel.add_row(str(count), Text(f"accepted with fewer turns than drawn: {reason}"))
    out.print(funnel)
    for row in builder.sample_rows(3):
        said = Text()
        said.append(_short(row["instruction"]) + "\n", style="bold")
        said.append(_short(row["response"]))
        out.print(Panel(said, title=Text(row["id"]), title_align="left"))
    out.print(Text(f"The dataset is in {place}. Load it:\n"), soft_wrap=True)
    out.print(Text("    from datasets import load_dataset"))
    out.print(Text(f'    ds = load_dataset("{place}", "{name}", split="train")'), soft_wrap=True)


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
    resume = f"prequery {_words(sys.argv[1:])}"
    options = _with_others(
        _options(endpoint, token_env, journal, resume),
        responder_endpoint,
        responder_token_env,
        judge_endpoint,
    )
    with Progress(min(rows, loaded.rows), err) as shown:
        made = estimate(loaded, options, rows, shown)
    table = _quantities(
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


@app.command("judge-check")
def judge_check(
    recipe: RecipeArgument, journal: JournalOption = None, judge_endpoint: JudgeOption = None
) -> None:
    """Measure a recipe's judges on labelled instructions: are their labels worth anything?"""
    from prequery import pipeline
    from prequery.judge_check import CLEAR
    from prequery.recipe import load

    loaded = load(recipe)
    options = _with_others(_options(None, None, journal), None, None, judge_endpoint)
    for name, check in pipeline.check_judges(loaded, options, say).items():
        table = Table(title=f"judge {name}", title_justify="left", box=None, pad_edge=False)
        for title in ("kind", "labels"):
            table.add_column(title)
        for kind, labels in check.labels.items():
            said = ", ".join(f"{label} {count}" for label, count in labels.items())
            table.add_row(Text(kind, style="bold" if kind == CLEAR else ""), Text(said or "none"))
        out.print(table)
        out.print(Text(f"{name}: {check.sentence()}"), soft_wrap=True)


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
    out.print(_quantities(title, columns))
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


def _quantities(title: str, columns: dict[str, Any]) -> Table:
    """Draw what attempts need, one column for each case."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("")
    for name in columns:
        table.add_column(Text(name), justify="right")

    def row(name: str, shown: Callable[[Any], str]) -> None:
        table.add_row(name, *(shown(quantity) for quantity in columns.values()))

    row("attempts", lambda q: f"{q.attempts:,}")
    row("requests", lambda q: f"{q.requests:,}")
    row("prompt tokens", lambda q: "?" if q.prompt_tokens is None else f"{q.prompt_tokens:,}")
    row("generated tokens", lambda q: f"{q.generated_tokens:,}")
    row("time", lambda q: "?" if q.seconds is None else _clock(q.seconds))
    row("cost", lambda q: "no price in endpoint" if q.usd is None else f"{q.usd:,.4f} USD")
    return table


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


@app.command()
def probe(
    recipe: Annotated[
        str, typer.Argument(help="Its sampling is used, and its endpoint.", metavar="RECIPE")
    ] = "smollm2-demo",
    endpoint: EndpointOption = None,
    token_env: TokenOption = None,
    compare: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="BASE ALIGNED",
            help="The control experiment: draw as much from a base model as from an aligned one. "
            "Each is an endpoint's address, `local` (SmolLM2-135M-Instruct), `gemma-3-270m` (base "
            "weights of the extra `control`, under Gemma's terms) or a GGUF file. --token-env is "
            "then ALIGNED's.",
        ),
    ] = None,
    base_token_env: Annotated[
        str | None, typer.Option(help="Environment variable with the bearer token for BASE.")
    ] = None,
    draws: Annotated[
        int, typer.Option(min=2, max=10_000, help="Draws from each model of --compare.")
    ] = 64,
    exact: ExactOption = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="The comparison as JSON, each draw included.")
    ] = False,
) -> None:
    """Show the prefix of the served model, and whether it writes its own instructions."""
    from prequery.recipe import load

    loaded = load(recipe)
    if compare and endpoint:
        raise typer.BadParameter("--compare names its endpoints itself: leave --endpoint out")
    if not compare and (as_json or base_token_env or exact):
        raise typer.BadParameter(
            "--json, --exact and --base-token-env belong to --compare BASE ALIGNED"
        )
    if compare:
        tokens = (base_token_env, token_env)
        _compare(compare, tokens, exact, loaded.instructions[0], draws, as_json)
    else:
        _probe(loaded, _options(endpoint, token_env))


def _probe(loaded: Any, options: Any) -> None:
    from prequery import models
    from prequery import probe as probing
    from prequery.prefix import derive, prove
    from prequery.runner import run_async

    async def run() -> None:
        async with models.generator_fleet(loaded, options, say) as asked:
            info = await asked.info()
            prefix = await derive(asked, loaded.generator, Path(loaded.source).parent)
            _show_prefix(info, prefix)
            say((await prove(asked, prefix, loaded.instructions[0])).sentence)
            answers = await probing.sample(asked, prefix, loaded.instructions[0])
            for number, answer in enumerate(answers[:5], 1):
                ended = "" if answer.finish_reason != "length" else " [cut off]"
                out.print(Text(f"{number}. {_short(answer.text.strip())}{ended}"))
            verdict = probing.judge(answers, prefix)
            out.print(Text(verdict.sentence(info.model_id), style="bold"), soft_wrap=True)

    run_async(run())


def _compare(
    names: tuple[str, str],
    token_envs: tuple[str | None, str | None],
    exact: bool,
    sampling: Any,
    draws: int,
    as_json: bool,
) -> None:
    import json
    from functools import partial

    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

    from prequery import comparison
    from prequery.fleet import token_from
    from prequery.runner import run_async

    base, aligned = (
        comparison.Subject(comparison.find(name, say), token_from(variable), exact)
        for name, variable in zip(names, token_envs, strict=True)
    )
    columns = ("draws", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as shown:
        task = shown.add_task("draws", total=2 * draws)
        drawn = partial(shown.advance, task)
        done = run_async(comparison.compare(base, aligned, sampling, draws, say, drawn))
    if as_json:
        out.file.write(json.dumps(done.to_json(), indent=2) + "\n")
    else:
        _show_comparison(done)


def _show_comparison(done: Any) -> None:
    """Draw both sides beside each other, three draws of each, the rule and the sentence."""
    from prequery.probe import REQUEST_RULE, is_finished, is_request

    sides = {"base": done.base, "aligned": done.aligned}
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for name in sides:
        table.add_column(name, overflow="fold")

    def row(title: str, shown: Callable[[Any], str]) -> None:
        table.add_row(title, *(Text(visible(shown(side))) for side in sides.values()))

    row("model", lambda side: side.info.model_id)
    for title in done.base.shares:
        table.add_row(title, *(_share(side.shares[title]) for side in sides.values()))
    row("log-probability", lambda side: _logprob(side.verdict.logprob_mean))
    out.print(table)
    for name, side in sides.items():
        out.print(Text(f"sent to {name}: {visible(side.sent)}"), soft_wrap=True)
    for name, side in sides.items():
        for answer in side.answers[:3]:
            kind = "request" if is_request(answer, side.prefix) else "no request"
            kind = kind if is_finished(answer) else "cut off"
            out.print(Text(f"{name}, {kind}: {_short(answer.text.strip(), 160)}"), soft_wrap=True)
    notes = (
        "Shares with Wilson's 95 % interval; distinct: of those that finished. Log-probability: "
        "mean of a token as the endpoint reports it; not comparable between vocabularies."
    )
    out.print(Text(notes), soft_wrap=True)
    out.print(Text(REQUEST_RULE[0].upper() + REQUEST_RULE[1:] + "."), soft_wrap=True)
    out.print(Text(done.sentence(), style="bold"), soft_wrap=True)


def _share(share: Any) -> str:
    if share.ratio is None:
        return "none"
    low, high = share.interval
    return f"{share.count} of {share.of}: {share.ratio:.0%} ({low:.0%} to {high:.0%})"


def _logprob(mean: float | None) -> str:
    return "not reported" if mean is None else f"{mean:.2f}"


def _show_prefix(info: Any, prefix: Any) -> None:
    facts = Table.grid(padding=(0, 2))
    facts.add_column()
    facts.add_column(overflow="fold")
    facts.add_row("model", Text(f"{info.model_id}@{info.model_sha or 'unknown revision'}"))
    digest = f", sha256 {prefix.template_sha256[:12]}" if prefix.template_sha256 else ""
    facts.add_row("template", Text(prefix.source + digest))
    facts.add_row("prefix", Text(repr(prefix.text)))
    facts.add_row("token ids", Text(" ".join(map(str, prefix.ids))))
    facts.add_row("BOS", Text(prefix.bos))
    facts.add_row("system prompt", Text(repr(prefix.system_prompt)))
    facts.add_row("around another", Text(_pair(prefix.system, prefix.refused.get("system"))))
    facts.add_row("suffix", Text(repr(prefix.suffix)))
    facts.add_row("around a response", Text(_pair(prefix.answer, prefix.refused.get("answer"))))
    facts.add_row("thoughts", Text(_pair(prefix.think, "no marks known")))
    facts.add_row("stop strings", Text(", ".join(map(repr, prefix.stop))))
    out.print(facts)


def _pair(found: tuple[str, str] | None, why_none: str | None) -> str:
    return f"{found[0]!r} ... {found[1]!r}" if found else f"none: {why_none}"


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
    for title in ("column", "version", "needs", "gives", "what it measures"):
        # A name that is cut off with dots is no name to copy into a recipe.
        table.add_column(title, overflow="fold", no_wrap=title == "column")
    for name, column in available().items():
        told = (column.__doc__ or "").strip().splitlines()[0]
        gives = ", ".join(column.features)
        table.add_row(Text(name), str(column.version), column.cost, Text(gives), Text(told))
    out.print(table)


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
    options = _with_others(
        _options(endpoint, token_env), responder_endpoint, responder_token_env, judge_endpoint
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


@app.callback(invoke_without_command=True)
def version(
    show_version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    """Take the options that stand before any command."""
    if show_version:
        out.print(f"prequery {__version__}")
        raise typer.Exit


def _options(
    endpoint: list[str] | None,
    token_env: str | None,
    journal: str | None = None,
    resume: str = "",
) -> Any:
    from prequery.options import Options
    from prequery.recipe import check_url

    checked = tuple(check_url(one, "--endpoint") for one in endpoint or ())
    place = Path(journal) if journal and "://" not in journal else journal
    return Options(checked, token_env, journal=place, resume=resume)


def _with_others(
    options: Any, responder: list[str] | None, token_env: str | None, judges: list[str] | None
) -> Any:
    """Return the options with the addresses of the models that do not write instructions."""
    from prequery.recipe import check_url

    checked = tuple(check_url(one, "--responder-endpoint") for one in responder or ())
    named: dict[str, tuple[str, ...]] = {}
    for given in judges or ():
        name, _, address = given.partition("=")
        named[name] = (*named.get(name, ()), check_url(address, "--judge-endpoint"))
    return replace(
        options,
        responder_endpoints=checked,
        responder_token_env=token_env,
        judge_endpoints=named,
    )


def _words(arguments: list[str]) -> str:
    import shlex

    return shlex.join(arguments)


def _short(text: str, most: int = 320) -> str:
    shown = visible(text)
    return shown if len(shown) <= most else shown[: most - 1] + "…"
