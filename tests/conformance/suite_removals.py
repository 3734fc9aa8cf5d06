"""What every store must do about expiry, deletion, the audit log, tenants and counting."""

from dataclasses import replace

import pytest

from statekeep_server.domain.audit import verify_chain
from statekeep_server.domain.errors import (
    RunNotFound,
    SnapshotNotFound,
    StaleWriter,
)
from statekeep_server.domain.model import (
    ById,
    ByVersion,
    Newest,
    Reason,
    RunKey,
)
from statekeep_server.service.ports import Probe
from statekeep_server.storage.loading import MINUTE_US
from tests.conformance.subject import HOUR_US, SECOND_US, A, B, Subject
from tests.support.stores import an_append, new_key

# Expiry.


async def an_expired_snapshot_is_gone(subject: Subject) -> None:
    """It is not loaded, not listed and not leaned on; older live ones still are loaded."""
    key = new_key(tenant=new_key().run_id)
    kept = await subject.save(key, A)
    expiring = await subject.save(key, B, expires_at_us=await subject.now_us() + HOUR_US)
    assert (await subject.store.load(key, Newest())).snapshot.state == B
    await subject.pass_time(HOUR_US + SECOND_US)
    for selector in (ByVersion(2), ById(expiring.snapshot_id)):
        with pytest.raises(SnapshotNotFound):
            await subject.store.load(key, selector)
    newest = await subject.store.load(key, Newest())
    assert (newest.snapshot.snapshot_id, newest.head_version) == (kept.snapshot_id, 2)
    assert await subject.versions(key) == [1]
    (run,) = (await subject.store.list_runs(key.tenant, limit=10)).runs
    assert (run.version, run.snapshot_id) == (2, None)
    again = await subject.save(key, B)
    assert (again.version, again.reason) == (3, Reason.HEAD_GONE)


async def a_run_whose_snapshots_have_all_expired_is_not_found(subject: Subject) -> None:
    """Newest finds nothing then."""
    key = new_key()
    await subject.save(key, expires_at_us=await subject.now_us() + HOUR_US)
    await subject.pass_time(2 * HOUR_US)
    with pytest.raises(RunNotFound):
        await subject.store.load(key, Newest())


async def a_sweep_deletes_what_has_expired(subject: Subject) -> None:
    """In batches, and a head whose snapshot goes loses its id and its hash with it."""
    tenant = new_key().run_id
    expires_at_us = await subject.now_us() + HOUR_US
    keys = [RunKey(tenant, f"run-{n}") for n in range(5)]
    await subject.store.append_many([an_append(k, A, expires_at_us=expires_at_us) for k in keys])
    await subject.save(keys[0], B)
    await subject.pass_time(HOUR_US + SECOND_US)
    old_us = await subject.now_us() - 10 * HOUR_US

    async def sweep() -> int:
        return await subject.store.sweep(limit=3, request_results_before_us=old_us)

    assert [await sweep() for _ in range(3)] == [3, 2, 0]
    heads = [s.head for s in await subject.store.barrier([Probe(key, "") for key in keys])]
    assert heads[0] is not None
    assert heads[0].snapshot_id is not None
    for head in heads[1:]:
        assert head is not None
        assert (head.version, head.snapshot_id, head.comparison_hash) == (1, None, None)
    assert await subject.versions(keys[0]) == [2]
    again = await subject.save(keys[1], A)
    assert (again.version, again.reason) == (2, Reason.HEAD_GONE)
    assert verify_chain(await subject.audit(keys[1])) is None


async def a_sweep_counts_its_rows(subject: Subject) -> None:
    """Deleted snapshots and moved heads are rows written; an idle sweep writes none."""
    key = new_key()
    await subject.save(key, expires_at_us=await subject.now_us() + HOUR_US)
    sweep = subject.store.sweep
    assert await subject.rows_written(sweep(limit=9, request_results_before_us=0)) == 0
    await subject.pass_time(2 * HOUR_US)
    assert await subject.rows_written(sweep(limit=9, request_results_before_us=0)) == 2


async def request_results_outlive_snapshots_until_swept(subject: Subject) -> None:
    """A retry gets its answer after the snapshot has gone, for as long as results are kept."""
    key = new_key()
    append = an_append(key, A, expires_at_us=await subject.now_us() + HOUR_US)
    first = await subject.append(append)
    await subject.pass_time(2 * HOUR_US)
    now_us = await subject.now_us()
    gone = await subject.store.sweep(limit=10, request_results_before_us=now_us - 24 * HOUR_US)
    assert gone == 1
    assert await subject.append(append) == replace(first, replayed=True)
    gone = await subject.store.sweep(limit=10, request_results_before_us=now_us + MINUTE_US)
    assert gone == 1
    assert (await subject.store.barrier([Probe(key, first.request_id)]))[0].earlier is None


# Deletion.


