"""What every store must do with many saves in one call, many callers at once, and the barrier."""

import asyncio
from dataclasses import replace

import pytest

from statekeep_server.domain.audit import verify_chain
from statekeep_server.domain.errors import (
    AtomicBatchFailed,
    VersionConflict,
)
from statekeep_server.domain.model import (
    ByVersion,
    Newest,
    Outcome,
    RunKey,
    SaveResult,
)
from statekeep_server.service.ports import Probe
from tests.conformance.subject import A, B, Subject
from tests.support.stores import an_append, new_key

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
