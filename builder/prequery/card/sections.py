"""One README for several configs: each has a marked section and its entries in the YAML block.

A section stands between two comment lines that nobody sees, and a third says what the config gives
to the lists of the YAML block, so that a later version can take back what it no longer gives:

    <!-- prequery: begin chat -->
    <!-- prequery: yaml {"language": ["en"], "license": ["apache-2.0"]} -->
    # chat
    ...
    <!-- prequery: end chat -->

What stands outside of a config's own section is not ours, and stays byte for byte.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from prequery.card.markdown import MARK
from prequery.errors import CardError

README = "README.md"
_MARK = re.compile(rf"^{re.escape(MARK)} (.*)$", re.MULTILINE)
_BEGIN_OR_END = re.compile(r"(begin|end) (\S+) -->\s*")
_YAML = re.compile(r"yaml (\{.*\}) -->\s*")
# As the Hub's client and `datasets` find the block.
_BLOCK = re.compile(r"^(\s*---(?:\r\n|\r|\n))([\S\s]*?)((?:\r\n|\r|\n)---[ \t]*(\r\n|\n|$))")
_EMPTY_BLOCK = re.compile(r"^\s*---[ \t]*(\r\n|\r|\n)---[ \t]*(\r\n|\n|$)")

_UNITED = (
    "license",
    "license_name",
    "license_link",
    "language",
    "task_categories",
    "annotations_creators",
    "language_creators",
    "source_datasets",
    "source_models",
    "tags",
)
"""Keys whose values are those of all configs together."""
_ALONE = frozenset(("license", "license_name", "license_link"))
"""Of these, the ones that are no list while there is one value."""
_BOM = "\ufeff"
_BY_CONFIG = ("configs", "dataset_info")


def merged(existing: str | None, card: str, config: str) -> str:
    """Put a config's card into a repository's README.

    Args:
        existing: The README that is there; null: none.
        card: From `page.make`: a YAML block, then the text. Or a README that it was merged into,
            of which the config's part is taken.
        config: The config that the card is of.

    Returns:
        The README with the config's section and YAML entries added or replaced. Merging the same
        card again changes nothing.

    Raises:
        CardError: The README's YAML block or its marks are broken.
    """
    given, text = _split(card, f"the card of {config}")
    if re.search(rf"^{re.escape(MARK)} begin {re.escape(config)} -->", text, re.MULTILINE):
        given, text = _own_part(given, text, config)
    if _MARK.search(text):
        raise CardError(
            "the card holds a line that is one of the marks around a config's section",
            f"the card of {config}, line {_line(text, _MARK)} of its text",
            "take that line out of the template",
        )
    content, body = _split(existing or "", README)
    sections = _sections(body)
    contribution = _contribution(given)
    block = _united(content, given, config, sections, contribution)
    section = _section(config, contribution, text)
    if config in sections:
        old = sections[config]
        body = body[: old.start] + section + body[old.end :]
    elif sections:
        last = max(one.end for one in sections.values())
        body = body[:last] + "\n" + section + body[last:]
    else:
        body = body + _gap(body) + section
    if existing is not None and block == content and not existing.startswith(_BOM):
        return existing[: len(existing) - len(_split(existing, README)[1])] + body
    gap = "" if body.startswith(("\n", "\r")) else "\n"
    return f"---\n{dump(block)}---\n{gap}{body}"


def _own_part(block: Mapping[str, Any], text: str, config: str) -> tuple[dict[str, Any], str]:
    """Return of a README what `page.make` gave for a config."""
    section = _sections(text)[config]
    own = {
        key: value[0] if key in (*_ALONE, "pretty_name") and len(value) == 1 else value
        for key, value in section.contribution.items()
    }
    for key in _BY_CONFIG:
        entries = [_checked(entry, key) for entry in _list(block.get(key))]
        mine = [one for one in entries if one.get("config_name", "default") == config]
        if mine:
            own[key] = mine if key == "configs" else mine[0]
    others = {"size_categories", *own, *_UNITED, *_BY_CONFIG}
    own |= {key: value for key, value in block.items() if key not in others}
    order = [*block, *own]
    return (
        {key: own[key] for key in dict.fromkeys(order) if key in own},
        text[section.text_start : section.text_end].strip("\n") + "\n",
    )


def dump(block: Mapping[str, Any]) -> str:
    """Return a YAML block's lines."""
    return yaml.safe_dump(dict(block), sort_keys=False, allow_unicode=True, width=1000)


def section_of(readme: str, config: str) -> str | None:
    """Return the text of a config's section, without its marks; null where there is none.

    Raises:
        CardError: The README's YAML block or its marks are broken.
    """
    body = _split(readme, README)[1]
    found = _sections(body).get(config)
    return None if found is None else body[found.text_start : found.text_end]


