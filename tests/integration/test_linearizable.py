"""Three servers on one PostgreSQL, random saves, loads and kills: every history has an explanation.

One server is standard, two are optimized. Clients retry with the same request id on any server, as
the Python client's users do; what stays unanswered may have happened once, or not.
"""

import asyncio
import json
import math
import random
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import grpc
import pytest

from statekeep.v1 import agent_state_pb2, agent_state_service_pb2, agent_state_service_pb2_grpc
from tests.support.linearizability import Kind, Operation, is_linearizable
from tests.support.server_process import ServerProcess

CLIENTS = 6
ROUNDS = 12
RUNS_PER_ROUND = 3
OPERATIONS_PER_CLIENT = 14
ATTEMPTS = 6
SEED = 20_261_121
RETRYABLE = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
}


@dataclass
class Fleet:
    """The servers, and channels to them that are made anew after a kill."""

    servers: list[ServerProcess]
    chaos: random.Random
    kills: int = 0
    channels: dict[str, Any] = field(default_factory=dict)

    def stub(self) -> Any:
        target = self.chaos.choice(self.servers).target
        if target not in self.channels:
            self.channels[target] = grpc.aio.insecure_channel(
                target, options=[("grpc.enable_retries", 0)]
            )
        return agent_state_service_pb2_grpc.AgentStateServiceStub(self.channels[target])

    async def kill_one(self) -> None:
        server = self.chaos.choice(self.servers)
        await server.kill()
        self.kills += 1
        await server.start()

    async def close(self) -> None:
        for channel in self.channels.values():
            await channel.close()


@dataclass
class History:
    """What the clients saw of each run."""

    operations: dict[str, list[Operation]] = field(default_factory=dict)

    def add(self, run: str, operation: Operation) -> None:
        self.operations.setdefault(run, []).append(operation)

    def count(self, kind: Kind) -> int:
        return sum(op.kind is kind for ops in self.operations.values() for op in ops)


def now_s() -> float:
    return asyncio.get_running_loop().time()


async def save(fleet: Fleet, history: History, run: str, value: str, beat: int) -> None:
    state = {"value": value, "heartbeat_count": beat}
    request = agent_state_service_pb2.SaveAgentStateRequest(
        run_id=run,
        state=agent_state_pb2.State(data=json.dumps(state).encode()),
        checkpoint_type=agent_state_pb2.CHECKPOINT_TYPE_AUTO,
        request_id=str(uuid4()),
    )
    called_s = now_s()
    for attempt in range(1, ATTEMPTS + 1):
        request.attempt = attempt
        try:
            response = await fleet.stub().SaveAgentState(request, timeout=5)
        except grpc.aio.AioRpcError as error:
            if error.code() not in RETRYABLE:
                raise
            await asyncio.sleep(0.05 * attempt)
            continue
        persisted = response.outcome == agent_state_pb2.SAVE_OUTCOME_PERSISTED
        kind = Kind.PERSISTED if persisted else Kind.SKIPPED
        history.add(run, Operation(kind, value, response.version, called_s, now_s()))
        return
    history.add(run, Operation(Kind.UNKNOWN, value, 0, called_s, math.inf))


async def load(fleet: Fleet, history: History, run: str) -> None:
    called_s = now_s()
    try:
        response = await fleet.stub().LoadAgentState(
            agent_state_service_pb2.LoadAgentStateRequest(run_id=run), timeout=5
        )
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.NOT_FOUND:
            history.add(run, Operation(Kind.LOADED, "", 0, called_s, now_s()))
        elif error.code() not in RETRYABLE:
            raise
        return
    value = json.loads(response.state.data)["value"]
    history.add(run, Operation(Kind.LOADED, value, response.snapshot.version, called_s, now_s()))


async def client(fleet: Fleet, history: History, runs: list[str], dice: random.Random) -> None:
    for beat in range(OPERATIONS_PER_CLIENT):
        run = dice.choice(runs)
        if dice.random() < 0.7:
            await save(fleet, history, run, dice.choice("AB"), beat)
        else:
            await load(fleet, history, run)


async def play(fleet: Fleet, history: History, number: int) -> None:
    """One round on fresh runs; every second round a server is killed in the middle of it."""
    runs = [f"round-{number}-run-{index}" for index in range(RUNS_PER_ROUND)]
    async with asyncio.TaskGroup() as group:
        for index in range(CLIENTS):
            dice = random.Random(SEED + number * CLIENTS + index)
            group.create_task(client(fleet, history, runs, dice))
        if number % 2:
            await asyncio.sleep(0.03)
            group.create_task(fleet.kill_one())


@pytest.mark.postgresql
@pytest.mark.timeout(300)
async def test_histories_are_linearizable(postgresql_url: str) -> None:
    history = History()
    async with AsyncExitStack() as stack:
        servers = [
            await stack.enter_async_context(ServerProcess(postgresql_url, optimized=optimized))
            for optimized in (True, True, False)
        ]
        fleet = Fleet(servers, random.Random(SEED))
        stack.push_async_callback(fleet.close)
        for number in range(ROUNDS):
            await play(fleet, history, number)
    for operations in history.operations.values():
        told = sorted(operations, key=lambda operation: operation.called_s)
        assert is_linearizable(operations), "\n".join(map(str, told))
    # The history is worth something only if most was answered, skips and kills among it.
    assert fleet.kills == ROUNDS // 2
    total = CLIENTS * ROUNDS * OPERATIONS_PER_CLIENT
    assert history.count(Kind.PERSISTED) + history.count(Kind.SKIPPED) > total / 2
    assert history.count(Kind.SKIPPED) > total / 20
