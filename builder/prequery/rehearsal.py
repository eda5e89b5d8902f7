"""Rehearse a build: the same code, a simulated fleet, nothing kept and nothing paid."""

import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import msgspec

from prequery.budget import cost_usd
from prequery.columns.base import Column, JudgeColumn, Reading
from prequery.columns.length import Length
from prequery.magpie import Magpie, Shows
from prequery.options import Options
from prequery.planning import Quantity
from prequery.progress import Progress
from prequery.recipe import OWN, Endpoint, Generator, Recipe
from prequery.simulation import Counters, Settings, simulate

SPOKEN = frozenset({"language", "language_score"})
"""Fields that filters on the language read."""


@dataclass(frozen=True)
class Rehearsal:
    """What a rehearsed build did, and what the whole one would need.

    Args:
        rows: That were rehearsed.
        wanted: That the recipe wants.
        spent: What the fleet was asked for; times and prices as they would really be.
        whole: The same for all rows of the recipe.
        rejected: Reason to number of attempts.
        counters: Of each endpoint, those of a responder last.
        utilisation: Of each endpoint: share of its slots' time in use.
        faults: Kind to how often it was played, with `refused` for want of room.
        cpu_ratio: Share of one core that the builder used while it asked. Near 1, the builder
            and not the fleet decided the time: rehearse with less speed-up.
    """

    rows: int
    wanted: int
    spent: Quantity
    whole: Quantity
    rejected: dict[str, int]
    counters: list[Counters]
    utilisation: list[float]
    faults: dict[str, int]
    cpu_ratio: float


def rehearse(
    recipe: Recipe,
    settings: Settings,
    rows: int,
    speed_up: float = 1.0,
    show: Callable[[int], Shows] = Progress,
) -> Rehearsal:
    """Build some rows of a recipe against a simulated fleet, in a temporary folder.

    Everything of a build is real but the model: its texts mean nothing, its lengths are those of
    the settings, its template is ChatML, and its language is English, so filters on the language
    are left out. So acceptance is not that of the real model. A responder has a fleet of its own,
    as large.

    Args:
        recipe: What will be built. Its endpoint is not asked, and its token is not read.
        settings: The fleet, with its real speed.
        rows: Rows to build.
        speed_up: The fleet is so many times as fast, and times are told as if it were not.
        show: Makes the progress display.

    Raises:
        BuildError: As a build.
    """
    models = [recipe.generator, *([recipe.responder] if recipe.responder else [])]
    served = [_sped_up(settings, speed_up, model) for model in models]
    with ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory()))
        fleets = [running.enter_context(simulate(one)) for one in served]
        plain = unjudged(recipe)
        short = replace(
            plain,
            rows=min(rows, recipe.goal),
            candidates=None,
            endpoint=Endpoint(concurrency=recipe.endpoint.concurrency),
            generator=_served(recipe.generator),
            responder=recipe.responder and replace(_served(recipe.responder), endpoint=Endpoint()),
            filters=tuple(step for step in plain.leading if not step.reads & SPOKEN),
            # A lock beside the recipe pins the real model's prefix; here is another template.
            source=str(folder / "recipe.yaml"),
        )
        asked, *responding = [tuple(fleet.urls) for fleet in fleets]
        options = Options(
            endpoints=asked,
            responder_endpoints=responding[0] if responding else (),
            journal=folder / "journal",
        )
        builder = Magpie(short, options=options, show=show)
        cpu = time.process_time()
        builder.download_and_prepare(folder / "out", file_format="parquet")
        cpu = time.process_time() - cpu
        counters = [one for fleet in fleets for one in fleet.counters()]
        build = builder.folder_lock()["build"]
    seconds = max(one.last_at for one in counters) - min(one.first_at for one in counters)
    prompt = sum(one.prompt_tokens for one in counters)
    generated = sum(one.generated_tokens for one in counters)
    spent = Quantity(
        attempts=build["attempts"],
        requests=sum(one.answered for one in counters),
        prompt_tokens=prompt,
        generated_tokens=generated,
        seconds=seconds * speed_up,
        usd=cost_usd(recipe, prompt, generated),
    )
    faults: Counter[str] = Counter()
    for one in counters:
        faults.update(one.faults | {"refused": one.refused})
    return Rehearsal(
        rows=short.rows,
        wanted=recipe.goal,
        spent=spent,
        whole=spent.times(recipe.goal / short.rows),
        rejected=build["rejected"],
        counters=counters,
        utilisation=[
            one.utilisation(machine.slots)
            for one, machine in zip(counters, settings.machines * len(fleets), strict=True)
        ],
        faults={kind: count for kind, count in sorted(faults.items()) if count},
        cpu_ratio=cpu / max(seconds, 1e-9),
    )


Model = TypeVar("Model", bound=Generator)


def _served(model: Model) -> Model:
    """Return the model with the template that its simulated endpoint renders."""
    return replace(model, template=None, date=None, thinking=None)


def unjudged(recipe: Recipe) -> Recipe:
    """Return the recipe without its judges, which are not simulated.

    Its own models are, so they read texts for columns, but what they find decides nothing.
    Responses that a judge would compare are compared by length, so that as many are asked for.
    """
    kept = [column for column in recipe.columns if _is_simulated(column)]
    left_out = {name for column in recipe.columns if column not in kept for name in column.features}
    own = tuple(_by_itself(column) for column in kept)
    judged = {
        name
        for column in recipe.columns
        if isinstance(column, JudgeColumn)
        for name in column.features
    }
    preference = recipe.preference
    if preference and preference.score in left_out:
        preference = replace(preference, score="response_chars")
        own = own if any(isinstance(one, Length) for one in own) else (*own, Length())
    return replace(
        recipe,
        columns=own,
        filters=tuple(step for step in recipe.filters if step.reads.isdisjoint(judged)),
        judges={
            column.judge: replace(_served(recipe.judges[column.judge]), endpoint=Endpoint())
            for column in own
            if isinstance(column, JudgeColumn)
        },
        preference=preference,
    )


def _is_simulated(column: Column) -> bool:
    """Tell whether a column needs no judge that is not simulated."""
    if not isinstance(column, JudgeColumn):
        return True
    return all(one.asks is Reading and one.judge in OWN for one in column.askers())


def _by_itself(column: Column) -> Column:
    """Return a column that takes recorded embeddings as one that makes them itself."""
    if column.inputs() == column.reads:
        return column
    return replace(column, **{"embedder": "wordllama"})


def _sped_up(settings: Settings, speed_up: float, model: Generator) -> Settings:
    """Return a fleet that is so many times as fast and serves a model."""
    return msgspec.structs.replace(
        settings,
        machines=tuple(
            msgspec.structs.replace(
                machine,
                token_s=machine.token_s / speed_up,
                prefill_s=machine.prefill_s / speed_up,
            )
            for machine in settings.machines
        ),
        model_id=model.model,
        model_sha=model.revision,
    )
