"""Both clients behind one face, so that one test holds for both."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal, cast

from statekeep import AsyncClient, Client

Kind = Literal["async", "sync"]
KINDS: tuple[Kind, ...] = ("async", "sync")


class _InThreads:
    """The synchronous client with the methods of the asynchronous one: each call in a thread."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        if name.startswith("list_"):

            async def iterate(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
                items = method(*args, **kwargs)
                end = object()
                while (item := await asyncio.to_thread(next, items, end)) is not end:
                    yield item

            return iterate

        async def call(*args: Any, **kwargs: Any) -> Any:
            return await asyncio.to_thread(method, *args, **kwargs)

        return call


@asynccontextmanager
async def connect(kind: Kind, target: str | None, **options: Any) -> AsyncIterator[AsyncClient]:
    """Open a client of a kind."""
    if kind == "async":
        async with AsyncClient(target, **options) as client:
            yield client
    else:
        with Client(target, **options) as client:
            yield cast("AsyncClient", _InThreads(client))
