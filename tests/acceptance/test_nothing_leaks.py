"""A server at LOG_LEVEL=DEBUG, used and misused: nothing of a state or a secret comes out of it."""

import asyncio
import json
from pathlib import Path
from typing import Any

import grpc
import pytest
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from statekeep.v1 import admin_service_pb2 as admin_pb
from statekeep.v1 import (
    admin_service_pb2_grpc,
    agent_state_pb2,
    agent_state_service_pb2_grpc,
)
from statekeep.v1 import agent_state_service_pb2 as pb
from tests.support.cli_server import cli_server
from tests.support.wire import save_request

CANARY = "c4n4ry"
NAMED = "n4med"
"""A name that stands twice in an object: its own caller is told which, and nobody else."""
TOKEN, PASSWORD = f"{CANARY}-token", f"{CANARY}-password"
METADATA = (("authorization", f"Bearer {TOKEN}"),)
AUTO = agent_state_pb2.CHECKPOINT_TYPE_AUTO
STATE = {"text": f"{CANARY}-text", "deep": {f"{CANARY}-name": [f"{CANARY}-item"]}, "n": 1}
BAD_STATES = [
    b'{"a": "c4n4ry", ',
    b'{"a": {"n4med": 1, "n4med": 2}}',
    b'{"c4n4ry": NaN}',
    b'{"c4n4ry": "\\ud800"}',
    b'{"c4n4ry": 1e999}',
    b"\xffc4n4ry",
    b'{"c4n4ry":' + b"[" * 200 + b"]" * 200 + b"}",
    b'{"c4n4ry": ' + b"9" * 5_000 + b"}",
    b'"c4n4ry' + b"x" * 4_000_000 + b'"',
]

pytestmark = pytest.mark.postgresql


class Caller:
    """Calls a server, and keeps the words of every refusal."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.state: Any = agent_state_service_pb2_grpc.AgentStateServiceStub(channel)
        self.admin: Any = admin_service_pb2_grpc.AdminServiceStub(channel)
        self.said: list[str] = []

    async def call(self, call: Any) -> Any:
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            self.said += [str(error.details()), str(error.trailing_metadata())]
            return None

    async def save(self, data: object = None, metadata: Any = METADATA, **options: Any) -> Any:
        options.setdefault("checkpoint_type", AUTO)
        request = save_request(
            data,
            thread_id=f"{CANARY}-thread",
            user_id=f"{CANARY}-user",
            agent_phase=f"{CANARY}-phase",
            execution_context={"key": f"{CANARY}-context"},
            **options,
        )
        return await self.call(self.state.SaveAgentState(request, metadata=metadata, timeout=60))


async def use_and_misuse(caller: Caller, database_url: str) -> None:
    for step in (1, 1, 2):
        assert await caller.save({**STATE, "n": step}, run_id="run") is not None
    for data in BAD_STATES:
        assert await caller.save(data, run_id="run") is None
    assert await caller.save(STATE, run_id="run", expected_version=99) is None
    assert await caller.save(STATE, run_id="two\nlines") is None
    assert await caller.save(STATE, metadata=(("authorization", f"Bearer {CANARY}"),)) is None
    batch = [
        save_request(STATE, run_id="run"),
        save_request(BAD_STATES[1], run_id="run"),
    ]
    for atomic in (False, True):
        request = pb.BatchSaveAgentStatesRequest(saves=batch, atomic=atomic)
        call = caller.state.BatchSaveAgentStates(request, metadata=METADATA)
        answer = await caller.call(call)
        if answer is not None:
            caller.said += [str(item.error) for item in answer.results if item.HasField("error")]
    for load in (
        pb.LoadAgentStateRequest(run_id="run"),
        pb.LoadAgentStateRequest(run_id="nobody's"),
        pb.LoadAgentStateRequest(run_id="run", version=99),
    ):
        await caller.call(caller.state.LoadAgentState(load, metadata=METADATA))
    # A run that somebody holds: the group gives up, and its save falls back.
    engine = create_async_engine(database_url)
    async with engine.connect() as holding:
        await holding.exec_driver_sql("select * from heads for update")
        saving = asyncio.create_task(caller.save({**STATE, "n": 3}, run_id="run"))
        await asyncio.sleep(1.0)  # longer than a group waits for a lock
        await holding.rollback()
        assert (await saving).HasField("fallback_cause")
    await engine.dispose()


async def test_no_output_holds_a_state_or_a_secret(tmp_path: Path, postgresql_url: str) -> None:
    url = make_url(postgresql_url).set(password=PASSWORD).render_as_string(hide_password=False)
    variables = {
        "ENABLE_OPTIMIZED_PERSISTENCE": "true",
        "LOG_LEVEL": "DEBUG",
        "STATEKEEP_TOKEN": TOKEN,
        "STATEKEEP_LOG_FORMAT": "json",
    }
    async with (
        cli_server(tmp_path, database_url=url, **variables) as server,
        grpc.aio.insecure_channel(server.target) as channel,
    ):
        caller = Caller(channel)
        await use_and_misuse(caller, postgresql_url)
        for call in (
            caller.admin.GetStats(admin_pb.GetStatsRequest(), metadata=METADATA),
            caller.admin.GetServerInfo(admin_pb.GetServerInfoRequest(), metadata=METADATA),
        ):
            caller.said.append(str(await call))
        assert await server.end() == 0
    lines = [json.loads(line) for line in server.log.splitlines()]
    # What was meant to be told is there, so that the search below searches something.
    messages = " ".join(line["message"] for line in lines)
    for words in ("Decided: ", "Routed: ", "Not saved: ", "Persistence metrics: skipped_save"):
        assert words in messages
    assert "Optimized persistence failed" in messages
    assert len(caller.said) > 20
    leaks = [line for line in server.log.splitlines() if CANARY in line or NAMED in line]
    leaks += [words for words in (*caller.said, server.said.decode()) if CANARY in words]
    assert not leaks
