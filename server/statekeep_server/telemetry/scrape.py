"""`GET /metrics` for Prometheus: one page, on a port of its own, without TLS and without a token.

A small HTTP/1.1 server of our own: the page is made on the event loop, where its numbers are
counted, and nothing else is ever served.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

MAX_REQUEST_BYTES = 16 * 1024
"""Browsers send a few kilobytes of headers."""
REQUEST_TIMEOUT_S = 5.0
MAX_CONNECTIONS = 16
"""More than the scrapers of a fleet; the rest are turned away, so that none can fill the memory."""

Page = Callable[[bool], tuple[str, str]]
"""Makes the page; told whether OpenMetrics is understood, it returns its type and its text."""


class CannotListen(Exception):
    """The port of the metrics is taken, or may not be used."""


@asynccontextmanager
async def scraped(host: str, port: int, page: Page) -> AsyncIterator[int]:
    """Serve the page while the context is open; yield the port.

    Raises CannotListen.
    """
    open_now = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal open_now
        open_now += 1
        try:
            if open_now <= MAX_CONNECTIONS:
                await _answer(reader, writer, page)
        finally:
            open_now -= 1
            writer.close()

    try:
        server = await asyncio.start_server(serve, host, port, limit=MAX_REQUEST_BYTES)
    except OSError as error:
        raise CannotListen(
            f"cannot serve metrics on {host}:{port}: {error.strerror or 'no such address'}"
        ) from None
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, page: Page) -> None:
    # A scraper that is slow, goes away or talks nonsense gets no answer.
    with suppress(TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        async with asyncio.timeout(REQUEST_TIMEOUT_S):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            writer.write(_response(head, page))
            await writer.drain()


def _response(head: str, page: Page) -> bytes:
    method, _, rest = head.partition(" ")
    target = rest.partition(" ")[0].partition("?")[0]
    kind, text, status = "text/plain; charset=utf-8", "", "200 OK"
    if method not in {"GET", "HEAD"}:
        status = "405 Method Not Allowed"
    elif target != "/metrics":
        status = "404 Not Found"
    else:
        kind, text = page("application/openmetrics-text" in head.lower())
    body = text.encode()
    lines = (
        f"HTTP/1.1 {status}",
        f"Content-Type: {kind}",
        f"Content-Length: {len(body)}",
        "Connection: close",
    )
    answer = ("\r\n".join(lines) + "\r\n\r\n").encode()
    return answer if method == "HEAD" else answer + body
