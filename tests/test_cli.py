import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from command_line import Run, commands
from prequery import columns
from prequery.recipe import load
from scripted_tgi import ScriptedTgi, recipe_text

MAIN = [sys.executable, "-c", "from prequery.cli import main; main()"]


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "scripted.yaml"
    path.write_text(recipe_text())
    return path


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    with commands(COLUMNS="200", NO_COLOR="1") as run:
        yield run


def test_a_build_says_what_came_of_it_and_how_to_load_it(
    run: Run, recipe: Path, tmp_path: Path
) -> None:
    with ScriptedTgi().serving() as server:
        done = run("build", str(recipe), "--endpoint", server.url, "--out", "o", home=tmp_path)

    assert done.returncode == 0, done.stderr
    assert re.search(r"20/20 rows, \d+ attempts, \d+ rejected", done.stderr)
    assert (
        re.search(r"^\s*20 accepted$", done.stdout, re.MULTILINE) or "20  accepted" in done.stdout
    )
    assert len(re.findall(r"^╭─ [0-9a-f]{12}-\d+ ─", done.stdout, re.MULTILINE)) == 3
    assert done.stdout.endswith(
        "The dataset is in o. Load it:\n\n"
        "    from datasets import load_dataset\n"
        '    ds = load_dataset("o", "scripted", split="train")\n'
    )


def test_a_second_build_says_that_it_reuses(run: Run, recipe: Path, tmp_path: Path) -> None:
    server = ScriptedTgi()
    words = ("build", str(recipe), "--out", "o", "--endpoint")
    with server.serving():
        run(*words, server.url, home=tmp_path)
    # It has counted by now what was sent last.
    asked = server.asked.total()
    with server.serving():
        done = run(*words, server.url, home=tmp_path)

    assert done.stdout.startswith("Reusing o: it holds this very build, complete and unchanged.")
    assert server.asked.total() == asked


def test_the_bundled_recipes_are_listed_and_shown_letter_by_letter(
    run: Run, tmp_path: Path
) -> None:
    listed = run("recipe", "list", home=tmp_path)
    shown = run("recipe", "show", "magpie-pro-1m", "--yaml", home=tmp_path)

    (tmp_path / "mine.yaml").write_text(shown.stdout)
    checked = run("recipe", "check", "mine.yaml", home=tmp_path)
    assert (listed.returncode, listed.stderr) == (0, "")
    assert "magpie-pro-1m" in listed.stdout
    assert shown.stdout == load("magpie-pro-1m").text
    assert checked.returncode == 0, checked.stderr


def test_an_error_is_three_lines_and_an_exit_code(run: Run, tmp_path: Path) -> None:
    done = run("recipe", "check", "zzz.yaml", home=tmp_path)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "RecipeError: there is no recipe 'zzz.yaml'\n"
        "  where: the recipe's path, or the name of one that ships with prequery\n"
        "  fix:   all of these: prequery recipe list\n"
    )


def test_an_endpoint_that_is_no_tgi_is_an_error_with_a_fix(
    run: Run, recipe: Path, tmp_path: Path
) -> None:
    server = ScriptedTgi(info={"name": "nginx"})
    with server.serving():
        done = run("build", str(recipe), "--endpoint", server.url, home=tmp_path)

    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "  fix:   point the recipe's endpoint.url, or --endpoint, at text-generation-inference, "
        "vLLM, SGLang or llama.cpp's server"
    )
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("words", [("bild",), ("build",), ("build", "x", "--num-proc", "0")])
def test_wrong_usage_is_explained_with_exit_code_two(
    run: Run, words: tuple[str, ...], tmp_path: Path
) -> None:
    done = run(*words, home=tmp_path)

    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "Usage: " in done.stderr


def test_ctrl_c_prints_the_command_that_resumes(recipe: Path, tmp_path: Path) -> None:
    """In a real terminal: the live line is drawn, and Ctrl-C comes as a key."""
    with ScriptedTgi(delay_s=0.3, held_after=12).serving() as server:
        server.info["max_concurrent_requests"] = 4
        words = ["build", str(recipe), "--endpoint", server.url, "--out", str(tmp_path / "o")]
        child, terminal = pty.fork()
        if child == 0:
            os.environ.update(PREQUERY_HOME=str(tmp_path), COLUMNS="300", TERM="xterm")
            os.execv(sys.executable, [sys.executable, "-c", MAIN[2], *words])
        seen, pressed, deadline = b"", False, time.monotonic() + 60
        while time.monotonic() < deadline:
            ready, _, _ = select.select([terminal], [], [], 0.05)
            if ready:
                try:
                    seen += os.read(terminal, 65536)
                except OSError:
                    break
            if not pressed and server.asked.total() >= 14:
                os.write(terminal, b"\x03")
                pressed = True
            if b"stopping: " in seen:
                server.held_after = None
        _, status = os.waitpid(child, 0)
        os.close(terminal)

    said = seen.decode(errors="replace")
    assert os.waitstatus_to_exitcode(status) == 130
    assert "━" in said
    assert re.search(r"stopping: \d rows are in flight and get 30 s to finish", said)
    assert f"fix:   carry on: prequery {' '.join(words)}" in said


