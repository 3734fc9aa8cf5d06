"""What every store must do with one save."""

from dataclasses import replace

from statekeep_server.domain.errors import (
    InvalidField,
    RequestIdReused,
    StaleWriter,
    VersionConflict,
)
from statekeep_server.domain.model import (
    Outcome,
    Reason,
    RunKey,
)
from statekeep_server.domain.policy import SkipRules
from statekeep_server.service.ports import Probe
from tests.conformance.subject import HOUR_US, SECOND_US, A, B, Subject
from tests.support.stores import an_append, new_key


async def versions_count_from_one(subject: Subject) -> None:
    """The snapshots of a run have the versions 1, 2, 3 … without a gap."""
    key = new_key()
    results = [await subject.save(key, state, rules=None) for state in (A, B, B)]
    assert [result.version for result in results] == [1, 2, 3]
    assert {result.outcome for result in results} == {Outcome.PERSISTED}
    assert len({result.snapshot_id for result in results}) == 3


async def an_unchanged_save_is_skipped_with_the_real_id(subject: Subject) -> None:
    """A skip answers with the id, version and hash of the snapshot that stands."""
    key = new_key()
    stored = await subject.save(key, b'{"step": 1, "other": 2}')
    skipped = await subject.save(key, b'{"other":2,"step":1}')
    assert skipped.outcome is Outcome.SKIPPED
    assert skipped.reason is Reason.UNCHANGED
    assert (skipped.snapshot_id, skipped.version) == (stored.snapshot_id, 1)
    assert skipped.state_sha256 == stored.state_sha256
    assert await subject.versions(key) == [1]


async def a_b_a_is_stored_three_times(subject: Subject) -> None:
    """A state is compared with the head only: an older equal one does not make it a skip."""
    key = new_key()
    results = [await subject.save(key, state) for state in (A, B, A)]
    assert [result.version for result in results] == [1, 2, 3]
    assert results[2].reason is Reason.CHANGED


async def without_rules_every_save_is_persisted(subject: Subject) -> None:
    """The standard path skips nothing."""
    key = new_key()
    await subject.save(key)
    again = await subject.save(key, rules=None)
    assert (again.outcome, again.reason) == (Outcome.PERSISTED, Reason.STANDARD_PATH)


async def recovery_points_and_manual_saves_are_never_skipped(subject: Subject) -> None:
    """What must be persisted is, however equal it is to the head."""
    key = new_key()
    await subject.save(key)
    manual = await subject.save(key, checkpoint_type="MANUAL")
    recovery = await subject.save(key, is_recovery_point=True)
    unknown = await subject.save(key, checkpoint_type="UNKNOWN_99")
    assert [manual.version, recovery.version, unknown.version] == [2, 3, 4]


async def changed_fields_are_those_that_differ_from_the_head(subject: Subject) -> None:
    """A persisted save names the top-level fields that changed."""
    key = new_key()
    await subject.save(key, b'{"a": 1, "b": 2, "c": 3}')
    changed = await subject.save(key, b'{"a": 1, "b": 3, "d": 4}')
    assert changed.changed_fields == ("b", "c", "d")


async def a_request_id_makes_a_save_happen_once(subject: Subject) -> None:
    """Another attempt gets the recorded result, also after other saves, and writes nothing."""
    key = new_key()
    append = an_append(key, A)
    first = await subject.append(append)
    await subject.save(key, B)
    retry = replace(append.save, command=replace(append.save.command, attempt=2))
    assert await subject.rows_written(subject.append(replace(append, save=retry))) == 0
    assert await subject.append(append) == replace(first, replayed=True)
    assert await subject.versions(key) == [2, 1]


async def a_reused_request_id_is_refused(subject: Subject) -> None:
    """A request id with another state or other options is an error that names it."""
    key = new_key()
    await subject.save(key, A, request_id="same")
    error = await subject.refused(key, B, request_id="same")
    assert isinstance(error, RequestIdReused)
    assert error.metadata["request_id"] == "same"
    assert isinstance(
        await subject.refused(key, A, request_id="same", agent_phase="other"), RequestIdReused
    )
    assert await subject.versions(key) == [1]


async def a_request_id_belongs_to_its_run(subject: Subject) -> None:
    """The same request id in another run or another tenant is another save."""
    key = new_key()
    elsewhere = [new_key(), RunKey("other-tenant", key.run_id)]
    await subject.save(key, A, request_id="same")
    for other in elsewhere:
        assert (await subject.save(other, B, request_id="same")).version == 1


async def a_skipped_first_attempt_leaves_no_trace(subject: Subject) -> None:
    """A skip writes nothing; the same request later is decided again."""
    key = new_key()
    await subject.save(key, A)
    skipped = an_append(key, A)
    assert await subject.rows_written(subject.append(skipped)) == 0
    await subject.save(key, B)
    assert (await subject.append(skipped)).version == 3


