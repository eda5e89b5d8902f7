"""Templates that nobody wrote: drawn from what templates are known to do.

Whatever the pieces promise is what Jinja renders, letter by letter, for conversations of any
words; what they do not promise, the template does not do the same way for all conversations.
"""

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import jinja2
import pytest

from prequery.errors import PrefixError
from prequery.prefix import Prefix
from prequery.prefix.derivation import cut
from prequery.prefix.rendering_process import environment
from prequery.prefix.sandbox import Conversation
from prequery.prefix.shape import Pair
from prequery.prefix.splitting import Refused

TEMPLATES = 200
CONVERSATIONS = 12
ALPHABET = "abc XYZ 019\n\t.,:;!?'\"&<>{}%#/\\|äß中🙂"


@dataclass
class Drawn:
    """A template, and what is known of how it was made.

    Args:
        source: Jinja.
        system: What it does with a system message.
        partly: It takes white space off one side of a response only, and nobody can tell which:
            its pieces promise what it does with words that have none.
    """

    source: str
    system: str
    partly: bool

    @cached_property
    def made(self) -> jinja2.Template:
        return environment(None).from_string(self.source)

    @property
    def where(self) -> str:
        return "a drawn template"

    def show(self, messages: Sequence[Mapping[str, object]]) -> str:
        return self.made.render(messages=messages, add_generation_prompt=True, bos_token="<s>")

    async def render(self, asked: Mapping[str, Conversation]) -> dict[str, str | Refused]:
        def one(said: Conversation) -> str | Refused:
            try:
                return self.show(said.messages)
            except jinja2.TemplateError as error:
                return Refused(str(error))

        return {name: one(said) for name, said in asked.items()}

    async def marks(self, pieces: Prefix) -> list[Pair]:
        return []

    async def tokens(self, whole: str) -> None:
        return None


def drawn(chance: random.Random) -> Drawn:
    """Draw a template."""
    headers = chance.choice(
        [
            ("<|im_start|>user\\n", "<|im_start|>assistant\\n", "<|im_start|>system\\n"),
            ("[INST] ", " [/INST]", "<<SYS>>"),
            ("USER: ", "ASSISTANT:", "SYSTEM: "),
            ("### Human:\\n", "### Assistant:\\n", "### System:\\n"),
            ("<start_of_turn>user\\n", "<start_of_turn>model\\n", "<start_of_turn>system\\n"),
        ]
    )
    user, assistant, system_header = headers
    end = chance.choice(["<|im_end|>\\n", "</s>", "\\n\\n", " </s><s>", "<end>\\n", "\\n"])
    user_end = chance.choice([end, "", "<eot>", "\\n"])
    trims = [chance.choice(["", " | trim", ".strip()"]) for _ in range(3)]
    system = chance.choice(["own", "default", "folded", "refused", "ignored", "last", "first"])
    think = chance.choice(["", "trimmed", "cut"])
    opens = chance.choice(["", "", "<think>\\n", "<think>\\n\\n</think>\\n\\n"])
    between = chance.choice(["", " ", "\\n"])  # in a finished turn only

    reply = f"(m.content{trims[1]})"
    if think:
        reply = f"m.content.split('</think>')[-1]{'.lstrip()' if think == 'trimmed' else trims[1]}"
    fold = "system and loop.first" if system == "folded" else "system and loop.last"
    lines = [
        chance.choice(["", "{{ bos_token }}", "<s>"]),
        "{% set given = messages[0].role == 'system' %}",
        f"{{% set system = (messages[0].content){trims[2]} if given else none %}}",
        {
            "refused": "{% if given %}{{ raise_exception('no system role') }}{% endif %}",
            "own": f"{{% if given %}}{{{{ '{system_header}' + system + '{end}' }}}}{{% endif %}}",
            "default": f"{{{{ '{system_header}' + (system if given else 'Be good.') + '{end}' }}}}",
            "first": f"{{% if not given %}}{{{{ raise_exception('system first') }}}}{{% endif %}}"
            f"{{{{ '{system_header}' + system + '{end}' }}}}",
        }.get(system, ""),
        "{% for m in messages if m.role != 'system' %}",
        f"{{% if m.role == 'user' %}}{{{{ '{user}' }}}}",
        f"{{% if {fold} %}}{{{{ system + '\\n\\n' }}}}{{% endif %}}"
        if system in ("folded", "last")
        else "",
        f"{{{{ (m.content){trims[0]} + '{user_end}' }}}}",
        f"{{% else %}}{{{{ '{assistant}{between}' + {reply} + '{end}' }}}}{{% endif %}}",
        "{% endfor %}",
        f"{{% if add_generation_prompt %}}{{{{ '{assistant}{opens}' }}}}{{% endif %}}",
    ]
    return Drawn("".join(lines), system, think == "trimmed")


def words(chance: random.Random) -> str:
    """Draw words with something other than white space in them."""
    text = "".join(chance.choice(ALPHABET) for _ in range(chance.randrange(1, 40)))
    return text + chance.choice("xyz") + chance.choice(["", " ", "\n"])


@pytest.mark.parametrize("part", range(4))
def test_prompts_are_what_a_drawn_template_renders(part: int) -> None:
    compared, refused = 0, 0
    for seed in range(part, TEMPLATES, 4):
        chance = random.Random(seed)
        template = drawn(chance)
        prefix, _ = asyncio.run(cut(template))
        for _ in range(CONVERSATIONS):
            turns = [(words(chance), words(chance)) for _ in range(chance.randrange(4))]
            if template.partly:
                turns = [(said, reply.strip()) for said, reply in turns]
            system = words(chance) if chance.random() < 0.5 else None
            asked = words(chance)
            messages = [
                {"role": role, "content": text}
                for turn in turns
                for role, text in zip(("user", "assistant"), turn, strict=True)
            ] + [{"role": "user", "content": asked}]
            lead = "" if system is None and template.system == "first" else system
            if lead is not None:
                messages.insert(0, {"role": "system", "content": lead})
            try:
                prompt = prefix.ask_response(asked, turns, system)
            except PrefixError:
                refused += 1
                never = ("refused", "ignored")
                assert system is not None, template.source
                assert template.system in never or (turns and template.system == "last")
                continue
            shown = template.show(messages)
            assert prompt == shown, template.source
            assert shown.startswith(prefix.ask_instruction(turns, system))
            compared += 1

    assert compared > 450
    assert refused > 25


def test_thoughts_in_earlier_responses_are_shown_as_a_drawn_template_shows_them() -> None:
    compared = 0
    for seed in range(TEMPLATES):
        chance = random.Random(seed)
        template = drawn(chance)
        prefix, _ = asyncio.run(cut(template))
        if prefix.think is None or prefix.history == "unknown" or template.system == "first":
            continue
        reply = f"<think>\n{words(chance)}</think>\n\n{words(chance).strip()}"
        messages = [
            {"role": "user", "content": "Why?"},
            {"role": "assistant", "content": reply},
            {"role": "user", "content": "How?"},
        ]

        assert prefix.ask_response("How?", [("Why?", reply)]) == template.show(messages)
        compared += 1

    assert compared > 50
