"""The asynchronous client, from which tools/unasync.py generates the synchronous one."""

import asyncio
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

import grpc
import grpc.aio

from statekeep._answers import (
    batch_results,
    failed_save,
    loaded_parts,
    loaded_state,
    run_metadata,
    save_result,
    snapshot_metadata,
)
from statekeep._async_admin import AsyncAdminCalls
from statekeep._channel import open_async_channel
from statekeep._config import DEFAULT_TIMEOUT_S, MetadataHook, Tls, positive_s, resolve
from statekeep._errors import InvalidRequest, NotFound, StatekeepError, VersionConflict
from statekeep._ids import new_request_id
from statekeep._metadata import Inject, call_metadata, find_inject
from statekeep._pacing import conflict_delay_s
from statekeep._pipeline import AsyncPipeline
from statekeep._requests import (
    any_save_request,
    delete_run_request,
    is_large,
    large_parts,
    list_runs_request,
    list_snapshots_request,
    load_large_request,
    load_request,
    make_batch,
    standing_options,
)
from statekeep._status import error_of_call
from statekeep._stream import SaveStream
from statekeep._tracing import call_span, find_trace
from statekeep._types import (
    CheckpointType,
    CheckpointTypeName,
    LoadedState,
    RunMetadata,
    Save,
    SaveResult,
    SnapshotMetadata,
)
from statekeep.v1.admin_service_pb2_grpc import AdminServiceStub
from statekeep.v1.agent_state_service_pb2 import (
    LoadLargeAgentStateRequest,
    LoadLargeAgentStateResponse,
    SaveAgentStateResponse,
)
from statekeep.v1.agent_state_service_pb2_grpc import AgentStateServiceStub

if TYPE_CHECKING:  # these names exist in the stubs' types only
    from statekeep.v1.admin_service_pb2_grpc import AdminServiceAsyncStub
    from statekeep.v1.agent_state_service_pb2_grpc import AgentStateServiceAsyncStub

T = TypeVar("T")
R = TypeVar("R")

UPDATE_ATTEMPTS = 10
"""Ten writers that all update one run in a loop still get through; more want another design."""


@dataclass(frozen=True, slots=True)
class _Connection:
    """What `async with` opens. It belongs to the process that opened it."""

    channel: grpc.aio.Channel
    states: "AgentStateServiceAsyncStub"
    admin: "AdminServiceAsyncStub"
    inject: Inject | None
    trace: Any
    process: int


