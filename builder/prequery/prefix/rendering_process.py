"""The process that renders a chat template: a stranger's program, with next to nothing in reach.

It is started by `sandbox.py`, in a process of its own that sees no environment. Besides Jinja's own
sandbox it gives up, before it reads the template, time, memory, files, processes and what Python
reports to audit hooks. What a template may use is what transformers gives it
(`transformers/utils/chat_template_utils.py`, 5.24): immutable sandbox, trimmed blocks, loop
controls, `generation` blocks, `raise_exception`, `strftime_now`, a `tojson` that escapes no HTML.
"""

import json
import os
import resource
import sys
from datetime import date
from typing import Any, NoReturn

import jinja2
from jinja2 import meta, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

CPU_S = 2
MEMORY_BYTES = 512 << 20
OUTPUT_BYTES = 4 << 20
MAX_RENDERED_CHARS = 1 << 18
MAX_WHY_CHARS = 300
OUT_OF_MEMORY, REACHES_OUT = 41, 42
"""Exit codes."""

_FORBIDDEN = ("open", "import", "os.", "socket.", "subprocess.", "ctypes.", "shutil.", "signal.")
_date_was_missing = False


class _Generation(Extension):
    """`{% generation %}`: marks what an assistant says, for training; here it is only shown."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


def environment(today: str | None) -> ImmutableSandboxedEnvironment:
    """Return what transformers renders a template in, with the date of the recipe."""
    made = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )

    def raise_exception(message: str) -> NoReturn:
        raise jinja2.TemplateError(message)

    def strftime_now(form: str) -> str:
        if today is None:
            global _date_was_missing
            _date_was_missing = True
            raise jinja2.TemplateError("it asks for the date")
        return date.fromisoformat(today).strftime(form)

    def tojson(
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        return json.dumps(
            value,
            ensure_ascii=ensure_ascii,
            indent=indent,
            separators=separators,
            sort_keys=sort_keys,
        )

    made.filters["tojson"] = tojson
    del made.globals["lipsum"]  # chance has no place in a template
    made.globals |= {"raise_exception": raise_exception, "strftime_now": strftime_now}
    return made


def give_up() -> None:
    """Give up what no template needs. Jinja has been imported and has rendered once."""
    soft_and_hard = {
        resource.RLIMIT_CPU: CPU_S,
        resource.RLIMIT_FSIZE: OUTPUT_BYTES,
        resource.RLIMIT_NOFILE: 3,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NPROC: 0,
    }
    if sys.platform != "darwin":  # which refuses to set it
        soft_and_hard[resource.RLIMIT_AS] = MEMORY_BYTES
    for limit, value in soft_and_hard.items():
        resource.setrlimit(limit, (value, value))

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event.startswith(_FORBIDDEN):
            os._exit(REACHES_OUT)

    sys.addaudithook(watch)


def render(task: dict[str, Any]) -> dict[str, Any]:
    """Render every conversation of a task.

    Returns:
        `rendered`: by name, `{"text": ...}` or `{"why": ...}`; `names`: what the template reads;
        `wants_date`: it asked for the date, and there was none.
    """
    made = environment(task["date"])
    try:
        names = sorted(meta.find_undeclared_variables(made.parse(task["template"])))
        template = made.from_string(task["template"])
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001
        return {"broken": _why(error)}
    rendered: dict[str, Any] = {}
    for name, one in task["conversations"].items():
        try:
            text = template.render(**task["variables"], **one)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001
            # A template is a program and may fail in any way; its words are all there is to tell.
            rendered[name] = {"why": _why(error)}
            continue
        long = f"it writes more than {MAX_RENDERED_CHARS} characters"
        rendered[name] = {"why": long} if len(text) > MAX_RENDERED_CHARS else {"text": text}
    return {"rendered": rendered, "names": names, "wants_date": _date_was_missing}


def _why(error: Exception) -> str:
    said = error.message if isinstance(error, jinja2.TemplateError) else str(error)
    said = " ".join((said or type(error).__name__).split())
    return "".join(c if c.isprintable() else " " for c in said[:MAX_WHY_CHARS])


def main() -> None:
    """Read a task from standard input, write what came of it to standard output."""
    # What Python imports late, it imports now: each way that a template can end, once.
    warm = "{{ strftime_now('%d %b') | trim | tojson }}"
    for template in (warm, "{{ raise_exception('') }}", "{{ ''.__class__.x }}", "{% for"):
        render(
            {
                "template": template,
                "date": "2000-01-01",
                "variables": {},
                "conversations": {"": {"messages": []}},
            }
        )
    given = sys.stdin.buffer.read()
    give_up()
    try:
        answer = json.dumps(render(json.loads(given))).encode()
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    sys.stdout.buffer.write(answer)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
