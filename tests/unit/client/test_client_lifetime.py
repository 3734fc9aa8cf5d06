"""When a client is open, and to whom it belongs."""

import os

import pytest

from statekeep import AsyncClient, Client
from statekeep.v1 import agent_state_service_pb2
from statekeep.v1.agent_state_service_pb2_grpc import AgentStateServiceStub
from tests.support.both_clients import Kind, connect
from tests.support.scripted_server import ScriptedServer


async def test_a_client_must_be_open(server: ScriptedServer) -> None:
    with pytest.raises(RuntimeError, match="use `with Client"):
        Client(server.target).load("run-1")
    with pytest.raises(RuntimeError, match="use `async with AsyncClient"):
        await AsyncClient(server.target).load("run-1")


async def test_a_client_opens_once_at_a_time_and_again(server: ScriptedServer) -> None:
    client = AsyncClient(server.target)
    for _ in range(2):
        async with client:
            await client.load("run-1")
            with pytest.raises(RuntimeError, match="open already"):
                await client.__aenter__()
    sync_client = Client(server.target)
    for _ in range(2):
        with sync_client:
            sync_client.load("run-1")
            with pytest.raises(RuntimeError, match="open already"):
                sync_client.__enter__()


async def test_a_client_is_not_shared_over_a_fork(
    server: ScriptedServer, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connect(kind, server.target) as client:
        await client.load("run-1")
        with monkeypatch.context() as forked:
            forked.setattr(os, "getpid", lambda: -1)
            with pytest.raises(RuntimeError, match="before a fork"):
                await client.load("run-1")
        await client.load("run-1")


async def test_a_forked_process_does_not_end_its_parents_calls(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, sync_client = AsyncClient(server.target), Client(server.target)
    await client.__aenter__()
    sync_client.__enter__()
    assert client._connection is not None
    assert sync_client._connection is not None
    channel, sync_channel = client._connection.channel, sync_client._connection.channel
    with monkeypatch.context() as forked:
        forked.setattr(os, "getpid", lambda: -1)
        await client.__aexit__(None, None, None)
        sync_client.__exit__(None, None, None)
    request = agent_state_service_pb2.LoadAgentStateRequest(run_id="run-1")
    await AgentStateServiceStub(channel).LoadAgentState(request)  # the channels still work
    AgentStateServiceStub(sync_channel).LoadAgentState(request)
    await channel.close()
    sync_channel.close()
