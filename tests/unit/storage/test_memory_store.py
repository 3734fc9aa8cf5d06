"""What is special about the store in memory; the conformance suite has the rest."""

import pytest

from statekeep_server.domain.errors import Failed
from statekeep_server.domain.model import Newest
from statekeep_server.storage.memory_store import MemoryStateStore
from tests.support.clock import ManualClock
from tests.support.stores import an_append, new_id, new_key


async def test_there_are_no_sessions() -> None:
    store = MemoryStateStore(ManualClock(), new_id)
    with pytest.raises(Failed, match="has no sessions"):
        await store.append_in_session(object(), an_append(new_key()))
    with pytest.raises(Failed, match="has no sessions"):
        await store.load_in_session(object(), new_key(), Newest())


async def test_statements_and_pools_are_not_its_own() -> None:
    statistics = MemoryStateStore(ManualClock(), new_id).statistics()
    assert (statistics.rows_written, statistics.statements, statistics.pool) == (0, 0, None)
