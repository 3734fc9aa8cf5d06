"""Write-behind against a model: two servers on one store, faults, crashes, and saves of all kinds.

What must hold whatever happens: a run keeps the order of each server's saves; an acknowledged
durable save is never lost; what another server wrote is never written over; the bounds hold; and
every buffered state ends as exactly one of persisted, skipped, coalesced, superseded or lost.
"""

import json
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

from hypothesis import given, settings
from hypothesis import strategies as st

from statekeep_server.domain.errors import (
    RunNotFound,
    StateError,
    StorageUnavailable,
)
from statekeep_server.domain.model import ByVersion, LoadedState, Newest, Outcome, Path, RunKey
from statekeep_server.flags import Flags
from statekeep_server.service.answers import SaveAck
from tests.support.late_saves import counts
from tests.support.world import World, command, open_world

RUNS = [RunKey("default", name) for name in ("a", "b")]
MAX_RUNS = 2
MAX_BYTES = 80  # two small states, or a large one alone
AWAY = StorageUnavailable("UNREACHABLE")

servers = st.integers(0, 1)
letters = st.sampled_from(["A", "B", "C" * 30])
runs = st.sampled_from(RUNS)
operations = st.lists(
    st.one_of(
        st.tuples(st.just("late"), servers, runs, letters),
        st.tuples(st.just("late"), servers, runs, letters),
        st.tuples(st.just("durable"), servers, runs, letters),
        st.tuples(st.just("batch"), servers, runs, letters),
        st.tuples(st.just("load"), servers, runs),
        st.tuples(st.just("delete"), servers, runs),
        st.tuples(st.just("again"), servers),
        st.tuples(st.just("write"), servers),
        st.tuples(st.just("fault"), servers),
        st.tuples(st.just("lost commit"), servers),
        st.tuples(st.just("switch"), servers),
        st.tuples(st.just("crash"), servers),
    ),
    min_size=5,
    max_size=40,
)


