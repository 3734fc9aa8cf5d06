"""A queued save goes with the save of its run that was queued before it."""

import asyncio

import pytest

from statekeep_server.domain.errors import StorageUnavailable, VersionConflict
from statekeep_server.domain.model import SaveResult
from statekeep_server.service.deadline import Deadline
from statekeep_server.service.groups import QueuedSave
from tests.support.clock import ManualClock
from tests.support.stores import an_append, new_key


def after(before: "asyncio.Future[SaveResult]") -> QueuedSave:
    return QueuedSave(an_append(new_key()), Deadline(ManualClock(), None), before)


async def test_it_is_not_sent_when_the_one_before_could_not_be_written() -> None:
    before: asyncio.Future[SaveResult] = asyncio.get_running_loop().create_future()
    queued = after(before)
    queued.check()
    before.set_exception(StorageUnavailable("LOCKED"))
    with pytest.raises(StorageUnavailable):
        queued.check()


async def test_it_is_sent_when_the_one_before_was_refused_or_given_up() -> None:
    refused: asyncio.Future[SaveResult] = asyncio.get_running_loop().create_future()
    refused.set_exception(VersionConflict(1, 2))
    after(refused).check()
    given_up: asyncio.Future[SaveResult] = asyncio.get_running_loop().create_future()
    given_up.cancel()
    after(given_up).check()
