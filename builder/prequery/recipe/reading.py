"""Read and check a recipe's file."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from importlib.resources.abc import Traversable
from itertools import product
from pathlib import Path
from typing import Any, cast, get_args
from urllib.parse import urlsplit

from prequery import columns as all_columns
from prequery import rows
from prequery.bundled import bundled
from prequery.columns.base import Column, CorpusColumn, JudgeColumn, Score
from prequery.errors import RecipeError
from prequery.filters import Filter, Pick
from prequery.recipe import filtering
from prequery.recipe.annotation import ALL_ROWS, Annotation, Dataset, read_dataset
from prequery.recipe.parts import (
    DEFAULT,
    ITEM,
    LOCAL,
    OWN,
    TRANSFORMERS,
    Endpoint,
    EndpointProtocol,
    FollowUp,
    Generator,
    Other,
    Preference,
    Recipe,
    Release,
    Sampling,
    Setting,
    Steering,
    Template,
    Think,
    column_dtypes,
)
from prequery.recipe.section import Section, short
from prequery.strict_yaml import Node, parse

GRID = ("temperature", "top_p")
"""Keys of a setting that may be lists."""
MAX_TURNS = 16

_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_NAME_HINT = "letters, digits, '.', '_' and '-'"
_PROSE = r"(?s:\S(.{0,9998}\S)?)"
_PROSE_HINT = "a text without white space around it, at most 10,000 characters"
_SEMVER = r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"


def load(reference: str | Path, changed: Mapping[str, Node] | None = None) -> Recipe:
    """Read a recipe from a file, or a bundled one by its name.

    Args:
        reference: Path or name.
        changed: Top-level keys to read as these instead.

    Raises:
        RecipeError: Naming file, line and key, what is allowed, and the closest match.
    """
    source = find(reference)
    return read(read_text(source), str(source), changed)


def read_text(source: Traversable) -> str:
    """Return a recipe's text, letter by letter.

    Raises:
        RecipeError: It cannot be read, or is no UTF-8.
    """
    try:
        return source.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        what = f"the recipe is not UTF-8: byte {error.start} is {error.object[error.start]:#04x}"
        raise RecipeError(what, str(source), "save it as UTF-8") from None
    except OSError as error:
        what = f"the recipe cannot be read: {error.strerror}"
        raise RecipeError(what, str(source), "check the path and its permissions") from None


def bundled_names() -> list[str]:
    """Return the names of the recipes that ship with the package."""
    entries = bundled("configs").iterdir()
    return sorted(Path(e.name).stem for e in entries if e.name.endswith(".yaml"))


def find(reference: str | Path) -> Traversable:
    """Return the file that a path or a bundled name stands for.

    Raises:
        RecipeError: There is no such file and no such bundled recipe.
    """
    path = Path(reference)
    if path.is_file():
        return path
    named = bundled("configs") / f"{reference}.yaml"
    if re.fullmatch(_NAME, str(reference)) and named.is_file():
        return named
    close = get_close_matches(path.stem, bundled_names(), 3)
    hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    raise RecipeError(
        f"there is no recipe {str(reference)!r}",
        "the recipe's path, or the name of one that ships with prequery",
        f"{hint}all of these: prequery recipe list",
    )


def read(
    text: str,
    source: str,
    changed: Mapping[str, Node] | None = None,
    locked: Mapping[str, Mapping[str, str]] | None = None,
) -> Recipe:
    """Check a recipe's text.

    Args:
        text: YAML.
        source: Name of the file, for errors.
        changed: As `load`.
        locked: Column to its pins in the lock of a release whose recipe this is: files that it
            names need not be here. Null: they must.

    Raises:
        RecipeError: As `load`.
    """
    node = parse(text, source)
    if isinstance(node.value, dict) and "dataset" in node.value:
        raise RecipeError(
            "this recipe is for somebody's dataset: it has no model that writes rows",
            f"{source}, line {node.value['dataset'].line}, dataset",
            f"prequery annotate --recipe {source}",
        )
    if changed and isinstance(node.value, dict):
        node.value.update(changed)
    top = Section(node, source, "", Recipe)
    chosen = _columns(top, locked)
    row_count = top.integer("rows", low=1, high=10**9)
    turns = _turns(top)
    responses = _sampling(top.section("responses", Sampling))
    preference = _preference(top, chosen, turns, responses.temperature is None)
    judges = _judges(top, chosen)
    steps = filtering.read(top, chosen, preference, row_count)
    candidates = filtering.candidates(top, steps, row_count)
    goal = candidates or row_count
    return Recipe(
        name=top.text("name", pattern=_NAME, hint=_NAME_HINT),
        version=top.text("version", pattern=_SEMVER, hint="three numbers, as in 1.0.0"),
        rows=row_count,
        candidates=candidates,
        seed=top.integer("seed", low=0, high=2**63 - 1),
        generator=_generator(top.section("generator", Generator)),
        instructions=tuple(_settings(top)),
        responses=responses,
        turns=turns,
        follow_up=_follow_up(top, turns),
        steering=top.text("steering", choices=get_args(Steering), default="hidden"),
        think=top.text("think", choices=get_args(Think), default="keep"),
        responder=_responder(top.section("responder", Other, optional=True)),
        judges=judges,
        preference=preference,
        columns=chosen,
        filters=steps,
        release=_release(top.section("release", Release, optional=True)),
        endpoint=_endpoint(top),
        max_attempts=top.integer("max_attempts", goal, 10**10, max(100, 10 * goal)),
        source=source,
        text=text,
    )


def read_annotation(
    text: str,
    source: str,
    dtypes: Mapping[str, str] | None = None,
    locked: Mapping[str, Mapping[str, str]] | None = None,
) -> Annotation:
    """Check the text of a recipe that annotates a dataset.

    Args:
        text: YAML.
        source: Name of the file, for errors.
        dtypes: Fields that rows have before columns, with their dtypes; null: the dataset is not
            open yet, and filters are left out.
        locked: As for `read`.

    Raises:
        RecipeError: Naming file, line and key, what is allowed, and the closest match.
    """
    top = Section(parse(text, source), source, "", Annotation)
    chosen = _columns(top, locked)
    rows.dtypes(column_dtypes(chosen))
    own = [column.judge for column in _askers(chosen) if column.judge in OWN]
    if own:
        what = f"a column asks the {own[0]}, and a dataset that is there has none"
        raise top.bad("columns", what, "name one of judges in the column's parameters")
    judges = _judges(top, chosen)
    row_count = top.integer("rows", low=1, high=ALL_ROWS, default=None)
    steps: tuple[Filter | Pick, ...] = ()
    if dtypes is not None:
        steps = filtering.read(top, chosen, None, row_count or 1, dtypes)
    return Annotation(
        name=top.text("name", pattern=_NAME, hint=_NAME_HINT),
        version=top.text("version", pattern=_SEMVER, hint="three numbers, as in 1.0.0"),
        dataset=read_dataset(top.section("dataset", Dataset)),
        rows=row_count or ALL_ROWS,
        candidates=top.integer("candidates", row_count or 1, ALL_ROWS, default=None),
        judges=judges,
        columns=chosen,
        filters=steps,
        release=_release(top.section("release", Release, optional=True)),
        source=source,
        text=text,
    )


def _columns(
    top: Section, locked: Mapping[str, Mapping[str, str]] | None = None
) -> tuple[Column, ...]:
    """Return the columns in order, no two of a name."""
    chosen = tuple(
        all_columns.load(
            node.plain(),
            f"{top.source}, line {node.line}, columns",
            Path(top.source).parent,
            locked,
        )
        for node in top.items("columns", default=())
    )
    names = [column.name for column in chosen]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise top.bad("columns", f"the column {twice!r} is named twice", "keep one of them")
    _refuse_missing_evidence(top, chosen)
    return chosen


def _refuse_missing_evidence(top: Section, chosen: Sequence[Column]) -> None:
    """Refuse a column that another one is missing for, before anything is paid for."""
    given = {name for column in chosen for name in column.evidence}
    for column in chosen:
        missing = [name for name in column.inputs()[len(column.reads) :] if name not in given]
        if missing:
            what = f"the column {column.name!r} needs the column {missing[0]!r}, which is not there"
            raise top.bad("columns", what, f"add {{{missing[0]}: {{judge: NAME}}}} to columns")


def _generator(section: Section) -> Generator:
    template = _template(section)
    for key in ("date", "thinking"):
        if template is None and section.nodes.get(key) is not None:
            raise section.bad(
                key,
                f"{key} is set, but the endpoint renders the template and cannot be told",
                "name the template too, as template: tokenizer",
            )
    return Generator(
        model=section.text("model"),
        revision=section.text(
            "revision",
            pattern=r"[0-9a-f]{40}",
            hint="the full commit hash, 40 hexadecimal digits; a branch or tag can move",
        ),
        prefix=section.text("prefix", choices=("auto",), default="auto"),
        template=template,
        date=section.date("date"),
        thinking=section.boolean("thinking", default=None),
    )


def _template(section: Section) -> Template | None:
    node = section.nodes.get("template")
    if node is None or node.value in (None, "endpoint"):
        return None
    if node.value == "tokenizer":
        return Template(tokenizer="")
    if not isinstance(node.value, dict):
        raise section.bad(
            "template",
            f"template is {short(node)}",
            "allowed: endpoint, tokenizer, {tokenizer: FOLDER}, {gguf: FILE}, {file: FILE}",
        )
    inner = section.child(node, "template", Template)
    found = Template(**{key: inner.text(key, default=None) for key in inner.nodes})
    places = [key for key in ("tokenizer", "gguf", "file") if getattr(found, key) is not None]
    if len(places) != 1:
        what = f"template names {len(places)} places, not one"
        raise section.bad("template", what, "keep one of tokenizer, gguf and file")
    if found.file is None and (found.bos_token or found.eos_token):
        what = "bos_token and eos_token are those of a template file; this source tells its own"
        raise section.bad("template", what, "remove them")
    return found


def _sampling(section: "Section") -> Sampling:
    return Sampling(**_decoding(section))


def _settings(top: Section) -> Iterator[Setting]:
    """Yield every setting; one whose `temperature` or `top_p` is a list stands for each of them."""
    for index, node in enumerate(top.items("instructions")):
        spread = _spread(node)
        for one in spread:
            setting = _setting(top.child(one, f"instructions[{index}]", Setting))
            yield replace(setting, weight=setting.weight / len(spread))


def _spread(node: Node) -> list[Node]:
    """Return a mapping once for every combination of its lists."""
    if not isinstance(node.value, dict):
        return [node]
    axes = [
        [(key, one) for one in value.value]
        if key in GRID and isinstance(value.value, list) and value.value
        else [(key, value)]
        for key, value in node.value.items()
    ]
    return [Node(dict(choice), node.line) for choice in product(*axes)]


def _setting(section: Section) -> Setting:
    decoding = _decoding(section)
    if decoding["temperature"] is None:
        what = "temperature is null: greedy decoding writes the same instruction in every slot"
        raise section.bad("temperature", what, "the paper uses 1.0 to 1.25")
    return Setting(
        **decoding,
        **_steering(section),
        weight=section.number("weight", low=0, high=1e9, default=1.0) or 1.0,
    )


def _steering(section: Section) -> dict[str, Any]:
    items = section.texts("items")
    found = {
        "name": section.text("name", pattern=_NAME, hint=_NAME_HINT, default=None),
        "system": section.text("system", pattern=_PROSE, hint=_PROSE_HINT, default=DEFAULT),
        "items": items or None,
        "start": section.text("start", pattern=_PROSE, hint=_PROSE_HINT, default=None),
        "first_temperature": section.number("first_temperature", low=0, high=100, default=None),
        "heading": section.boolean("heading", default=None),
    }
    uses = [key for key in ("system", "start") if ITEM in (found[key] or "")]
    if uses and not items:
        fix = "list the texts that it stands for under items"
        raise section.bad(uses[0], f"{uses[0]} has {ITEM}, and there are no items", fix)
    if items and not uses:
        fix = f"write {ITEM} where an item goes in system or start"
        raise section.bad("items", f"items are given, and neither system nor start has {ITEM}", fix)
    if found["start"] is not None:
        moot = [key for key in ("first_temperature", "heading") if found[key] is not None]
        if moot:
            what = f"start gives the first words, so {moot[0]} decides nothing"
            raise section.bad(moot[0], what, "remove one of the two")
    return found


def _turns(top: Section) -> int | tuple[float, ...]:
    """Return a number of user turns, or the weights of 1, 2, 3 and more of them."""
    node = top.nodes.get("turns")
    if node is None or not isinstance(node.value, list):
        return cast(int, top.integer("turns", low=1, high=MAX_TURNS, default=1))
    weights = [float(w.value) for w in node.value if isinstance(w.value, int | float)]
    wrong = len(weights) < len(node.value) or len(weights) > MAX_TURNS
    if wrong or sum(weights) <= 0 or min(weights) < 0:
        fix = f"allowed: a number from 1 to {MAX_TURNS}, or the weights of 1, 2, 3 ... turns"
        raise top.bad("turns", f"turns is {short(node)}", fix)
    return tuple(weights)


def _follow_up(top: Section, turns: int | tuple[float, ...]) -> FollowUp | None:
    section = top.section("follow_up", FollowUp, optional=True)
    if section is None:
        return None
    if turns == 1:
        fix = "raise turns, or remove follow_up"
        raise top.bad("follow_up", "follow_up is given, and every row has one turn", fix)
    return FollowUp(
        system=section.text("system", pattern=_PROSE, hint=_PROSE_HINT),
        release=section.boolean("release", default=False),
    )


def _responder(section: Section | None) -> Other | None:
    return None if section is None else _other(section)


def _other(section: Section) -> Other:
    return Other(**vars(_generator(section)), endpoint=_endpoint(section))


def _judges(top: Section, chosen: Sequence[Column]) -> dict[str, Other]:
    """Return the judges by name; each is asked by a column, and each column's is there."""
    nodes = top.mapping("judges")
    askers = _askers(chosen)
    asked = {column.judge: column.name for column in askers}
    for name, column in asked.items():
        if name not in nodes and name not in OWN:
            close = get_close_matches(name, [*nodes, *OWN], 1)
            meant = f"did you mean {close[0]!r}? " if close else ""
            what = f"the column {column!r} asks the judge {name!r}, which is not there"
            fix = f"{meant}add it to judges: its model, revision and endpoint"
            raise top.bad("columns", what, fix)
    _refuse_two_kinds(top, askers)
    taken = [name for name in nodes if name in OWN]
    if taken:
        what = f"a judge is called {taken[0]!r}, which is the recipe's own model"
        raise top.bad("judges", what, "give it another name")
    idle = [name for name in nodes if name not in asked]
    if idle:
        what = f"no column asks the judge {idle[0]!r}"
        raise top.bad("judges", what, "name it in a column's parameters, or remove it")
    named = {n: _judge(top.child(node, f"judges.{n}", Other)) for n, node in nodes.items()}
    return named | {name: _own(top, name) for name in OWN if name in asked}


