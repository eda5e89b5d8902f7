"""Power loss at any write, sync, link, rename and deletion, and bugs that it would bring out."""

from pathlib import Path

import msgspec
import pytest

import crash_simulator
from crash_simulator import (
    LogsAreNotSynced,
    LogsGoFirst,
    Names,
    NewLogsAreNotNamed,
    NoHardLinks,
    NotingDisk,
    SegmentsAreNotSynced,
    act,
    faults,
)
from prequery.endpoint import Answer
from prequery.journal import Key, lines, wal

STATES = 500


@pytest.mark.parametrize(("disk", "naming"), [(NotingDisk, "link"), (NoHardLinks, "rename")])
def test_no_power_loss_brings_a_wrong_answer_or_takes_a_synced_one(
    tmp_path: Path, disk: type[NotingDisk], naming: str
) -> None:
    recording = act(tmp_path / "journal", disk(), 1)

    steps = {
        event.step if isinstance(event, Names) else type(event).__name__
        for event in recording.events
    }
    found = faults(recording, STATES, 1, tmp_path)

    assert len(recording.events) < STATES  # the power fails between any two of them
    assert steps == {"create", naming, "unlink", "Promise", "Sync", "SyncFolder", "Write"}
    assert found == {}


@pytest.mark.parametrize(
    "disk", [LogsGoFirst, SegmentsAreNotSynced, LogsAreNotSynced, NewLogsAreNotNamed]
)
def test_the_simulator_catches_a_missing_or_late_sync(
    tmp_path: Path, disk: type[NotingDisk]
) -> None:
    recording = act(tmp_path / "journal", disk(), 1)

    found = faults(recording, STATES // 4, 1, tmp_path)

    assert any(" lost" in fault and "0 lost" not in fault for fault in found), found
    assert not any(fault[0] in "123456789" for fault in found)


def test_the_simulator_catches_a_checksum_that_is_not_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def believed(line: bytes) -> tuple[Key, Answer] | None:
        try:
            found = lines._decode(line)
        except msgspec.DecodeError:
            return None
        return Key(found.slot, found.made, found.turn, found.attempt), found.answer

    recording = act(tmp_path / "journal", NotingDisk(), 1)
    monkeypatch.setattr(wal, "verified", believed)

    found = faults(recording, STATES // 4, 1, tmp_path)

    assert any(fault[0] in "123456789" for fault in found), found


def test_the_simulators_program_says_how_many_states_it_tried(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert crash_simulator.main(1) == 0
    assert capsys.readouterr().out == "1 states, 0 with faults: {}\n"
