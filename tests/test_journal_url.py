"""A journal on an object store: S3's protocol over real HTTP, and fsspec's memory file system."""

import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from prequery.endpoint import Answer
from prequery.errors import JournalError
from prequery.journal import Journal, Key, Limits
from prequery.journal.store import UrlStore, commit

PRINT = "a" * 64


class Troubled:
    """A WSGI application before which a scripted trouble stands."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.puts: list[str] = []
        self.lose_replies = 0
        self.slow_downs = 0

    def __call__(self, environ: Any, start_response: Any) -> Any:
        if environ["REQUEST_METHOD"] == "PUT" and environ["PATH_INFO"].count("/") > 1:
            self.puts.append(environ.get("HTTP_IF_NONE_MATCH", ""))
            if self.slow_downs:
                self.slow_downs -= 1
                environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
                body = b"<Error><Code>SlowDown</Code><Message>Slow down</Message></Error>"
                start_response("503 Slow Down", [("Content-Type", "application/xml")])
                return [body]
            if self.lose_replies:
                self.lose_replies -= 1
                list(self.app(environ, lambda status, headers, exc_info=None: lambda data: None))
                start_response("500 Internal Error", [("Content-Type", "application/xml")])
                return [b"<Error><Code>InternalError</Code><Message>lost</Message></Error>"]
        return self.app(environ, start_response)


@pytest.fixture(scope="module")
def s3_server() -> Iterator[tuple[str, Troubled]]:
    moto = pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    from werkzeug.serving import make_server

    app = Troubled(moto.DomainDispatcherApplication(moto.create_backend_app))
    server = make_server("127.0.0.1", 0, app, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", app
    server.shutdown()


@pytest.fixture
def s3(s3_server: tuple[str, Troubled], monkeypatch: pytest.MonkeyPatch) -> Iterator[Troubled]:
    """S3 with an empty bucket; addressed as a user would, through the environment."""
    address, app = s3_server
    for name, value in {
        "AWS_ACCESS_KEY_ID": "k",
        "AWS_SECRET_ACCESS_KEY": "s",
        "AWS_ENDPOINT_URL": address,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    fs = fsspec.filesystem("s3", skip_instance_cache=False)
    if not fs.exists("bucket"):
        fs.mkdir("bucket")
    app.puts.clear()
    yield app
    app.slow_downs = app.lose_replies = 0


@pytest.fixture(params=["memory", "s3"])
def url(request: pytest.FixtureRequest) -> str:
    name = uuid.uuid4().hex
    if request.param == "memory":
        return f"memory://journals/{name}"
    request.getfixturevalue("s3")
    return f"s3://bucket/{name}"


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREQUERY_HOME", str(tmp_path / "home"))


def fill(url: str, count: int) -> dict[Key, Answer]:
    kept = {
        Key(slot, made): Answer(text=f"{made} {slot}", finish_reason="eos_token", seed=slot + 1)
        for slot in range(count)
        for made in ("instruction", "response")
    }
    with Journal(url, PRINT, Limits(rows=10)) as journal:
        journal.agree({"model_sha": "1"}, {})
        for key, answer in kept.items():
            journal.record(key, answer)
    return kept


def held(journal: Journal, keys: dict[Key, Answer]) -> dict[Key, Answer | None]:
    return {key: journal.get(key) for key in keys}


def test_a_journal_on_a_store_is_read_back_from_the_store_alone(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = fill(url, 12)
    monkeypatch.setenv("PREQUERY_HOME", str(tmp_path / "another machine"))

    with Journal(url, PRINT) as journal:
        assert held(journal, kept) == kept
        assert journal.header["made_with"] == {"model_sha": "1"}
        journal.freeze()
    with Journal(url, PRINT) as journal:
        assert held(journal, kept) == kept


def test_a_log_that_a_killed_builder_left_here_reaches_the_store(url: str) -> None:
    key = Key(0, "instruction")
    killed = Journal(url, PRINT).__enter__()
    killed.record(key, Answer(text="kept"))
    log = killed._log
    assert log is not None
    log.close()

    with Journal(url, PRINT) as journal:
        assert journal.get(key) == Answer(text="kept")
        names = journal._store.names()

    assert len(names) == 2  # the segment, and the folder of the killed builder's heartbeat


def test_a_damaged_segment_on_a_store_is_never_believed(url: str) -> None:
    kept = fill(url, 5)
    fs, root = fsspec.core.url_to_fs(url)
    (segment,) = [path for path in fs.ls(root, detail=False) if "-response-" in path]
    fs.pipe_file(segment, fs.cat_file(segment)[:-1])

    with Journal(url, PRINT) as journal:
        found = held(journal, kept)
        assert journal.damaged == 5

    assert {key.made for key, answer in found.items() if answer} == {"instruction"}


def test_builders_on_one_store_share_slots_by_leases(url: str) -> None:
    with Journal(url, PRINT, Limits(rows=1)) as one, Journal(url, PRINT) as other:
        assert one.claim(0)
        assert not other.claim(0)
        assert other.claim(64)
        one.record(Key(0, "instruction"), Answer(text="0"))
        one.sync()
        other.refresh()
        assert other.get(Key(0, "instruction")) == Answer(text="0")


def test_every_put_that_counts_is_create_only(s3: Troubled) -> None:
    kept = fill("s3://bucket/create-only", 5)
    with Journal("s3://bucket/create-only", PRINT) as journal:
        assert held(journal, kept) == kept

    # The one PUT without the condition is the heartbeat.
    assert sorted(s3.puts) == ["", "*", "*", "*"]


def test_a_store_that_is_overloaded_or_loses_replies_gets_the_same_name_again(
    s3: Troubled,
) -> None:
    fs, root = fsspec.core.url_to_fs("s3://bucket/troubled")
    store = UrlStore(fs, root, longest_wait_s=0)

    s3.slow_downs = 2
    commit(store, "slow", b"1")
    s3.lose_replies = 1
    commit(store, "lost", b"2")
    commit(store, "lost", b"2")

    assert (store.read("slow"), store.read("lost")) == (b"1", b"2")
    assert sorted(store.names()) == ["lost", "slow"]


def test_a_name_that_holds_something_else_is_set_aside_never_overwritten(url: str) -> None:
    store = UrlStore(*fsspec.core.url_to_fs(url))

    assert store.create("name", b"damaged")
    assert not store.create("name", b"whole")
    commit(store, "name", b"whole")

    assert (store.read("name"), store.read("name.damaged")) == (b"whole", b"damaged")


def test_an_address_with_credentials_is_refused() -> None:
    with pytest.raises(JournalError) as caught:
        Journal("s3://key:secret@bucket/journal", PRINT).__enter__()

    assert caught.value.what == "the address of the journal holds credentials"
    assert "secret" not in str(caught.value)


def test_a_store_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("s3fs")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, uuid.uuid4().hex)
    fsspec.get_filesystem_class("s3").clear_instance_cache()

    with pytest.raises(JournalError) as caught:
        Journal("s3://bucket/journal", PRINT).__enter__()

    assert caught.value.what.startswith("the journal cannot be used: EndpointConnectionError")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