def _askers(chosen: Sequence[Column]) -> list[JudgeColumn]:
    """Return the columns that have questions: the judge columns, and those they ask by."""
    judged = (column for column in chosen if isinstance(column, JudgeColumn))
    return [one for column in judged for one in column.askers()]


def _judge(section: Section) -> Other:
    """Return a judge, whose endpoint may also be this very process."""
    node = section.nodes.get("endpoint")
    if node is None or node.value != TRANSFORMERS:
        return _other(section)
    return Other(**vars(_generator(section)), endpoint=Endpoint(TRANSFORMERS))


def _own(top: Section, name: str) -> Other:
    """Return a model of the recipe as a judge."""
    responder = top.section("responder", Other, optional=True)
    if name == "responder" and responder is not None:
        return _other(responder)
    generator = _generator(top.section("generator", Generator))
    return Other(**vars(generator), endpoint=_endpoint(top))


def _refuse_two_kinds(top: Section, askers: Sequence[JudgeColumn]) -> None:
    """Refuse a judge that one column wants scores of and another one texts, and a name for two."""
    scored = {column.judge: column.name for column in askers if column.asks is Score}
    first = {column.name: column for column in reversed(askers)}
    for column in askers:
        if column.asks is not Score and column.judge in scored:
            what = (
                f"the judge {column.judge!r} is asked for texts by {column.name!r} and for scores"
            )
            fix = "name two judges: a model does one of the two"
            raise top.bad("columns", f"{what} by {scored[column.judge]!r}", fix)
        if column.fingerprint() != first[column.name].fingerprint():
            what = f"{column.name!r} is wanted in two ways: {first[column.name]} and {column}"
            raise top.bad("columns", what, "give both the same parameters")


