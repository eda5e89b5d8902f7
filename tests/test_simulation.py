"""The simulated fleet: TGI's wire format, determinism, queueing, and every fault, over sockets."""

import http.client
import json
import subprocess
import sys
import time
import urllib.error
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import tgi_openapi
from plain_http import Reply, generate, get, post
from prequery.simulation import Faults, Lengths, Machine, Settings, SimulatedFleet, simulate
from prequery.simulation.settings import Counters
from prequery.simulation.template import ChatTemplate
from tgi_openapi import check

AT_ONCE = Machine(token_s=0)
CHATML = ChatTemplate(Settings())
PREFIX = CHATML.render([{"role": "user", "content": "@"}]).partition("@")[0]
REQUEST = CHATML.render([{"role": "user", "content": "Why is the sky blue?"}])


def fleet_of(*machines: Machine, faults: Faults = Faults(), sigma: float = 0.8) -> Settings:  # noqa: B008
    return Settings(machines=machines, faults=faults, lengths=Lengths(sigma=sigma), seed=5)


def ask(url: str, seed: int = 1, prompt: str = PREFIX, most: int = 256) -> Reply:
    parameters = {"details": True, "do_sample": True, "seed": seed, "max_new_tokens": most}
    return post(f"{url}/generate", {"inputs": prompt, "parameters": parameters})


HEADERS = """\
{{ bos_token }}{% for message in messages %}
{% if message.role == "system" %}{{ raise_exception("no system role here") }}{% endif %}
<|role|>{{ message.role }}<|words|>{{ message.content }}<|over|>{% endfor %}
{% if add_generation_prompt %}<|role|>assistant<|words|>{% endif %}
"""


def texts(settings: Settings) -> list[str]:
    with simulate(settings) as fleet:
        return [ask(fleet.urls[0], seed).json["generated_text"] for seed in range(1, 9)]


def test_everything_matches_tgis_openapi() -> None:
    schemas = tgi_openapi.load()
    messages = [{"role": "user", "content": "Hello"}]

    with simulate(fleet_of(AT_ONCE)) as fleet:
        (url,) = fleet.urls

        check(get(f"{url}/info").json, "Info", schemas)
        check(ask(url).json, "GenerateResponse", schemas)
        check(ask(url, most=3).json, "GenerateResponse", schemas)
        check(post(f"{url}/generate", {"inputs": "a"}).json, "GenerateResponse", schemas)
        whole = {"details": True, "decoder_input_details": True}
        reading = {"inputs": "a b", "parameters": whole}
        check(post(f"{url}/generate", reading).json, "GenerateResponse", schemas)
        check(post(f"{url}/", {"inputs": "a"}).json[0], "GenerateResponse", schemas)
        check(post(f"{url}/tokenize", {"inputs": "a b"}).json, "TokenizeResponse", schemas)
        rendered = post(f"{url}/chat_tokenize", {"messages": messages}).json
        check(rendered, "ChatTokenizeResponse", schemas)
        refused = post(f"{url}/generate", b"{")
        check(refused.json, "ErrorResponse", schemas)
        assert get(f"{url}/health").status == 200
        assert (refused.status, get(f"{url}/nothing").status) == (422, 404)


def test_the_details_agree_with_the_text_and_the_tokenizer() -> None:
    with simulate(fleet_of(AT_ONCE)) as fleet:
        (url,) = fleet.urls
        whole, cut = ask(url, prompt=REQUEST, most=4096), ask(url, prompt=REQUEST, most=7)
    details, short = whole.json["details"], cut.json["details"]

    said = [token for token in details["tokens"] if not token["special"]]
    assert "".join(token["text"] for token in said) == whole.json["generated_text"]
    again = CHATML.tokens(whole.json["generated_text"])
    assert [t["id"] for t in again] == [t["id"] for t in said]
    assert details["finish_reason"] == "eos_token"
    assert details["generated_tokens"] == len(details["tokens"]) == len(said) + 1
    assert int(whole.headers["x-prompt-tokens"]) == len(CHATML.tokens(REQUEST))
    assert all(token["logprob"] <= 0 for token in details["tokens"])
    assert (short["finish_reason"], short["generated_tokens"], len(short["tokens"])) == (
        "length",
        7,
        7,
    )
    assert whole.json["generated_text"].startswith(cut.json["generated_text"])