def names(readme: str) -> list[str]:
    """Return the configs that have a section in a README, in its order.

    Raises:
        CardError: The README's YAML block or its marks are broken.
    """
    return list(_sections(_split(readme, README)[1]))


def check(readme: str) -> None:
    """Look whether a card can be merged into a README.

    Raises:
        CardError: The README's YAML block or its marks are broken.
    """
    content, body = _split(readme, README)
    _sections(body)
    for key in _BY_CONFIG:
        for entry in _list(content.get(key)):
            _checked(entry, key)


def block_of(readme: str) -> dict[str, Any]:
    """Return a README's YAML block; empty where there is none.

    Raises:
        CardError: It is broken.
    """
    return _split(readme, README)[0]


def size_category(row_count: int) -> str:
    """Return the Hub's name for a size."""
    bounds = ("1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T")
    above = next((i for i in range(len(bounds)) if row_count < 1000 * 10**i), len(bounds))
    if above == 0:
        return "n<1K"
    return f"{bounds[above - 1]}<n<{bounds[above]}" if above < len(bounds) else "n>1T"


@dataclass(frozen=True)
class _Section:
    """Where a section stands in a README's text: with its marks, and the text between them."""

    start: int
    end: int
    text_start: int
    text_end: int
    contribution: Mapping[str, list[Any]]


