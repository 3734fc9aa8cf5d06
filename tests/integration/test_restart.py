"""After a SIGKILL everything acknowledged is there, on both paths and both databases."""

import asyncio
import json
from typing import Any

import grpc
import pytest

from statekeep.v1 import agent_state_pb2, agent_state_service_pb2, agent_state_service_pb2_grpc
from tests.support.server_process import ServerProcess

RUNS = 4


async def save_until_it_dies(
    stub: Any, run: str, acknowledged: dict[tuple[str, int], bytes]
) -> None:
    for step in range(10_000):
        data = json.dumps({"step": step // 2, "text": "x" * 500}).encode()
        request = agent_state_service_pb2.SaveAgentStateRequest(
            run_id=run,
            state=agent_state_pb2.State(data=data),
            checkpoint_type=agent_state_pb2.CHECKPOINT_TYPE_AUTO,
        )
        try:
            response = await stub.SaveAgentState(request, timeout=10)
        except grpc.aio.AioRpcError:
            return
        acknowledged[run, response.version] = response.state_sha256


@pytest.mark.parametrize("optimized", [False, True], ids=["standard", "optimized"])
async def test_everything_acknowledged_is_there(database_url: str, optimized: bool) -> None:
    acknowledged: dict[tuple[str, int], bytes] = {}
    async with ServerProcess(database_url, optimized=optimized) as server:
        async with (
            grpc.aio.insecure_channel(server.target) as channel,
            asyncio.TaskGroup() as group,
        ):
            stub: Any = agent_state_service_pb2_grpc.AgentStateServiceStub(channel)
            for index in range(RUNS):
                group.create_task(save_until_it_dies(stub, f"run-{index}", acknowledged))
            while len(acknowledged) < 40:
                await asyncio.sleep(0.01)
            await server.kill()
        await server.start()
        async with grpc.aio.insecure_channel(server.target) as channel:
            stub = agent_state_service_pb2_grpc.AgentStateServiceStub(channel)
            for (run, version), sha256 in acknowledged.items():
                request = agent_state_service_pb2.LoadAgentStateRequest(run_id=run, version=version)
                response = await stub.LoadAgentState(request, timeout=10)
                assert response.snapshot.state_sha256 == sha256
        assert await server.stop() == 0
