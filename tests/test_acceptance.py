"""A build asks for about as many slots as it needs, whatever is rejected and however early."""

import json
from pathlib import Path

import pytest

from prequery import Magpie, recipe
from prequery.acceptance import Started
from prequery.options import Options
from prequery.simulation import Machine, Settings, simulate
from prequery.simulation.settings import MODEL, REVISION

ROWS = 100
PROOFS = 4  # requests that prove the prefix before the first row
# All rows could be in flight at once; a response takes ten times as long as an instruction.
MACHINE = Machine(slots=512, token_s=0.0005)
TEXT = f"""
name: small
version: 1.0.0
rows: {ROWS}
seed: 1
generator: {{model: {MODEL}, revision: '{REVISION}'}}
instructions: [{{temperature: 1.0, max_new_tokens: MOST}}]
responses: {{temperature: null, max_new_tokens: 2048}}
columns: [length]
filters: [instruction_tokens <= KEPT]
max_attempts: 2000
"""


@pytest.mark.parametrize(
    ("most", "kept", "attempts"),
    [
        (512, 512, range(100, 101)),  # nothing is rejected
        (38, 512, range(120, 165)),  # 30 % are cut off, and get no response
        (13, 512, range(380, 560)),  # 80 %
        (512, 38, range(120, 165)),  # 30 % are filtered out with their response
        (512, 13, range(380, 560)),  # 80 %
    ],
)
def test_a_small_build_makes_few_requests_that_it_does_not_need(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    most: int,
    kept: int,
    attempts: range,
) -> None:
    monkeypatch.setenv("PREQUERY_HOME", str(tmp_path / "home"))
    text = TEXT.replace("MOST", str(most)).replace("KEPT", str(kept))
    made = recipe.read(text, "small.yaml")
    with simulate(Settings(machines=(MACHINE,))) as fleet:
        options = Options(endpoints=tuple(fleet.urls), journal=tmp_path / "journal")
        Magpie(made, options=options).download_and_prepare(tmp_path / "out")
        (counters,) = fleet.counters()
    built = json.loads((tmp_path / "out/small.lock.json").read_text())["build"]

    assert built["attempts"] in attempts
    assert built["requests"] <= counters.requests - PROOFS <= 1.05 * built["requests"]


def test_as_many_slots_are_wanted_as_rows_before_anything_is_known() -> None:
    started = Started(gated=0, responded=0, passed=0, opening=0, responding=0)

    assert started.wanted(200) == 200


def test_the_first_rejected_slot_is_replaced_and_says_little_of_the_others() -> None:
    started = Started(gated=1, responded=0, passed=0, opening=199, responding=0)

    assert 201 < started.wanted(200) < 202.5


def test_instructions_that_wait_for_their_responses_are_counted_on() -> None:
    """Of 200 instructions 60 were stopped: 60 rows are missing, at 0.7 rows a slot."""
    started = Started(gated=60, responded=0, passed=0, opening=0, responding=140)

    assert started.wanted(200) == pytest.approx(200 + 60 / 0.7, abs=1)


def test_filters_count_against_responses_alone() -> None:
    """Each of 100 responses to come brings half a row, and a new slot a quarter."""
    started = Started(gated=500, responded=400, passed=150, opening=0, responding=100)

    assert started.gate_ratio == pytest.approx(0.5, abs=0.001)
    assert started.response_ratio == 0.5
    assert started.wanted(100) == pytest.approx(1000 + 50 / 0.25, abs=1)


def test_a_journal_that_is_not_read_yet_is_believed_to_have_more() -> None:
    started = Started(gated=0, responded=1000, passed=99, opening=0, responding=0)

    assert started.wanted(100) == 1000 + 100 / (100 / 1001)
    assert started.wanted(100, unread=True) == 1000 + 100 / (100 / 1001 * 1.2)
