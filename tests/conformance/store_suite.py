"""What every store must do: one coroutine per requirement, which its docstring states.

`test_stores` runs all of them over every store. A requirement gets a `Subject` on fresh data.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from statekeep_server.domain.audit import AuditRecord, verify_chain
from statekeep_server.domain.errors import (
    AtomicBatchFailed,
    InvalidField,
    RequestIdReused,
    RunNotFound,
    SnapshotNotFound,
    StaleWriter,
    StateCorrupt,
    VersionConflict,
)
from statekeep_server.domain.model import (
    ById,
    ByVersion,
    Newest,
    Outcome,
    Reason,
    RunKey,
    SaveResult,
    Selector,
)
from statekeep_server.domain.policy import SkipRules
from statekeep_server.service.ports import Append, Probe, StateStore
from tests.support.stores import an_append, new_key

SECOND_US = 1_000_000
HOUR_US = 3_600 * SECOND_US
A = b'{"step": "a"}'
B = b'{"step": "b"}'


@dataclass(frozen=True)
class Subject:
    """A store under test, and hands on what lies below it.

    Attributes:
        store: The store, on data of its own.
        another: Opens a second store on the same data, as another server would.
        pass_time: Lets so many microseconds pass for the data.
        audit: Reads the audit records of a run.
        tamper: Changes the stored bytes of a run's snapshots.
    """

    store: StateStore
    another: Callable[[], Awaitable[StateStore]]
    pass_time: Callable[[int], Awaitable[None]]
    audit: Callable[[RunKey], Awaitable[Sequence[AuditRecord]]]
    tamper: Callable[[RunKey], Awaitable[None]]

    async def now_us(self) -> int:
        """The time by the store's clock."""
        return (await self.store.barrier([Probe(new_key(), "")]))[0].now_us

    async def save(self, key: RunKey, state: bytes = A, **options: Any) -> SaveResult:
        """Save one state and expect it to be accepted."""
        return await self.append(an_append(key, state, **options))

    async def append(self, append: Append) -> SaveResult:
        """Append one save and expect it to be accepted."""
        answer = (await self.store.append_many([append]))[0]
        assert isinstance(answer, SaveResult), answer
        return answer

    async def refused(self, key: RunKey, state: bytes = A, **options: Any) -> Exception:
        """Save one state and expect it to be refused."""
        answer = (await self.store.append_many([an_append(key, state, **options)]))[0]
        assert isinstance(answer, Exception), answer
        return answer

    async def versions(self, key: RunKey) -> list[int]:
        """The versions of the live snapshots of a run, newest first."""
        page = await self.store.list_snapshots(key, limit=1_000)
        return [snapshot.version for snapshot in page.snapshots]

    async def runs(self, tenant: str, **filters: Any) -> list[str]:
        """The runs of a tenant, newest first."""
        page = await self.store.list_runs(tenant, limit=1_000, **filters)
        return [run.key.run_id for run in page.runs]

    async def rows_written(self, work: Awaitable[object]) -> int:
        """How many rows some work writes."""
        before = self.store.statistics().rows_written
        await work
        return self.store.statistics().rows_written - before


# Saving.


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


# Many saves in one call.


async def a_call_keeps_the_order_of_a_run(subject: Subject) -> None:
    """Saves of one run in one call are decided and numbered in their order."""
    key = new_key()
    answers = await subject.store.append_many([an_append(key, s) for s in (A, A, B, A)])
    assert [a.version for a in answers if isinstance(a, SaveResult)] == [1, 1, 2, 3]
    assert [a.outcome for a in answers if isinstance(a, SaveResult)] == [
        Outcome.PERSISTED,
        Outcome.SKIPPED,
        Outcome.PERSISTED,
        Outcome.PERSISTED,
    ]
    loaded = [await subject.store.load(key, ByVersion(version)) for version in (1, 2, 3)]
    assert [one.snapshot.state for one in loaded] == [A, B, A]


async def a_skip_may_lean_on_a_save_of_the_same_call(subject: Subject) -> None:
    """The real id of a save that is pending in the call is what its skip answers with."""
    first, second = await subject.store.append_many([an_append(k) for k in [new_key()] * 2])
    assert isinstance(first, SaveResult)
    assert isinstance(second, SaveResult)
    assert second.outcome is Outcome.SKIPPED
    assert second.snapshot_id == first.snapshot_id


async def a_request_id_given_twice_in_a_call_is_one_save(subject: Subject) -> None:
    """The second of two equal requests gets the result of the first."""
    append = an_append(new_key(), rules=None)
    first, second = await subject.store.append_many([append, append])
    assert isinstance(first, SaveResult)
    assert second == replace(first, replayed=True)
    assert await subject.versions(append.save.command.key) == [1]


