"""Read, check and fingerprint a recipe.

Everything that can change a value is in the recipe. What only changes speed or place (the
endpoint, its token, concurrency, folders) may stand there but enters no fingerprint.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from functools import cached_property
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from prequery import columns as all_columns
from prequery import draws, filters, rows
from prequery.bundled import bundled
from prequery.columns.base import Column
from prequery.errors import RecipeError
from prequery.strict_yaml import Node, parse

LOCAL = "local"


@dataclass(frozen=True)
class Generator:
    """The model that writes both texts.

    Args:
        model: Its id, as the endpoint's `/info` names it.
        revision: Full commit hash, 40 hexadecimal digits.
        prefix: `auto`: derived from the served model's own chat template.
    """

    model: str
    revision: str
    prefix: str = "auto"


@dataclass(frozen=True)
class Sampling:
    """How one pass is decoded. Names and meanings are TGI's.

    Args:
        temperature: Over 0; null is greedy.
        top_p: In (0, 1]; 1 and null keep the whole vocabulary.
        top_k: 1 or more; null keeps the whole vocabulary.
        repetition_penalty: Over 0; null and 1 are none.
        max_new_tokens: At most this many tokens are written.
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None
    max_new_tokens: int = 512


@dataclass(frozen=True)
class Setting(Sampling):
    """One of the weighted settings that slots choose from for their instruction."""

    weight: float = 1.0
    system: str = "default"


@dataclass(frozen=True)
class Endpoint:
    """Where to ask. No part of this can change a value, so it is in no fingerprint.

    Args:
        url: `local` starts the embedded endpoint; otherwise http(s) without credentials.
        token_env: Name of the environment variable that holds the bearer token.
        concurrency: Rows in flight; null takes the endpoint's own limit.
        usd_per_million_prompt_tokens: For `--max-cost` and estimates.
        usd_per_million_generated_tokens: The same of what is written.
    """

    url: str = LOCAL
    token_env: str | None = None
    concurrency: int | None = None
    usd_per_million_prompt_tokens: float = 0.0
    usd_per_million_generated_tokens: float = 0.0


@dataclass(frozen=True)
class Release:
    """Where a release goes."""

    repo: str | None = None
    license: str | None = None


