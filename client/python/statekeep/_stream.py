"""Many saves over one call, each answered in its turn. For the asynchronous client only.

A stream pays because saves do not wait for each other, and a synchronous program waits for every
call: there, `save_many` is the way to send many saves at once.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Generator
from types import TracebackType
from typing import Any, Self, Unpack

import grpc
import grpc.aio

from statekeep._answers import save_result
from statekeep._config import ClientConfig, positive_s
from statekeep._errors import Internal, StatekeepError
from statekeep._metadata import Inject, call_metadata
from statekeep._requests import save_request
from statekeep._status import error_of_call, error_of_item
from statekeep._types import Save, SaveOptions, SaveResult
from statekeep.v1.agent_state_service_pb2 import (
    SaveAgentStateStreamRequest,
    SaveAgentStateStreamResponse,
)

MAX_FAILURES = 100
"""So many failures are kept to be raised at the end; the first that nobody saw is enough."""


class StreamedSave:
    """A save that was sent. Awaiting it gives its result, or raises why it failed."""

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        self._answer: asyncio.Future[SaveResult | StatekeepError] = (
            asyncio.get_running_loop().create_future()
        )
        self._seen = False

    def __await__(self) -> Generator[Any, None, SaveResult]:
        self._seen = True
        # Shielded: whoever gives up waiting does not take the answer from the others.
        answer = yield from asyncio.shield(self._answer).__await__()
        if isinstance(answer, StatekeepError):
            raise answer
        return answer

    @property
    def done(self) -> bool:
        """Whether its answer is there."""
        return self._answer.done()

    def answer(self, answer: SaveResult | StatekeepError) -> None:
        """Take the answer; the stream gives it."""
        self._answer.set_result(answer)

    def unseen_failure(self) -> StatekeepError | None:
        """Give the error that nobody has asked for."""
        if self._seen or not self.done:
            return None
        answer = self._answer.result()
        return answer if isinstance(answer, StatekeepError) else None


class SaveStream:
    """A stream of saves, open while its context is.

    Saves are applied and answered in the order in which they are sent; each stands for itself.
    Leaving the context waits for all answers. It then raises the first failure that nobody
    awaited, so that none goes unnoticed. An error inside ends the stream at once, and what was
    sent by then may have been saved or not.
    """

    def __init__(
        self,
        method: Callable[..., "grpc.aio.StreamStreamCall[Any, Any]"],
        config: ClientConfig,
        inject: Inject | None,
        timeout_s: float | None,
    ) -> None:
        self._method = method
        self._config = config
        self._inject = inject
        self._timeout_s = None if timeout_s is None else positive_s(timeout_s)
        self._call: grpc.aio.StreamStreamCall[Any, Any] | None = None
        self._reader: asyncio.Task[None] | None = None
        self._writing = asyncio.Lock()
        self._waiting: deque[StreamedSave] = deque()
        self._failures: list[StreamedSave] = []
        self._ended: grpc.RpcError | None = None

    async def __aenter__(self) -> Self:
        if self._call is not None:
            raise RuntimeError("this stream was opened before: ask the client for another")
        metadata = call_metadata(self._config, self._inject)
        self._call = self._method(timeout=self._timeout_s, metadata=metadata)
        self._reader = asyncio.create_task(self._read(self._call))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        call, reader = self._call, self._reader
        if call is None or reader is None:
            return
        if error is not None:
            call.cancel()
            await asyncio.wait([reader])
            return
        if not call.done():
            await call.done_writing()
        try:
            await asyncio.shield(reader)
        except asyncio.CancelledError:
            call.cancel()
            await asyncio.wait([reader])
            raise
        for failed in self._failures:
            if (failure := failed.unseen_failure()) is not None:
                raise failure

    async def save(self, run_id: str, state: Any, **options: Unpack[SaveOptions]) -> StreamedSave:
        """Send a save, with the options that the client's `save` has; return without its answer.

        Waits while the server has as many saves of the stream under way as it takes.

        Raises:
            InvalidRequest: The save cannot be sent; nothing was, and the stream goes on.
            Unavailable: The stream has ended, most likely because its server stops. Send what has
                no result again on another stream, with the same request ids.
            TypeError, ValueError: As the client's `save` does.
        """
        save = Save(run_id, state, **options)
        message = SaveAgentStateStreamRequest(save=save_request(save))
        if self._call is None or self._reader is None:
            raise RuntimeError("this stream is not open: use `async with client.stream() as …:`")
        sent = StreamedSave(save.request_id)
        async with self._writing:
            if self._reader.done():
                raise self._why(save.request_id)
            try:
                # Whoever gives up before there is a connection has sent nothing, and may go on.
                await self._call.wait_for_connection()
                # From here on giving up ends the whole stream: a part may be sent.
                self._waiting.append(sent)
                await self._call.write(message)
            except (grpc.RpcError, asyncio.InvalidStateError) as failure:
                await asyncio.wait([self._reader])  # it knows why, and has told the save
                raise self._why(save.request_id) from failure
        return sent

    def _why(self, request_id: str) -> StatekeepError:
        """Say why a save can no longer be sent."""
        if self._ended is not None:
            return error_of_call(
                self._ended,
                target=self._config.target,
                timeout_s=self._timeout_s or 0.0,
                request_id=request_id,
            )
        return Internal("the stream has ended", request_id=request_id)

    async def _read(self, call: "grpc.aio.StreamStreamCall[Any, Any]") -> None:
        try:
            async for response in call:
                self._answer(response)
        except grpc.RpcError as failure:
            self._ended = failure
        except asyncio.CancelledError:
            if not call.cancelled():
                call.cancel()
        while self._waiting:
            waiting = self._waiting.popleft()
            self._give(waiting, self._why(waiting.request_id))

    def _answer(self, response: SaveAgentStateStreamResponse) -> None:
        waiting = self._waiting.popleft()
        if response.HasField("saved"):
            self._give(waiting, save_result(response.saved))
        else:
            self._give(waiting, error_of_item(response.error, request_id=waiting.request_id))

    def _give(self, waiting: StreamedSave, answer: SaveResult | StatekeepError) -> None:
        waiting.answer(answer)
        if isinstance(answer, StatekeepError):
            if len(self._failures) >= MAX_FAILURES:
                self._failures = [one for one in self._failures if one.unseen_failure()]
            if len(self._failures) < MAX_FAILURES:
                self._failures.append(waiting)
