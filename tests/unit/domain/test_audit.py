"""The audit chain: every change of the log is seen."""

import struct
from dataclasses import fields, replace
from typing import Any

import pytest

from statekeep_server.domain.audit import GENESIS, AuditRecord, link, seal, verify_chain
from statekeep_server.domain.model import RunKey
from tests.support import canonical_oracle as oracle

RECORD = AuditRecord(
    key=RunKey("default", "run-1"),
    version=1,
    kind="SAVE",
    snapshot_id="snapshot-1",
    state_sha256=b"s" * 32,
    comparison_hash=b"c" * 32,
    checkpoint_type="AUTO",
    thread_id="thread",
    user_id="user",
    is_recovery_point=False,
    request_id="request",
    recorded_at_us=1_800_000_000_000_000,
)


def chain(length: int) -> list[AuditRecord]:
    records: list[AuditRecord] = []
    previous = GENESIS
    for version in range(1, length + 1):
        records.append(seal(previous, replace(RECORD, version=version)))
        previous = records[-1].hash
    return records


def test_a_chain_is_whole() -> None:
    assert verify_chain([]) is None
    assert verify_chain(chain(5)) is None
    records = chain(5)
    assert verify_chain(records[2:], previous=records[1].hash, version=2) is None


CHANGES: dict[str, Any] = {
    "key": RunKey("default", "run-2"),
    "version": 7,
    "kind": "DELETE",
    "snapshot_id": None,
    "state_sha256": b"x" * 32,
    "comparison_hash": None,
    "checkpoint_type": "MANUAL",
    "thread_id": "",
    "user_id": "users",
    "is_recovery_point": True,
    "request_id": "",
    "recorded_at_us": 0,
    "hash": b"h" * 32,
}


def test_every_field_of_a_record_can_be_tampered_with() -> None:
    assert set(CHANGES) == {field.name for field in fields(AuditRecord)}


@pytest.mark.parametrize("field", CHANGES)
@pytest.mark.parametrize("position", [0, 2, 4])
def test_a_changed_record_is_found(field: str, position: int) -> None:
    records = chain(5)
    records[position] = replace(records[position], **{field: CHANGES[field]})
    broken = verify_chain(records)
    if field == "key" and position == 0:  # the run is then the changed one
        assert broken == 1
    assert broken == (CHANGES["version"] if field == "version" else position + 1)


@pytest.mark.parametrize("field", sorted(set(CHANGES) - {"hash"}))
def test_every_field_is_in_the_link(field: str) -> None:
    assert link(GENESIS, replace(RECORD, **{field: CHANGES[field]})) != link(GENESIS, RECORD)
    assert link(b"p" * 32, RECORD) != link(GENESIS, RECORD)


def test_a_forged_record_breaks_the_next() -> None:
    records = chain(5)
    forged = replace(records[1], user_id="somebody")
    records[1] = seal(records[0].hash, forged)
    assert verify_chain(records) == 3


def test_a_missing_record_is_found() -> None:
    records = chain(5)
    assert verify_chain(records[1:]) == 2
    assert verify_chain(records[:2] + records[3:]) == 4
    assert verify_chain(records[::-1]) == 5
    assert verify_chain([records[0], records[0]]) == 1


def test_a_record_of_another_run_does_not_fit() -> None:
    other = seal(GENESIS, replace(RECORD, key=RunKey("default", "run-2")))
    second = seal(other.hash, replace(RECORD, version=2))
    assert verify_chain([other]) is None
    assert verify_chain([other, second]) == 2


def test_a_link_is_framed_as_documented() -> None:
    expected = oracle.digest(
        "statekeep audit 1",
        GENESIS,
        b"default",
        b"run-1",
        b"1",
        b"SAVE",
        oracle.frame(b"snapshot-1"),
        oracle.frame(b"s" * 32),
        oracle.frame(b"c" * 32),
        b"AUTO",
        b"thread",
        b"user",
        b"0",
        b"request",
        b"1800000000000000",
    )
    assert link(GENESIS, RECORD) == expected
    assert struct.calcsize("32s") == len(expected) == len(GENESIS)
