"""Render a chat template without trusting it."""

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prequery.errors import PrefixError
from prequery.prefix import rendering_process as process
from prequery.prefix.splitting import Refused

MAX_TEMPLATE_CHARS = 1 << 20
WALL_S = 60.0
"""Its own limit is CPU time; this one ends it where the machine has none to give."""

OTHER_MODEL = "use the template of another model; a chat template has no need of that"


@dataclass(frozen=True)
class Conversation:
    """What is rendered at one time.

    Args:
        messages: Role, content and, with some, thoughts.
        add_generation_prompt: Whether the assistant's turn is opened at the end.
    """

    messages: Sequence[Mapping[str, Any]]
    add_generation_prompt: bool = True

    def in_parts(self) -> "Conversation":
        """Return it with each content as a list of one text."""
        parts = [
            {**one, "content": [{"type": "text", "text": one["content"]}]} for one in self.messages
        ]
        return Conversation(parts, self.add_generation_prompt)


@dataclass(frozen=True)
class Outcome:
    """What came of it.

    Args:
        rendered: By name; the reason where the template refuses a conversation.
        names: Variables that the template reads.
        wants_date: It asked for the date, and there was none.
    """

    rendered: dict[str, str | Refused]
    names: frozenset[str]
    wants_date: bool


def render(
    template: str,
    conversations: Mapping[str, Conversation],
    variables: Mapping[str, Any],
    date: str | None,
    where: str,
) -> Outcome:
    """Render conversations in a process of 2 s CPU and 512 MiB that can open no file.

    Args:
        template: Jinja, as transformers takes it.
        conversations: By name.
        variables: What the template is given besides, as `bos_token`.
        date: ISO date that `strftime_now` knows; null: none.
        where: Source of the template, for errors.

    Raises:
        PrefixError: The template cannot be read, or it takes more than it may.
    """
    if len(template) > MAX_TEMPLATE_CHARS:
        what = f"the chat template is over {MAX_TEMPLATE_CHARS} characters long"
        raise PrefixError(what, where, OTHER_MODEL)
    task = {
        "template": template,
        "conversations": {
            name: {
                "messages": list(one.messages),
                "add_generation_prompt": one.add_generation_prompt,
                # As transformers: no tools is a null, not an unknown name.
                "tools": None,
                "documents": None,
            }
            for name, one in conversations.items()
        },
        "variables": dict(variables),
        "date": date,
    }
    answer = _run(json.dumps(task).encode(), where)
    if "broken" in answer:
        raise PrefixError(
            f"the chat template is no Jinja template: {answer['broken']}",
            where,
            "name the file that holds the model's own template",
        )
    rendered = {
        name: one["text"] if "text" in one else Refused(one["why"])
        for name, one in answer["rendered"].items()
    }
    return Outcome(rendered, frozenset(answer["names"]), answer["wants_date"])


def _run(task: bytes, where: str) -> dict[str, Any]:
    # Python isolated from its environment and the working folder; its packages stay in reach.
    command = [sys.executable, "-I", "-B", str(Path(process.__file__))]
    with tempfile.TemporaryFile() as output:  # a pipe could be filled without an end
        try:
            done = subprocess.run(
                command,
                input=task,
                stdout=output,
                stderr=subprocess.DEVNULL,
                env={},
                cwd="/",
                timeout=WALL_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise _too_much(f"more than {WALL_S:.0f} s", where) from None
        output.seek(0)
        written = output.read(process.OUTPUT_BYTES + 1)
    match done.returncode:
        case 0:
            answer: dict[str, Any] = json.loads(written)
            return answer
        case process.OUT_OF_MEMORY:
            raise _too_much(f"more than {process.MEMORY_BYTES >> 20} MiB", where)
        case process.REACHES_OUT:
            what = "the chat template reaches for files, processes or the network"
            raise PrefixError(what, where, OTHER_MODEL)
        case code if code in (-signal.SIGXCPU, -signal.SIGKILL):
            raise _too_much(f"more than {process.CPU_S} s of CPU time", where)
        case code:
            what = f"the chat template broke its process, which ended with {code}"
            raise PrefixError(what, where, OTHER_MODEL)


def _too_much(how_much: str, where: str) -> PrefixError:
    return PrefixError(f"the chat template takes {how_much}", where, OTHER_MODEL)
