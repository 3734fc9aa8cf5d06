"""A stream of saves: read in order, under way together, answered in order.

The reader begins each save without waiting for the ones before it, so that they share commits;
the writer sends the answers in the order of the requests. Between them stand at most
`MAX_UNDER_WAY` saves: a client that sends faster, or that does not read its answers, is no longer
read, and gRPC's flow control then holds it up.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from google.protobuf.message import DecodeError

from statekeep.v1 import agent_state_service_pb2 as pb
from statekeep_server.domain.errors import ShuttingDown, StateError
from statekeep_server.service.answers import SaveAck
from statekeep_server.transport import convert, status
from statekeep_server.transport.interceptors.errors import explain

MAX_UNDER_WAY = 64
"""Of one stream. A group takes as many, and more would only wait."""

Begin = Callable[[pb.SaveAgentStateRequest], "Awaitable[asyncio.Future[SaveAck]]"]
"""Begins a save and raises a StateError for one that is refused before."""

_METHOD = "a save of SaveAgentStateStream"


class SaveStream:
    """One stream, from its first request to its last answer.

    Args:
        begin: Begins one save.
        write: Sends one answer.
        draining: Set when the server stops: nothing more is then read.
    """

    def __init__(
        self,
        begin: Begin,
        write: Callable[[pb.SaveAgentStateStreamResponse], Awaitable[None]],
        draining: asyncio.Event,
    ) -> None:
        self._begin = begin
        self._write = write
        self._draining = draining
        self._slots = asyncio.Semaphore(MAX_UNDER_WAY)
        # As long as there are slots, and the one item that ends it.
        self._begun: asyncio.Queue[_Begun | None] = asyncio.Queue()
        self._end: StateError | DecodeError | None = None

    async def serve(self, requests: AsyncIterator[pb.SaveAgentStateStreamRequest]) -> None:
        """Answer every request that is read.

        Raises:
            ShuttingDown: The server stops; what was read has been answered.
            DecodeError: A message was none; what was read before has been answered.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                reader = tasks.create_task(self._read(requests))
                watcher = tasks.create_task(self._stop_when_draining(reader))
                await self._answer_all()
                watcher.cancel()
        except ExceptionGroup as group:
            raise group.exceptions[0] from None
        if self._end is not None:
            raise self._end

    async def _read(self, requests: AsyncIterator[pb.SaveAgentStateStreamRequest]) -> None:
        try:
            while True:
                await self._slots.acquire()
                request = await anext(requests, None)
                if request is None:
                    return
                self._begun.put_nowait(await self._begin_one(request.save))
        except DecodeError as error:
            self._end = error
        except asyncio.CancelledError:
            if not self._draining.is_set():
                raise  # the call itself is over
            self._end = ShuttingDown()
        finally:
            self._begun.put_nowait(None)

    async def _begin_one(self, request: pb.SaveAgentStateRequest) -> "_Begun":
        try:
            return _Begun(request.request_id, await self._begin(request))
        except StateError as error:
            return _Begun(request.request_id, error)

    async def _stop_when_draining(self, reader: asyncio.Task[None]) -> None:
        await self._draining.wait()
        reader.cancel()

    async def _answer_all(self) -> None:
        while (begun := await self._begun.get()) is not None:
            await self._write(await begun.answer())
            self._slots.release()


class _Begun:
    """A save that has been begun, or refused before."""

    def __init__(self, request_id: str, begun: "asyncio.Future[SaveAck] | StateError") -> None:
        self._request_id = request_id
        self._begun = begun

    async def answer(self) -> pb.SaveAgentStateStreamResponse:
        """Wait for the save's answer; a cancelled wait leaves the save alone."""
        if isinstance(self._begun, StateError):
            return self._failed(self._begun)
        await asyncio.wait([self._begun])
        error = self._begun.exception()
        if error is None:
            saved = convert.save_response(self._begun.result())
            return pb.SaveAgentStateStreamResponse(saved=saved)
        if not isinstance(error, Exception):
            raise error
        return self._failed(error)

    def _failed(self, error: Exception) -> pb.SaveAgentStateStreamResponse:
        answer = status.batch_save_error(explain(error, _METHOD))
        if self._request_id:
            answer.metadata.setdefault("request_id", self._request_id)
        return pb.SaveAgentStateStreamResponse(error=answer)
