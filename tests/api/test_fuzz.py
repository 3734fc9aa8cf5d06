"""Nonsense as messages: every call ends with an answer or a refusal, and the server lives."""

import asyncio
import logging
import random
from typing import Any

import grpc
import pytest
from grpc import StatusCode

from statekeep.v1 import agent_state_pb2
from statekeep.v1 import agent_state_service_pb2 as pb
from tests.support.wire import Wire, new_run, opened, refusal, save_request

STATE = "/statekeep.v1.AgentStateService/"
ADMIN = "/statekeep.v1.AdminService/"
EXPECTED = {StatusCode.INVALID_ARGUMENT, StatusCode.NOT_FOUND, StatusCode.ABORTED}
UNKNOWN_FIELD = b"\xfa\x3e\x05extra"  # field 1007, five bytes

SAVE_REQUEST = save_request(
    {"a": [1, 2.5, "x", None, {"b": True}]},
    run_id="run-fuzz",
    execution_context={"k": "v"},
    ignored_fields=["at"],
    expected_version=0,
)
SEEDS: dict[str, Any] = {
    f"{STATE}SaveAgentState": SAVE_REQUEST,
    f"{STATE}BatchSaveAgentStates": pb.BatchSaveAgentStatesRequest(
        saves=[SAVE_REQUEST, SAVE_REQUEST], atomic=True
    ),
    f"{STATE}LoadAgentState": pb.LoadAgentStateRequest(run_id="run-fuzz", version=1),
    f"{STATE}ListSnapshots": pb.ListSnapshotsRequest(run_id="run-fuzz", page_token="abc"),
    f"{STATE}ListRuns": pb.ListRunsRequest(thread_id="t", page_size=3, page_token="abc"),
    f"{STATE}DeleteRun": pb.DeleteRunRequest(run_id="run-fuzz"),
    f"{ADMIN}GetServerInfo": pb.DeleteRunRequest(run_id="anything"),
    f"{ADMIN}GetStats": pb.DeleteRunRequest(run_id="anything"),
}


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture
def wire(shared_wire: Wire) -> Wire:
    """One server takes it all."""
    return shared_wire


def noise(rng: random.Random, seed: bytes) -> bytes:
    """Make nothing but noise, or a message with some."""
    if rng.random() < 0.3:
        return rng.randbytes(rng.randrange(200))
    data = bytearray(seed)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(data) + 1)
        match rng.randrange(3):
            case 0:
                data[place : place + 1] = rng.randbytes(1)
            case 1:
                data[place:place] = rng.randbytes(rng.randrange(1, 9))
            case _:
                del data[place : place + rng.randrange(1, 9)]
    return bytes(data)


@pytest.mark.parametrize("method", SEEDS)
async def test_noise_does_not_kill_the_server(wire: Wire, method: str) -> None:
    rng = random.Random(method)
    seed = SEEDS[method].SerializeToString()
    for _ in range(10):
        calls = [wire.raw(method)(noise(rng, seed)) for _ in range(20)]
        for answer in await asyncio.gather(*calls, return_exceptions=True):
            if isinstance(answer, grpc.aio.AioRpcError):
                assert answer.code() in EXPECTED, answer
                assert opened(answer).reason
            else:
                assert isinstance(answer, bytes)
    await wire.works()


async def test_noise_to_health_is_refused_and_not_logged(
    wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for method in ("Check", "List", "Watch"):
        path = f"/grpc.health.v1.Health/{method}"
        watch: Any = wire.channel.unary_stream(path)
        call = watch(b"\xff\xff").read() if method == "Watch" else wire.raw(path)(b"\xff\xff")
        refused = await refusal(call)
        assert (refused.code, refused.field) == (StatusCode.INVALID_ARGUMENT, "request")
    await wire.works()
    assert not caplog.records


async def test_fields_of_a_later_contract_are_passed_over(wire: Wire) -> None:
    run_id = new_run()
    request = save_request({"a": 1}, run_id=run_id).SerializeToString()
    raw = await wire.raw(f"{STATE}SaveAgentState")(request + UNKNOWN_FIELD)
    answer = pb.SaveAgentStateResponse.FromString(raw)
    assert answer.outcome == agent_state_pb2.SAVE_OUTCOME_PERSISTED
    raw = await wire.raw(f"{ADMIN}GetStats")(UNKNOWN_FIELD)
    assert raw
    await wire.works()


@pytest.mark.parametrize("seed", range(4))
async def test_random_bytes_as_states_are_answered_alike_on_every_type(
    wire: Wire, seed: int
) -> None:
    rng = random.Random(seed)
    states = [noise(rng, SAVE_REQUEST.state.data) for _ in range(100)]
    opaque = pb.BatchSaveAgentStatesRequest(
        saves=[
            save_request(
                state, run_id=f"opaque-{seed}-{n}", content_type="application/octet-stream"
            )
            for n, state in enumerate(states)
        ]
    )
    kept = (await wire.state.BatchSaveAgentStates(opaque)).results
    assert all(result.saved.version == 1 for result in kept)
    as_json = pb.BatchSaveAgentStatesRequest(
        saves=[save_request(state, run_id=f"json-{seed}-{n}") for n, state in enumerate(states)]
    )
    for result in (await wire.state.BatchSaveAgentStates(as_json)).results:
        assert result.saved.version == 1 or result.error.reason.startswith("STATE_")
    for n, state in enumerate(states):
        loaded = await wire.state.LoadAgentState(
            pb.LoadAgentStateRequest(run_id=f"opaque-{seed}-{n}")
        )
        assert loaded.state.data == state
    await wire.works()