def _preference(
    top: Section, chosen: Sequence[Column], turns: int | tuple[float, ...], greedy: bool
) -> Preference | None:
    section = top.section("preference", Preference, optional=True)
    if section is None:
        return None
    if turns != 1:
        what = "preference compares responses to one instruction, and rows have several turns"
        raise top.bad("turns", what, "set turns to 1, or make a recipe of its own")
    if greedy:
        what = "responses are decoded greedily: all of them would be the same"
        raise top.bad("responses", what, "set responses.temperature; the paper took 0.8")
    numeric = [
        name
        for column in chosen
        if not isinstance(column, CorpusColumn)
        for name, dtype in column.features.items()
        if dtype in ("int32", "int64", "float64") or name in getattr(column, "ordered", ())
    ]
    if not numeric:
        what = "preference needs a column that gives each response a number"
        raise section.bad("score", what, "add one to columns; see prequery columns")
    return Preference(
        responses=section.integer("responses", low=2, high=64),
        score=section.text("score", choices=numeric),
        min_margin=section.amount("min_margin", high=1e9, default=0.0),
    )


def _decoding(section: "Section") -> dict[str, Any]:
    sampling = {
        "temperature": section.number("temperature", low=0, high=100, default=None),
        "top_p": section.number("top_p", low=0, high=1, default=None),
        "top_k": section.integer("top_k", low=1, high=10**6, default=None),
    }
    greedy_only = [key for key in ("top_p", "top_k") if sampling[key] is not None]
    if sampling["temperature"] is None and greedy_only:
        what = f"{greedy_only[0]} is set, but temperature is null, which is greedy"
        raise section.bad(greedy_only[0], what, "set temperature, or remove the others")
    return {
        # TGI refuses a top_p of 1: leaving it out says the same, so the recipe may say either.
        **(sampling | {"top_p": None if sampling["top_p"] == 1 else sampling["top_p"]}),
        "repetition_penalty": section.number("repetition_penalty", low=0, high=10, default=None),
        "max_new_tokens": section.integer("max_new_tokens", low=1, high=10**6),
    }


