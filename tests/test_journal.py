"""One builder on one journal: what is recorded is there, and what is damaged is never believed."""

import errno
import hashlib
import json
import os
import random
import threading
import time
import zlib
from collections.abc import Iterable
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prequery.endpoint import Answer
from prequery.errors import JournalError
from prequery.journal import Journal, Key, Limits, folder_for
from prequery.journal.disk import Disk
from prequery.journal.segments import pack

PRINT = "a" * 64
SMALL = Limits(rows=10)


def answer(text: str = "hello") -> Answer:
    return Answer(text=text, finish_reason="eos_token", generated_tokens=3, seed=5)


def opened(folder: Path, limits: Limits = SMALL) -> Journal:
    return Journal(folder, PRINT, limits)


def recorded(count: int) -> dict[Key, Answer]:
    """Answers to both passes of some slots, with text that is hard to keep."""
    return {
        Key(slot, made): answer(f"{made} {slot}\n\u2028 \x00 é")
        for slot in range(count)
        for made in ("instruction", "response")
    }


def fill(folder: Path, count: int) -> dict[Key, Answer]:
    """Record and seal."""
    kept = recorded(count)
    with opened(folder) as journal:
        for key, each in kept.items():
            journal.record(key, each)
    return kept


def leave(folder: Path, count: int) -> tuple[dict[Key, Answer], Path]:
    """Record without sealing, as a killed builder does; return its log too."""
    kept = recorded(count)
    journal = opened(folder, Limits()).__enter__()
    for key, each in kept.items():
        journal.record(key, each)
    (log,) = folder.glob("*.jsonl")
    content = log.read_bytes()
    journal.__exit__(None, None, None)
    for segment in folder.glob("*.parquet"):
        segment.unlink()
    log.write_bytes(content)
    return kept, log


def held(journal: Journal, keys: Iterable[Key]) -> dict[Key, Answer]:
    """Everything that a journal holds of these keys."""
    found = ((key, journal.get(key)) for key in keys)
    return {key: each for key, each in found if each is not None}


def test_every_recorded_answer_is_read_back_exactly(tmp_path: Path) -> None:
    hostile = '","crc":"00000000"}\n{"slot":9\ud83d'.encode("utf-8", "replace").decode()
    kept = Answer(
        text=hostile + "\x00\u2028" + "x" * 1_000_000,
        finish_reason="length",
        generated_tokens=7,
        prompt_tokens=8,
        seed=(1 << 63) - 1,
        logprob_sum=-1e-300,
        logprob_squares=1e-300,
        logprob_min=-0.1,
        logprob_count=3,
        repaired=True,
    )
    refused = Answer(error="`max_new_tokens`")
    answers = {Key(0, "response", 2, 1): kept, Key(0, "response"): refused}

    with opened(tmp_path) as journal:
        for key, each in answers.items():
            journal.record(key, each)
        before = held(journal, answers)
    with opened(tmp_path) as journal:
        after, none = held(journal, answers), journal.get(Key(0, "instruction"))

    assert before == after == answers
    assert none is None


def test_a_segment_from_before_a_field_was_recorded_is_read_with_that_field_null(
    tmp_path: Path,
) -> None:
    key, each = Key(3, "response"), answer()
    now = msgspec.structs.replace(each, logprob_sum=-3.0, logprob_squares=5.0, logprob_count=2)
    segment, data = pack({key: now}, "response", PRINT, "log")
    table = pq.read_table(pa.BufferReader(data)).drop_columns("logprob_squares")
    old = tmp_path / "old"
    pq.write_table(table, old)
    digest = hashlib.sha256(old.read_bytes()).hexdigest()
    old.rename(tmp_path / segment.name.replace(segment.sha256, digest))

    with opened(tmp_path) as journal:
        found = journal.get(key)

    assert found == msgspec.structs.replace(now, logprob_squares=None)


def test_an_answer_is_found_in_every_state_that_its_log_goes_through(tmp_path: Path) -> None:
    kept = recorded(40)

    with opened(tmp_path) as journal:
        for number, (key, each) in enumerate(kept.items()):
            journal.record(key, each)
            if number % 17 == 0:
                journal.sync()
            assert journal.get(key) == each
            assert len(journal) == number + 1
        assert held(journal, kept) == kept
    with opened(tmp_path) as journal:
        assert held(journal, kept) == kept
        assert len(journal) == len(kept)