def test_it_serves_the_template_and_the_tokenizer_that_it_is_given() -> None:
    settings = Settings(machines=(AT_ONCE,), template=HEADERS, bos="<begin>")
    question = {"role": "user", "content": "Why?"}
    answer = {"role": "assistant", "content": "So."}
    with simulate(settings) as fleet:
        (url,) = fleet.urls
        shown = post(f"{url}/chat_tokenize", {"messages": [question, answer, question]}).json
        sent = post(f"{url}/tokenize", {"inputs": "<|role|>user<|words|>"}).json
        asked = ask(url, prompt="<|role|>user<|words|>")
        begun = ask(url, prompt="<|role|>user<|words|>How do")
        answered = ask(url, prompt="<|role|>user<|words|>Why?<|over|><|role|>assistant<|words|>")
        refused = post(f"{url}/chat_tokenize", {"messages": [{"role": "system", "content": "x"}]})

    assert shown["templated_text"] == (
        "<begin><|role|>user<|words|>Why?<|over|><|role|>assistant<|words|>So.<|over|>"
        "<|role|>user<|words|>Why?<|over|><|role|>assistant<|words|>"
    )
    assert [token["text"] for token in shown["tokenize_response"]].count("<begin>") == 1
    assert [token["text"] for token in sent] == ["<begin>", "<|role|>", "user", "<|words|>"]
    assert int(asked.headers["x-prompt-tokens"]) == 4
    assert asked.json["details"]["tokens"][-1]["text"] == "<|over|>"
    ends = [reply.json["generated_text"][-1] for reply in (asked, begun, answered)]
    assert ends == ["?", "?", "."]  # an instruction, one that was begun, and a response
    assert refused.json["error"] == "Template error: no system role here"
    assert refused.status == 422


def test_a_model_whose_template_opens_its_thoughts_ends_them() -> None:
    opened = HEADERS.replace("assistant<|words|>", "assistant<|words|><think>")
    settings = Settings(machines=(AT_ONCE,), template=opened, lengths=Lengths(sigma=0))
    with simulate(settings) as fleet:
        prompt = "<|role|>user<|words|>Why?<|over|><|role|>assistant<|words|><think>"
        said = ask(fleet.urls[0], prompt=prompt, most=4096).json["generated_text"]
        asked = ask(fleet.urls[0], prompt="<|role|>user<|words|>").json["generated_text"]

    thought, _, words = said.partition("</think>")
    assert thought.endswith(".")
    assert words.endswith(".")
    assert "think" not in asked


def test_an_answer_follows_from_seed_and_prompt_alone() -> None:
    first = texts(fleet_of(AT_ONCE))

    assert texts(fleet_of(AT_ONCE)) == first
    assert len(set(first)) == 8
    assert texts(Settings(machines=(AT_ONCE,), seed=6)) != first


def test_lengths_have_the_medians_and_the_tail_of_the_settings() -> None:
    with simulate(fleet_of(AT_ONCE)) as fleet, ThreadPoolExecutor(4) as pool:

        def length(seed: int) -> int:
            found: int = ask(fleet.urls[0], seed, most=4096).json["details"]["generated_tokens"]
            return found

        found = sorted(pool.map(length, range(1, 401)))

    assert 20 <= found[200] <= 30
    assert found[0] >= 4
    assert found[-1] > 100


def until(fleet: SimulatedFleet, is_so: Callable[[Counters], bool]) -> Counters:
    """Wait until a fleet's one server has counted something; return what it counts."""
    while not is_so(counted := fleet.counters()[0]):
        time.sleep(0.01)
    return counted