class _Loader(yaml.SafeLoader):
    """YAML as people mean it: `no` is Norwegian, a date is text, no key stands twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            name = getattr(key, "value", None)
            if not isinstance(name, str):
                raise yaml.MarkedYAMLError(problem="a key is no word", problem_mark=key.start_mark)
            if name in seen:
                problem = f"the key {name!r} appears twice"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.get_event().start_mark  # type: ignore[no-untyped-call]
            problem = "an alias, which can unfold to any size"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=mark)
        return super().compose_node(parent, index)


_Loader.yaml_implicit_resolvers = {
    first: [one for one in resolvers if not one[0].endswith((":bool", ":timestamp"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile("^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)


def _split(readme: str, name: str) -> tuple[dict[str, Any], str]:
    """Return a README's YAML block, parsed, and what stands behind it."""
    start = int(readme.startswith(_BOM))
    empty = _EMPTY_BLOCK.match(readme[start:])
    if empty:
        return {}, readme[start + empty.end() :]
    found = _BLOCK.match(readme[start:])
    if not found:
        if re.match(r"\s*---[ \t]*(\r|\n|$)", readme[start:]):
            raise CardError(
                "the YAML block is opened and never closed",
                f"{name}, line {1 + readme[: readme.index('---')].count(chr(10))}",
                "end it with a line of three dashes",
            )
        return {}, readme
    first = found[1].count("\n") + 1
    try:
        content = yaml.load(found[2], Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{name}, line {first + mark.line}" if mark else name
        raise CardError(
            f"the YAML block is broken: {error.problem}", place, "correct that line"
        ) from None
    except (yaml.YAMLError, RecursionError) as error:
        what = f"the YAML block is broken: {str(error).splitlines()[0]}"
        raise CardError(what, name, "correct the lines between the dashes") from None
    if content is not None and not isinstance(content, dict):
        what = f"the YAML block is no mapping of keys: {content!r:.80}"
        raise CardError(what, f"{name}, line {first}", "write `key: value` on its lines")
    return content or {}, readme[start + found.end() :]


def _sections(body: str) -> dict[str, _Section]:
    """Return a README's sections by their config, in their order."""
    found: dict[str, _Section] = {}
    opened: tuple[str, int] | None = None
    text_start, contribution = 0, {}
    for mark in _MARK.finditer(body):
        end = mark.end() + (body[mark.end() : mark.end() + 1] == "\n")
        told = _YAML.fullmatch(mark[1])
        named = _BEGIN_OR_END.fullmatch(mark[1])
        if told and opened and text_start == mark.start():
            contribution = _told(told[1], opened[0])
            text_start = end
        elif named and named[1] == "begin" and not opened and named[2] not in found:
            opened, text_start, contribution = (named[2], mark.start()), end, {}
        elif named and named[1] == "end" and opened and named[2] == opened[0]:
            found[named[2]] = _Section(opened[1], end, text_start, mark.start(), contribution)
            opened = None
        else:
            shown = mark[0].rstrip()
            if named and named[1] == "begin" and named[2] in found:
                raise _broken(f"the section of {named[2]} stands twice", shown)
            inside = f"inside the section of {opened[0]}" if opened else "outside of any section"
            raise _broken(f"a mark stands where none belongs, {inside}", shown)
    if opened:
        what = f"the section of {opened[0]} has no end"
        raise _broken(what, f"<!-- prequery: begin {opened[0]} -->")
    return found


def _told(text: str, config: str) -> dict[str, list[Any]]:
    try:
        told = json.loads(text)
    except ValueError:
        told = None
    if not isinstance(told, dict) or not all(isinstance(value, list) for value in told.values()):
        raise _broken(f"the mark that tells the YAML of {config} is no JSON of lists", text)
    return told


def _broken(what: str, shown: str) -> CardError:
    return CardError(
        what,
        f"{README}, the line {shown[:200]!r}",
        "restore the lines that begin with `<!-- prequery:`, or remove the whole section",
    )


def _section(config: str, contribution: Mapping[str, list[Any]], text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]+", config):
        raise CardError(
            f"{config!r} cannot stand in a mark", "the config's name", "use letters, digits, . _ -"
        )
    # Nothing in it can end the comment, whatever a licence or tag is called.
    told = json.dumps(contribution, sort_keys=True).replace(">", r"\u003e")
    return (
        f"<!-- prequery: begin {config} -->\n<!-- prequery: yaml {told} -->\n\n"
        f"{text.strip(chr(10))}\n\n<!-- prequery: end {config} -->\n"
    )


def _contribution(given: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return what a config gives to the united keys, and its name for the repository."""
    keys = [key for key in (*_UNITED, "pretty_name") if given.get(key)]
    return {key: _list(given[key]) for key in keys}


def _list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]


def _united(
    content: Mapping[str, Any],
    given: Mapping[str, Any],
    config: str,
    sections: Mapping[str, _Section],
    contribution: Mapping[str, list[Any]],
) -> dict[str, Any]:
    """Return the YAML block with a config's part in it."""
    before = {name: section.contribution for name, section in sections.items()}
    after = before | {config: contribution}
    block = dict(content)
    for key in given:
        if key in _BY_CONFIG:
            block[key] = _entries(content, given, key, config)
        elif key not in _UNITED and (key not in block or _gave(before, config, key, block[key])):
            block[key] = given[key]
    for key in _UNITED:
        held = _list(content.get(key))
        ours, wanted = _all(before.values(), key), _all(after.values(), key)
        kept = [value for value in held if value in wanted or value not in ours]
        values = kept + [value for value in wanted if value not in kept]
        if values:
            alone = key in _ALONE and len(values) == 1 and not isinstance(content.get(key), list)
            block[key] = values[0] if alone else values
        elif held:
            del block[key]
    if len(_list(block.get("license_name"))) > 1:
        # The Hub takes one name and one link; each config's section has its own.
        del block["license_name"]
        block.pop("license_link", None)
    row_count = sum(_row_count(entry) for entry in _list(block.get("dataset_info")))
    if row_count:
        block["size_categories"] = [size_category(row_count)]
    return {key: block[key] for key in _order(content, given) if key in block}


def _order(content: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """Return all keys: those of the README in its order, then the card's in its."""
    return list(dict.fromkeys((*content, *given, *_UNITED)))


def _gave(before: Mapping[str, Mapping[str, list[Any]]], config: str, key: str, held: Any) -> bool:
    """Say whether a value is what the config itself gave when it was last merged."""
    return before.get(config, {}).get(key) == _list(held)


def _all(contributions: Iterable[Mapping[str, list[Any]]], key: str) -> list[Any]:
    found: list[Any] = []
    for one in contributions:
        found += [value for value in one.get(key, []) if value not in found]
    return found


def _entries(content: Mapping[str, Any], given: Mapping[str, Any], key: str, config: str) -> Any:
    """Return the entries of `configs` or `dataset_info`, with a config's own among them."""
    entries = [_checked(entry, key) for entry in _list(content.get(key))]
    (own,) = _list(given[key])
    names = [entry.get("config_name", "default") for entry in entries]
    if config in names:
        entries[names.index(config)] = own
    else:
        entries.append(own)
    return entries[0] if len(entries) == 1 and not isinstance(given[key], list) else entries


def _checked(entry: Any, key: str) -> dict[str, Any]:
    if isinstance(entry, dict) and isinstance(entry.get("config_name", ""), str):
        return entry
    raise CardError(
        f"an entry of {key} is no config: {entry!r:.80}",
        f"{README}, key {key}",
        "each entry is a mapping with a config_name",
    )


def _row_count(info: Any) -> int:
    splits = _checked(info, "dataset_info").get("splits") or []
    counts = [split.get("num_examples") for split in splits if isinstance(split, dict)]
    return sum(count for count in counts if type(count) is int)


def _gap(body: str) -> str:
    if not body or body.endswith("\n\n"):
        return ""
    return "\n" if body.endswith("\n") else "\n\n"


def _line(text: str, pattern: re.Pattern[str]) -> int:
    found = pattern.search(text)
    return 1 + text[: found.start()].count("\n") if found else 0
