"""The sweeper: deletes expired snapshots and old request results in small batches.

Expired snapshots are never returned, swept or not; sweeping only gives their room back.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from statekeep_server.domain.errors import StateError
from statekeep_server.domain.model import RunKey
from statekeep_server.service.ports import Probe, StateStore

logger = logging.getLogger("statekeep.sweeper")

MICROSECONDS = 1_000_000


NO_RUN = Probe(RunKey("", ""), "")
"""No run is called so."""


async def sweep_once(store: StateStore, *, batch_rows: int, request_result_ttl_s: float) -> int:
    """Delete everything that is due, a batch at a time; return how many rows went."""
    # By the database's clock: where this machine's jumped, a retry would be a second save.
    (standing,) = await store.barrier([NO_RUN])
    before_us = standing.now_us - int(request_result_ttl_s * MICROSECONDS)
    total = 0
    while True:
        rows = await store.sweep(limit=batch_rows, request_results_before_us=before_us)
        total += rows
        if rows < batch_rows:
            return total


@asynccontextmanager
async def sweeping(
    store: StateStore,
    *,
    interval_s: float,
    batch_rows: int,
    request_result_ttl_s: float,
) -> AsyncIterator[None]:
    """Sweep now and then while the context is open. A failed sweep is logged and tried again."""

    async def sweep_forever() -> None:
        while True:
            await asyncio.sleep(interval_s)
            try:
                rows = await sweep_once(
                    store, batch_rows=batch_rows, request_result_ttl_s=request_result_ttl_s
                )
            except StateError as error:
                logger.warning("Sweep failed: reason=%s", error.reason)
            else:
                if rows:
                    logger.info("Swept rows=%d", rows)

    task = asyncio.create_task(sweep_forever())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
