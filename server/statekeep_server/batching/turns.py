"""Turns: work of one key runs one after the other, in the order in which it arrived.

A stream that saves B and then A again must not find A unchanged against the head from before B;
and a thousand saves of one run must not wait for its row lock on a thousand connections.

Work may end its turn early and leave a future in the key's line: what it has queued elsewhere, in
order, and is not done yet. Whoever has the turn next sees it, and decides with it or waits for it.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Generic, Protocol, TypeVar


class _Ordered(Protocol):
    def __lt__(self, other: Any, /) -> bool: ...
    def __hash__(self) -> int: ...


K = TypeVar("K", bound=_Ordered)


class _Line:
    """What is known of a key while anybody is interested in it."""

    def __init__(self) -> None:
        self.held = False
        self.users = 0
        self.returning: deque[asyncio.Future[None]] = deque()
        self.arriving: deque[asyncio.Future[None]] = deque()
        self.queued: dict[asyncio.Future[Any], None] = {}  # a set in order

    def pass_on(self) -> None:
        """Give the turn to the next one: who had it before comes before who never had."""
        for waiting in (self.returning, self.arriving):
            while waiting:
                waiter = waiting.popleft()
                if not waiter.done():
                    waiter.set_result(None)
                    return
        self.held = False

    async def wait_behind(self, waiting: deque[asyncio.Future[None]]) -> None:
        """Wait at the end of a queue until the turn is passed on."""
        waiter = asyncio.get_running_loop().create_future()
        waiting.append(waiter)
        await self.given(waiter)

    async def step_back(self) -> None:
        """Give the turn to those that came back, and wait before all that arrive."""
        waiter = asyncio.get_running_loop().create_future()
        self.arriving.appendleft(waiter)
        self.pass_on()
        await self.given(waiter)

    async def given(self, waiter: asyncio.Future[None]) -> None:
        """Wait until the turn is passed on to a waiter."""
        try:
            await waiter
        except asyncio.CancelledError:
            if not waiter.cancelled():
                self.pass_on()  # it was given to the one that is cancelled
            raise


class Turn(Generic[K]):
    """One piece of work's place in the line of its key. Whoever makes one ends it."""

    def __init__(self, turns: "Turns[K]", key: K) -> None:
        self._turns = turns
        self._key = key
        self._line: _Line | None = None
        self._place: tuple[_Line, asyncio.Future[None]] | None = None
        self._returns = False
        self._has_queued = False
        self._is_over = False

    def take(self) -> bool:
        """Take the turn if nobody stands before this work; say whether it is held."""
        if self._line is None and self._key not in self._turns:
            self._line = self._turns.join(self._key)
            self._line.held = self._returns = True
        return self._line is not None

    def stand(self) -> None:
        """Stand in line now, for work that enters its turn a moment later."""
        if not self.take() and self._place is None:
            line = self._turns.join(self._key)
            self._stand_in(line, line.arriving)

    async def enter(self) -> None:
        """Wait for the turn; nothing to do where it is held."""
        if self._line is not None:
            return
        place, self._place = self._place, None
        line = self._turns.join(self._key) if place is None else place[0]
        try:
            if place is not None:
                await line.given(place[1])
            elif line.held:
                await line.wait_behind(line.returning if self._returns else line.arriving)
            while line.returning and not self._returns:
                await line.step_back()  # something came back since the turn was given
        except asyncio.CancelledError:
            self._turns.part(self._key)
            raise
        line.held = self._returns = True
        self._line = line

    def leave(self) -> None:
        """Let the next one have its turn; nothing to do where it is not held."""
        line, self._line = self._line, None
        place, self._place = self._place, None
        if place is not None and place[1].cancel():
            self._turns.part(self._key)  # it never entered
        elif place is not None:
            line = place[0]
        if line is not None:
            line.pass_on()
            self._turns.part(self._key)

    def end(self) -> None:
        """Leave for good: what is queued still and fails does not come back, for nobody waits."""
        self._is_over = True
        self.leave()

    def _come_back(self) -> None:
        """Stand in line again, before all that has arrived since the turn was left.

        Or what was queued and has failed would be overtaken by what is to come after it.
        """
        line = self._turns.join(self._key)
        self._stand_in(line, line.returning)

    def _stand_in(self, line: _Line, waiting: deque[asyncio.Future[None]]) -> None:
        """Take a place at the end of a queue of a line that is joined."""
        waiter = asyncio.get_running_loop().create_future()
        self._place = line, waiter
        waiting.append(waiter)
        if not line.held:
            line.held = True
            line.pass_on()

    @property
    def queued(self) -> tuple[asyncio.Future[Any], ...]:
        """What earlier work has queued and is not done, oldest first. Asked by the holder."""
        return tuple(self._held().queued)

    def queue(self, work: asyncio.Future[Any]) -> None:
        """Leave a future in the line until it is done. Done by the holder."""
        line, key = self._held(), self._key
        self._turns.join(key)
        line.queued[work] = None
        self._has_queued = True

        def ended(done: asyncio.Future[Any]) -> None:
            del line.queued[done]
            failed = not done.cancelled() and done.exception() is not None
            if failed and not self._is_over:
                self._come_back()  # at once, whenever its owner hears of it
            self._turns.part(key)

        work.add_done_callback(ended)

    async def drained(self) -> None:
        """Wait until all that was queued before this work is done, or came back and is done.

        Done by the holder. Work that comes back itself has nothing before it any more.
        """
        if not self._has_queued and (queued := self.queued):
            await asyncio.wait(queued)
            while self._held().returning:
                await self._step_back()

    async def _step_back(self) -> None:
        line, self._line = self._held(), None
        try:
            await line.step_back()
        except asyncio.CancelledError:
            self._turns.part(self._key)
            raise
        self._line = line

    def _held(self) -> _Line:
        if self._line is None:
            raise RuntimeError("the turn is not held")
        return self._line


class Turns(Generic[K]):
    """A fair line per key, kept only while somebody stands in it or has queued something."""

    def __init__(self) -> None:
        self._lines: dict[K, _Line] = {}

    def __len__(self) -> int:
        return len(self._lines)

    def __contains__(self, key: K) -> bool:
        """Whether somebody stands in a key's line, or has queued something."""
        return key in self._lines

    @asynccontextmanager
    async def of(self, key: K) -> AsyncIterator[Turn[K]]:
        """Wait for the key's turn and hold it, unless it is left early."""
        turn = Turn(self, key)
        await turn.enter()
        try:
            yield turn
        finally:
            turn.end()

    @asynccontextmanager
    async def of_all(self, keys: Iterable[K]) -> AsyncIterator[list[Turn[K]]]:
        """Hold the turns of many keys, taken in their order so that callers cannot deadlock."""
        async with AsyncExitStack() as stack:
            yield [await stack.enter_async_context(self.of(key)) for key in sorted(set(keys))]

    def join(self, key: K) -> _Line:
        """Count somebody who is interested in a key's line; each needs one `part`."""
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = _Line()
        line.users += 1
        return line

    def part(self, key: K) -> None:
        """Count somebody out; the line goes with the last one."""
        line = self._lines[key]
        line.users -= 1
        if not line.users:
            del self._lines[key]
