"""Workers of one server tell each other what they counted, so that any of them answers for all.

Each listens on a Unix socket in a folder that is theirs alone. Whoever connects is told a number of
bytes (four, big-endian) and a `GetStatsResponse` of that length. A worker that does not answer soon
is left out and counted as silent: it is being started again, or its machine is busy.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from statekeep.v1 import admin_service_pb2 as pb
from statekeep_server.config import Worker
from statekeep_server.transport.listen import CannotServe
from statekeep_server.transport.sums import summed

ANSWER_TIMEOUT_S = 1.0
"""An idle worker answers in a millisecond; operators wait no longer than this for a hung one."""
LENGTH_BYTES = 4


@asynccontextmanager
async def telling(
    worker: Worker | None, counted: Callable[[], pb.GetStatsResponse]
) -> AsyncIterator[None]:
    """Tell colleagues what this worker counted. Without any, there is nobody to tell.

    Raises CannotServe when the socket cannot be made.
    """
    if worker is None:
        yield
        return

    async def tell(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answer = counted().SerializeToString()
        with contextlib.suppress(ConnectionError):  # a colleague that went away
            writer.write(len(answer).to_bytes(LENGTH_BYTES, "big") + answer)
            await writer.drain()
        writer.close()

    path = _socket(worker, worker.index)
    path.unlink(missing_ok=True)  # a crash leaves it behind
    try:
        server = await asyncio.start_unix_server(tell, path)
    except OSError as error:
        raise CannotServe(f"cannot listen on {path}: {error.strerror or error}") from error
    async with server:
        yield


async def with_colleagues(worker: Worker | None, own: pb.GetStatsResponse) -> pb.GetStatsResponse:
    """Sum what this worker counted and what its colleagues say."""
    if worker is None:
        return own
    others = [index for index in range(worker.count) if index != worker.index]
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(_ask(_socket(worker, index))) for index in others]
    answers = [answer for task in asked if (answer := task.result()) is not None]
    return summed([own, *answers], silent=len(others) - len(answers))


async def _ask(path: Path) -> pb.GetStatsResponse | None:
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                length = await reader.readexactly(LENGTH_BYTES)
                answer = await reader.readexactly(int.from_bytes(length, "big"))
            finally:
                writer.close()
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return None
    return pb.GetStatsResponse.FromString(answer)


def _socket(worker: Worker, index: int) -> Path:
    return Path(worker.folder) / f"{index}.sock"