async def a_deleted_run_is_gone_but_its_versions_are_not_reused(subject: Subject) -> None:
    """A tombstone takes the next version; what was there is neither loaded nor leaned on."""
    key = new_key(tenant=new_key().run_id)
    saved = await subject.save(key, A)
    await subject.save(key, B)
    assert await subject.store.delete_run(key) == 2
    for selector in (Newest(), ByVersion(1), ById(saved.snapshot_id)):
        with pytest.raises((RunNotFound, SnapshotNotFound)):
            await subject.store.load(key, selector)
    assert await subject.versions(key) == []
    assert await subject.runs(key.tenant) == []
    (standing,) = await subject.store.barrier([Probe(key, saved.request_id)])
    assert standing.earlier is None
    assert standing.head is not None
    assert (standing.head.version, standing.head.snapshot_id) == (3, None)
    assert 0 <= standing.now_us - standing.head.persisted_at_us < 60 * SECOND_US
    again = await subject.save(key, B)
    assert (again.version, again.reason) == (4, Reason.HEAD_GONE)
    assert await subject.runs(key.tenant) == [key.run_id]


async def deleting_twice_changes_nothing(subject: Subject) -> None:
    """A run that is unknown or deleted is left alone."""
    key = new_key()
    assert await subject.store.delete_run(key) == 0
    assert (await subject.store.barrier([Probe(key, "")]))[0].head is None
    await subject.save(key)
    assert await subject.store.delete_run(key) == 1
    assert await subject.rows_written(subject.store.delete_run(key)) == 0
    assert (await subject.save(key)).version == 3


async def a_swept_run_can_be_deleted(subject: Subject) -> None:
    """It has no snapshot left, and still is in the list until it is deleted."""
    key = new_key(tenant=new_key().run_id)
    await subject.save(key, expires_at_us=await subject.now_us() + HOUR_US)
    await subject.pass_time(2 * HOUR_US)
    await subject.store.sweep(limit=10, request_results_before_us=0)
    assert await subject.runs(key.tenant) == [key.run_id]
    assert await subject.store.delete_run(key) == 0
    assert await subject.runs(key.tenant) == []


async def a_deletion_does_not_forget_the_writer(subject: Subject) -> None:
    """An abandoned save of the run's writer cannot bring it back."""
    key = new_key()
    await subject.save(key, writer_sequence=5)
    await subject.store.delete_run(key)
    assert isinstance(await subject.refused(key, writer_sequence=4), StaleWriter)


# The audit log.


async def every_write_has_its_link_in_the_audit_chain(subject: Subject) -> None:
    """Saves and deletions, and nothing else, in order; the head holds the last hash."""
    key = new_key()
    await subject.save(key, A)
    await subject.save(key, A)
    await subject.save(key, B, thread_id="thread", is_recovery_point=True)
    await subject.store.delete_run(key)
    await subject.save(key, A)
    records = await subject.audit(key)
    assert [(record.version, record.kind) for record in records] == [
        (1, "SAVE"),
        (2, "SAVE"),
        (3, "DELETE"),
        (4, "SAVE"),
    ]
    assert verify_chain(records) is None
    head = (await subject.store.barrier([Probe(key, "")]))[0].head
    assert head is not None
    assert head.audit_hash == records[-1].hash


# Tenants.


async def tenants_do_not_see_each_other(subject: Subject) -> None:
    """The same run id in two tenants is two runs, in every method."""
    run_id = new_key().run_id
    ours, theirs = RunKey(new_key().run_id, run_id), RunKey(new_key().run_id, run_id)
    saved = await subject.save(ours, A, request_id="same")
    assert (await subject.store.barrier([Probe(theirs, "same")]))[0].head is None
    with pytest.raises(RunNotFound):
        await subject.store.load(theirs, Newest())
    assert await subject.versions(theirs) == []
    assert await subject.runs(theirs.tenant) == []
    assert await subject.store.delete_run(theirs) == 0
    first = await subject.save(theirs, A, request_id="same", expected_version=0)
    assert (first.version, first.reason) == (1, Reason.FIRST_SAVE)
    assert await subject.store.delete_run(theirs) == 1
    assert (await subject.store.load(ours, Newest())).snapshot.snapshot_id == saved.snapshot_id


# Counting and checking.


async def rows_written_are_those_that_were_committed(subject: Subject) -> None:
    """A save writes a snapshot, an audit record, a result and its head; a skip nothing."""
    key = new_key()
    assert await subject.rows_written(subject.save(key, A)) == 4
    assert await subject.rows_written(subject.save(key, A)) == 0
    assert await subject.rows_written(subject.refused(key, A, expected_version=9)) == 0
    batch = [an_append(key, state) for state in (B, B, A)]
    assert await subject.rows_written(subject.store.append_many(batch)) == 7
    # Three snapshots, three results, one head and one record of the deletion.
    assert await subject.rows_written(subject.store.delete_run(key)) == 8


async def a_healthy_store_passes_its_check(subject: Subject) -> None:
    """The check is silent, and writes nothing."""
    assert await subject.rows_written(subject.store.check()) == 0
