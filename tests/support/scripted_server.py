"""A gRPC server that answers as a test tells it to, and remembers what it was asked.

It runs in threads of its own, so that the synchronous client can be tested as well.
"""

import hashlib
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2

from statekeep.v1 import admin_service_pb2, agent_state_pb2, agent_state_service_pb2

Step = Callable[[Any, grpc.ServicerContext], Any]


@dataclass(frozen=True)
class Asked:
    """One attempt of one call, as it arrived."""

    method: str
    request: Any
    metadata: Mapping[str, str | bytes]

    @property
    def previous_attempts(self) -> int:
        return int(self.metadata.get("grpc-previous-rpc-attempts", 0))


@dataclass
class ScriptedServer:
    """What to answer next, by method, and what was asked. An empty script answers plainly."""

    port: int = 0
    asked: list[Asked] = field(default_factory=list)
    scripts: dict[str, deque[Step]] = field(default_factory=lambda: defaultdict(deque))

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    def will(self, method: str, *steps: Step) -> None:
        self.scripts[method].extend(steps)

    def answer(self, method: str, request: Any, context: grpc.ServicerContext) -> Any:
        pairs = context.invocation_metadata()
        self.asked.append(Asked(method, request, dict(pairs)))
        script = self.scripts[method]
        step = script.popleft() if script else PLAIN[method]
        return step(request, context)


def fails(
    code: grpc.StatusCode,
    reason: str | None = None,
    message: str = "it failed",
    *,
    retry_after_s: float | None = None,
    domain: str = "statekeep.v1",
    **metadata: str,
) -> Step:
    """Fail a call as a server does; without a reason as something between does."""

    def step(request: Any, context: grpc.ServicerContext) -> Any:
        if reason is not None:
            status = status_pb2.Status(code=code.value[0], message=message)
            info = error_details_pb2.ErrorInfo(reason=reason, domain=domain, metadata=metadata)
            status.details.add().Pack(info)
            if retry_after_s is not None:
                delay = Duration(nanos=int(retry_after_s * 1_000_000_000))
                status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
            trailers: list[tuple[str, str | bytes]] = [
                ("grpc-status-details-bin", status.SerializeToString())
            ]
            if retry_after_s is not None:
                trailers.insert(0, ("grpc-retry-pushback-ms", str(int(retry_after_s * 1_000))))
            context.set_trailing_metadata(tuple(trailers))
        context.abort(code, message)

    return step


def answers(response: Any) -> Step:
    return lambda request, context: response


def saved(request: Any, **changes: Any) -> agent_state_service_pb2.SaveAgentStateResponse:
    """A plausible acknowledgement of a save."""
    answer: dict[str, Any] = {
        "outcome": agent_state_pb2.SAVE_OUTCOME_PERSISTED,
        "snapshot_id": "0199aaaa-0000-7000-8000-000000000001",
        "version": 1,
        "state_sha256": hashlib.sha256(request.state.data).digest(),
        "comparison_hash": b"c" * 32,
        "changed_fields": ["plan", "step"],
        "reason": agent_state_pb2.DECISION_REASON_CHANGED,
        "path": agent_state_pb2.SERVING_PATH_OPTIMIZED,
        "request_id": request.request_id,
    }
    return agent_state_service_pb2.SaveAgentStateResponse(**{**answer, **changes})


def loaded(
    data: bytes, content_type: str = "application/json", *, head_version: int = 1, **changes: Any
) -> agent_state_service_pb2.LoadAgentStateResponse:
    """A plausible answer to a load."""
    snapshot: dict[str, Any] = {
        "run_id": "run-1",
        "snapshot_id": "0199aaaa-0000-7000-8000-000000000001",
        "version": head_version,
        "checkpoint_type": agent_state_pb2.CHECKPOINT_TYPE_MANUAL,
        "content_type": content_type,
        "state_bytes": len(data),
        "state_sha256": hashlib.sha256(data).digest(),
    }
    return agent_state_service_pb2.LoadAgentStateResponse(
        snapshot=agent_state_pb2.SnapshotMetadata(**{**snapshot, **changes}),
        state=agent_state_pb2.State(data=data, content_type=content_type),
        head_version=head_version,
    )


