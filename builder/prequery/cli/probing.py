"""probe, and judge-check: what a model is good for."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from prequery.cli.apps import app
from prequery.cli.arguments import (
    EndpointOption,
    ExactOption,
    JournalOption,
    JudgeOption,
    RecipeArgument,
    TokenOption,
    chosen,
)
from prequery.cli.screen import err, out, say, short, visible


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
        _probe(loaded, chosen(endpoint, token_env))


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
                out.print(Text(f"{number}. {short(answer.text.strip())}{ended}"))
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
            out.print(Text(f"{name}, {kind}: {short(answer.text.strip(), 160)}"), soft_wrap=True)
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


@app.command("judge-check")
def judge_check(
    recipe: RecipeArgument, journal: JournalOption = None, judge_endpoint: JudgeOption = None
) -> None:
    """Measure a recipe's judges on labelled instructions: are their labels worth anything?"""
    from prequery import pipeline
    from prequery.judge_check import CLEAR
    from prequery.recipe import load

    loaded = load(recipe)
    options = chosen(None, None, journal=journal, judges=judge_endpoint)
    for name, check in pipeline.check_judges(loaded, options, say).items():
        table = Table(title=f"judge {name}", title_justify="left", box=None, pad_edge=False)
        for title in ("kind", "labels"):
            table.add_column(title)
        for kind, labels in check.labels.items():
            said = ", ".join(f"{label} {count}" for label, count in labels.items())
            table.add_row(Text(kind, style="bold" if kind == CLEAR else ""), Text(said or "none"))
        out.print(table)
        out.print(Text(f"{name}: {check.sentence()}"), soft_wrap=True)