async def answers_stand_in_the_order_of_the_saves(subject: Subject) -> None:
    """The i-th answer is that of the i-th save, also for many runs in any order."""
    tenant = new_key().run_id
    keys = [RunKey(tenant, f"run-{(i * 37) % 100:02}") for i in range(100)]
    old, new = keys[::2], keys
    await subject.store.append_many([an_append(key, A) for key in old])
    appends = [an_append(key, b'{"run": "%s"}' % key.run_id.encode()) for key in new]
    answers = await subject.store.append_many(appends)
    for key, append, answer in zip(new, appends, answers, strict=True):
        assert isinstance(answer, SaveResult)
        assert answer.state_sha256 == append.save.state_sha256
        assert answer.version == (2 if key in old else 1)


async def a_refused_save_fails_alone(subject: Subject) -> None:
    """In a call that is not atomic the others go on, and a run of refused saves has no head."""
    tenant = new_key().run_id
    good, bad, known = (RunKey(tenant, name) for name in ("good", "bad", "known"))
    await subject.save(known)
    answers = await subject.store.append_many(
        [
            an_append(good, A),
            an_append(bad, A, expected_version=4),
            an_append(known, B, expected_version=1),
            an_append(good, B),
        ]
    )
    kinds = [type(answer) for answer in answers]
    assert kinds == [SaveResult, VersionConflict, SaveResult, SaveResult]
    assert sorted(await subject.runs(tenant)) == ["good", "known"]
    assert (await subject.store.barrier([Probe(bad, "")]))[0].head is None
    assert (await subject.save(bad)).version == 1


async def an_atomic_call_is_all_or_nothing(subject: Subject) -> None:
    """The first refused save of an atomic call undoes all, and is named by its position."""
    tenant = new_key().run_id
    known, new, last = (RunKey(tenant, name) for name in ("known", "new", "last"))
    await subject.save(known)
    appends = [
        an_append(known, B),
        an_append(new, A),
        an_append(last, A, expected_version=9),
        an_append(last, A, expected_version=8),
    ]
    before = subject.store.statistics().rows_written
    with pytest.raises(AtomicBatchFailed) as failed:
        await subject.store.append_many(appends, atomic=True)
    assert failed.value.index == 2
    assert isinstance(failed.value.error, VersionConflict)
    assert subject.store.statistics().rows_written == before
    assert await subject.versions(known) == [1]
    assert await subject.runs(tenant) == ["known"]
    fine = await subject.store.append_many(appends[:2], atomic=True)
    assert [type(answer) for answer in fine] == [SaveResult, SaveResult]


async def a_call_without_saves_answers_nothing(subject: Subject) -> None:
    """Empty calls are allowed and cost nothing."""
    assert list(await subject.store.append_many([])) == []
    assert list(await subject.store.append_many([], atomic=True)) == []
    assert list(await subject.store.barrier([])) == []


# Many callers at once.


async def concurrent_saves_of_a_run_have_dense_versions(subject: Subject) -> None:
    """Two servers that save one run at once use every version once, in one audit chain."""
    key, other = new_key(), await subject.another()
    stores = [subject.store, other] * 10
    saves = [b'{"n": %d}' % n for n in range(len(stores))]
    answers = await asyncio.gather(
        *(
            store.append_many([an_append(key, s, rules=None)])
            for store, s in zip(stores, saves, strict=True)
        )
    )
    versions = [answer.version for (answer,) in answers if isinstance(answer, SaveResult)]
    assert sorted(versions) == list(range(1, len(stores) + 1))
    for version, state in zip(versions, saves, strict=True):
        assert (await subject.store.load(key, ByVersion(version))).snapshot.state == state
    assert verify_chain(await subject.audit(key)) is None


async def concurrent_calls_over_the_same_runs_all_succeed(subject: Subject) -> None:
    """Calls that lock the same runs, new and old ones, in any order do not block each other."""
    tenant, other = new_key().run_id, await subject.another()
    keys = [RunKey(tenant, f"run-{n}") for n in range(8)]
    await subject.store.append_many([an_append(key) for key in keys[::3]])
    calls = [
        store.append_many([an_append(key, b'{"n": %d}' % n, rules=None) for key in order])
        for n, (store, order) in enumerate(
            [(subject.store, keys), (other, keys[::-1]), (subject.store, keys[3:] + keys[:3])] * 3
        )
    ]
    for answers in await asyncio.gather(*calls):
        assert [type(answer) for answer in answers] == [SaveResult] * len(keys)
    for position, key in enumerate(keys):
        assert len(await subject.versions(key)) == len(calls) + (position % 3 == 0)


async def concurrent_attempts_of_a_request_are_one_save(subject: Subject) -> None:
    """However many servers get the same request at once, one saves and all answer alike."""
    append, other = an_append(new_key(), rules=None), await subject.another()
    answers = await asyncio.gather(
        *(store.append_many([append]) for store in (subject.store, other) * 6)
    )
    results = [answer for (answer,) in answers if isinstance(answer, SaveResult)]
    assert len({result.snapshot_id for result in results}) == 1
    assert [result.replayed for result in results].count(False) == 1
    assert await subject.versions(append.save.command.key) == [1]