def batch_of(request: Any) -> agent_state_service_pb2.BatchSaveAgentStatesResponse:
    return agent_state_service_pb2.BatchSaveAgentStatesResponse(
        results=[
            agent_state_service_pb2.BatchSaveResult(saved=saved(save)) for save in request.saves
        ]
    )


def saved_large(parts: Any) -> agent_state_service_pb2.SaveLargeAgentStateResponse:
    request = parts[0].save
    request.state.data = b"".join(part.chunk for part in parts[1:])
    return agent_state_service_pb2.SaveLargeAgentStateResponse(saved=saved(request))


def in_parts(
    answer: agent_state_service_pb2.LoadAgentStateResponse,
) -> list[agent_state_service_pb2.LoadLargeAgentStateResponse]:
    """The same answer in two chunks."""
    data, part = answer.state.data, agent_state_service_pb2.LoadLargeAgentStateResponse
    answer.state.data = b""
    return [part(loaded=answer), part(chunk=data[:9]), part(chunk=data[9:])]


PLAIN: Mapping[str, Step] = {
    "SaveAgentState": lambda request, context: saved(request),
    "LoadAgentState": lambda request, context: loaded(b'{"step":1}'),
    "SaveLargeAgentState": lambda request, context: saved_large(request),
    "LoadLargeAgentState": lambda request, context: in_parts(loaded(b'{"step":1}')),
    "BatchSaveAgentStates": lambda request, context: batch_of(request),
    "ListSnapshots": answers(agent_state_service_pb2.ListSnapshotsResponse()),
    "ListRuns": answers(agent_state_service_pb2.ListRunsResponse()),
    "DeleteRun": answers(agent_state_service_pb2.DeleteRunResponse(deleted_snapshots=3)),
    "GetServerInfo": answers(admin_service_pb2.GetServerInfoResponse(version="1.2.3")),
    "GetStats": answers(admin_service_pb2.GetStatsResponse()),
}


def _handlers(script: ScriptedServer, service: ServiceDescriptor) -> grpc.GenericRpcHandler:
    """Handle every method of a service by the script."""
    return grpc.method_handlers_generic_handler(
        service.full_name,
        {
            method.name: _handler(partial(script.answer, method.name), method)
            for method in service.methods
            if not (method.client_streaming and method.server_streaming)
        },
    )


def _handler(step: Step, method: MethodDescriptor) -> "grpc.RpcMethodHandler[Any, Any]":
    """Handle one method; a step sees the parts of a stream, and gives them, as a list."""
    decode = GetMessageClass(method.input_type).FromString
    encode = GetMessageClass(method.output_type).SerializeToString
    if method.client_streaming:
        return grpc.stream_unary_rpc_method_handler(
            lambda requests, context: step(list(requests), context), decode, encode
        )
    if method.server_streaming:
        return grpc.unary_stream_rpc_method_handler(
            lambda request, context: iter(step(request, context)), decode, encode
        )
    return grpc.unary_unary_rpc_method_handler(step, decode, encode)


@contextmanager
def scripted_server(
    credentials: grpc.ServerCredentials | None = None,
) -> Iterator[ScriptedServer]:
    """Serve on loopback; with TLS when credentials are given."""
    script = ScriptedServer()
    limits = [
        ("grpc.max_receive_message_length", 64 * 1024 * 1024),  # never the reason of a failure
        ("grpc.max_send_message_length", 64 * 1024 * 1024),
        ("grpc.so_reuseport", 0),
    ]
    server = grpc.server(ThreadPoolExecutor(max_workers=4), options=limits)
    files = (agent_state_service_pb2.DESCRIPTOR, admin_service_pb2.DESCRIPTOR)
    services = [service for file in files for service in file.services_by_name.values()]
    server.add_generic_rpc_handlers([_handlers(script, service) for service in services])
    if credentials is None:
        script.port = server.add_insecure_port("127.0.0.1:0")
    else:
        script.port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        yield script
    finally:
        server.stop(grace=None).wait()