def test_more_requests_than_slots_wait_in_a_queue() -> None:
    # Long enough that a machine which stands still for a second changes no figure below.
    machine = Machine(slots=2, token_s=0.04, max_concurrent_requests=8)
    with simulate(fleet_of(machine, sigma=0)) as fleet, ThreadPoolExecutor(8) as pool:
        started = time.monotonic()
        replies = list(pool.map(lambda seed: ask(fleet.urls[0], seed), range(1, 9)))
        spent = time.monotonic() - started
        (counters,) = fleet.counters()

    assert [reply.status for reply in replies] == [200] * 8
    assert 4 <= spent < 15  # 8 answers of 25 tokens of 40 ms, two at a time
    assert counters.peak == 2
    assert counters.service_s == pytest.approx(8)
    assert counters.busy_s == pytest.approx(8, rel=0.5)
    assert counters.utilisation(2) > 0.8


def test_more_requests_than_it_takes_are_refused_with_429() -> None:
    machine = Machine(slots=2, token_s=0.1, max_concurrent_requests=3)
    with simulate(fleet_of(machine, sigma=0)) as fleet, ThreadPoolExecutor(6) as pool:
        replies = list(pool.map(lambda seed: ask(fleet.urls[0], seed), range(1, 7)))
        (counters,) = fleet.counters()

    assert sorted(reply.status for reply in replies) == [200] * 3 + [429] * 3
    refused = next(reply for reply in replies if reply.status == 429)
    assert refused.json == {"error": "Model is overloaded", "error_type": "overloaded"}
    assert "retry-after" not in refused.headers
    assert (counters.refused, counters.answered) == (3, 3)


@pytest.mark.parametrize(
    ("kind", "status"), [("overloaded", 429), ("unhealthy", 503), ("failed", 424)]
)
def test_a_fault_with_a_status_is_seen(kind: str, status: int) -> None:
    with simulate(fleet_of(AT_ONCE, faults=Faults(**{kind: 1.0}))) as fleet:
        reply = ask(fleet.urls[0])
        (counters,) = fleet.counters()

    assert reply.status == status
    assert set(reply.json) == {"error", "error_type"}
    assert (counters.faults, counters.answered) == ({kind: 1}, 0)


def test_a_malformed_answer_is_a_200_and_no_json() -> None:
    with simulate(fleet_of(AT_ONCE, faults=Faults(malformed=1))) as fleet:
        reply = ask(fleet.urls[0])

    assert reply.status == 200
    assert len(reply.body) == int(reply.headers["content-length"])
    with pytest.raises(json.JSONDecodeError):
        json.loads(reply.body)


@pytest.mark.parametrize(
    ("faults", "error"),
    [
        (Faults(reset=1), (ConnectionResetError, http.client.RemoteDisconnected)),
        (Faults(truncated=1), http.client.IncompleteRead),
        (Faults(stall=1, stall_s=0.2), (ConnectionResetError, http.client.RemoteDisconnected)),
    ],
)
def test_a_broken_connection_is_seen(faults: Faults, error: Any) -> None:
    started = time.monotonic()
    machine = Machine(token_s=0.001)
    with (
        simulate(fleet_of(machine, faults=faults)) as fleet,
        pytest.raises((*(error if isinstance(error, tuple) else (error,)), urllib.error.URLError)),
    ):
        ask(fleet.urls[0])

    assert not faults.stall or time.monotonic() - started >= 0.2


def test_a_drip_takes_its_time_and_is_whole() -> None:
    with simulate(fleet_of(AT_ONCE, faults=Faults(drip=1, drip_s=0.4))) as fleet:
        started = time.monotonic()
        reply = ask(fleet.urls[0])
        spent = time.monotonic() - started

    assert spent >= 0.3
    assert reply.json["details"]["finish_reason"] == "eos_token"


def test_faults_follow_from_the_request_and_how_often_it_came() -> None:
    def statuses() -> list[int]:
        with simulate(fleet_of(AT_ONCE, faults=Faults(unhealthy=0.3, failed=0.2))) as fleet:
            asked = [ask(fleet.urls[0], seed).status for seed in range(1, 41) for _ in "abc"]
        return asked

    first = statuses()

    assert statuses() == first
    assert 30 < sum(status != 200 for status in first) < 90
    # A request that failed once is answered later: no fault is for ever.
    assert any(first[i] != 200 and first[i + 1] == 200 for i in range(0, 120, 3))