async def a_skipped_later_attempt_records_its_result(subject: Subject) -> None:
    """A stalled first attempt that arrives after its skipped retry changes nothing."""
    key = new_key()
    await subject.save(key, A)
    first = an_append(key, A)
    retry = replace(first, save=replace(first.save, command=replace(first.save.command, attempt=2)))
    skipped = await subject.append(retry)
    assert skipped.outcome is Outcome.SKIPPED
    await subject.save(key, B)
    assert await subject.append(replace(first, rules=None)) == replace(skipped, replayed=True)
    assert await subject.versions(key) == [2, 1]


async def expected_version_guards_the_head(subject: Subject) -> None:
    """A save is refused, with both versions, unless the head is as its writer has seen it."""
    key = new_key()
    assert (await subject.save(key, A, expected_version=0)).version == 1
    assert (await subject.save(key, B, expected_version=1)).version == 2
    for stale in (0, 1, 3):
        error = await subject.refused(key, A, expected_version=stale)
        assert isinstance(error, VersionConflict)
        assert error.metadata == {"expected_version": str(stale), "actual_version": "2"}
    missing = await subject.refused(new_key(), A, expected_version=7)
    assert isinstance(missing, VersionConflict)
    assert missing.actual_version == 0
    assert await subject.versions(key) == [2, 1]


async def expected_version_zero_means_that_nothing_stands(subject: Subject) -> None:
    """After a deletion or an expiry, 0 is accepted like the version of the head."""
    deleted, expired = new_key(), new_key()
    await subject.save(deleted)
    await subject.store.delete_run(deleted)
    assert (await subject.save(deleted, expected_version=0)).version == 3
    await subject.save(expired, expires_at_us=await subject.now_us() + HOUR_US)
    await subject.pass_time(2 * HOUR_US)
    assert (await subject.save(expired, expected_version=0)).version == 2


async def a_stale_writer_is_refused(subject: Subject) -> None:
    """A writer sequence below the head's is refused; one raised by a skip counts too."""
    key = new_key()
    await subject.save(key, A, writer_sequence=5)
    assert isinstance(await subject.refused(key, B, writer_sequence=4), StaleWriter)
    skipped = await subject.save(key, A, writer_sequence=9)
    assert skipped.outcome is Outcome.SKIPPED
    error = await subject.refused(key, B, writer_sequence=8)
    assert isinstance(error, StaleWriter)
    assert error.metadata == {"writer_sequence": "8", "actual_writer_sequence": "9"}
    assert (await subject.save(key, B, writer_sequence=9)).version == 2
    assert (await subject.save(key, A)).version == 3
    assert isinstance(await subject.refused(key, B, writer_sequence=8), StaleWriter)


async def an_expiry_in_the_past_is_refused(subject: Subject) -> None:
    """A snapshot is never born expired."""
    error = await subject.refused(new_key(), expires_at_us=await subject.now_us() - SECOND_US)
    assert isinstance(error, InvalidField)
    assert error.field == "expires_at"


async def a_refused_first_save_leaves_no_run(subject: Subject) -> None:
    """A run that was never written has no head, is not listed, and cost no row."""
    key = new_key(tenant=new_key().run_id)
    assert await subject.rows_written(subject.refused(key, expected_version=3)) == 0
    assert (await subject.store.barrier([Probe(key, "x")]))[0].head is None
    assert await subject.runs(key.tenant) == []
    assert (await subject.save(key)).version == 1


async def an_old_head_is_not_leaned_on(subject: Subject) -> None:
    """After `max_skip_age_us` an unchanged save is persisted, and after `max_skips` skips."""
    key = new_key()
    rules = SkipRules(max_skip_age_us=HOUR_US, max_skips=3)
    await subject.save(key, rules=rules)
    assert (await subject.save(key, rules=rules, skips_in_a_row=2)).version == 1
    many = await subject.save(key, rules=rules, skips_in_a_row=3)
    assert (many.version, many.reason) == (2, Reason.MAX_SKIPS)
    await subject.pass_time(HOUR_US + SECOND_US)
    old = await subject.save(key, rules=rules)
    assert (old.version, old.reason) == (3, Reason.MAX_SKIP_AGE)


async def a_snapshot_that_goes_sooner_is_not_leaned_on(subject: Subject) -> None:
    """A skip must not shorten the life of a state."""
    key = new_key()
    now_us = await subject.now_us()
    await subject.save(key, expires_at_us=now_us + HOUR_US)
    longer = await subject.save(key, expires_at_us=now_us + 2 * HOUR_US)
    assert (longer.version, longer.reason) == (2, Reason.HEAD_EXPIRES_SOONER)
    assert (await subject.save(key)).version == 3
