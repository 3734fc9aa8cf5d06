"""The demo's journal: what was written before a kill can be read after it."""

from pathlib import Path

import pytest

from statekeep_server.bench.journal import (
    Acknowledgement,
    count_acknowledged,
    open_journal,
    read_journal,
)


def acknowledgement(number: int) -> Acknowledgement:
    return Acknowledgement(
        request_id=f"r-{number}",
        outcome="PERSISTED",
        reason="CHANGED",
        version=number,
        snapshot_id=f"s-{number}",
        state_sha256="00",
        duration_ms=1.5,
    )


def write_life(path: Path, first: int, last: int, *, finish: bool = False) -> None:
    with open_journal(path) as journal:
        journal.began(step=first - 1, version=first - 1)
        for number in range(first, last + 1):
            journal.asked(f"r-{number}")
            journal.acknowledged(acknowledgement(number))
        journal.asked(f"r-{last + 1}")
        if finish:
            journal.acknowledged(acknowledgement(last + 1))
            journal.finished(answer="done", messages_sha256="ab")


def test_two_lives_are_read_as_one_story(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    write_life(path, 1, 3)
    assert read_journal(path).answer is None
    assert read_journal(path).unanswered == ("r-4",)
    write_life(path, 5, 6, finish=True)
    journal = read_journal(path)
    assert journal.began_at == ((0, 0), (4, 4))
    assert journal.acknowledged == tuple(map(acknowledgement, (1, 2, 3, 5, 6, 7)))
    assert journal.unanswered == ("r-4",)
    assert (journal.answer, journal.messages_sha256) == ("done", "ab")
    assert count_acknowledged(path) == 6


@pytest.mark.parametrize("torn", range(2, 60, 7))
def test_a_torn_line_says_nothing_and_spoils_nothing(tmp_path: Path, torn: int) -> None:
    path = tmp_path / "journal"
    with open_journal(path) as journal:
        journal.acknowledged(acknowledgement(1))
        journal.acknowledged(acknowledgement(2))
    path.write_bytes(path.read_bytes()[:-torn])
    assert read_journal(path).acknowledged == (acknowledgement(1),)
    with open_journal(path) as journal:
        journal.acknowledged(acknowledgement(3))
    assert read_journal(path).acknowledged == (acknowledgement(1), acknowledgement(3))


def test_a_journal_that_is_not_there_yet_is_empty(tmp_path: Path) -> None:
    assert read_journal(tmp_path / "none").acknowledged == ()
    assert count_acknowledged(tmp_path / "none") == 0