def test_faults_change_no_word() -> None:
    clean = texts(fleet_of(AT_ONCE))

    with simulate(fleet_of(AT_ONCE, faults=Faults(failed=0.5))) as fleet:
        for seed, text in enumerate(clean, 1):
            while (reply := ask(fleet.urls[0], seed)).status != 200:
                pass
            assert reply.json["generated_text"] == text


def alive(fleet: SimulatedFleet, endpoint: int) -> bool:
    try:
        return get(f"{fleet.urls[endpoint]}/health").status == 200
    except (urllib.error.URLError, ConnectionError):
        return False


def test_an_endpoint_dies_drains_and_comes_back_at_its_address() -> None:
    with simulate(fleet_of(AT_ONCE, AT_ONCE)) as fleet:
        urls = list(fleet.urls)
        fleet.kill(0)
        seen = [(alive(fleet, 0), alive(fleet, 1))]
        fleet.revive(0)
        seen.append((alive(fleet, 0), alive(fleet, 1)))
        fleet.drain(1)
        seen.append((alive(fleet, 0), alive(fleet, 1)))
        drained = ask(fleet.urls[1]).status
        fleet.revive(1)
        seen.append((alive(fleet, 0), alive(fleet, 1)))

    assert seen == [(False, True), (True, True), (True, False), (True, True)]
    assert drained == 503
    assert fleet.urls == urls


def test_a_drained_endpoint_finishes_what_it_has() -> None:
    machine = Machine(slots=1, token_s=0.1)
    with simulate(fleet_of(machine, sigma=0)) as fleet, ThreadPoolExecutor(1) as pool:
        running = pool.submit(ask, fleet.urls[0])
        until(fleet, lambda counted: counted.requests == 1)
        fleet.drain(0)

        assert running.result().status == 200


def test_a_client_that_goes_away_frees_its_slot() -> None:
    machine = Machine(slots=1, token_s=0.2)
    with simulate(fleet_of(machine, sigma=0)) as fleet:
        host = fleet.urls[0].removeprefix("http://")
        connection = http.client.HTTPConnection(host)
        connection.request("POST", "/generate", json.dumps({"inputs": PREFIX}))
        until(fleet, lambda counted: counted.requests == 1)
        full = ask(fleet.urls[0]).status
        connection.close()
        counters = until(fleet, lambda counted: counted.left + counted.answered > 0)

    assert (full, counters.left, counters.answered) == (429, 1, 0)


def test_requests_that_come_in_pieces_or_together_are_all_answered() -> None:
    body = json.dumps({"inputs": PREFIX, "parameters": {"max_new_tokens": 4}}).encode()
    request = b"POST /generate HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    with simulate(fleet_of(Machine(token_s=0.001))) as fleet:
        host, port = fleet.urls[0].removeprefix("http://").split(":")
        connection = http.client.HTTPConnection(host, int(port))
        connection.connect()
        assert connection.sock is not None
        with connection.sock as socket:
            socket.sendall(request[:30])
            time.sleep(0.05)
            socket.sendall(request[30:] + request)
            socket.settimeout(60)
            got = b""
            while got.count(b"generated_text") < 2:
                got += socket.recv(65536)

    assert got.count(b"HTTP/1.1 200 OK") == 2


def test_it_counts_what_was_answered_twice() -> None:
    with simulate(fleet_of(AT_ONCE)) as fleet:
        for seed in (1, 2, 2, 2):
            generate(fleet.urls[0], PREFIX, seed=seed, max_new_tokens=64)
        (counters,) = fleet.counters()

    assert (counters.requests, counters.answered) == (4, 4)
    assert counters.answered_again == {64: 2}


def test_it_ends_with_the_process_that_started_it() -> None:
    code = (
        "import os; from prequery.simulation import simulate\n"
        "with simulate() as fleet:\n"
        "    print(fleet.process_id, fleet.urls[0], flush=True); os._exit(9)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    url = done.stdout.split()[1]

    deadline = time.monotonic() + 60
    gone = False
    while not gone and time.monotonic() < deadline:
        try:
            get(f"{url}/health")
        except (urllib.error.URLError, ConnectionError):
            gone = True
        time.sleep(0.05)

    assert gone
