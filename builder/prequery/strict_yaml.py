"""YAML as a recipe needs it: a small safe part of the language, and a line for every value.

PyYAML's own loader follows YAML 1.1, where ``no`` is false and ``12:30:45`` is 45045, forgets
lines, keeps the last of two equal keys and unfolds alias bombs. We read its event stream instead:
plain scalars resolve as in the YAML 1.2 core schema, everything else is refused with its line.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import yaml

from prequery.errors import RecipeError

MAX_BYTES = 1 << 20
MAX_DEPTH = 32

Scalar = str | int | float | bool | None


@dataclass(frozen=True)
class Node:
    """One value of the document and the line that it starts on (first line is 1)."""

    value: "Scalar | list[Node] | dict[str, Node]"
    line: int

    def plain(self) -> object:
        """Return the value as ordinary lists and dictionaries."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value


_WORDS: dict[str, Scalar] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER = re.compile(r"[-+]?[0-9]{1,18}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]{1,3})?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF|nan|NaN|NAN)")


def parse(text: str, where: str) -> Node:
    """Read one YAML document.

    Args:
        text: The document.
        where: Name of the file, for errors.

    Raises:
        RecipeError: The text is not YAML, is over 1 MiB or nested deeper than 32, has several
            documents, a duplicate key, an alias, a tag, or a number that is not finite.
    """
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise RecipeError("the recipe is larger than 1 MiB", where, "a recipe is a page of YAML")
    try:
        # The pure Python loader hands out events one by one without recursion, so hostile
        # nesting is refused at depth 33 and not after the whole text was built up.
        return _Reader(where).read(yaml.parse(text, Loader=yaml.SafeLoader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{where}, line {mark.line + 1}, column {mark.column + 1}" if mark else where
        what = f"the recipe is not YAML: {error.problem}"
        raise RecipeError(what, place, "correct that line") from None
    except yaml.YAMLError as error:
        first = str(error).splitlines()[0]
        raise RecipeError(f"the recipe is not YAML: {first}", where, "save it as UTF-8") from None


class _Reader:
    """Builds nodes from events with a stack of its own."""

    def __init__(self, where: str) -> None:
        self.where = where

    def refuse(self, what: str, line: int, fix: str) -> RecipeError:
        return RecipeError(what, f"{self.where}, line {line}", fix)

    def read(self, events: Iterator[yaml.Event]) -> Node:
        root: Node | None = None
        open_nodes: list[Node] = []
        keys: list[str | None] = []
        for event in events:
            if isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
                open_nodes.pop()
                keys.pop()
                continue
            if isinstance(event, yaml.AliasEvent):
                what = "the recipe uses a YAML alias"
                raise self.refuse(what, _line(event), "write the value out")
            if not isinstance(event, yaml.NodeEvent):
                continue
            node = self.node(event)
            if not open_nodes:
                if root is not None:
                    fix = "keep one recipe in a file"
                    raise self.refuse("the file has a second document", node.line, fix)
                root = node
            else:
                self.attach(open_nodes[-1], keys, node)
            if isinstance(event, yaml.CollectionStartEvent):
                open_nodes.append(node)
                keys.append(None)
                if len(open_nodes) > MAX_DEPTH:
                    what = f"the recipe is nested deeper than {MAX_DEPTH} levels"
                    raise self.refuse(what, node.line, "a recipe needs four")
        if root is None:
            raise RecipeError("the recipe is empty", self.where, "see configs/smollm2-demo.yaml")
        return root

    def node(self, event: yaml.NodeEvent) -> Node:
        line, tag = _line(event), getattr(event, "tag", None)
        # "!" alone marks a quoted scalar in PyYAML's events, it is no tag of the user's.
        if tag not in (None, "!"):
            raise self.refuse(f"the recipe uses the tag {tag!r}", line, "remove the tag")
        if isinstance(event, yaml.MappingStartEvent):
            return Node({}, line)
        if isinstance(event, yaml.SequenceStartEvent):
            return Node([], line)
        assert isinstance(event, yaml.ScalarEvent)
        return Node(event.value if event.style else self.scalar(event.value, line), line)

    def scalar(self, text: str, line: int) -> Scalar:
        if text in _WORDS:
            return _WORDS[text]
        if _INTEGER.fullmatch(text):
            return int(text)
        if _NOT_FINITE.fullmatch(text):
            raise self.refuse(f"{text} is not a number one can use", line, "write a finite number")
        if _FLOAT.fullmatch(text):
            return float(text)
        return text

    def attach(self, parent: Node, keys: list[str | None], node: Node) -> None:
        if isinstance(parent.value, list):
            parent.value.append(node)
            return
        assert isinstance(parent.value, dict)
        key = keys[-1]
        if key is not None:
            parent.value[key] = node
            keys[-1] = None
            return
        if not isinstance(node.value, str):
            what = f"{node.plain()!r} stands where a key is expected"
            raise self.refuse(what, node.line, "keys are plain words; quote it if it is meant")
        if node.value in parent.value:
            first = parent.value[node.value].line
            what = f"the key {node.value!r} appears twice, first on line {first}"
            raise self.refuse(what, node.line, "keep one of them")
        keys[-1] = node.value


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1
