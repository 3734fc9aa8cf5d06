"""What every store must do to load and to list."""

import os
from typing import Any

import pytest

from statekeep_server.domain.errors import (
    RunNotFound,
    SnapshotNotFound,
    StateCorrupt,
)
from statekeep_server.domain.model import (
    ById,
    ByVersion,
    Newest,
    RunKey,
    Selector,
)
from tests.conformance.subject import HOUR_US, SECOND_US, A, B, Subject
from tests.support.stores import an_append, new_key


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


async def newest_states_are_loaded_together(subject: Subject) -> None:
    """Each of many runs is answered as a load of its own would be, also when named twice."""
    one, other, large, missing = (new_key() for _ in range(4))
    await subject.save(one, A)
    await subject.save(one, B)
    await subject.save(other, A)
    await subject.save(large, os.urandom(300_000), content_type="application/octet-stream")
    keys = [one, missing, other, large, one]
    answers = await subject.store.load_newest(keys)
    for key, answer in zip(keys, answers, strict=True):
        if key == missing:
            assert isinstance(answer, RunNotFound)
        else:
            assert answer == await subject.store.load(key, Newest())
    assert not await subject.store.load_newest([])


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
