"""The loop of load, change and save that loses no writer's change."""

import grpc
import pytest

from statekeep import AsyncClient, NotFound, VersionConflict
from tests.support.scripted_server import ScriptedServer, answers, fails, loaded

NOT_FOUND = fails(grpc.StatusCode.NOT_FOUND, "RUN_NOT_FOUND", run_id="run-1")
CONFLICT = fails(
    grpc.StatusCode.ABORTED, "VERSION_CONFLICT", expected_version="4", actual_version="5"
)


async def test_update_saves_against_the_loaded_head(
    client: AsyncClient, server: ScriptedServer
) -> None:
    # The newest live snapshot may be older than the head: a later one has expired.
    answer = loaded(b'{"step":1}', head_version=5, version=3, thread_id="t", agent_phase="p")
    server.will("LoadAgentState", answers(answer))
    await client.update("run-1", lambda state: {"step": state["step"] + 1})
    request = server.asked[-1].request
    assert request.state.data == b'{"step":2}'
    assert request.expected_version == 5
    assert (request.thread_id, request.agent_phase) == ("t", "p")


async def test_update_starts_again_after_a_conflict(
    client: AsyncClient, server: ScriptedServer
) -> None:
    states = (loaded(b"[1]", head_version=4), loaded(b"[1,2]", head_version=5))
    server.will("LoadAgentState", *[answers(state) for state in states])
    server.will("SaveAgentState", CONFLICT)
    await client.update("run-1", lambda state: [*state, 9])
    saves = [asked.request for asked in server.asked if asked.method == "SaveAgentState"]
    assert [save.state.data for save in saves] == [b"[1,9]", b"[1,2,9]"]
    assert [save.expected_version for save in saves] == [4, 5]
    assert saves[0].request_id != saves[1].request_id  # another state is another save


async def test_update_of_a_new_run_expects_none(
    client: AsyncClient, server: ScriptedServer
) -> None:
    server.will("LoadAgentState", NOT_FOUND)
    await client.update("run-1", lambda state: {"first": state is None})
    request = server.asked[-1].request
    assert request.state.data == b'{"first":true}'
    assert request.HasField("expected_version")
    assert request.expected_version == 0


async def test_update_gives_up_after_its_attempts(
    client: AsyncClient, server: ScriptedServer
) -> None:
    server.will("SaveAgentState", *[CONFLICT] * 3)
    with pytest.raises(VersionConflict):
        await client.update("run-1", lambda state: state, max_attempts=2)
    assert [asked.method for asked in server.asked].count("SaveAgentState") == 2
    with pytest.raises(ValueError, match="max_attempts"):
        await client.update("run-1", lambda state: state, max_attempts=0)


async def test_update_refuses_a_change_that_gives_nothing(
    client: AsyncClient, server: ScriptedServer
) -> None:
    # `dict.update` and the like give None; saving that would wipe the state.
    with pytest.raises(TypeError, match="None instead of the new state"):
        await client.update("run-1", lambda state: state.update(step=2))
    assert [asked.method for asked in server.asked] == ["LoadAgentState"]


async def test_update_raises_other_failures(client: AsyncClient, server: ScriptedServer) -> None:
    server.will("SaveAgentState", NOT_FOUND)
    with pytest.raises(NotFound):
        await client.update("run-1", lambda state: state)
