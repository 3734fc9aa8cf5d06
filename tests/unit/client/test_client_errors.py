"""Failures by meaning: every reason of the contract, and what comes from elsewhere."""

import pickle
import socket

import grpc
import pytest

import statekeep
from statekeep import (
    AsyncClient,
    DataLoss,
    DeadlineExceeded,
    Internal,
    InvalidRequest,
    NotFound,
    Overloaded,
    Refused,
    ServerNotFound,
    StatekeepError,
    Unauthenticated,
    Unavailable,
    VersionConflict,
)
from statekeep._status import BY_REASON, _described_by_grpc
from statekeep.v1.error_reason_pb2 import ErrorReason
from tests.support.both_clients import Kind, connect
from tests.support.scripted_server import ScriptedServer, Step, fails

REASONS = [name.removeprefix("ERROR_REASON_") for name, number in ErrorReason.items() if number]


def test_every_reason_of_the_contract_has_a_meaning() -> None:
    assert set(BY_REASON) == set(REASONS)
    assert all(kind.__name__ in statekeep.__all__ for kind in BY_REASON.values())


@pytest.mark.parametrize("reason", REASONS)
async def test_a_reason_decides_whatever_the_code(
    reason: str, server: ScriptedServer, kind: Kind
) -> None:
    server.will("SaveAgentState", fails(grpc.StatusCode.UNKNOWN, reason, "in words", limit="7"))
    async with connect(kind, server.target) as client:
        with pytest.raises(StatekeepError) as caught:
            await client.save("run-1", {}, request_id="mine")
    error = caught.value
    assert type(error) is BY_REASON[reason]
    assert (error.reason, error.message, error.request_id) == (reason, "in words", "mine")
    assert error.code is grpc.StatusCode.UNKNOWN
    assert error.metadata == {"limit": "7"}
    assert str(error) == f"{reason}: in words"
    assert error.outcome_unknown is not isinstance(error, Refused)
    assert isinstance(error.__cause__, grpc.RpcError)


@pytest.mark.parametrize(
    ("code", "meaning"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, InvalidRequest),
        (grpc.StatusCode.NOT_FOUND, NotFound),
        (grpc.StatusCode.UNAUTHENTICATED, Unauthenticated),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, Overloaded),
        (grpc.StatusCode.DEADLINE_EXCEEDED, DeadlineExceeded),
        (grpc.StatusCode.DATA_LOSS, DataLoss),
        (grpc.StatusCode.INTERNAL, Internal),
        (grpc.StatusCode.ABORTED, StatekeepError),
        (grpc.StatusCode.PERMISSION_DENIED, StatekeepError),
    ],
)
@pytest.mark.parametrize("reason", [None, "FROM_THE_FUTURE"])
async def test_a_reason_that_is_missing_or_new_leaves_it_to_the_code(
    code: grpc.StatusCode,
    meaning: type[StatekeepError],
    reason: str | None,
    client: AsyncClient,
    server: ScriptedServer,
) -> None:
    server.will("LoadAgentState", fails(code, reason))
    with pytest.raises(StatekeepError) as caught:
        await client.load("run-1")
    assert type(caught.value) is meaning
    assert caught.value.reason == (reason or "")
    assert caught.value.request_id == ""


@pytest.mark.parametrize("details", [b"\xff\xff\xff", b"", b"\x1a\x02\x0a\x00"])
async def test_details_that_cannot_be_read_are_as_good_as_none(
    details: bytes, client: AsyncClient, server: ScriptedServer
) -> None:
    def step(request: object, context: grpc.ServicerContext) -> object:
        context.set_trailing_metadata((("grpc-status-details-bin", details),))
        context.abort(grpc.StatusCode.NOT_FOUND, "gone")

    server.will("LoadAgentState", step)
    with pytest.raises(NotFound, match="gone"):
        await client.load("run-1")


async def test_another_domain_is_not_ours(client: AsyncClient, server: ScriptedServer) -> None:
    code = grpc.StatusCode.ABORTED
    server.will("LoadAgentState", fails(code, "VERSION_CONFLICT", domain="elsewhere.v1"))
    with pytest.raises(StatekeepError) as caught:
        await client.load("run-1")
    assert type(caught.value) is StatekeepError


async def test_nobody_listens(kind: Kind) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        target = f"127.0.0.1:{unused.getsockname()[1]}"
        async with connect(kind, target) as client:
            with pytest.raises(ServerNotFound, match=f"no server at {target}") as caught:
                await client.save("run-1", {}, request_id="mine")
    assert "statekeep serve" in caught.value.message
    assert caught.value.request_id == "mine"
    # An attempt before the server went away may have been committed.
    assert caught.value.outcome_unknown
    assert isinstance(caught.value, Unavailable)


async def test_something_else_listens(client: AsyncClient, server: ScriptedServer) -> None:
    step = fails(grpc.StatusCode.UNIMPLEMENTED, message="Method not found!")
    server.will("GetServerInfo", step)
    with pytest.raises(StatekeepError, match="is it a statekeep server"):
        await client.server_info()


async def test_metadata_of_refusals_is_typed(client: AsyncClient, server: ScriptedServer) -> None:
    steps: list[Step] = [
        fails(grpc.StatusCode.INVALID_ARGUMENT, "STATE_TOO_LARGE", field="state.data", limit="9"),
        fails(
            grpc.StatusCode.ABORTED, "VERSION_CONFLICT", expected_version="4", actual_version="x"
        ),
    ]
    server.will("SaveAgentState", *steps)
    with pytest.raises(InvalidRequest) as caught:
        await client.save("run-1", {})
    assert (caught.value.field, caught.value.limit) == ("state.data", 9)
    with pytest.raises(VersionConflict) as conflict:
        await client.save("run-1", {})
    assert (conflict.value.expected, conflict.value.actual) == (4, None)


def test_words_of_grpc_that_are_not_known_lose_the_hint_only() -> None:
    for said, meaning in (
        ("last error: Failed to connect to remote host: Connection refused", ServerNotFound),
        ("Failed to connect to remote host: connect: No route to host (113)", ServerNotFound),
        ("DNS resolution failed for nowhere", ServerNotFound),
        ("failed to connect: Ssl handshake failed: certificate verify failed", Unavailable),
        ("Socket closed", Unavailable),
    ):
        kind, _ = _described_by_grpc(grpc.StatusCode.UNAVAILABLE, said, "host:1", 1.0)
        assert kind is meaning


def test_errors_cross_process_borders() -> None:
    error = VersionConflict(
        "somebody was faster",
        code=grpc.StatusCode.ABORTED,
        reason="VERSION_CONFLICT",
        metadata={"actual_version": "5"},
        request_id="mine",
        retry_after_s=0.5,
    )
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is VersionConflict
    assert vars(copy) == vars(error)
    assert str(copy) == str(error)