async def a_save_is_seen_by_another_server_at_once(subject: Subject) -> None:
    """An acknowledged save is what the next load and the next barrier of any server see."""
    key, other = new_key(), await subject.another()
    for state in (A, B):
        saved = await subject.save(key, state)
        assert (await other.load(key, Newest())).snapshot.state == state
        head = (await other.barrier([Probe(key, "")]))[0].head
        assert head is not None
        assert head.snapshot_id == saved.snapshot_id


# The barrier.


async def the_barrier_answers_by_position(subject: Subject) -> None:
    """The i-th answer is that of the i-th probe: heads and earlier results, or none."""
    key, unknown = new_key(), new_key()
    append = an_append(key, A)
    saved = await subject.append(append)
    probes = [
        Probe(unknown, "x"),
        Probe(key, "x"),
        Probe(key, append.save.command.request_id),
        Probe(RunKey("other-tenant", key.run_id), append.save.command.request_id),
        Probe(key, "x"),
    ]
    answers = await subject.store.barrier(probes)
    assert [bool(answer.head) for answer in answers] == [False, True, True, False, True]
    assert [bool(answer.earlier) for answer in answers] == [False, False, True, False, False]
    earlier, head = answers[2].earlier, answers[1].head
    assert earlier is not None
    assert (earlier.result, earlier.fingerprint) == (saved, append.save.fingerprint)
    assert head is not None
    assert (head.key, head.version, head.snapshot_id) == (key, 1, saved.snapshot_id)
    assert head.comparison_hash == append.save.comparison_hash
    assert head.state_sha256 == append.save.state_sha256
    assert head.field_digests == append.save.field_digests
    assert head.persisted_at_us <= answers[1].now_us
    assert len({answer.now_us for answer in answers}) <= 2


async def the_barrier_takes_hundreds_of_probes(subject: Subject) -> None:
    """A full batch of probes is answered in one call."""
    tenant = new_key().run_id
    keys = [RunKey(tenant, f"run-{n}") for n in range(300)]
    await subject.store.append_many([an_append(key) for key in keys[:100]])
    answers = await subject.store.barrier([Probe(key, "x") for key in keys])
    assert [answer.head.key if answer.head else None for answer in answers] == [
        *keys[:100],
        *[None] * 200,
    ]


# Loads and lists.


async def a_snapshot_is_loaded_by_each_selector(subject: Subject) -> None:
    """Newest, version and id find their snapshot, and tell the head's version besides."""
    key = new_key()
    first = await subject.save(key, A)
    await subject.save(key, B)
    for selector, state in (
        (Newest(), B),
        (ByVersion(1), A),
        (ByVersion(2), B),
        (ById(first.snapshot_id), A),
    ):
        loaded = await subject.store.load(key, selector)
        assert loaded.snapshot.state == state
        assert loaded.head_version == 2


async def what_is_not_there_is_not_found(subject: Subject) -> None:
    """A missing run or snapshot has its own error, which names what was asked for."""
    key = new_key()
    with pytest.raises(RunNotFound) as missing:
        await subject.store.load(key, Newest())
    assert missing.value.metadata == {"run_id": key.run_id}
    await subject.save(key)
    selectors: list[tuple[Selector, dict[str, str]]] = [
        (ByVersion(2), {"version": "2"}),
        (ById("no-such"), {"snapshot_id": "no-such"}),
    ]
    for selector, metadata in selectors:
        with pytest.raises(SnapshotNotFound) as not_found:
            await subject.store.load(key, selector)
        assert not_found.value.metadata == {"run_id": key.run_id, **metadata}


async def a_snapshot_of_another_run_is_not_found(subject: Subject) -> None:
    """An id loads from its own run and tenant only."""
    key, other = new_key(), new_key()
    stranger = RunKey("other-tenant", key.run_id)
    saved = await subject.save(key)
    for wrong in (other, stranger):
        await subject.save(wrong, B)
        with pytest.raises(SnapshotNotFound):
            await subject.store.load(wrong, ById(saved.snapshot_id))


