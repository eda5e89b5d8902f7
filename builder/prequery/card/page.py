"""Recipe, lock and facts become README.md: a YAML block for machines, a text for people."""

import inspect
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from jinja2 import Environment, StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from prequery.bundled import bundled
from prequery.card import croissant, licences, markdown, sections
from prequery.card.facts import Facts
from prequery.card.history import Version
from prequery.card.markdown import Markdown
from prequery.card.meanings import FIELDS, GIVEN, features
from prequery.card.plots import Plot, draw
from prequery.errors import CardError, ShardError
from prequery.lock import Lock
from prequery.recipe import DEFAULT, Annotation, AnyRecipe, Sampling
from prequery.selection import filter_reason

TEMPLATE = "card.md.jinja"
ANNOTATED = "annotated.md.jinja"
SHOWN_CHARS = 400
"""A text of a shown row is cut behind so many characters."""
SHOWN_OF_EXAMPLE = 60
"""The instruction of a row that a filter rejected is cut behind so many characters."""
SHOWN_VALUES = 8
"""So many values of a field are counted one by one; the others together."""

HELD: Mapping[str, str] = {
    "near_duplicate": "instructions have nearly the wording of an earlier one",
    "contaminated": "instructions hold most of a benchmark's test item",
    "instruction_personal_data_kinds": "instructions hold what looks like personal data or a key",
    "response_personal_data_kinds": "responses hold what looks like personal data or a key",
    "response_refusal": "responses refuse, by their English phrases",
    "instruction_assistant_voice": "instructions sound like an assistant, by their English phrases",
}
"""What rows may hold that a reader wants to know of, by the field that tells."""

_MODES = {
    True: "one answer at a time, nothing computed is reused: the same request, the same text",
    False: "several answers at a time: the same request can bring another text",
    None: "not told by the endpoint",
}


@dataclass(frozen=True)
class Card:
    """A config's card, and what stands in files of its own beside it.

    Args:
        readme: YAML block and text; `sections.merged` puts it into a repository's README.
        files: Path in the release to content.
    """

    readme: str
    files: Mapping[str, str]


def make(
    recipe: AnyRecipe,
    lock: Lock,
    facts: Facts,
    template: str | None = None,
    versions: Sequence[Version] = (),
) -> Card:
    """Return a release's card and its plots. Equal arguments give equal bytes.

    Args:
        recipe: What was built.
        lock: From `lock.complete`.
        facts: Measured from the files that the lock lists.
        template: A user's own; null: the bundled one.
        versions: This version and those before it, newest first; empty: nobody noted them.

    Raises:
        CardError: The template cannot be rendered.
        ShardError: The three do not speak of the same rows.
    """
    _agree(recipe, lock, facts)
    plots = draw(facts, _orders(recipe))
    block = sections.dump(front_matter(recipe, lock, facts))
    text = _text(
        recipe,
        lock,
        facts,
        {"plots": _pictures(recipe, plots), "versions": _known(recipe, facts, versions)},
        template,
    )
    files = {plot_path(recipe, plot): plot.drawing for plot in plots}
    files[croissant.path(recipe)] = croissant.describe(recipe, lock, facts)
    return Card(f"---\n{block}---\n\n{text}", files)


def render(recipe: AnyRecipe, lock: Lock, facts: Facts, template: str | None = None) -> str:
    """Return the card's text alone, as `make` does."""
    return make(recipe, lock, facts, template).readme


def plot_path(recipe: AnyRecipe, plot: Plot) -> str:
    """Return where a plot is in a release."""
    return f"{plot_folder(recipe)}/{plot.name}.svg"


def plot_folder(recipe: AnyRecipe) -> str:
    """Return where a config's plots are in a release."""
    return f"plots/{recipe.name}"


def front_matter(recipe: AnyRecipe, lock: Lock, facts: Facts) -> dict[str, Any]:
    """Return the YAML block as the Hub and `datasets` read it.

    `configs[].version` is what consumers see as `ds.info.version`. A licence that the recipe does
    not name is left out.
    """
    content = {
        "pretty_name": recipe.name,
        **licences.front_matter(recipe, lock),
        "language": list(facts.languages()),
        "task_categories": ["text-generation"],
        "size_categories": [sections.size_category(facts.rows)],
        "annotations_creators": ["machine-generated"],
        **_origin(recipe),
        "source_models": [source.model for source in licences.sources(lock)],
        "configs": [
            {
                "config_name": recipe.name,
                "version": recipe.version,
                "data_files": [{"split": "train", "path": f"{recipe.name}/train-*.parquet"}],
            }
        ],
        "dataset_info": _dataset_info(recipe, lock, facts),
    }
    return {key: value for key, value in content.items() if value}


def _origin(recipe: AnyRecipe) -> dict[str, Any]:
    """Return the keys that tell where the rows come from."""
    if isinstance(recipe, Annotation):
        given = recipe.dataset
        hub = [given.path] if given.revision else []
        return {"source_datasets": hub, "tags": ["prequery", "annotated", "instruction-tuning"]}
    return {
        "language_creators": ["machine-generated"],
        "source_datasets": ["original"],
        "tags": ["synthetic", "magpie", "prequery", "instruction-tuning"],
    }


