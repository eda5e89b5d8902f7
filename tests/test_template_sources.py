"""Where a chat template comes from, and the proof that the endpoint reads what it means."""

import asyncio
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from prequery.endpoint import Answer, Asks, Info, Rendering, Request
from prequery.errors import PrefixError
from prequery.fleet import Fleet
from prequery.local import weights
from prequery.prefix import Prefix, derive, gguf, tokenizer
from prequery.prefix.ids import side_by_side
from prequery.prefix.template import find
from prequery.recipe import Generator, Template
from prequery.transport import Patience
from scripted_tgi import ScriptedTgi, chatml

MODEL = Generator("acme/model", "5" * 40)
TEMPLATES = Path(__file__).parent / "templates"


def of(**template: str) -> Generator:
    return replace(MODEL, template=Template(**template))


def trained(special: Sequence[str], joins: bool = False) -> Tokenizer:
    """Return a byte-level tokenizer with some control tokens and a few whole words.

    Args:
        special: Control tokens.
        joins: A space goes with the word behind it, as with most models.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("\u0120", letter) for letter in alphabet if letter.isascii()] if joins else []
    vocabulary = {one: at for at, one in enumerate(alphabet)}
    for pair in merges:
        vocabulary.setdefault("".join(pair), len(vocabulary))
    made = Tokenizer(models.BPE(vocabulary, merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(list(special))
    return made


@dataclass
class Served:
    """An endpoint with a tokenizer of its own and no chat template.

    Args:
        own: Its tokenizer; null: it shows no ids.
        bos: Text of the token that it puts before every prompt.
        wraps: Tokens that it counts besides those that were sent.
    """

    own: Tokenizer | None
    bos: str = ""
    wraps: int = 0
    address: str = "http://served"
    capacity: int = 1

    async def info(self) -> Info:
        return Info(model_id="acme/model")

    async def tokenize(self, text: str) -> list[int] | None:
        if self.own is None:
            return None
        found: list[int] = self.own.encode(self.bos + text, add_special_tokens=False).ids
        return found

    async def render(self, messages: Sequence[Mapping[str, str]]) -> Rendering:
        raise AssertionError("the recipe names the template")

    def check(self, request: Request) -> None:
        """Accept it."""

    async def generate(self, request: Request, where: str, urgent: bool = False) -> Answer:
        raise AssertionError("nothing is asked for")


def derived(endpoint: Asks, model: Generator, base: Path = TEMPLATES) -> Prefix:
    return asyncio.run(derive(endpoint, model, base))


CHATML = ["<|im_start|>", "<|im_end|>"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of tokenizer files, with a byte-level tokenizer."""
    trained(["<s>", *CHATML]).save(str(tmp_path / "tokenizer.json"))
    template = "{{ bos_token }}" + (TEMPLATES / "chatml.jinja").read_text()
    config = {"bos_token": {"content": "<s>"}, "chat_template": template}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    return tmp_path


def test_a_folder_of_tokenizer_files_tells_template_and_ids(folder: Path) -> None:
    own = trained(["<s>", *CHATML])

    plain = derived(Served(own), of(tokenizer=folder.name), folder.parent)
    adding = derived(Served(own, bos="<s>"), of(tokenizer=folder.name), folder.parent)

    assert plain.text == "<s>" + adding.text == "<s><|im_start|>user\n"
    assert plain.ids == adding.ids == tuple(own.encode(plain.text).ids)
    assert plain.ids.count(own.token_to_id("<s>")) == 1
    assert plain.bos == "the endpoint adds no token of its own"
    assert adding.bos.endswith("the template's own was taken off")
    assert (plain.source, len(plain.template_sha256 or "")) == (f"tokenizer in {folder.name}", 64)


