import multiprocessing
import os
import random
import zlib
from pathlib import Path

import pytest

from prequery.endpoint import Answer
from prequery.errors import JournalError
from prequery.journal import Journal, Key, folder_for

PRINT = "a" * 64


def answer(text: str = "hello") -> Answer:
    return Answer(text=text, finish_reason="eos_token", generated_tokens=3, seed=5)


def opened(folder: Path) -> Journal:
    return Journal(folder, PRINT)


def fill(folder: Path, count: int) -> dict[Key, Answer]:
    with opened(folder) as journal:
        for slot in range(count):
            journal.record(Key(slot, "instruction"), answer(f"text {slot}\n\u2028 \x00 é"))
        return dict(journal.answers)


def log(folder: Path) -> Path:
    (found,) = folder.glob("*.jsonl")
    return found


def test_every_recorded_answer_is_read_back_exactly(tmp_path: Path) -> None:
    hostile = '","crc":"00000000"}\n{"slot":9\ud83d'.encode("utf-8", "replace").decode()
    kept = answer(hostile + "\x00\u2028" + "x" * 1_000_000)

    with opened(tmp_path) as journal:
        journal.record(Key(0, "response", 2, 1), kept)
    with opened(tmp_path) as journal:
        read = journal.answers

    assert read == {Key(0, "response", 2, 1): kept}


def test_a_torn_last_line_costs_only_that_answer(tmp_path: Path) -> None:
    kept = fill(tmp_path, 10)
    path = log(tmp_path)
    path.write_bytes(path.read_bytes()[:-7])

    with opened(tmp_path) as journal:
        assert journal.answers == {key: kept[key] for key in list(kept)[:-1]}
        assert journal.damaged == 1


def test_no_flipped_bit_ever_brings_a_wrong_answer(tmp_path: Path) -> None:
    kept = fill(tmp_path, 20)
    path = log(tmp_path)
    whole, chance = path.read_bytes(), random.Random(1)

    for _ in range(500):
        damaged = bytearray(whole)
        damaged[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        with opened(tmp_path) as journal:
            assert journal.answers.items() <= kept.items()
            assert len(journal.answers) >= 18


def test_two_answers_to_one_request_resolve_the_same_way_in_any_order(tmp_path: Path) -> None:
    for first, second in (("a", "b"), ("b", "a")):
        folder = tmp_path / (first + second)
        for text in (first, second):
            with opened(folder) as journal:
                journal.answers.clear()
                journal.record(Key(0, "instruction"), answer(text))
        with opened(folder) as journal:
            assert journal.answers[Key(0, "instruction")].text == "a"


def test_logs_are_private_and_never_written_twice(tmp_path: Path) -> None:
    fill(tmp_path, 1)
    fill(tmp_path, 1)

    logs = list(tmp_path.glob("*.jsonl"))

    assert len(logs) == 2
    assert {path.stat().st_mode & 0o777 for path in logs} == {0o600}


def test_another_recipes_journal_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        journal.agree({"model": "m"}, {})

    with pytest.raises(JournalError) as caught:
        Journal(tmp_path, "b" * 64).__enter__()

    assert caught.value.args == (
        "this is the journal of another recipe: aaaaaaaaaaaa, this recipe is bbbbbbbbbbbb",
        str(tmp_path),
        "choose another --journal",
    )


def test_answers_of_another_model_are_never_mixed_in(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        journal.agree({"model_sha": "1", "exact": False}, {})

    with opened(tmp_path) as journal, pytest.raises(JournalError) as caught:
        journal.agree({"model_sha": "2", "exact": False}, {})

    assert caught.value.what == (
        "the answers in this journal were made with something else: model_sha: '1' -> '2'"
    )


def hold(folder: Path, held: "multiprocessing.synchronize.Event") -> None:
    with opened(folder):
        held.set()
        multiprocessing.Event().wait(30)


def test_two_builds_never_write_one_journal_at_the_same_time(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    held = context.Event()
    other = context.Process(target=hold, args=(tmp_path, held))
    other.start()
    try:
        assert held.wait(30)
        with pytest.raises(JournalError) as caught:
            opened(tmp_path).__enter__()
        assert caught.value.what == "another build is writing this journal"
    finally:
        other.kill()
        other.join()

    with opened(tmp_path) as journal:
        assert journal.answers == {}


def test_a_full_disk_is_named_and_loses_nothing(tmp_path: Path) -> None:
    """/dev/full refuses every byte, as a full disk does."""
    kept = fill(tmp_path, 5)

    with opened(tmp_path) as journal:
        journal._log = os.open("/dev/full", os.O_WRONLY)
        with pytest.raises(JournalError) as caught:
            journal.record(Key(5, "instruction"), answer())
        os.close(journal._log)
        journal._log = None

    assert caught.value.what == "the journal cannot be used: No space left on device"
    with opened(tmp_path) as journal:
        assert journal.answers == kept


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(JournalError) as caught:
        opened(tmp_path / "file" / "journal").__enter__()

    assert caught.value.what == "the journal cannot be used: Not a directory"


def test_a_damaged_header_stops_before_anything_is_mixed(tmp_path: Path) -> None:
    fill(tmp_path, 1)
    (tmp_path / "header.json").write_text("{")

    with pytest.raises(JournalError) as caught:
        opened(tmp_path).__enter__()

    assert caught.value.what == "the header of this journal is damaged"


def test_a_line_that_is_valid_json_with_a_valid_checksum_but_no_answer_is_damage(
    tmp_path: Path,
) -> None:
    body = b'{"slot":"x"'
    (tmp_path / "0.jsonl").write_bytes(body + b',"crc":"%08x"}\n' % zlib.crc32(body))

    with opened(tmp_path) as journal:
        assert (journal.answers, journal.damaged) == ({}, 1)


def test_the_folder_is_named_after_recipe_and_fingerprint(tmp_path: Path) -> None:
    assert folder_for("demo", PRINT, tmp_path) == tmp_path / "demo-aaaaaaaaaaaa"
