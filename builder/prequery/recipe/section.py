"""One mapping of a recipe, read key by key: every refusal names file, line and key."""

import re
from collections.abc import Sequence
from dataclasses import fields
from datetime import date
from difflib import get_close_matches
from typing import Any

from prequery.errors import RecipeError
from prequery.strict_yaml import Node

REQUIRED: Any = object()


class Section:
    """One mapping of the recipe, read key by key; its class says which keys there are.

    Args:
        node: The mapping.
        source: Name of the file, for errors.
        path: Keys above it, with dots between; empty for the whole recipe.
        kind: Dataclass whose fields are the known keys.

    Raises:
        RecipeError: It is no mapping, or has an unknown key.
    """

    def __init__(self, node: Node, source: str, path: str, kind: type) -> None:
        self.node, self.source, self.path = node, source, path
        if not isinstance(node.value, dict):
            what = f"{path or 'the recipe'} is {short(node)}, not a mapping of keys"
            raise RecipeError(what, f"{source}, line {node.line}", "write one `key: value` a line")
        self.nodes: dict[str, Node] = node.value
        known = [f.name for f in fields(kind) if f.name not in ("source", "text")]
        for key in self.nodes:
            if key not in known:
                close = get_close_matches(key, known, 1)
                meant = f"did you mean {close[0]!r}? " if close else ""
                raise self.bad(key, f"unknown key {key!r}", f"{meant}known: {', '.join(known)}")

    def place(self, key: str) -> str:
        """Return file, line and path of a key."""
        return self._line(self.nodes.get(key, self.node), key)

    def bad(self, key: str, what: str, fix: str) -> RecipeError:
        """Return the error about a key."""
        return RecipeError(what, self.place(key), fix)

    def child(self, node: Node, path: str, kind: type) -> "Section":
        """Return a mapping inside of this one."""
        return Section(node, self.source, f"{self.path}{'.' if self.path else ''}{path}", kind)

    def section(self, key: str, kind: type, optional: bool = False) -> Any:
        """Return the mapping under a key; null where it is optional and left out."""
        if optional and key not in self.nodes:
            return None
        return self.child(self._get(key, REQUIRED), key, kind)

    def items(self, key: str, default: Any = REQUIRED) -> Sequence[Node]:
        """Return the entries of a list; an empty one is refused unless there is a default."""
        node = self._get(key, default)
        if not isinstance(node, Node):
            return ()
        if not isinstance(node.value, list) or (default is REQUIRED and not node.value):
            raise self.bad(key, f"{key} is {short(node)}, not a list", "write one `- ` a line")
        return node.value

    def mapping(self, key: str) -> dict[str, Node]:
        """Return a mapping whose keys are names of the user's; empty where it is left out."""
        node = self._get(key, None)
        if node is None:
            return {}
        if not isinstance(node.value, dict):
            raise self.bad(key, f"{key} is {short(node)}, not a mapping", "write `name:` a line")
        return node.value

    def text(
        self,
        key: str,
        pattern: str = r"\S.*",
        hint: str = "a text on one line",
        choices: Sequence[str] = (),
        default: Any = REQUIRED,
    ) -> Any:
        """Return a text that is one of the choices, or matches the pattern as a whole."""
        node = self._get(key, default)
        if not isinstance(node, Node):
            return node
        value = node.value
        if choices and value not in choices:
            close = get_close_matches(str(value), choices, 1)
            meant = f"did you mean {close[0]!r}? " if close else ""
            fix = f"{meant}allowed: {', '.join(choices)}"
            raise self.bad(key, f"{key} is {short(node)}", fix)
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise self.bad(key, f"{key} is {short(node)}", f"expected: {hint}")
        return value

    def integer(self, key: str, low: int, high: int, default: Any = REQUIRED) -> Any:
        """Return a whole number from low to high."""
        node = self._get(key, default)
        if not isinstance(node, Node):
            return node
        value = node.value
        if type(value) is not int or not low <= value <= high:
            allowed = f"{low}" if low == high else f"a whole number from {low} to {high}"
            raise self.bad(key, f"{key} is {short(node)}", f"allowed: {allowed}")
        return value

    def number(self, key: str, low: float, high: float, default: Any = REQUIRED) -> Any:
        """Return a number over low, at most high."""
        node = self._get(key, default)
        if not isinstance(node, Node):
            return node
        value = node.value
        if type(value) not in (int, float) or not low < float(value) <= high:  # type: ignore[arg-type]
            allowed = f"a number over {low:g}, at most {high:g}"
            raise self.bad(key, f"{key} is {short(node)}", f"allowed: {allowed}")
        return float(value)  # type: ignore[arg-type]

    def amount(self, key: str, high: float, default: Any = REQUIRED) -> Any:
        """Return a number from 0 to high."""
        node = self._get(key, default)
        if isinstance(node, Node) and type(node.value) in (int, float) and node.value == 0:
            return 0.0
        return self.number(key, 0, high, default)

    def boolean(self, key: str, default: Any = REQUIRED) -> Any:
        """Return true or false."""
        node = self._get(key, default)
        if not isinstance(node, Node):
            return node
        if not isinstance(node.value, bool):
            raise self.bad(key, f"{key} is {short(node)}", "allowed: true or false")
        return node.value

    def date(self, key: str) -> str | None:
        """Return an ISO date as text; null where it is left out."""
        found = self.text(key, default=None)
        try:
            return found and date.fromisoformat(found).isoformat()
        except ValueError:
            raise self.bad(key, f"{key} is {found!r}", "expected: a date as 2026-01-31") from None

    def texts(self, key: str) -> tuple[str, ...]:
        """Return a list of different texts without white space around them; none if left out."""
        found: list[str] = []
        for node in self.items(key, default=()):
            value = node.value
            if not isinstance(value, str) or not value or value != value.strip():
                fix = "expected: a text without white space around it; quote numbers"
                raise RecipeError(f"{short(node)} is no entry of {key}", self._line(node, key), fix)
            if value in found:
                what = f"{value!r} stands twice in {key}"
                raise RecipeError(what, self._line(node, key), "keep one of them")
            found.append(value)
        return tuple(found)

    def _line(self, node: Node, key: str) -> str:
        return f"{self.source}, line {node.line}, {self.path}{'.' if self.path else ''}{key}"

    def _get(self, key: str, default: Any) -> Any:
        """Return the key's node, or the default where it is left out or null."""
        node = self.nodes.get(key)
        if node is None or (node.value is None and default is not REQUIRED):
            if default is REQUIRED:
                raise self.bad(key, f"the key {key!r} is missing", f"add `{key}:`; see the README")
            return default
        return node


def short(node: Node) -> str:
    """Return a value as a message shows it: 60 characters at most."""
    shown = repr(node.plain())
    return shown if len(shown) <= 60 else shown[:57] + "..."