def test_another_tokenizer_at_the_endpoint_is_refused_with_both_rows_of_ids(folder: Path) -> None:
    foreign = trained(["<|im_end|>", "<s>", "<|im_start|>"])

    with pytest.raises(PrefixError) as caught:
        derived(Served(foreign), of(tokenizer=folder.name), folder.parent)

    assert caught.value.what == (
        "the endpoint reads the prefix otherwise than the template means it, from token 0 on:\n"
        "    text      <s>  <|im_start|>    -   u   s   e   r\n"
        "    template  256           257    -  84  82  68  81\n"
        "    endpoint    -           257  258  84  82  68  81"
    )


def test_rows_of_ids_are_aligned_around_the_first_difference() -> None:
    shown = side_by_side((1, 20, 300, 4), (1, 1, 20, 300, 4), ["<s>", "us", "er", "\n"])

    assert shown == (
        "    text      -  <s>  us   er  \\n\n"
        "    template  -    1  20  300   4\n"
        "    endpoint  1    1  20  300   4"
    )


def test_bos_that_is_eos_stands_once_in_the_prefix(tmp_path: Path) -> None:
    own = trained(["<|endoftext|>", "<|user|>", "<|assistant|>"])
    own.save(str(tmp_path / "tokenizer.json"))
    config = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "chat_template.jinja").write_text((TEMPLATES / "olmo2.jinja").read_text())
    end = own.token_to_id("<|endoftext|>")

    for adds in ("", "<|endoftext|>"):
        prefix = derived(Served(own, bos=adds), of(tokenizer="."), tmp_path)

        assert prefix.ids.count(end) == 1
        assert prefix.ids[0] == end
        assert prefix.ask_instruction([("Why?", "So.")]).endswith("So.<|endoftext|>\n<|user|>\n")