def _agree(recipe: AnyRecipe, lock: Lock, facts: Facts) -> None:
    """Refuse to describe rows by the lock or the recipe of others."""
    build = lock["build"]
    pairs = {
        "fields": (
            list(features(recipe, lock)),
            [field.name for field in facts.fields],
        ),
        "build hashes": (recipe.build_hash, lock["config"]["build_hash"]),
        "accepted rows": (build["accepted"], facts.rows),
        "rows of the listed files": (sum(f["rows"] for f in lock["files"].values()), facts.rows),
        "attempts": (build["attempts"], build["accepted"] + sum(build["rejected"].values())),
    }
    for name, (told, found) in pairs.items():
        if told != found:
            differ = f"{name} are noted as {told!r:.200}, found as {found!r:.200}"
            raise ShardError(
                f"the card would be wrong: {differ}",
                f"config {recipe.name}",
                "recipe, lock and Parquet files are not of one build; build into a new --out",
            )


def _dataset_info(recipe: AnyRecipe, lock: Lock, facts: Facts) -> dict[str, Any]:
    """Return what `datasets` would write itself, and the version."""
    from datasets import DatasetInfo, SplitDict, SplitInfo
    from datasets.info import DatasetInfosDict
    from huggingface_hub import DatasetCardData

    info = DatasetInfo(
        features=features(recipe, lock),
        splits=SplitDict({"train": SplitInfo("train", facts.num_bytes, facts.rows)}),
        download_size=sum(file["bytes"] for file in lock["files"].values()),
        dataset_size=facts.num_bytes,
    )
    card = DatasetCardData()
    DatasetInfosDict({recipe.name: info}).to_dataset_card_data(card)
    held = card["dataset_info"]
    # `datasets` reads a version here too, and writes none.
    return {"config_name": held["config_name"], "version": recipe.version, **held}


