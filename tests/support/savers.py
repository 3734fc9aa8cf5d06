"""Callers that insist: they save step after step, and know what was acknowledged to them."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import grpc

from statekeep.v1 import agent_state_service_pb2 as pb
from statekeep.v1 import agent_state_service_pb2_grpc
from tests.support.wire import new_run, save_request


class Saver:
    """Saves one run step after step, again and again under one id until it is acknowledged."""

    def __init__(self, channel: grpc.aio.Channel, run_id: str, *, timeout_s: float = 10.0) -> None:
        self.stub = agent_state_service_pb2_grpc.AgentStateServiceStub(channel)
        self.run_id = run_id
        self.acknowledged: dict[int, bytes] = {}
        self.failures: set[grpc.StatusCode] = set()
        self.timeout_s = timeout_s
        self.stopped = False

    async def work(self) -> None:
        step = 0
        while not self.stopped:
            step += 1
            request = save_request(
                {"step": step, "text": "x" * 300},
                run_id=self.run_id,
                request_id=f"{self.run_id}-{step}",
            )
            while True:
                try:
                    saved = await self.stub.SaveAgentState(request, timeout=self.timeout_s)
                except grpc.aio.AioRpcError as error:
                    self.failures.add(error.code())
                    await asyncio.sleep(0.02)
                    continue
                # A version for each step: a retry made no second snapshot.
                assert saved.version == step
                self.acknowledged[saved.version] = saved.state_sha256
                break

    async def is_all_there(self) -> None:
        newest = await self.stub.LoadAgentState(pb.LoadAgentStateRequest(run_id=self.run_id))
        assert newest.head_version == len(self.acknowledged)
        for version, sha256 in self.acknowledged.items():
            request = pb.LoadAgentStateRequest(run_id=self.run_id, version=version)
            loaded = await self.stub.LoadAgentState(request, timeout=10)
            assert loaded.snapshot.state_sha256 == sha256


async def advance(savers: Sequence[Saver], steps: int) -> None:
    """Wait until each has so many more acknowledgements than now."""
    goals = [len(saver.acknowledged) + steps for saver in savers]
    while any(len(s.acknowledged) < goal for s, goal in zip(savers, goals, strict=True)):
        await asyncio.sleep(0.01)


@asynccontextmanager
async def saving(
    channel: grpc.aio.Channel, count: int, *, within_s: float = 60.0, timeout_s: float = 10.0
) -> AsyncIterator[Sequence[Saver]]:
    """Let so many savers work; on the way out they stop, and find all that was acknowledged."""
    savers = [Saver(channel, new_run(), timeout_s=timeout_s) for _ in range(count)]
    async with asyncio.timeout(within_s), asyncio.TaskGroup() as group:
        for saver in savers:
            group.create_task(saver.work())
        await advance(savers, 2)
        yield savers
        for saver in savers:
            saver.stopped = True
    for saver in savers:
        await saver.is_all_there()