async def everything_that_was_saved_comes_back(subject: Subject) -> None:
    """A loaded snapshot has all that its save said, and the time of its write."""
    key = new_key()
    before_us = await subject.now_us()
    options: dict[str, Any] = {
        "thread_id": "thread ✓",
        "user_id": "O'Brien; --",
        "agent_phase": "planning",
        "execution_context": (("a", "1"), ("ä", 'quote " and \\ and {}')),
        "content_type": "text/plain",
        "is_recovery_point": True,
        "checkpoint_type": "RECOVERY",
        "expires_at_us": before_us + HOUR_US,
    }
    append = an_append(key, "naïve ☃ text".encode(), **options)
    result = await subject.append(append)
    snapshot = (await subject.store.load(key, Newest())).snapshot
    assert {name: getattr(snapshot, name) for name in options} == options
    assert snapshot.key == key
    assert snapshot.snapshot_id == result.snapshot_id
    assert snapshot.state == append.save.command.state
    assert snapshot.state_bytes == len(append.save.command.state)
    assert snapshot.state_sha256 == append.save.state_sha256 == result.state_sha256
    assert snapshot.comparison_hash == append.save.comparison_hash == result.comparison_hash
    assert before_us <= snapshot.persisted_at_us <= await subject.now_us()


async def states_come_back_byte_for_byte(subject: Subject) -> None:
    """From nothing to 3 MB, text or not."""
    key = new_key()
    for size in (0, 1, 1_000, 8_191, 100_000, 1_000_000, 3_000_000):
        state = os.urandom(size)
        await subject.save(key, state, content_type="application/octet-stream")
        assert (await subject.store.load(key, Newest())).snapshot.state == state


async def changed_bytes_are_found_out(subject: Subject) -> None:
    """A state whose stored bytes are not those that were saved is never returned."""
    key = new_key()
    await subject.save(key)
    await subject.tamper(key)
    with pytest.raises(StateCorrupt):
        await subject.store.load(key, Newest())


async def snapshots_are_listed_in_pages(subject: Subject) -> None:
    """Newest first, without states, each once, however the pages are cut."""
    key = new_key()
    for n in range(7):
        await subject.save(key, b'{"n": %d}' % n)
    for limit in (1, 2, 3, 7, 8):
        seen: list[int] = []
        before: int | None = None
        while True:
            page = await subject.store.list_snapshots(key, limit=limit, before_version=before)
            assert all(snapshot.state is None for snapshot in page.snapshots)
            assert all(snapshot.state_bytes == 8 for snapshot in page.snapshots)
            seen += [snapshot.version for snapshot in page.snapshots]
            before = page.next_before_version
            if before is None:
                break
        assert seen == [7, 6, 5, 4, 3, 2, 1]
    assert await subject.versions(new_key()) == []


async def runs_are_listed_in_pages(subject: Subject) -> None:
    """Newest write first, then by run id, each once, however the pages are cut."""
    tenant = new_key().run_id
    # One call: equal times, so that the run ids decide; they are ordered by code point.
    names = ["Z", "a", "b-1", "b_1", "é", "日本", "\U0001f600"]
    await subject.store.append_many([an_append(RunKey(tenant, name)) for name in names])
    await subject.pass_time(SECOND_US)
    await subject.save(RunKey(tenant, "newest"))
    for limit in (1, 3, 8, 9):
        seen: list[str] = []
        after = None
        while True:
            page = await subject.store.list_runs(tenant, limit=limit, after=after)
            seen += [run.key.run_id for run in page.runs]
            after = page.next_after
            if after is None:
                break
        assert seen == ["newest", *sorted(names)]


async def runs_are_found_by_thread_and_user(subject: Subject) -> None:
    """Filters compare with the newest write of a run."""
    tenant = new_key().run_id
    first, second, third = (RunKey(tenant, name) for name in ("first", "second", "third"))
    await subject.save(first, thread_id="t1", user_id="u1")
    await subject.save(second, thread_id="t1", user_id="u2")
    await subject.save(third)
    await subject.pass_time(SECOND_US)
    await subject.save(first, B, thread_id="t2", user_id="u1")
    assert await subject.runs(tenant, thread_id="t1") == ["second"]
    assert await subject.runs(tenant, thread_id="t2") == ["first"]
    assert await subject.runs(tenant, user_id="u1") == ["first"]
    assert await subject.runs(tenant, thread_id="t1", user_id="u1") == []
    assert await subject.runs(tenant, thread_id="") == ["third"]
    assert await subject.runs(tenant, thread_id="' OR 1 = 1 --") == []


async def a_listed_run_names_its_newest_write(subject: Subject) -> None:
    """The list shows version, snapshot and time of the head."""
    key = new_key(tenant=new_key().run_id)
    await subject.save(key, A)
    saved = await subject.save(key, B, thread_id="thread", user_id="user")
    (run,) = (await subject.store.list_runs(key.tenant, limit=10)).runs
    snapshot = (await subject.store.load(key, Newest())).snapshot
    assert (run.key, run.version, run.snapshot_id) == (key, 2, saved.snapshot_id)
    assert (run.thread_id, run.user_id) == ("thread", "user")
    assert run.persisted_at_us == snapshot.persisted_at_us


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
    gone = await subject.store.sweep(limit=10, request_results_before_us=now_us + SECOND_US)
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