def test_a_closed_journal_is_sealed_and_leaves_nothing_else(tmp_path: Path) -> None:
    fill(tmp_path, 10)

    names = sorted(path.name for path in tmp_path.rglob("*"))

    assert [name.split("-")[:5] for name in names[:-1]] == [
        ["aaaaaaaaaaaa", made, first, last, "000005"]
        for made in ("instruction", "response")
        for first, last in (("0000000000", "0000000004"), ("0000000005", "0000000009"))
    ]
    assert names[-1] == "leases"
    assert {path.stat().st_mode & 0o777 for path in tmp_path.glob("*.parquet")} == {0o600}


def test_logs_are_private_and_never_written_twice(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        for key, each in recorded(8).items():
            journal.record(key, each)
        logs = list(tmp_path.glob("*.jsonl"))
        sizes = [path.read_bytes().count(b"\n") for path in sorted(logs)]
        modes = {path.stat().st_mode & 0o777 for path in logs}

    assert sizes == [10, 6]
    assert modes == {0o600}


def test_a_log_is_sealed_when_it_is_old_or_large(tmp_path: Path) -> None:
    for number, limits in enumerate([Limits(age_s=0), Limits(size_bytes=10)]):
        folder = tmp_path / str(number)
        with opened(folder, limits) as journal:
            journal.record(Key(0, "instruction"), answer())
            journal.sync()

            assert len(list(folder.glob("*.parquet"))) == 1
            assert not list(folder.glob("*.jsonl"))


def test_syncing_beside_recording_loses_and_invents_nothing(tmp_path: Path) -> None:
    kept, done = recorded(1500), threading.Event()

    with opened(tmp_path, Limits(rows=50)) as journal:

        def sync() -> None:
            while not done.is_set():
                journal.sync()
                journal.refresh()

        beside = threading.Thread(target=sync)
        beside.start()
        for key, each in kept.items():
            journal.record(key, each)
            assert journal.get(key) == each
        done.set()
        beside.join()
        assert held(journal, kept) == kept
    with opened(tmp_path) as journal:
        assert held(journal, kept) == kept
        assert len(journal) == len(kept)


def test_a_killed_builders_log_is_sealed_by_the_next(tmp_path: Path) -> None:
    kept, log = leave(tmp_path, 10)

    with opened(tmp_path) as journal:
        assert held(journal, kept) == kept
        assert (journal.damaged, log.exists()) == (0, False)


def test_sealing_a_log_twice_is_sealing_it_once(tmp_path: Path) -> None:
    """A builder was killed after its segments were committed and before its log was deleted."""
    kept, log = leave(tmp_path, 4)
    content = log.read_bytes()
    with opened(tmp_path):
        pass
    log.write_bytes(content)

    with opened(tmp_path) as journal:
        assert held(journal, kept) == kept
        assert len(journal) == len(kept)
    assert len(list(tmp_path.glob("*.parquet"))) == 2


def test_a_log_that_holds_more_than_a_segment_is_sealed_piece_by_piece(tmp_path: Path) -> None:
    kept, _ = leave(tmp_path, 55)

    with opened(tmp_path, Limits(rows=20)) as journal:
        assert held(journal, kept) == kept
    assert len(list(tmp_path.glob("*.parquet"))) == 12


def test_a_torn_last_line_costs_only_that_answer(tmp_path: Path) -> None:
    kept, log = leave(tmp_path, 5)
    log.write_bytes(log.read_bytes()[:-7])

    with opened(tmp_path) as journal:
        assert held(journal, kept) == dict(list(kept.items())[:-1])
        assert journal.damaged == 1


def test_no_flipped_bit_in_a_log_ever_brings_a_wrong_answer(tmp_path: Path) -> None:
    kept, log = leave(tmp_path / "0", 10)
    whole, chance = log.read_bytes(), random.Random(1)

    for number in range(1, 150):
        damaged = bytearray(whole)
        damaged[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / log.name).write_bytes(damaged)
        with opened(folder) as journal:
            found = held(journal, kept)
            assert found.items() <= kept.items()
            assert len(found) >= len(kept) - 2
            assert journal.damaged >= 1


def test_no_flipped_bit_in_a_segment_ever_brings_a_wrong_answer(tmp_path: Path) -> None:
    kept = fill(tmp_path / "whole", 5)
    (segment,) = (tmp_path / "whole").glob("*-response-*")
    whole, chance = segment.read_bytes(), random.Random(2)

    for number in range(100):
        folder = tmp_path / str(number)
        folder.mkdir()
        damaged = bytearray(whole)
        damaged[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
        (folder / segment.name).write_bytes(damaged)
        with opened(folder) as journal:
            assert len(journal) == 5
            assert held(journal, kept) == {}
            assert (len(journal), journal.damaged) == (0, 5)


def test_what_a_damaged_segment_held_is_asked_again_and_reported_once(tmp_path: Path) -> None:
    kept = fill(tmp_path, 5)
    (segment,) = tmp_path.glob("*-response-*")
    segment.write_bytes(segment.read_bytes()[:-1])

    with opened(tmp_path) as journal:
        left = held(journal, kept)
        for key in kept.keys() - left.keys():
            journal.record(key, kept[key])
        assert journal.damaged == 5
    with opened(tmp_path) as journal:
        assert held(journal, kept) == kept
        assert journal.damaged == 0

    assert {key.made for key in left} == {"instruction"}
    assert len(list(tmp_path.glob("*.damaged"))) == 1


def test_a_damaged_segment_is_replaced_when_its_log_still_has_the_answers(tmp_path: Path) -> None:
    kept, log = leave(tmp_path, 5)
    content = log.read_bytes()
    with opened(tmp_path):
        pass
    for segment in tmp_path.glob("*.parquet"):
        segment.write_bytes(segment.read_bytes()[:-1])
    log.write_bytes(content)

    with opened(tmp_path) as journal:
        assert held(journal, kept) == kept
        assert journal.damaged == len(kept)


def test_a_segment_of_another_recipe_is_not_read(tmp_path: Path) -> None:
    fill(tmp_path, 5)
    for segment in tmp_path.glob("*.parquet"):
        segment.rename(segment.with_name("b" * 12 + segment.name[12:]))

    with opened(tmp_path) as journal:
        assert len(journal) == 0


def test_two_answers_to_one_request_resolve_the_same_way_in_any_order(tmp_path: Path) -> None:
    key = Key(0, "instruction")
    for first, second in (("a", "b"), ("b", "a")):
        apart, together = tmp_path / (first + second), tmp_path / (first + "+" + second)
        for text in (first, second):
            with opened(apart) as journal:
                journal.record(key, answer(text))
        with opened(together) as journal:
            for text in (first, second):
                journal.record(key, answer(text))
            assert journal.get(key) == answer("a")
        for folder in (apart, together):
            with opened(folder) as journal:
                assert journal.get(key) == answer("a")


def test_slots_that_come_out_of_order_are_all_found(tmp_path: Path) -> None:
    slots = list(range(300))
    random.Random(3).shuffle(slots)
    slots += [10_000_000, 5_000_000]

    with opened(tmp_path) as journal:
        for slot in slots:
            journal.record(Key(slot, "instruction"), answer(str(slot)))
    with opened(tmp_path) as journal:
        for slot in slots:
            assert journal.get(Key(slot, "instruction")) == answer(str(slot))
        assert journal.get(Key(300, "instruction")) is None


def test_slots_that_lie_far_apart_are_found_without_opening_segments_that_lack_them(
    tmp_path: Path,
) -> None:
    slots = [random.Random(at).getrandbits(63) for at in range(200)]
    keys = [Key(slot, "verdict") for slot in slots]
    with opened(tmp_path) as journal:
        for key in keys:
            journal.record(key, answer(str(key.slot)))
            journal.sync()

    with opened(tmp_path) as journal:
        found = [journal.get(key) for key in keys]
        for path in tmp_path.glob("*.parquet"):
            path.unlink()
        missing = [journal.get(Key(slot + 1, "verdict")) for slot in slots]
        opened_again = journal.damaged

    assert [one.text for one in found if one] == [str(slot) for slot in slots]
    assert missing == [None] * 200
    assert opened_again == 0


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
        journal.agree({"model_sha": "1", "exact": False}, {"version": "3"})

    with opened(tmp_path) as journal, pytest.raises(JournalError) as caught:
        journal.agree({"model_sha": "2", "exact": False}, {})

    assert journal.header["notes"] == {"version": "3"}
    assert caught.value.what == (
        "the answers in this journal were made with something else: model_sha: '1' -> '2'"
    )


def test_two_builders_that_start_together_agree_on_one_model(tmp_path: Path) -> None:
    with opened(tmp_path) as one, opened(tmp_path) as other:
        one.agree({"model_sha": "1"}, {})
        with pytest.raises(JournalError):
            other.agree({"model_sha": "2"}, {})
        assert one.header == other.header


def test_a_full_disk_is_named_and_loses_nothing(tmp_path: Path) -> None:
    """/dev/full refuses every byte, as a full disk does."""
    kept = recorded(10)
    with opened(tmp_path, Limits()) as journal:
        for key, each in kept.items():
            journal.record(key, each)
        assert journal._log is not None
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, journal._log._file)
        os.close(full)
        with pytest.raises(JournalError) as caught:
            journal.record(Key(10, "instruction"), answer())
        journal.record(Key(11, "instruction"), answer())

    assert caught.value.what == "the journal cannot be used: No space left on device"
    with opened(tmp_path) as journal:
        assert held(journal, kept) == kept
        assert journal.get(Key(10, "instruction")) is None
        assert journal.get(Key(11, "instruction")) == answer()


def test_a_number_that_no_segment_holds_is_refused_before_it_is_written(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        with pytest.raises(JournalError) as caught:
            journal.record(Key(0, "response"), Answer(generated_tokens=1 << 63))
        assert len(journal) == 0

    assert caught.value.what == "an answer holds a number beyond 64 bits: generated_tokens"


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


def test_a_journal_of_a_newer_format_is_refused(tmp_path: Path) -> None:
    header = {"format": 3, "fingerprint": PRINT, "made_with": {}, "notes": {}}
    (tmp_path / "header.json").write_text(json.dumps(header))

    with pytest.raises(JournalError) as caught:
        opened(tmp_path).__enter__()

    assert caught.value.what == "this journal has format 3, this prequery reads up to 2"


class WithoutLinks(Disk):
    """A file system like FAT, or a FUSE mount."""

    def link(self, old: Path, new: Path) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted", str(old))


def test_a_file_system_without_hard_links_will_do(tmp_path: Path) -> None:
    kept = recorded(20)
    with Journal(tmp_path, PRINT, SMALL, WithoutLinks()) as journal:
        for key, each in kept.items():
            assert journal.claim(key.slot)
            journal.record(key, each)

    with opened(tmp_path) as journal:
        assert held(journal, kept) == kept


def test_a_line_that_is_valid_json_with_a_valid_checksum_but_no_answer_is_damage(
    tmp_path: Path,
) -> None:
    body = b'{"slot":"x"'
    (tmp_path / "0.jsonl").write_bytes(body + b',"crc":"%08x"}\n' % zlib.crc32(body))

    with opened(tmp_path) as journal:
        assert (len(journal), journal.damaged) == (0, 1)


def test_stale_drafts_are_collected_and_fresh_ones_left(tmp_path: Path) -> None:
    stale, fresh = tmp_path / ".draft-1", tmp_path / ".draft-2"
    stale.touch()
    fresh.touch()
    os.utime(stale, (time.time() - 3600,) * 2)

    with opened(tmp_path):
        pass

    assert (stale.exists(), fresh.exists()) == (False, True)


def test_a_frozen_journal_is_read_and_takes_nothing_more(tmp_path: Path) -> None:
    kept = fill(tmp_path, 5)
    with opened(tmp_path) as journal:
        journal.freeze()
        journal.freeze()

    with opened(tmp_path) as journal:
        assert held(journal, kept) == kept
        with pytest.raises(JournalError) as caught:
            journal.record(Key(9, "instruction"), answer())

    assert caught.value.what == "this journal is frozen: it takes no answer any more"


@pytest.mark.parametrize("change", ["missing", "added", "damaged", "manifest"])
def test_a_change_of_a_frozen_journal_is_found(tmp_path: Path, change: str) -> None:
    kept = fill(tmp_path, 5)
    with opened(tmp_path) as journal:
        journal.freeze()
    segment = next(tmp_path.glob("*.parquet"))
    if change == "missing":
        segment.unlink()
    elif change == "added":
        (tmp_path / "0.jsonl").write_bytes(b"")
    elif change == "damaged":
        segment.write_bytes(segment.read_bytes()[::-1])
    else:
        (tmp_path / "MANIFEST.json").write_text("{}")
    names = {
        "missing": "this journal was changed after it was frozen: 1 missing, as ",
        "added": "this journal was changed after it was frozen: 1 added, as '0.jsonl'",
        "damaged": f"this journal was changed after it was frozen: {segment.name} is damaged",
        "manifest": "the manifest of this frozen journal is damaged",
    }

    with pytest.raises(JournalError) as caught, opened(tmp_path) as journal:
        held(journal, kept)

    assert caught.value.what.startswith(names[change])


def test_the_folder_is_named_after_recipe_and_fingerprint(tmp_path: Path) -> None:
    assert folder_for("demo", PRINT, tmp_path) == tmp_path / "demo-aaaaaaaaaaaa"
    assert folder_for("demo", PRINT, "s3://bucket/x") == "s3://bucket/x/demo-aaaaaaaaaaaa"
