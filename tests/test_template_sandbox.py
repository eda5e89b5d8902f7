"""A chat template is a stranger's program: what it may, and what it cannot."""

import resource
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from prequery.errors import PrefixError
from prequery.prefix.sandbox import Conversation, Outcome, render
from prequery.prefix.splitting import Refused

SAID = {"": Conversation([{"role": "user", "content": "Why & <how>?"}])}


def rendered(
    template: str, variables: Mapping[str, Any] | None = None, date: str | None = None
) -> Outcome:
    return render(template, SAID, variables or {}, date, "the test")


def text(template: str, **variables: object) -> str | Refused:
    return rendered(template, variables).rendered[""]


@pytest.mark.parametrize(
    ("template", "shown"),
    [
        ("{{ bos_token }}{{ messages[0]['content'] }}", "<s>Why & <how>?"),
        ("{{ messages[0] | tojson }}", '{"role": "user", "content": "Why & <how>?"}'),
        ("{{ {'ä': 1} | tojson(indent=1) }}", '{\n "ä": 1\n}'),
        (
            "{% if add_generation_prompt %}\n  {% if tools is none %}\nx\n{% endif %}{% endif %}",
            "x\n",
        ),
        ("{% for n in range(9) %}{% if n > 2 %}{% break %}{% endif %}{{ n }}{% endfor %}", "012"),
        ("{% generation %}a{% endgeneration %}", "a"),
        ("{{ strftime_now is defined }}", "True"),
        ("{% set ns = namespace(n=1) %}{% set ns.n = 2 %}{{ ns.n }}", "2"),
        ("{{ dict(a=1)['a'] }}{{ ' x '.strip() }}", "1x"),
    ],
)
def test_a_template_sees_what_transformers_gives_it(template: str, shown: str) -> None:
    assert text(template, bos_token="<s>") == shown


def test_a_template_that_raises_refuses_the_conversation_in_its_own_words() -> None:
    assert text("{{ raise_exception('no\nsuch role') }}") == Refused("no such role")


def test_the_date_is_the_frozen_one_or_none() -> None:
    asking = "{{ strftime_now('%d %B %Y') }}"

    assert rendered(asking, date="2026-01-31").rendered[""] == "31 January 2026"
    assert rendered(asking).wants_date
    assert not rendered("{{ 1 }}").wants_date


def test_the_names_that_a_template_reads_are_told() -> None:
    assert rendered("{% if x %}{{ bos_token }}{% endif %}").names == {"x", "bos_token"}


@pytest.mark.parametrize(
    "attack",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ raise_exception.__globals__['os'].environ }}",
        "{{ messages.__reduce__() }}",
        "{{ '{0.__class__.__init__.__globals__}'.format(raise_exception) }}",
        "{{ (''|attr('__class__'))() }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
        "{% extends '/etc/passwd' %}",
        "{{ messages.append(1) }}",
        "{{ self.__init__.__globals__ }}",
        "{{ namespace.__init__.__globals__ }}",
        "{{ lipsum.__globals__ }}",
        "{% macro loop() %}{{ loop() }}{% endmacro %}{{ loop() }}",
        "{{ range(10**9) | list }}",
        "{{ 'x' * 300000 }}",
    ],
)
def test_no_template_gets_out_of_its_sandbox(attack: str) -> None:
    assert isinstance(text(attack), Refused)


@pytest.mark.parametrize(
    ("attack", "what"),
    [
        ("{{ 'a' * 10**9 }}", "takes more than 512 MiB"),
        ("{{ '%999999999d' % 1 }}", "takes more than 512 MiB"),
        ("{% set x = ['a' * 10**6] * 10**8 %}", "takes more than 512 MiB"),
        (
            "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
            "takes more than 2 s of CPU time",
        ),
        ("{{ 9 ** (10 ** 9) }}", "takes more than 2 s of CPU time"),
        ("{% for x in", "is no Jinja template: unexpected 'end of template'"),
        ("{{ undefined_filter | nosuch }}", "is no Jinja template: No filter named 'nosuch'."),
        ("a" * (2**20 + 1), "is over 1048576 characters long"),
    ],
)
def test_a_template_that_takes_too_much_is_refused_in_bounded_time(attack: str, what: str) -> None:
    started = time.monotonic()

    with pytest.raises(PrefixError) as caught:
        rendered(attack)

    assert caught.value.what == f"the chat template {what}"
    assert time.monotonic() - started < 30


PROBE = """
import sys, resource, runpy
sys.argv = [sys.argv[1]]
process = runpy.run_path(sys.argv[0])
process["environment"]("2000-01-01").from_string("{{ 1 }}").render()
process["give_up"]()
exec(sys.stdin.read())
"""


@pytest.mark.parametrize(
    "code",
    [
        "open('/etc/passwd')",
        "import os; os.open('/etc/passwd', 0)",
        "import os; os.fork()",
        "import subprocess; subprocess.run(['id'])",
        "import os; os.system('touch /tmp/escaped')",
        "import socket; socket.socket()",
        "import ctypes; ctypes.CDLL(None)",
        "bytearray(600 << 20)",
        "import os; os.remove('/tmp/escaped')",
    ],
)
def test_even_python_code_in_that_process_reaches_nothing(code: str, tmp_path: Path) -> None:
    # As though Jinja's sandbox had a hole: what the process has given up does not come back.
    import subprocess
    import sys

    from prequery.prefix import rendering_process

    done = subprocess.run(
        [sys.executable, "-I", "-c", PROBE, rendering_process.__file__],
        input=f"import sys\n{code}\nsys.stdout.write('escaped')",
        capture_output=True,
        text=True,
        env={},
    )

    assert done.returncode != 0
    assert "escaped" not in done.stdout


def test_what_is_given_up_is_given_up_in_that_process_only() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)

    rendered("{{ 1 }}")

    assert resource.getrlimit(resource.RLIMIT_NOFILE) == before
