"""States that are larger than a message may be: received and sent in chunks, one at a time.

A large state is held several times while it is saved (as chunks, whole, in its canonical form, in
the statement), so only one is saved and one is sent at a time: they bound the memory together.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

from statekeep.v1 import agent_state_service_pb2 as pb
from statekeep_server.domain.errors import DeadlineExceeded, InvalidField, StateTooLarge
from statekeep_server.domain.limits import MIB, Limits
from statekeep_server.domain.model import LoadedState
from statekeep_server.transport import convert

CHUNK_BYTES = MIB
"""Larger chunks are no faster, and each is copied as a whole."""

MAX_RECEIVE_S = 60.0
"""For the chunks of one state: others wait for it. 64 MiB take so long at 9 Mbit/s."""

MAX_SEND_S = 60.0
"""For those that are sent: a client that reads no further makes others wait too."""


class OneAtATime:
    """Lets one call at a time work on a large state."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def turn(self, deadline_s: float) -> AsyncIterator[None]:
        """Wait for the turn and hold it.

        Raises:
            DeadlineExceeded: It did not come within the deadline.
        """
        try:
            async with asyncio.timeout(deadline_s):
                await self._lock.acquire()
        except TimeoutError:
            raise DeadlineExceeded("other large states took all the time") from None
        try:
            yield
        finally:
            self._lock.release()


async def receive(
    requests: AsyncIterator[pb.SaveLargeAgentStateRequest], limits: Limits
) -> tuple[pb.SaveAgentStateRequest, bytes]:
    """Receive a save and the data of its state.

    Raises:
        InvalidField: The parts are not those of a large save.
        StateTooLarge: There are too many bytes; the rest is not received.
        DeadlineExceeded: They did not come in time.
    """
    try:
        async with asyncio.timeout(MAX_RECEIVE_S):
            return await _receive(requests, limits)
    except TimeoutError:
        raise DeadlineExceeded(f"the chunks took longer than {MAX_RECEIVE_S:g} s") from None


async def _receive(
    requests: AsyncIterator[pb.SaveLargeAgentStateRequest], limits: Limits
) -> tuple[pb.SaveAgentStateRequest, bytes]:
    first = await anext(requests, None)
    if first is None or first.WhichOneof("part") != "save":
        raise InvalidField("save", "must come first")
    header = first.save
    if header.state.data:
        raise InvalidField("save.state.data", "must be empty: it comes in chunks")
    header.state.SetInParent()
    chunks: list[bytes] = []
    size = 0
    async for request in requests:
        if request.WhichOneof("part") != "chunk":
            raise InvalidField("chunk", "must follow: there is one save per call")
        chunk = request.chunk
        if len(chunk) > CHUNK_BYTES:
            raise InvalidField("chunk", f"must not be over {CHUNK_BYTES} bytes", limit=CHUNK_BYTES)
        size += len(chunk)
        if size > limits.max_large_state_bytes:
            limit = limits.max_large_state_bytes
            message = f"has more than {limit} bytes, which is the limit"
            raise StateTooLarge("state.data", message, size=size, limit=limit)
        chunks.append(chunk)
    return header, b"".join(chunks)


def _parts(loaded: LoadedState) -> Iterator[pb.LoadLargeAgentStateResponse]:
    """Cut a loaded state into messages: the snapshot, then its data."""
    yield pb.LoadLargeAgentStateResponse(loaded=convert.load_response(loaded, with_data=False))
    state = memoryview(loaded.snapshot.state or b"")
    for start in range(0, len(state), CHUNK_BYTES):
        yield pb.LoadLargeAgentStateResponse(chunk=bytes(state[start : start + CHUNK_BYTES]))


async def send(
    loaded: LoadedState, write: Callable[[pb.LoadLargeAgentStateResponse], Awaitable[None]]
) -> None:
    """Send a loaded state in parts.

    Raises:
        DeadlineExceeded: They were not read in time.
    """
    try:
        async with asyncio.timeout(MAX_SEND_S):
            for part in _parts(loaded):
                await write(part)
    except TimeoutError:
        raise DeadlineExceeded(f"the chunks were not read within {MAX_SEND_S:g} s") from None


def check_fits_message(loaded: LoadedState, limits: Limits) -> None:
    """Refuse to send a state in one message that many clients would not receive.

    Raises:
        StateTooLarge: It is over the limit of what may be saved in one message.
    """
    size = loaded.snapshot.state_bytes
    limit = limits.max_state_bytes
    if size > limit:
        message = f"has {size} bytes, a message takes {limit}: use LoadLargeAgentState"
        raise StateTooLarge("state.data", message, size=size, limit=limit)