def _release(section: "Section | None") -> Release:
    if section is None:
        return Release()
    return Release(
        repo=section.text("repo", pattern=r"[\w.-]+/[\w.-]+", hint="owner/name", default=None),
        license=section.text("license", default=None),
        template=section.text("template", default=None),
    )


def _endpoint(top: "Section") -> Endpoint:
    node = top.nodes.get("endpoint")
    if node is None:
        return Endpoint()
    if isinstance(node.value, str):
        return Endpoint(check_url(node.value, top.place("endpoint")))
    section = top.child(node, "endpoint", Endpoint)
    token_env = section.text("token_env", default=None)
    if token_env is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", token_env):
        # What does not look like a name may be the token itself: it is not repeated.
        raise section.bad(
            "token_env",
            "token_env is not the name of an environment variable",
            "export the token in a variable and write that variable's name here",
        )
    url = check_url(section.text("url"), section.place("url"))
    protocol = section.text("protocol", choices=get_args(EndpointProtocol), default="auto")
    if url == LOCAL and protocol == "completions":
        raise section.bad(
            "protocol",
            "protocol is 'completions', but the embedded endpoint speaks TGI's",
            "remove protocol, or name the address of another endpoint in url",
        )
    return Endpoint(
        url,
        token_env,
        section.integer("concurrency", low=1, high=100_000, default=None),
        section.number("usd_per_million_prompt_tokens", low=0, high=1e6, default=0.0),
        section.number("usd_per_million_generated_tokens", low=0, high=1e6, default=0.0),
        protocol,
    )


def check_url(url: str, where: str) -> str:
    """Return an endpoint's address without a trailing slash, or `local`.

    Raises:
        RecipeError: It is no http(s) address, or it holds credentials.
    """
    if url == LOCAL:
        return url
    parts = urlsplit(url)
    if "@" in parts.netloc:
        host = parts.netloc.rpartition("@")[2]
        raise RecipeError(
            f"the address of the endpoint at {host!r} holds credentials",
            where,
            "remove them, export the token and name its variable in endpoint.token_env",
        )
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
        raise RecipeError(
            f"{url!r} is not the address of an endpoint",
            where,
            "write http://host:port, https://host, or local",
        )
    return url.rstrip("/")