class Fleet:
    """Two servers on one store, and what is known of every save that was sent."""

    def __init__(self, stack: AsyncExitStack, *, grouped: bool) -> None:
        self.stack = stack
        self.grouped = grouped
        self.worlds: list[World] = []
        self.sent: list[tuple[int, RunKey, str]] = []  # the i-th save: server, run, what it holds
        self.acked: dict[int, SaveAck] = {}
        self.bases: dict[int, int] = {}  # of a buffered save: the version that stood before
        self.entries: dict[tuple[int, RunKey], int] = {}
        self.seen: dict[tuple[RunKey, int], int] = {}  # by version: which save was persisted
        self.buffered = [0, 0]
        self.wrote: defaultdict[RunKey, set[int]] = defaultdict(set)
        self.lost_commits = False

    async def open(self) -> None:
        """Start both; each run has a first state, on which the next may wait."""
        for _ in range(2):
            self.worlds.append(await self._new())
        for run in RUNS:
            await self.durable(0, run, "A")
        self.wrote.clear()

    async def _new(self) -> World:
        return await self.stack.enter_async_context(
            open_world(
                grouped=self.grouped,
                memory=self.worlds[0].memory if self.worlds else None,
                write_behind_max_runs=MAX_RUNS,
                write_behind_max_bytes=MAX_BYTES,
                write_behind_give_up_s=1e6,
            )
        )

    async def late(self, server: int, run: RunKey, letter: str) -> None:
        await self._save(server, run, letter, late=True)

    async def durable(self, server: int, run: RunKey, letter: str) -> None:
        await self._save(server, run, letter, late=False)

    async def batch(self, server: int, run: RunKey, letter: str) -> None:
        first, second = self._send(server, run, letter), self._send(server, run, "D")
        facade = self.worlds[server].facade
        saves = [
            command(self._state(number), key=run, request_id=f"r{number}")
            for number in (first, second)
        ]
        self.wrote[run].add(server)
        try:
            answers = await facade.save_many(saves)
        except StateError:
            return
        for number, answer in zip((first, second), answers, strict=True):
            if isinstance(answer, SaveAck):
                self.acked[number] = answer

    async def again(self, server: int) -> None:
        """Send the last save of a server once more: it has happened, and nothing more does."""
        for number in reversed(range(len(self.sent))):
            ack = self.acked.get(number)
            if self.sent[number][0] == server and ack is not None:
                if ack.result.outcome is not Outcome.BUFFERED:
                    return
                _, run, _ = self.sent[number]
                before = self.worlds[server].facade.statistics().write_behind.buffered
                repeated = await self.worlds[server].facade.save(
                    command(
                        self._state(number),
                        key=run,
                        request_id=f"r{number}",
                        attempt=2,
                        write_behind=True,
                    )
                )
                assert repeated.result.replayed
                after = self.worlds[server].facade.statistics().write_behind.buffered
                assert after == before
                return

    async def load(self, server: int, run: RunKey) -> None:
        last = self._last_acked(server, run)
        try:
            loaded = await self.worlds[server].facade.load(run, Newest())
        except (RunNotFound, StorageUnavailable):
            return
        if last is not None and self.wrote[run] == {server} and not self._holds(server, run):
            # Nobody else wrote it: the newest state that was answered is there.
            assert self.sent[_number(loaded)][2] == self.sent[last][2]

    async def delete(self, server: int, run: RunKey) -> None:
        # What is held is written first, and must be seen before it goes.
        await self.worlds[server].facade.write_behind.settled(run)
        await self._look()
        self.wrote[run].add(server)
        try:
            await self.worlds[server].facade.delete_run(run)
        except StateError:
            return

    async def write(self, server: int) -> None:
        self.worlds[server].clock.advance(10)
        await self.worlds[server].facade.write_behind.write_due()

    async def fault(self, server: int) -> None:
        for store in (self.worlds[server].standard, self.worlds[server].optimized):
            store.faults["append_many"] = [AWAY]

    async def lost_commit(self, server: int) -> None:
        self.lost_commits = True
        self.worlds[server].optimized.lose_commits = 1
        self.worlds[server].standard.faults["append_many"] = [AWAY]

    async def switch(self, server: int) -> None:
        world = self.worlds[server]
        world.flags = Flags(enable_optimized_persistence=world.flags.path is Path.STANDARD)

    async def crash(self, server: int) -> None:
        """A server is gone with what it held, and another one takes its place."""
        self.worlds[server] = await self._new()
        self.buffered[server] = 0
        # The new one has answered nothing yet.
        self.acked = {n: ack for n, ack in self.acked.items() if self.sent[n][0] != server}
        for run in RUNS:
            self.entries.pop((server, run), None)
            # Its last answers may be gone with it.
            self.wrote[run].add(7)

    async def end(self) -> None:
        """Stop both servers in order; nothing is lost."""
        for world in self.worlds:
            for store in (world.standard, world.optimized):
                store.faults.clear()
                store.lose_commits = 0
            await world.facade.write_behind.drain(10)

    async def check(self) -> None:
        """What holds after every step."""
        await self._look()
        for server, world in enumerate(self.worlds):
            found = counts(world)
            assert found.buffered == self.buffered[server]
            assert found.pending <= MAX_RUNS
            assert found.pending_bytes <= MAX_BYTES
            assert found.lost == 0
            for run in RUNS:
                if not self._holds(server, run):
                    self.entries.pop((server, run), None)
        order: defaultdict[tuple[int, RunKey], list[int]] = defaultdict(list)
        for (run, version), number in sorted(self.seen.items()):
            order[self.sent[number][0], run].append(number)
            # On what it was buffered on, and on nothing else.
            assert self.bases.get(number, version - 1) == version - 1
        for numbers in order.values():
            assert numbers == sorted(set(numbers))
        for number, ack in self.acked.items():
            if ack.result.outcome is Outcome.PERSISTED and not ack.result.replayed:
                key = (self.sent[number][1], ack.result.version)
                assert self.seen.get(key, number) == number

    async def check_end(self) -> None:
        """What became of everything."""
        await self.check()
        for server, world in enumerate(self.worlds):
            found = counts(world)
            assert found.pending == 0
            written = [number for number in self.seen.values() if self._buffered_by(server, number)]
            if not self.lost_commits and all(7 not in who for who in self.wrote.values()):
                assert found.persisted == len(written)
            if all(who <= {server} for who in self.wrote.values()):
                assert found.superseded == 0
        for run in RUNS:
            (who, *others) = sorted(self.wrote[run]) or [7]
            last = None if others or who == 7 else self._last_acked(who, run)
            stands = None if last is None else await self._standing(run)
            if last is not None and stands is not None:
                assert stands >= last or self.sent[stands][2] == self.sent[last][2]

    async def _save(self, server: int, run: RunKey, letter: str, *, late: bool) -> None:
        number = self._send(server, run, letter)
        base = await self._version(run)
        try:
            ack = await self.worlds[server].facade.save(
                command(self._state(number), key=run, request_id=f"r{number}", write_behind=late)
            )
        except StateError:
            self.wrote[run].add(7)  # nobody knows whether it happened
            return
        self.wrote[run].add(server)
        self.acked[number] = ack
        if ack.result.outcome is Outcome.BUFFERED:
            assert late
            self.buffered[server] += 1
            self.bases[number] = self.entries.setdefault((server, run), base)

    def _send(self, server: int, run: RunKey, letter: str) -> int:
        self.sent.append((server, run, letter))
        return len(self.sent) - 1

    def _state(self, number: int) -> dict[str, object]:
        """A state that is equal to others of its letter, and says which one it is."""
        return {"letter": self.sent[number][2], "last_updated": number}

    def _holds(self, server: int, run: RunKey) -> bool:
        return self.worlds[server].facade.write_behind.concerns(command({}, key=run))

    def _buffered_by(self, server: int, number: int) -> bool:
        return self.sent[number][0] == server and number in self.bases

    def _last_acked(self, server: int, run: RunKey) -> int | None:
        mine = [n for n, (who, of, _) in enumerate(self.sent) if (who, of) == (server, run)]
        return mine[-1] if mine and mine[-1] in self.acked else None

    async def _version(self, run: RunKey) -> int:
        try:
            return (await self.worlds[0].memory.load(run, Newest())).head_version
        except RunNotFound:
            return 0

    async def _standing(self, run: RunKey) -> int | None:
        try:
            loaded = await self.worlds[0].memory.load(run, Newest())
        except RunNotFound:
            return None
        return _number(loaded)

    async def _look(self) -> None:
        """Remember every version that is stored; none ever changes."""
        for run in RUNS:
            page = await self.worlds[0].memory.list_snapshots(run, limit=100)
            for listed in page.snapshots:
                if (run, listed.version) not in self.seen:
                    selector = ByVersion(listed.version)
                    loaded = await self.worlds[0].memory.load(run, selector)
                    self.seen[run, listed.version] = _number(loaded)


def _number(loaded: LoadedState) -> int:
    """Say which save a state is of."""
    return int(json.loads(loaded.snapshot.state or b"")["last_updated"])


@settings(max_examples=150, deadline=None)
@given(operations, st.booleans())
async def test_every_state_has_one_fate_and_every_run_its_order(
    steps: list[tuple[str, ...]], grouped: bool
) -> None:
    async with AsyncExitStack() as stack:
        fleet = Fleet(stack, grouped=grouped)
        await fleet.open()
        for name, *arguments in steps:
            step: Callable[..., Awaitable[None]] = getattr(fleet, name.replace(" ", "_"))
            await step(*arguments)
            await fleet.check()
        await fleet.end()
        await fleet.check_end()