@dataclass(frozen=True)
class Recipe:
    """What to build: one config of a dataset repository, checked.

    Args:
        rows: Accepted rows to release, not attempts.
        max_attempts: Slots after which a build gives up; enters no fingerprint.
        source: File that it was read from.
        text: That file, letter by letter.
    """

    name: str
    version: str
    rows: int
    seed: int
    generator: Generator
    instructions: tuple[Setting, ...]
    responses: Sampling
    turns: int
    columns: tuple[Column, ...]
    filters: tuple[filters.Filter, ...]
    release: Release
    endpoint: Endpoint
    max_attempts: int
    source: str
    text: str

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of what decides an answer, in hexadecimal.

        It names the journal and begins every row id. Rows, columns, filters and the release are
        left out: changing them asks for no answer again and renames no row.
        """
        return _digest(
            {
                "draws": draws.SCHEME,
                "seed": self.seed,
                "generator": asdict(self.generator),
                "instructions": [asdict(setting) for setting in self.instructions],
                "responses": asdict(self.responses),
                "turns": self.turns,
            }
        )

    @cached_property
    def build_hash(self) -> str:
        """SHA-256 of what decides a released byte: the fingerprint and all that comes after."""
        return _digest(
            {
                "fingerprint": self.fingerprint,
                "name": self.name,
                "version": self.version,
                "rows": self.rows,
                "columns": [column.fingerprint() for column in self.columns],
                "filters": [step.text for step in self.filters],
            }
        )

    @property
    def dtypes(self) -> dict[str, str]:
        """Field name to dtype, of all columns in order."""
        return _dtypes(self.columns)


def load(reference: str | Path) -> Recipe:
    """Read a recipe from a file, or a bundled one by its name.

    Raises:
        RecipeError: Naming file, line and key, what is allowed, and the closest match.
    """
    source = find(reference)
    try:
        text = source.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        what = f"the recipe is not UTF-8: byte {error.start} is {error.object[error.start]:#04x}"
        raise RecipeError(what, str(source), "save it as UTF-8") from None
    except OSError as error:
        what = f"the recipe cannot be read: {error.strerror}"
        raise RecipeError(what, str(source), "check the path and its permissions") from None
    return read(text, str(source))


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
    names = bundled_names()
    close = get_close_matches(path.stem, names, 1)
    hint = f"the closest is {close[0]!r}; " if close else ""
    raise RecipeError(
        f"there is no recipe {str(reference)!r}",
        "the recipe's path, or the name of one that ships with prequery",
        f"{hint}bundled recipes: {', '.join(names)}",
    )


def read(text: str, source: str) -> Recipe:
    """Check a recipe's text.

    Args:
        text: YAML.
        source: Name of the file, for errors.

    Raises:
        RecipeError: As `load`.
    """
    top = _Section(parse(text, source), source, "", Recipe)
    chosen = tuple(
        all_columns.load(node.plain(), f"{source}, line {node.line}, columns")
        for node in top.items("columns", default=())
    )
    names = [column.name for column in chosen]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise top.bad("columns", f"the column {twice!r} is named twice", "keep one of them")
    row_count = top.integer("rows", low=1, high=10**9)
    return Recipe(
        name=top.text("name", pattern=_NAME, hint="letters, digits, '.', '_' and '-'"),
        version=top.text("version", pattern=_SEMVER, hint="three numbers, as in 1.0.0"),
        rows=row_count,
        seed=top.integer("seed", low=0, high=2**63 - 1),
        generator=_generator(top.section("generator", Generator)),
        instructions=tuple(
            _setting(top.child(node, f"instructions[{index}]", Setting))
            for index, node in enumerate(top.items("instructions"))
        ),
        responses=_sampling(top.section("responses", Sampling)),
        turns=top.integer("turns", low=1, high=1, default=1),
        columns=chosen,
        filters=_filters(top.items("filters", default=()), chosen, source),
        release=_release(top.section("release", Release, optional=True)),
        endpoint=_endpoint(top),
        max_attempts=top.integer("max_attempts", row_count, 10**10, max(100, 10 * row_count)),
        source=source,
        text=text,
    )


def _generator(section: "_Section") -> Generator:
    return Generator(
        model=section.text("model"),
        revision=section.text(
            "revision",
            pattern=r"[0-9a-f]{40}",
            hint="the full commit hash, 40 hexadecimal digits; a branch or tag can move",
        ),
        prefix=section.text("prefix", choices=("auto",), default="auto"),
    )


def _sampling(section: "_Section") -> Sampling:
    return Sampling(**_decoding(section))


def _setting(section: "_Section") -> Setting:
    decoding = _decoding(section)
    if decoding["temperature"] is None:
        what = "temperature is null: greedy decoding writes the same instruction in every slot"
        raise section.bad("temperature", what, "the paper uses 1.0 to 1.25")
    return Setting(
        **decoding,
        weight=section.number("weight", low=0, high=1e9, default=1.0) or 1.0,
        system=section.text("system", choices=("default",), default="default"),
    )


def _decoding(section: "_Section") -> dict[str, Any]:
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


def _filters(
    nodes: Sequence[Node], chosen: Sequence[Column], source: str
) -> tuple[filters.Filter, ...]:
    known = rows.dtypes(_dtypes(chosen))
    steps = []
    for node in nodes:
        where = f"{source}, line {node.line}, filters"
        if not isinstance(node.value, str):
            what = f"{node.plain()!r} is not a filter"
            raise RecipeError(what, where, 'write an expression, such as: language == "en"')
        steps.append(filters.parse(node.value, where, known, rows.CHOICES))
    return tuple(steps)


def _release(section: "_Section | None") -> Release:
    if section is None:
        return Release()
    return Release(
        repo=section.text("repo", pattern=r"[\w.-]+/[\w.-]+", hint="owner/name", default=None),
        license=section.text("license", default=None),
    )


def _endpoint(top: "_Section") -> Endpoint:
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
    return Endpoint(
        check_url(section.text("url"), section.place("url")),
        token_env,
        section.integer("concurrency", low=1, high=100_000, default=None),
        section.number("usd_per_million_prompt_tokens", low=0, high=1e6, default=0.0),
        section.number("usd_per_million_generated_tokens", low=0, high=1e6, default=0.0),
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


_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_SEMVER = r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
_REQUIRED: Any = object()


class _Section:
    """One mapping of the recipe, read key by key; its class says which keys there are."""

    def __init__(self, node: Node, source: str, path: str, kind: type) -> None:
        self.node, self.source, self.path = node, source, path
        if not isinstance(node.value, dict):
            what = f"{path or 'the recipe'} is {_short(node)}, not a mapping of keys"
            raise RecipeError(what, f"{source}, line {node.line}", "write one `key: value` a line")
        self.nodes: dict[str, Node] = node.value
        known = [f.name for f in fields(kind) if f.name not in ("source", "text")]
        for key in self.nodes:
            if key not in known:
                close = get_close_matches(key, known, 1)
                meant = f"did you mean {close[0]!r}? " if close else ""
                raise self.bad(key, f"unknown key {key!r}", f"{meant}known: {', '.join(known)}")

    def place(self, key: str) -> str:
        line = self.nodes[key].line if key in self.nodes else self.node.line
        return f"{self.source}, line {line}, {self.path}{'.' if self.path else ''}{key}"

    def bad(self, key: str, what: str, fix: str) -> RecipeError:
        return RecipeError(what, self.place(key), fix)

    def child(self, node: Node, path: str, kind: type) -> "_Section":
        return _Section(node, self.source, f"{self.path}{'.' if self.path else ''}{path}", kind)

    def section(self, key: str, kind: type, optional: bool = False) -> Any:
        if optional and key not in self.nodes:
            return None
        return self.child(self._get(key, _REQUIRED), key, kind)

    def items(self, key: str, default: Any = _REQUIRED) -> Sequence[Node]:
        node = self._get(key, default)
        if not isinstance(node, Node):
            return ()
        if not isinstance(node.value, list) or (default is _REQUIRED and not node.value):
            raise self.bad(key, f"{key} is {_short(node)}, not a list", "write one `- ` a line")
        return node.value

    def text(
        self,
        key: str,
        pattern: str = r"\S.*",
        hint: str = "a text on one line",
        choices: Sequence[str] = (),
        default: Any = _REQUIRED,
    ) -> Any:
        node = self._get(key, default)
        if not isinstance(node, Node):
            return node
        value = node.value
        if choices and value not in choices:
            close = get_close_matches(str(value), choices, 1)
            meant = f"did you mean {close[0]!r}? " if close else ""
            fix = f"{meant}allowed: {', '.join(choices)}"
            raise self.bad(key, f"{key} is {_short(node)}", fix)
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise self.bad(key, f"{key} is {_short(node)}", f"expected: {hint}")
        return value

    def integer(self, key: str, low: int, high: int, default: Any = _REQUIRED) -> Any:
        node = self._get(key, default)
        if not isinstance(node, Node):
            return node
        value = node.value
        if type(value) is not int or not low <= value <= high:
            allowed = f"{low}" if low == high else f"a whole number from {low} to {high}"
            raise self.bad(key, f"{key} is {_short(node)}", f"allowed: {allowed}")
        return value

    def number(self, key: str, low: float, high: float, default: Any = _REQUIRED) -> Any:
        node = self._get(key, default)
        if not isinstance(node, Node):
            return node
        value = node.value
        if type(value) not in (int, float) or not low < float(value) <= high:  # type: ignore[arg-type]
            allowed = f"a number over {low:g}, at most {high:g}"
            raise self.bad(key, f"{key} is {_short(node)}", f"allowed: {allowed}")
        return float(value)  # type: ignore[arg-type]

    def _get(self, key: str, default: Any) -> Any:
        """Return the key's node, or the default where it is left out or null."""
        node = self.nodes.get(key)
        if node is None or (node.value is None and default is not _REQUIRED):
            if default is _REQUIRED:
                raise self.bad(key, f"the key {key!r} is missing", f"add `{key}:`; see the README")
            return default
        return node


def _short(node: Node) -> str:
    shown = repr(node.plain())
    return shown if len(shown) <= 60 else shown[:57] + "..."


def _dtypes(columns: Sequence[Column]) -> dict[str, str]:
    return {name: dtype for column in columns for name, dtype in column.features.items()}


def _digest(content: object) -> str:
    """Hash canonical JSON. Nulls are left out, so that a new optional key changes nothing."""
    text = json.dumps(_without_nulls(content), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _without_nulls(content: object) -> object:
    if isinstance(content, dict):
        return {key: _without_nulls(value) for key, value in content.items() if value is not None}
    if isinstance(content, list):
        return [_without_nulls(value) for value in content]
    return content