def environment() -> Environment:
    """Return the Jinja environment of card templates: what is unknown raises, text is made safe.

    A release may bring a template of its own, and `--check` renders it: it is sandboxed.
    """
    made = ImmutableSandboxedEnvironment(
        # A card is Markdown: `safe` does for it what autoescape does for HTML.
        autoescape=False,
        finalize=markdown.safe,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {
        "fence": markdown.fence,
        "folded": markdown.folded,
        "link": markdown.link,
        "literal": markdown.literal,
        "one_line": markdown.one_line,
        "prose": markdown.prose,
        "sampling": _sampling,
        "share": markdown.share,
        "short": markdown.short,
    }
    return made


def _text(
    recipe: AnyRecipe, lock: Lock, facts: Facts, more: Mapping[str, Any], template: str | None
) -> str:
    source = template
    if source is None:
        name = ANNOTATED if isinstance(recipe, Annotation) else TEMPLATE
        source = (bundled("dataset_cards") / name).read_text(encoding="utf-8")
    try:
        return _rendered(source, recipe, lock, facts, more)
    except (TemplateError, ArithmeticError, TypeError, ValueError, LookupError) as error:
        if template is None:
            raise
        line = getattr(error, "lineno", None) or _template_line(error)
        raise CardError(
            f"the card's template cannot be rendered: {error}",
            f"template, line {line}",
            "the names that it may use are those of dataset_cards/card.md.jinja",
        ) from None


def check_template(template: str | None, where: str) -> None:
    """Look whether a user's template is Jinja at all; null is none.

    Raises:
        CardError: It is not.
    """
    try:
        environment().parse(template or "")
    except TemplateError as error:
        raise CardError(
            f"the card's template is no Jinja: {error.message}",
            f"{where}, line {getattr(error, 'lineno', 1)}",
            "correct that line",
        ) from None


def _template_line(error: BaseException) -> int:
    """Return the line of a template that an error came from."""
    lines = [
        place.lineno or 1
        for place in traceback.extract_tb(error.__traceback__)
        if place.filename == "<template>"
    ]
    return lines[-1] if lines else 1


def _rendered(
    source: str, recipe: AnyRecipe, lock: Lock, facts: Facts, more: Mapping[str, Any]
) -> str:
    return (
        environment()
        .from_string(source)
        .render(
            recipe=recipe,
            lock=lock,
            facts=facts,
            columns=_columns(recipe, lock, facts),
            own=[field for field in facts.fields if field.name not in recipe.dtypes],
            **more,
            sources=licences.sources(lock),
            terms=list(dict.fromkeys(one.terms for one in licences.sources(lock) if one.terms)),
            fields=_fields(recipe, lock, facts),
            **_written(recipe, lock),
            near=_near_threshold(recipe),
            nulls=[field for field in facts.fields if field.nulls and field.name in recipe.dtypes],
            rejected=_rejected(recipe, lock),
            held=_held(facts),
            line_chars=markdown.LINE_CHARS,
            shown_chars=SHOWN_CHARS,
            shown_of_example=SHOWN_OF_EXAMPLE,
            shown_values=SHOWN_VALUES,
        )
    )


def _written(recipe: AnyRecipe, lock: Lock) -> dict[str, Any]:
    """Return what a template is told only of rows that a model wrote."""
    if isinstance(recipe, Annotation):
        return {}
    steered = (one.system != DEFAULT or bool(one.start) for one in recipe.instructions)
    return {"mode": Markdown(_MODES[lock["endpoint"]["exact"]]), "steered": sum(steered)}


def _fields(recipe: AnyRecipe, lock: Lock, facts: Facts) -> list[dict[str, Any]]:
    """Return name, dtype, nulls and meaning of every field."""
    meaning = {name: Markdown(phrase) for name, phrase in FIELDS.items()}
    if isinstance(recipe, Annotation):
        kept = lock["dataset"]["kept"].items()
        meaning = {new: Markdown(f"the dataset's {markdown.code(old)}") for old, new in kept}
        meaning |= {name: Markdown(phrase) for name, phrase in GIVEN.items()}
    for column in recipe.columns:
        by_column = Markdown(f"measured by the column {markdown.code(column.name)}")
        meaning |= dict.fromkeys(column.features, by_column)
    dtypes = {name: _dtype(kind) for name, kind in features(recipe, lock).items()}
    return [
        {
            "name": field.name,
            "dtype": dtypes[field.name],
            "nulls": field.nulls,
            "meaning": meaning[field.name],
        }
        for field in facts.fields
    ]


def _pictures(recipe: AnyRecipe, plots: Sequence[Plot]) -> dict[str, Markdown]:
    return {
        plot.name: Markdown(f"![{markdown.prose(plot.caption)}]({plot_path(recipe, plot)})")
        for plot in plots
    }


def _held(facts: Facts) -> list[tuple[Markdown, int]]:
    """Return what columns looked for in the rows, and how many rows hold it."""
    found = []
    for name, words in HELD.items():
        tally = facts.tally(name)
        if tally is not None:
            # Of kinds, an empty text means none.
            count = sum(rows for value, rows in tally.items() if value not in ("", "false"))
            found.append((Markdown(words), count))
    return found


def _known(recipe: AnyRecipe, facts: Facts, versions: Sequence[Version]) -> list[Version]:
    """Return the versions to show; how many rows this one has is counted, not read."""
    mine = next((one for one in versions if one.version == recipe.version), None)
    now = Version(recipe.version, facts.rows, mine.changes if mine else ())
    return [now, *(one for one in versions if one.version != recipe.version)]


def _dtype(kind: Any) -> str:
    """Return a field's type in a few words; `[]` behind one means a list of it."""
    if type(kind).__name__ == "Value":
        return str(kind.dtype)
    inner = getattr(kind, "feature", None)
    if isinstance(inner, Mapping):
        return f"list of {{{', '.join(inner)}}}"
    return f"{_dtype(inner)}[]" if inner is not None else type(kind).__name__


def _orders(recipe: AnyRecipe) -> dict[str, Sequence[str]]:
    """Return the labels of fields whose labels have an order."""
    return {
        field: labels
        for column in recipe.columns
        for field, labels in getattr(column, "labels", {}).items()
        if field in getattr(column, "ordered", ())
    }


def _columns(recipe: AnyRecipe, lock: Lock, facts: Facts) -> list[dict[str, Any]]:
    """Return name, version, first line of its documentation, pins and fields of every column."""
    return [
        {
            "name": column.name,
            "version": column.version,
            "measures": markdown.prose((inspect.getdoc(type(column)) or "").partition("\n")[0]),
            "pins": lock["columns"][column.name]["pins"],
            "fields": [field for field in facts.fields if field.name in column.features],
        }
        for column in recipe.columns
    ]


def _rejected(recipe: AnyRecipe, lock: Lock) -> list[tuple[str, int]]:
    """Return reasons and their attempts, most frequent first; filters that took none at the end."""
    none = {filter_reason(step.text): 0 for step in recipe.filters}
    counts = none | lock["build"]["rejected"]
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _near_threshold(recipe: AnyRecipe) -> float | None:
    """Return the distance below which `repeat_count` counts; null where nothing counts it."""
    return next(
        (getattr(c, "threshold", None) for c in recipe.columns if "repeat_count" in c.features),
        None,
    )


def _sampling(sampling: Sampling) -> Markdown:
    """Return how a pass was decoded, without what was left at the endpoint's default."""
    shown = asdict(sampling) | {"weight": None}
    if shown.get("system") == DEFAULT:
        shown["system"] = None
    if shown.get("items"):
        shown["items"] = len(shown["items"])
    words = ", ".join(
        f"`{name}` {markdown.safe(markdown.short(v) if isinstance(v, str) else v)}"
        for name, v in shown.items()
        if v is not None
    )
    return Markdown(words if sampling.temperature is not None else f"greedy, {words}")
