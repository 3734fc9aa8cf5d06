"""A proxy before PostgreSQL that lets a commit happen and keeps its answer to itself."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

COMMITTED = b"C\x00\x00\x00\x0bCOMMIT\x00"
"""The server's message that a transaction was committed."""


class CommitCutter:
    """Passes everything on, until it is armed: it then cuts the connection at an answer.

    Attributes:
        port: On loopback, without TLS.
        armed: The bytes of the answer that is not passed on; None passes everything.
        after: Bytes that the server must have been sent before, so that no earlier answer counts.
        cuts: Answers that were not passed on.
    """

    def __init__(self, socket: str) -> None:
        self._socket = socket
        self.port = 0
        self.armed: bytes | None = None
        self.after = b""
        self.cuts = 0
        self._sent = False

    async def pass_on(self, caller: asyncio.StreamReader, answers: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        reader, writer = await asyncio.open_unix_connection(self._socket)
        try:
            async with asyncio.TaskGroup() as group:
                up = group.create_task(self._copy(caller, writer))
                while (data := await reader.read(65_536)) and not self._is_to_be_cut(data):
                    answers.write(data)
                up.cancel()
        finally:
            writer.close()
            answers.close()

    def _is_to_be_cut(self, data: bytes) -> bool:
        if self.armed is None or not self._sent or self.armed not in data:
            return False
        self.armed = None
        self.cuts += 1
        return True

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65_536):
                self._sent = self._sent or (self.armed is not None and self.after in data)
                writer.write(data)
        writer.close()


@asynccontextmanager
async def commit_cutter(socket: str) -> AsyncIterator[CommitCutter]:
    """Serve a proxy before the server on a Unix socket."""
    cutter = CommitCutter(socket)
    server = await asyncio.start_server(cutter.pass_on, "127.0.0.1", 0)
    cutter.port = server.sockets[0].getsockname()[1]
    async with server:
        yield cutter