def test_a_template_that_writes_bos_twice_is_refused(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text(
        "<s>{{ bos_token }}" + (TEMPLATES / "chatml.jinja").read_text()
    )

    with pytest.raises(PrefixError) as caught:
        derived(Served(trained(["<s>", *CHATML])), of(tokenizer="."), folder)

    assert caught.value.what == "the chat template begins with '<s>' twice"


def test_a_space_that_goes_with_the_first_word_is_the_models_to_write(tmp_path: Path) -> None:
    own = trained(["<s>", "</s>"], joins=True)
    own.save(str(tmp_path / "tokenizer.json"))
    config = {"bos_token": "<s>", "eos_token": "</s>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "chat_template.jinja").write_text((TEMPLATES / "llama2.jinja").read_text())

    prefix = derived(Served(own), of(tokenizer="."), tmp_path)

    assert (prefix.text, prefix.joint) == ("<s>[INST]", " ")
    assert prefix.ask_instruction() == "<s>[INST]"
    assert [prefix.joined(one) for one in ("", "Why", " Why")] == ["", " Why", " Why"]
    assert prefix.ask_response("Why?") == "<s>[INST] Why? [/INST]"
    assert prefix.ask_instruction([("Why?", "So.")]) == "<s>[INST] Why? [/INST]So.</s>[INST]"


def test_named_templates_give_the_default_one(tmp_path: Path) -> None:
    named = [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]

    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    assert tokenizer.read(tmp_path).template == "d"
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": "j"}))
    assert tokenizer.read(tmp_path).template == "j"
    (tmp_path / "chat_template.jinja").write_text("file")
    assert tokenizer.read(tmp_path).template == "file"


@pytest.mark.parametrize(
    ("files", "what"),
    [
        ({}, "the tokenizer has no chat template"),
        ({"tokenizer_config.json": "{"}, "tokenizer_config.json is no JSON"),
        ({"chat_template.jinja": "x", "tokenizer.json": "{}"}, "tokenizer.json cannot be read"),
        ({"chat_template.jinja": b"\xff"}, "chat_template.jinja cannot be read"),
    ],
)
def test_damaged_tokenizer_files_are_refused(
    tmp_path: Path, files: dict[str, Any], what: str
) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    with pytest.raises(PrefixError) as caught:
        tokenizer.read(tmp_path).encode("text")

    assert caught.value.what.startswith(what)


def test_the_hubs_cache_gives_the_pinned_revision(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    snapshot = cache / "models--acme--model" / "snapshots" / MODEL.revision
    snapshot.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (snapshot / name).write_bytes((folder / name).read_bytes())
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)

    prefix = derived(Served(trained(["<s>", *CHATML])), of(tokenizer=""))

    assert prefix.source == f"tokenizer acme/model@{MODEL.revision}"
    with pytest.raises(PrefixError) as caught:
        find(replace(of(tokenizer=""), revision="6" * 40), folder)
    assert caught.value.what.startswith("the tokenizer cannot be had from the Hub: ")


def test_a_template_file_is_proven_by_the_endpoints_own_tokenizer() -> None:
    own = trained(["<s>", *CHATML])

    prefix = derived(Served(own), of(file="chatml.jinja"))

    assert prefix.text == "<|im_start|>user\n"
    assert prefix.ids == tuple(own.encode(prefix.text).ids)
    assert prefix.source == "file chatml.jinja"
    with pytest.raises(PrefixError) as caught:
        derived(Served(trained(["<|im_start|>"])), of(file="chatml.jinja"))
    assert caught.value.what == (
        "the control token '<|im_end|>' is not one token for this endpoint"
    )
    with pytest.raises(PrefixError) as caught:
        derived(Served(None), of(file="chatml.jinja"))
    assert caught.value.what.startswith("nothing tells the token ids of the prefix")


def test_a_template_file_that_writes_bos_wants_to_be_told_it() -> None:
    own = trained(["<bos>", "<start_of_turn>", "<end_of_turn>"])

    with pytest.raises(PrefixError) as caught:
        derived(Served(own), of(file="gemma.jinja"))
    plain = derived(Served(own), of(file="gemma.jinja", bos_token="<bos>"))
    adding = derived(Served(own, bos="<bos>"), of(file="gemma.jinja", bos_token="<bos>"))

    assert caught.value.fix.startswith("add it: generator.template: {file: PATH, bos_token: TEXT")
    assert plain.text == "<bos>" + adding.text == "<bos><start_of_turn>user\n"
    assert plain.ids == adding.ids


@pytest.mark.parametrize("name", ["missing.jinja", "."])
def test_a_template_file_that_cannot_be_read_is_refused(name: str) -> None:
    with pytest.raises(PrefixError) as caught:
        derived(Served(None), of(file=name))

    assert caught.value.what.startswith("the template file cannot be read: ")


def smollm2_tokenizer(keys: dict[str, Any]) -> Tokenizer:
    """Return the model's tokenizer, put together from what its GGUF holds."""
    tokens, kinds = keys["tokenizer.ggml.tokens"], keys["tokenizer.ggml.token_type"]
    merges = [tuple(one.split(" ")) for one in keys["tokenizer.ggml.merges"]]
    made = Tokenizer(models.BPE({one: at for at, one in enumerate(tokens)}, merges))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    made.add_special_tokens([t for t, k in zip(tokens, kinds, strict=True) if k == gguf.CONTROL])
    return made


def test_every_source_gives_the_real_models_prefix(local_url: str, tmp_path: Path) -> None:
    found = weights.find()
    assert found is not None
    keys = gguf.read_keys(found.path)
    smollm2_tokenizer(keys).save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "chat_template.jinja").write_text(keys["tokenizer.chat_template"])
    (tmp_path / "tokenizer_config.json").write_text('{"bos_token": "<|im_start|>"}')

    async def run() -> list[Prefix]:
        models = (
            MODEL,
            of(gguf=str(found.path)),
            of(tokenizer="."),
            of(file="chat_template.jinja"),
        )
        async with Fleet([local_url], None, Patience(tries=1)) as endpoint:
            return [await derive(endpoint, model, tmp_path) for model in models]

    served, from_gguf, from_tokenizer, from_file = asyncio.run(run())

    assert served.text.startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")
    for other in (from_gguf, from_tokenizer, from_file):
        assert (other.text, other.ids, other.suffix) == (served.text, served.ids, served.suffix)
        assert (other.system, other.answer, other.stop) == (
            served.system,
            served.answer,
            served.stop,
        )


def gguf_bytes(values: Mapping[str, object], version: int = 3) -> bytes:
    """Write a GGUF file without tensors."""

    def text(one: str) -> bytes:
        return struct.pack("<Q", len(one.encode())) + one.encode()

    def value(one: object) -> bytes:
        match one:
            case bool():
                return struct.pack("<I?", 7, one)
            case int():
                return struct.pack("<II", 4, one)
            case str():
                return struct.pack("<I", 8) + text(one)
            case [str(), *_]:
                return struct.pack("<IIQ", 9, 8, len(one)) + b"".join(text(str(x)) for x in one)
            case [*numbers]:
                return struct.pack(f"<IIQ{len(numbers)}i", 9, 5, len(numbers), *numbers)
        raise AssertionError(one)

    pairs = [text(key) + value(one) for key, one in values.items()]
    return struct.pack("<4sIQQ", b"GGUF", version, 0, len(pairs)) + b"".join(pairs)


KEYS = {
    "tokenizer.chat_template": "{{ bos_token }}",
    "tokenizer.ggml.tokens": ["<s>", "a", "</s>"],
    "tokenizer.ggml.token_type": [3, 1, 3],
    "tokenizer.ggml.bos_token_id": 0,
    "tokenizer.ggml.eos_token_id": 2,
    "tokenizer.ggml.add_bos_token": True,
}


def test_a_ggufs_metadata_is_read(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf_bytes(KEYS))

    assert gguf.read(path) == gguf.Metadata(
        "{{ bos_token }}", "<s>", "</s>", True, {"<s>": 0, "</s>": 2}
    )


@pytest.mark.parametrize(
    ("raw", "what"),
    [
        (b"", "this is no GGUF file that can be read: it ends in the middle of a value"),
        (b"GGML" + bytes(40), "this is no GGUF file that can be read: it does not begin with"),
        (gguf_bytes(KEYS, 9), "this is no GGUF file that can be read: its version is 9"),
        (gguf_bytes({"a": 1}), "the GGUF file holds no chat template"),
        (gguf_bytes(KEYS)[:-20], "this is no GGUF file that can be read: it ends in the middle"),
        (
            struct.pack("<4sIQQQ", b"GGUF", 3, 0, 1, 2**60),
            "this is no GGUF file that can be read: it ends in the middle",
        ),
        (
            struct.pack("<4sIQQQ1sIIQ", b"GGUF", 3, 0, 1, 1, b"k", 9, 8, 2**60),
            "this is no GGUF file that can be read: it claims a list of",
        ),
        (
            struct.pack("<4sIQQQ1sI", b"GGUF", 3, 0, 1, 1, b"k", 77),
            "this is no GGUF file that can be read: it holds a value of the unknown type 77",
        ),
    ],
)
def test_a_damaged_or_hostile_gguf_is_refused(tmp_path: Path, raw: bytes, what: str) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(raw)

    with pytest.raises(PrefixError) as caught:
        gguf.read(path)

    assert caught.value.what.startswith(what)


def test_an_endpoint_that_renders_the_date_is_refused_and_told_how_to_freeze_it() -> None:
    from datetime import UTC, datetime

    def dated(messages: list[dict[str, str]]) -> str:
        return chatml(messages).replace("Scripted.", f"Scripted. {datetime.now(UTC):%d %B %Y}")

    server = ScriptedTgi(template=dated)

    async def run() -> Prefix:
        async with Fleet([server.url], None, Patience(tries=1)) as endpoint:
            return await derive(endpoint, MODEL)

    with server.serving(), pytest.raises(PrefixError) as caught:
        asyncio.run(run())

    assert caught.value.what.startswith("the chat template writes the date of the day, ")
    assert "generator.template: tokenizer" in caught.value.fix