def test_a_killed_command_carries_on_with_the_same_command(
    run: Run, recipe: Path, tmp_path: Path
) -> None:
    environment = os.environ | {"PREQUERY_HOME": str(tmp_path)}
    with ScriptedTgi(held_after=20).serving() as server:
        server.info["max_concurrent_requests"] = 4
        words = ["build", str(recipe), "--endpoint", server.url, "--out", "o"]
        with subprocess.Popen([*MAIN, *words], env=environment, cwd=tmp_path) as killed:
            while server.asked.total() < 20 and killed.poll() is None:
                time.sleep(0.01)
            killed.send_signal(signal.SIGKILL)
        server.held_after = None
        done = run(*words, home=tmp_path)

    assert done.returncode == 0, done.stderr
    assert re.search(r"^\d+ answers are in the journal ", done.stderr, re.MULTILINE)


def test_a_token_appears_nowhere(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted canary, in every file of journal and output and in all that is printed."""
    monkeypatch.setenv("MY_TOKEN", "hf_canary0123456789")
    recipe = tmp_path / "scripted.yaml"
    with ScriptedTgi().serving() as server:
        endpoint = f"{{url: '{server.url}', token_env: MY_TOKEN}}"
        recipe.write_text(recipe_text(endpoint=endpoint))
        done = run("build", str(recipe), "--out", "o", home=tmp_path)
        assert server.headers[0]["Authorization"] == "Bearer hf_canary0123456789"

    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert done.returncode == 0, done.stderr
    assert b"canary" not in b"".join(written) + (done.stdout + done.stderr).encode()


def test_columns_are_listed_with_what_they_give(run: Run, tmp_path: Path) -> None:
    done = run("columns", home=tmp_path)

    assert done.returncode == 0
    assert "…" not in done.stdout
    for column in columns.ALL:
        line = rf"^{column.name} +{column.version} +{column.cost} "
        assert re.search(line, done.stdout, re.MULTILINE), column.name


def test_a_recipe_is_shown_with_every_default(run: Run, recipe: Path, tmp_path: Path) -> None:
    done = run("recipe", "show", str(recipe), home=tmp_path)

    assert '"max_attempts": 200' in done.stdout
    assert '"top_p": 0.95' in done.stdout
    assert '"pinned_prefix": null' in done.stdout


def test_pinning_writes_the_lock_that_a_build_is_held_to(
    run: Run, recipe: Path, tmp_path: Path
) -> None:
    with ScriptedTgi().serving() as server:
        pinned = run("recipe", "pin", str(recipe), "--endpoint", server.url, home=tmp_path)
        server.template = lambda messages: "<|x|>user\n" + messages[-1]["content"] + "<|y|>\n"
        words = ("build", str(recipe), "--endpoint", server.url, "--out", "o")
        done = run(*words, home=tmp_path)

    assert pinned.returncode == 0, pinned.stderr
    assert done.returncode == 2
    assert done.stderr.startswith("RecipeError: prefix.text is pinned as ")


def test_a_probe_shows_prefix_ids_bos_and_a_verdict(run: Run, recipe: Path, tmp_path: Path) -> None:
    with ScriptedTgi().serving() as server:
        done = run("probe", str(recipe), "--endpoint", server.url, home=tmp_path)

    assert r"'<|im_start|>system\nYou are Scripted.<|im_end|>\n<|im_start|>user\n'" in done.stdout
    assert "the endpoint adds no token of its own" in done.stdout
    assert len(re.findall(r"^\d\. Could you explain", done.stdout, re.MULTILINE)) == 5
    assert done.stdout.splitlines()[-1] == (
        "acme/scripted self-synthesizes: 16 of 16 draws finished, 16 read as requests, "
        "16 are distinct"
    )
