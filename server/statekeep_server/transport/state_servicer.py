"""AgentStateService: each rpc reads its request, asks the facade and writes the answer.

Errors are raised, not written: the steps around a handler give them their status.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import grpc

from statekeep.v1 import agent_state_service_pb2 as pb
from statekeep.v1 import agent_state_service_pb2_grpc
from statekeep_server.domain.errors import InvalidField, StateError
from statekeep_server.domain.limits import Limits
from statekeep_server.domain.model import RunKey, SaveCommand, Selector
from statekeep_server.domain.validation import (
    page_size,
    validate_key,
    validate_selector,
    validate_text,
)
from statekeep_server.service.answers import SaveAck
from statekeep_server.service.facade import StateFacade
from statekeep_server.transport import convert, pages, status
from statekeep_server.transport.interceptors.call import Call, current_call
from statekeep_server.transport.interceptors.errors import explain
from statekeep_server.transport.interceptors.limiter import Limiter
from statekeep_server.transport.large_states import (
    OneAtATime,
    check_fits_message,
    receive,
    send,
)
from statekeep_server.transport.save_stream import SaveStream

Context = grpc.aio.ServicerContext[Any, Any]

# ruff: noqa: N802, D102, ARG002 - the contract names, documents and shapes these methods


class StateServicer(agent_state_service_pb2_grpc.AgentStateServiceServicer):
    """The agents' service.

    Args:
        limiter: Counts each save of a stream as a call of its own would be.
        draining: Set when the server stops: streams then end.
    """

    def __init__(
        self, facade: StateFacade, limits: Limits, limiter: Limiter, draining: asyncio.Event
    ) -> None:
        self._facade = facade
        self._limits = limits
        self._limiter = limiter
        self._draining = draining
        self._one_save = OneAtATime()
        self._one_load = OneAtATime()

    async def SaveAgentState(
        self, request: pb.SaveAgentStateRequest, context: Context
    ) -> pb.SaveAgentStateResponse:
        call = current_call.get()
        command = _command(request, call)
        return convert.save_response(await self._facade.save(command, deadline_s=call.deadline_s))

    # The stubs know only servicers that yield their answers; this one writes them.
    async def SaveAgentStateStream(  # type: ignore[override]
        self, requests: AsyncIterator[pb.SaveAgentStateStreamRequest], context: Context
    ) -> None:
        call = current_call.get()

        async def begin(request: pb.SaveAgentStateRequest) -> asyncio.Future[SaveAck]:
            return await self._begin(request, call, context.time_remaining())

        # So that the client knows that it has a stream before it has an answer.
        await context.send_initial_metadata(())
        await SaveStream(begin, context.write, self._draining).serve(requests)

    async def BatchSaveAgentStates(
        self, request: pb.BatchSaveAgentStatesRequest, context: Context
    ) -> pb.BatchSaveAgentStatesResponse:
        call = current_call.get()
        answers = await self._facade.save_many(
            self._commands(request.saves, call), atomic=request.atomic, deadline_s=call.deadline_s
        )
        return pb.BatchSaveAgentStatesResponse(results=map(_batch_result, answers))

    async def LoadAgentState(
        self, request: pb.LoadAgentStateRequest, context: Context
    ) -> pb.LoadAgentStateResponse:
        call = current_call.get()
        key, selector = self._selected(request, call)
        loaded = await self._facade.load(key, selector, deadline_s=call.deadline_s)
        check_fits_message(loaded, self._limits)
        return convert.load_response(loaded)

    async def SaveLargeAgentState(
        self, requests: AsyncIterator[pb.SaveLargeAgentStateRequest], context: Context
    ) -> pb.SaveLargeAgentStateResponse:
        call = current_call.get()
        async with self._one_save.turn(call.deadline_s):
            header, state = await receive(requests, self._limits)
            command = replace(_command(header, call), state=state)
            del state
            # What is left now; the stubs do not know that there may be no deadline.
            remaining_s: float | None = context.time_remaining()
            deadline_s = call.deadline_s if remaining_s is None else remaining_s
            ack = await self._facade.save(command, deadline_s=deadline_s, large=True)
        return pb.SaveLargeAgentStateResponse(saved=convert.save_response(ack))

    # The stubs know only servicers that yield their answers; this one writes them.
    async def LoadLargeAgentState(  # type: ignore[override]
        self, request: pb.LoadLargeAgentStateRequest, context: Context
    ) -> None:
        call = current_call.get()
        key, selector = self._selected(request.load, call)
        async with self._one_load.turn(call.deadline_s):
            loaded = await self._facade.load(key, selector, deadline_s=call.deadline_s)
            await send(loaded, context.write)

    async def ListSnapshots(
        self, request: pb.ListSnapshotsRequest, context: Context
    ) -> pb.ListSnapshotsResponse:
        key = self._key(request.run_id, current_call.get())
        page = await self._facade.list_snapshots(
            key,
            limit=page_size(request.page_size),
            before_version=pages.read_snapshots_token(request.page_token, key),
        )
        return pb.ListSnapshotsResponse(
            snapshots=map(convert.snapshot_metadata, page.snapshots),
            next_page_token=pages.snapshots_token(key, page.next_before_version),
        )

    async def ListRuns(self, request: pb.ListRunsRequest, context: Context) -> pb.ListRunsResponse:
        tenant = current_call.get().tenant
        filters = request.thread_id, request.user_id
        validate_text("thread_id", request.thread_id, self._limits)
        validate_text("user_id", request.user_id, self._limits)
        page = await self._facade.list_runs(
            tenant,
            limit=page_size(request.page_size),
            thread_id=request.thread_id or None,
            user_id=request.user_id or None,
            after=pages.read_runs_token(request.page_token, tenant, *filters),
        )
        return pb.ListRunsResponse(
            runs=map(convert.run_metadata, page.runs),
            next_page_token=pages.runs_token(tenant, *filters, page.next_after),
        )

    async def DeleteRun(
        self, request: pb.DeleteRunRequest, context: Context
    ) -> pb.DeleteRunResponse:
        call = current_call.get()
        key = self._key(request.run_id, call)
        deleted = await self._facade.delete_run(key, deadline_s=call.deadline_s)
        return pb.DeleteRunResponse(deleted_snapshots=deleted)

    async def _begin(
        self, request: pb.SaveAgentStateRequest, call: Call, remaining_s: float | None
    ) -> asyncio.Future[SaveAck]:
        """Begin a save of a stream, counted until it is answered."""
        command = _command(request, call)
        size_bytes = len(command.state)
        deadline_s = call.deadline_s if remaining_s is None else min(remaining_s, call.deadline_s)
        ack: asyncio.Future[SaveAck] | None = None
        self._limiter.enter(size_bytes)
        try:
            ack = await self._facade.begin_save(command, deadline_s=deadline_s)
            ack.add_done_callback(lambda _: self._limiter.leave(size_bytes))
        finally:
            if ack is None:
                self._limiter.leave(size_bytes)
        return ack

    def _selected(self, request: pb.LoadAgentStateRequest, call: Call) -> tuple[RunKey, Selector]:
        """Read which snapshot a load asks for."""
        key = self._key(request.run_id, call)
        selector = convert.selector(request)
        validate_selector(selector, self._limits)
        return key, selector

    def _key(self, run_id: str, call: Call) -> RunKey:
        key = RunKey(call.tenant, run_id)
        validate_key(key, self._limits)
        return key

    def _commands(
        self, saves: Sequence[pb.SaveAgentStateRequest], call: Call
    ) -> list[SaveCommand | StateError]:
        """Read the saves of a batch; one that cannot be read must not fail the others."""
        limit = self._limits.max_batch_items
        if not saves:
            raise InvalidField("saves", "must not be empty")
        if len(saves) > limit:
            raise InvalidField("saves", f"must not be more than {limit}", limit=limit)
        return [_command_or_error(save, call) for save in saves]


def _command(request: pb.SaveAgentStateRequest, call: Call) -> SaveCommand:
    return convert.save_command(
        request, tenant=call.tenant, previous_attempts=call.previous_attempts
    )


def _command_or_error(request: pb.SaveAgentStateRequest, call: Call) -> SaveCommand | StateError:
    try:
        return _command(request, call)
    except InvalidField as error:
        return error


def _batch_result(answer: SaveAck | Exception) -> pb.BatchSaveResult:
    if isinstance(answer, SaveAck):
        return pb.BatchSaveResult(saved=convert.save_response(answer))
    failed = explain(answer, "an item of BatchSaveAgentStates")
    return pb.BatchSaveResult(error=status.batch_save_error(failed))