class AsyncClient(AsyncAdminCalls):
    """Saves and loads the states of agents.

        async with AsyncClient("127.0.0.1:50551") as client:
            await client.save("run-1", {"step": 1})
            loaded = await client.load("run-1")

    The connection is made by the first call and shared by all; any number of tasks of one event
    loop may use it. A process that forks opens a client on each side.

    Calls that fail with UNAVAILABLE are repeated up to three times within their timeout; a save
    carries the same request id in all attempts and happens once. Every failure is a
    `StatekeepError`. Cancelling a call does not undo what the server has begun: give a save a
    `request_id` of your own to be able to repeat it.

    Args:
        target: Host and port, or any other gRPC target. Default: `STATEKEEP_TARGET`, then
            127.0.0.1:50551.
        token: Sent with every call. Default: `STATEKEEP_TOKEN`.
        tls: True for the system's certificates, the path of a PEM file to trust, credentials
            made by hand, or False for plaintext. Default: the path in `STATEKEEP_TLS_CA`.
        tenant: For servers in development that take it from the caller.
        timeout_s: Of every call that names none, all its attempts together.
        metadata: Called for every call; gives pairs to send along, for example a token that
            changes.
        insecure: Whether the token may travel in plaintext beyond this machine.

    Raises:
        ValueError: An argument is impossible.
    """

    def __init__(
        self,
        target: str | None = None,
        *,
        token: str | None = None,
        tls: Tls | None = None,
        tenant: str | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        metadata: MetadataHook | None = None,
        insecure: bool = False,
    ) -> None:
        self._config = resolve(
            target,
            token=token,
            tls=tls,
            tenant=tenant,
            timeout_s=timeout_s,
            metadata=metadata,
            insecure=insecure,
        )
        self._connection: _Connection | None = None

    async def __aenter__(self) -> Self:
        if self._connection is not None:
            raise RuntimeError("this client is open already")
        channel = open_async_channel(self._config)
        self._connection = _Connection(
            channel=channel,
            states=AgentStateServiceStub(channel),
            admin=AdminServiceStub(channel),
            inject=find_inject(),
            trace=find_trace(),
            process=os.getpid(),
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        connection, self._connection = self._connection, None
        if connection is not None and connection.process == os.getpid():
            await connection.channel.close()

    async def save(
        self,
        run_id: str,
        state: Any,
        *,
        checkpoint_type: CheckpointType | CheckpointTypeName = CheckpointType.MANUAL,
        thread_id: str = "",
        user_id: str = "",
        agent_phase: str = "",
        execution_context: Mapping[str, str] | None = None,
        is_recovery_point: bool = False,
        expires_at: datetime | timedelta | None = None,
        request_id: str | None = None,
        attempt: int = 1,
        expected_version: int | None = None,
        ignored_fields: Sequence[str] = (),
        writer_sequence: int | None = None,
        content_type: str = "",
        write_behind: bool = False,
        timeout_s: float | None = None,
    ) -> SaveResult:
        """Save a state. When this returns, it is durable, unless it was allowed to be BUFFERED.

        Args:
            run_id: The run that the state belongs to.
            state: A JSON value, a dataclass, a pydantic model, or bytes. It is encoded before
                anything is sent, so it may change while the call is under way.
            checkpoint_type: MANUAL is always persisted. Say AUTO in a loop that saves around
                every step: then a save without a meaningful change costs nothing.
            thread_id: The conversation that the run is part of.
            user_id: The user that the run serves.
            agent_phase: What the agent is at, free text. A change of phase is a change.
            execution_context: Small facts about the execution, text to text.
            is_recovery_point: Marks a point to recover from; always persisted.
            expires_at: When the snapshot stops being returned: a moment, or how long from now.
            request_id: Names this save in all its attempts; made up when not given.
            attempt: Raise it when the application itself tries again with the same `request_id`.
            expected_version: Fails with VersionConflict unless the run's head has this version; 0
                for a run without a standing snapshot.
            ignored_fields: Names and JSON Pointers that make no difference, as the server's list.
            writer_sequence: Fails with StaleWriter if a save with a higher number came before.
            content_type: Of bytes; `application/octet-stream` unless given.
            write_behind: Allows the server to answer BUFFERED and write the state, or a newer
                one, a moment later; a crash loses it. For AUTO and INTERMEDIATE alone.
            timeout_s: Of all attempts together; the client's when not given.

        Raises:
            StatekeepError: The save failed; `request_id` tells how to repeat it.
            TypeError: The state, or an argument, has a type that cannot be sent.
            ValueError: An argument is impossible.
        """
        save = Save(
            run_id,
            state,
            checkpoint_type=checkpoint_type,
            thread_id=thread_id,
            user_id=user_id,
            agent_phase=agent_phase,
            execution_context=execution_context or {},
            is_recovery_point=is_recovery_point,
            expires_at=expires_at,
            request_id=request_id or new_request_id(),
            attempt=attempt,
            expected_version=expected_version,
            ignored_fields=ignored_fields,
            writer_sequence=writer_sequence,
            content_type=content_type,
            write_behind=write_behind,
        )
        return save_result(await self._send(save, timeout_s))

    async def _send(self, save: Save, timeout_s: float | None) -> SaveAgentStateResponse:
        request, states = any_save_request(save), self._opened().states
        if not is_large(request):
            return await self._call(states.SaveAgentState, request, timeout_s, save.request_id)
        parts, method = large_parts(request), states.SaveLargeAgentState
        return (await self._call(method, parts, timeout_s, save.request_id)).saved

    async def save_many(
        self,
        saves: Sequence[Save],
        *,
        atomic: bool = False,
        attempt: int | None = None,
        timeout_s: float | None = None,
    ) -> list[SaveResult | StatekeepError]:
        """Save many states in one call; the i-th answer is that of the i-th save.

        Saves of one run are applied in their order. Without `atomic` each stands for itself: a
        failed one answers with its error, the others are kept. With it all are kept or none, and
        the first error is raised, with the request id of its save.

        A batch that failed as a whole is repeated with the same `Save` values and a higher
        `attempt`, which then counts for all of them: what was saved is not saved again.

        Raises:
            StatekeepError: The whole call failed.
            TypeError, ValueError: As `save` does.
        """
        batch = make_batch(saves, atomic=atomic, attempt=attempt)
        if saves and len(batch.refused) == len(saves):
            return [batch.refused[index] for index in range(len(saves))]  # nothing is left to send
        method = self._opened().states.BatchSaveAgentStates
        try:
            response = await self._call(method, batch.request, timeout_s)
        except StatekeepError as error:
            error.request_id = failed_save(error, saves)
            raise
        return batch_results(response, saves, batch.refused)

    def pipeline(self, run_id: str, *, timeout_s: float | None = None) -> AsyncPipeline:
        """Hold the states of many steps here, and write once at the end, all or none.

            async with client.pipeline("run-1") as pipeline:
                pipeline.save({"step": 1})

        An error inside, or the end of the process, leaves nothing. See `PipelineSaves`.
        """
        return AsyncPipeline(partial(self.save_many, atomic=True, timeout_s=timeout_s), run_id)

    # Only asynchronous.
    def stream(self, *, timeout_s: float | None = None) -> SaveStream:
        """Open a stream of saves, for many saves that need not wait for each other.

            async with client.stream() as stream:
                sent = [await stream.save("run-1", {"step": step}) for step in range(100)]
            results = [await save for save in sent]

        Nothing is retried; `timeout_s` is that of the whole stream. See `SaveStream`.
        """
        connection = self._opened()
        method = connection.states.SaveAgentStateStream
        return SaveStream(method, self._config, connection.inject, timeout_s)

    # Both ways again.
    @overload
    async def load(
        self,
        run_id: str,
        *,
        version: int | None = None,
        snapshot_id: str | None = None,
        as_: Callable[..., T],
        timeout_s: float | None = None,
    ) -> LoadedState[T]: ...

    @overload
    async def load(
        self,
        run_id: str,
        *,
        version: int | None = None,
        snapshot_id: str | None = None,
        as_: None = None,
        timeout_s: float | None = None,
    ) -> LoadedState[Any]: ...

    async def load(
        self,
        run_id: str,
        *,
        version: int | None = None,
        snapshot_id: str | None = None,
        as_: Callable[..., Any] | None = None,
        timeout_s: float | None = None,
    ) -> LoadedState[Any]:
        """Load a snapshot of a run: the newest, or the one with a version or an id.

        Args:
            run_id: The run.
            version: The snapshot with this version.
            snapshot_id: The snapshot with this id.
            as_: A dataclass, a pydantic model, or a callable that makes the state of the decoded
                JSON value.
            timeout_s: Of all attempts together; the client's when not given.

        Raises:
            NotFound: There is none, it has expired, or it belongs to another run.
            DataLoss: The bytes do not match their SHA-256.
            StatekeepError: The call failed.
            TypeError, ValueError: The state does not fit `as_`.
        """
        request = load_request(run_id, version=version, snapshot_id=snapshot_id)
        method = self._opened().states.LoadAgentState
        try:
            return loaded_state(await self._call(method, request, timeout_s), as_)
        except InvalidRequest as error:
            if error.reason != "STATE_TOO_LARGE":
                raise
        return loaded_parts(await self._load_parts(load_large_request(request), timeout_s), as_)

    async def _load_parts(
        self, request: LoadLargeAgentStateRequest, timeout_s: float | None
    ) -> list[LoadLargeAgentStateResponse]:
        timeout_s = self._config.timeout_s if timeout_s is None else positive_s(timeout_s)
        connection = self._opened()
        method = connection.states.LoadLargeAgentState
        with call_span(connection.trace, method):
            metadata = call_metadata(self._config, connection.inject)
            try:
                call = method(request, timeout=timeout_s, metadata=metadata)
                return [part async for part in call]
            except grpc.RpcError as failure:
                raise error_of_call(
                    failure, target=self._config.target, timeout_s=timeout_s
                ) from failure

    async def update(
        self,
        run_id: str,
        change: Callable[[Any], Any],
        *,
        as_: Callable[..., Any] | None = None,
        checkpoint_type: CheckpointType | CheckpointTypeName = CheckpointType.MANUAL,
        max_attempts: int = UPDATE_ATTEMPTS,
        timeout_s: float | None = None,
    ) -> SaveResult:
        """Load the newest state, change it and save it, unless another writer was faster.

        Then it starts again, so that no writer's change is lost: `change` may be called several
        times and must have no other effect. It gets the state, or None for a run that has none,
        and gives the new state. Thread, user, phase and execution context stay as they are.

        `timeout_s` is that of each call.

        Raises:
            VersionConflict: Others were faster `max_attempts` times.
            StatekeepError: A call failed.
            TypeError: `change` gave None, as functions do that change their argument only.
        """
        for conflicts in range(max_attempts):
            loaded: LoadedState[Any] | None = None
            with suppress(NotFound):
                loaded = await self.load(run_id, as_=as_, timeout_s=timeout_s)
            state = change(None if loaded is None else loaded.state)
            if state is None:
                raise TypeError("the change gave None instead of the new state")
            about = {} if loaded is None else standing_options(loaded.snapshot)
            try:
                return await self.save(
                    run_id,
                    state,
                    checkpoint_type=checkpoint_type,
                    expected_version=0 if loaded is None else loaded.head_version,
                    timeout_s=timeout_s,
                    **about,
                )
            except VersionConflict:
                if conflicts + 1 >= max_attempts:
                    raise
                await asyncio.sleep(conflict_delay_s(conflicts, random.random))
        raise ValueError(f"max_attempts: {max_attempts} allows none")

    async def list_snapshots(
        self, run_id: str, *, page_size: int = 0, timeout_s: float | None = None
    ) -> AsyncIterator[SnapshotMetadata]:
        """List the live snapshots of a run, newest first, without their states.

        Pages of `page_size` are fetched as the iteration reaches them (0: as the server likes).
        `timeout_s` is that of each page.
        """
        request = list_snapshots_request(run_id, page_size=page_size)
        while True:
            method = self._opened().states.ListSnapshots
            page = await self._call(method, request, timeout_s)
            for message in page.snapshots:
                yield snapshot_metadata(message)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def list_runs(
        self,
        *,
        thread_id: str = "",
        user_id: str = "",
        page_size: int = 0,
        timeout_s: float | None = None,
    ) -> AsyncIterator[RunMetadata]:
        """List runs by their newest write, newest first, all or those of a thread or user.

        Pages as `list_snapshots` does.
        """
        request = list_runs_request(thread_id=thread_id, user_id=user_id, page_size=page_size)
        while True:
            method = self._opened().states.ListRuns
            page = await self._call(method, request, timeout_s)
            for message in page.runs:
                yield run_metadata(message)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def delete_run(self, run_id: str, *, timeout_s: float | None = None) -> int:
        """Delete every snapshot of a run and say how many there were; 0 if it has none."""
        method = self._opened().states.DeleteRun
        response = await self._call(method, delete_run_request(run_id), timeout_s)
        return response.deleted_snapshots

    def _admin(self) -> "AdminServiceAsyncStub":
        return self._opened().admin

    async def _call(
        self,
        method: Callable[..., Awaitable[R]],
        request: object,
        timeout_s: float | None,
        request_id: str = "",
    ) -> R:
        timeout_s = self._config.timeout_s if timeout_s is None else positive_s(timeout_s)
        connection = self._opened()
        with call_span(connection.trace, method):
            metadata = call_metadata(self._config, connection.inject)
            try:
                return await method(request, timeout=timeout_s, metadata=metadata)
            except grpc.RpcError as failure:
                raise error_of_call(
                    failure,
                    target=self._config.target,
                    timeout_s=timeout_s,
                    request_id=request_id,
                ) from failure

    def _opened(self) -> _Connection:
        if self._connection is None:
            raise RuntimeError(
                "this client is not open: use `async with AsyncClient(…) as client:`"
            )
        if self._connection.process != os.getpid():
            raise RuntimeError("this client was opened before a fork: open one in each process")
        return self._connection
