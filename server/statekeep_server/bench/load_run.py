"""Runs a load test: starts its client processes together, and deletes what they saved."""

import asyncio
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import orjson

from statekeep import AsyncClient, StatekeepError
from statekeep_server.bench.load_figures import LoadFigures, figures_of
from statekeep_server.bench.load_plan import LoadPlan
from statekeep_server.bench.server_process import end

LINE_BYTES = 1 << 24
"""More than histograms and errors take."""
DELETED_AT_ONCE = 32


class LoadFailed(Exception):
    """A client process could not do its part. The text is for the user."""


async def run_load(
    plan: LoadPlan,
    client: AsyncClient,
    connection: Mapping[str, Any],
    *,
    on_stage: Callable[[str, int], None],
    on_step: Callable[[], None],
) -> LoadFigures:
    """Load a server, and leave it without the runs that were made, also when it is stopped.

    Args:
        plan: What to do.
        client: An open client, for all that is not measured.
        connection: How the processes reach the server.
        on_stage: Told what begins, and how many steps it has; the measured time has one a second.
        on_step: Told when one is done.

    Raises:
        LoadFailed: A client process ended, or could not prepare its runs.
        StatekeepError: The server cannot be reached, or what was made cannot be deleted.
    """
    await client.server_info()  # one clear error instead of one from every process
    try:
        told = await _measure(plan, connection, on_stage, on_step)
    finally:
        on_stage("Deleting what was saved", len(plan.run_ids()))
        await asyncio.shield(_delete(client, plan.run_ids(), on_step))
    return figures_of(plan, told, cores=os.cpu_count() or 1)


async def _measure(
    plan: LoadPlan,
    connection: Mapping[str, Any],
    on_stage: Callable[[str, int], None],
    on_step: Callable[[], None],
) -> list[dict[str, Any]]:
    parts = plan.parts()
    async with AsyncExitStack() as stack:
        on_stage("Preparing the client processes", len(parts))
        processes = [await stack.enter_async_context(_process()) for _ in parts]
        for process, part in zip(processes, parts, strict=True):
            _send(process, orjson.dumps({"part": part.to_json(), "connection": connection}))
        for process in processes:
            if "ready" not in await _told(process):
                raise LoadFailed("a client process did not get ready")
            on_step()
        for process in processes:
            _send(process, b"go")
        on_stage(f"Loading: {plan.kind}", round(plan.duration_s + plan.warm_up_s))
        async with asyncio.TaskGroup() as group:
            ticking = group.create_task(_tick(on_step))
            try:
                return [await _told(process) for process in processes]
            finally:
                ticking.cancel()


async def _tick(on_step: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(1.0)
        on_step()


@asynccontextmanager
async def _process() -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "statekeep_server.bench.load_client"),
        stdin=PIPE,
        stdout=PIPE,
        stderr=DEVNULL,
        limit=LINE_BYTES,
        start_new_session=True,  # Ctrl-C is ours to handle
    )
    try:
        yield process
    finally:
        await asyncio.shield(end(process))


def _send(process: Process, line: bytes) -> None:
    if process.stdin is not None:
        process.stdin.write(line + b"\n")


async def _told(process: Process) -> dict[str, Any]:
    """The next line of a process. Raises LoadFailed where it failed or ended."""
    line = await process.stdout.readline() if process.stdout is not None else b""
    told: dict[str, Any] = orjson.loads(line) if line else {"failed": "a client process ended"}
    if "failed" in told:
        raise LoadFailed(told["failed"])
    return told


async def _delete(client: AsyncClient, run_ids: Sequence[str], on_step: Callable[[], None]) -> None:
    waiting = iter(run_ids)

    async def work() -> None:
        for run_id in waiting:
            await client.delete_run(run_id)
            on_step()

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(DELETED_AT_ONCE):
                group.create_task(work())
    except ExceptionGroup as failed:
        first = failed.exceptions[0]
        if isinstance(first, StatekeepError):
            raise first from None
        raise
