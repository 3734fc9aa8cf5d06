"""Pipelines against a server: one snapshot per run, or none at all."""

import pytest

from statekeep import AsyncClient, NotFound, VersionConflict
from tests.support.wire import Wire, new_run


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """One database is enough here: a pipeline is an atomic batch."""
    return sqlite_url


async def test_a_pipeline_is_one_snapshot(wire: Wire) -> None:
    run_id = new_run()
    async with AsyncClient(f"127.0.0.1:{wire.port}") as client:
        async with client.pipeline(run_id) as pipeline:
            for step in range(20):
                pipeline.save({"step": step})
        history = [snapshot async for snapshot in client.list_snapshots(run_id)]
        assert [(one.version, one.checkpoint_type) for one in history] == [(1, "PIPELINE_COMPLETE")]
        assert (await client.load(run_id)).state == {"step": 19}


async def test_a_pipeline_that_cannot_be_written_whole_is_rolled_back(wire: Wire) -> None:
    run_id, other = new_run(), new_run()
    async with AsyncClient(f"127.0.0.1:{wire.port}") as client:
        await client.save(other, 1)

        async def work() -> None:
            async with client.pipeline(run_id) as pipeline:
                pipeline.save(1, checkpoint_type="MANUAL")
                pipeline.save(2)
                pipeline.save(3, run_id=other, expected_version=9)

        with pytest.raises(VersionConflict) as caught:
            await work()
        assert caught.value.request_id
        with pytest.raises(NotFound):
            await client.load(run_id)
        assert (await client.load(other)).version == 1
