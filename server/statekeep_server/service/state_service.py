"""The meaning of a save and a load, once. `paths.py` composes it twice.

The standard service has no rules and no cache: it persists every save under the head's lock. The
optimized one is given both, and tries the cheaper routes first; what it answers is decided by the
same pure function of the same head, so the two differ in cost and never in truth.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence

from statekeep_server.batching.group_commit import QueueFull
from statekeep_server.batching.turns import Turn, Turns
from statekeep_server.domain.canonical import IgnoredFields
from statekeep_server.domain.errors import (
    AtomicBatchFailed,
    Overloaded,
    Refused,
    RequestIdReused,
)
from statekeep_server.domain.limits import Limits
from statekeep_server.domain.model import (
    Head,
    LoadedState,
    Newest,
    Outcome,
    Path,
    PreparedSave,
    RunKey,
    SaveCommand,
    SaveResult,
    Selector,
)
from statekeep_server.domain.policy import SkipRules, decide, may_wait, persist_always
from statekeep_server.domain.prepare import prepare
from statekeep_server.domain.transition import answer_earlier, answer_skip
from statekeep_server.service import decisions
from statekeep_server.service.counters import PathCounters
from statekeep_server.service.deadline import Deadline
from statekeep_server.service.groups import Groups
from statekeep_server.service.ports import (
    Append,
    CachedHead,
    Clock,
    HeadCache,
    Probe,
    Standing,
    StateStore,
)
from statekeep_server.service.shadow import Shadow

SKIP_COUNTS = 100_000
"""Runs whose skips in a row are remembered; then all are forgotten, and start again at 0. That is
safe: `max_skip_age` bounds the drift by itself."""


INLINE_BYTES = 256 * 1024
"""States up to this size are prepared on the event loop: it takes about 1 ms, and a thread for
each save would cost more than it gives."""


class StateService:
    """Saves and loads over one store.

    Args:
        turns: Those of both paths, so that saves of a run keep their order across a fallback.
        rules: When to skip; None persists every save.
        heads: The hint that chooses routes; None where there are no routes to choose.
        groups: Let saves share transactions; None gives each its own.
        shadow: Is told what another path would have decided; None where nobody may ask.
    """

    def __init__(
        self,
        store: StateStore,
        *,
        path: Path,
        turns: Turns[RunKey],
        clock: Clock,
        ignored: IgnoredFields,
        limits: Limits,
        rules: SkipRules | None = None,
        heads: HeadCache | None = None,
        groups: Groups | None = None,
        shadow: Shadow | None = None,
    ) -> None:
        self.store = store
        self.path = path
        self.heads = heads
        self.groups = groups
        self.shadow = shadow
        self.counters = PathCounters(path)
        self.turns = turns
        self._clock = clock
        self._ignored = ignored
        self._limits = limits
        self._rules = rules
        self._skips: dict[RunKey, int] = {}

    async def prepare(self, command: SaveCommand, *, large: bool = False) -> PreparedSave:
        """Validate a save and derive what its payload says, once. Raises InvalidField.

        `large` allows what comes in chunks. The event loop serves others while a state that takes
        long is prepared in a thread.
        """
        limits = self._limits.of_large_states() if large else self._limits
        if len(command.state) <= INLINE_BYTES:
            return prepare(command, ignored=self._ignored, limits=limits)
        return await asyncio.to_thread(prepare, command, ignored=self._ignored, limits=limits)

    async def save(self, save: PreparedSave, deadline: Deadline, turn: Turn[RunKey]) -> SaveResult:
        """Save one state; answer after its commit, or after the barrier that found it unchanged.

        The run's turn is entered, where the caller does not hold it, and left when the save is
        answered by the barrier or queued for a commit. It is still held when that raises, so that
        a fallback keeps the save's place. While saves of the run are queued, later ones join
        them: the head is about to move.
        """
        started_s = self._clock.monotonic_s()
        if not turn.take():
            await turn.enter()
        if self.groups is None:
            await turn.drained()
        before = turn.queued
        cached: CachedHead | None = None
        result: SaveResult | None = None
        if not before and not self._must_lock(save.command):
            cached = None if self.heads is None else await self.heads.get(save.command.key)
            if cached is None or cached.comparison_hash == save.comparison_hash:
                result = await self._through_barrier(save, deadline)
        if self._rules is not None and decisions.wanted():
            free, answered = not self._must_lock(save.command), result is not None
            decisions.routed(save, cached, free=free, queued=len(before), answered=answered)
        if result is None:
            result = await self._through_lock(save, deadline, turn, before)
        turn.leave()
        if cached is not None:
            unchanged = cached.comparison_hash == save.comparison_hash
            self.counters.routed(right=unchanged == (result.outcome is Outcome.SKIPPED))
        await self._acknowledged(save, result)
        self.counters.saved(result, self._clock.monotonic_s() - started_s)
        return result

    async def before_buffering(
        self, save: PreparedSave, deadline: Deadline, turn: Turn[RunKey]
    ) -> SaveResult | Head | None:
        """Read what stands of a run, once nothing of it is under way in this server.

        Returns the save's answer where the barrier has it, otherwise the head that the save may
        wait on, and None where there is none. The run's turn is left.
        """
        started_s = self._clock.monotonic_s()
        await turn.enter()
        try:
            await turn.drained()
            standing = await self._ask(save, deadline)
        finally:
            turn.leave()
        result = self._answer(save, standing)
        if result is None:
            return standing.head if may_wait(save, standing.head, standing.now_us) else None
        await self._acknowledged(save, result)
        self.counters.saved(result, self._clock.monotonic_s() - started_s)
        return result

    async def save_many(
        self, saves: Sequence[PreparedSave], deadline: Deadline, *, atomic: bool
    ) -> Sequence[SaveResult | Exception]:
        """Save many states in one transaction. The i-th answer is that of the i-th save.

        Saves of one run are applied in their order: the barrier answers a run's saves only up to
        its first change, everything after that is decided under the lock. Raises
        AtomicBatchFailed when `atomic` and one is refused.
        """
        started_s = self._clock.monotonic_s()
        keys = {save.command.key for save in saves}
        async with self.turns.of_all(keys) as turns:
            for turn in turns:
                await turn.drained()
            results = await self._batch_through_barrier(saves, deadline, atomic=atomic)
            await self._all_acknowledged(saves, results)
            rest = [index for index, result in enumerate(results) if result is None]
            late = [saves[index] for index in rest]
            locked = await self._locked(late, deadline, atomic=atomic)
            await self._all_acknowledged(late, locked)
            for index, result in zip(rest, locked, strict=True):
                results[index] = result
        answers = [result for result in results if result is not None]
        each_s = (self._clock.monotonic_s() - started_s) / max(1, len(saves))
        for answer in answers:
            if isinstance(answer, SaveResult):
                self.counters.saved(answer, each_s)
            elif isinstance(answer, Refused) or self.path is Path.STANDARD:
                self.counters.failed(answer)  # what else the optimized path fails at falls back
        return answers

    async def save_in_session(self, save: PreparedSave, session: object) -> SaveResult:
        """Stage a save on a caller's session: the locked route only, and nothing remembered."""
        await self._forget(save.command.key)
        return await self.store.append_in_session(session, self._append(save))

    async def load(
        self, key: RunKey, selector: Selector, *, session: object | None = None
    ) -> LoadedState:
        """Load one live snapshot; a row is always read."""
        if session is not None:
            loaded = await self.store.load_in_session(session, key, selector)
        elif self.groups is not None and isinstance(selector, Newest):
            loaded = await self.groups.load(key)
        else:
            loaded = await self.store.load(key, selector)
        self.counters.loaded()
        return loaded

    async def delete_run(self, key: RunKey) -> int:
        """Delete a run's snapshots; return how many there were."""
        async with self.turns.of(key) as turn:
            await turn.drained()
            await self._forget(key)
            self._skips.pop(key, None)
            if self.shadow is not None:
                await self.shadow.forget(key)
            return await self.store.delete_run(key)

    def _must_lock(self, command: SaveCommand) -> bool:
        """Whether a save has no choice: it is persisted anyway, conditional, or a later attempt."""
        return (
            self._rules is None
            or persist_always(command) is not None
            or command.expected_version is not None
            or command.writer_sequence is not None
            or command.attempt > 1
        )

    async def _through_barrier(self, save: PreparedSave, deadline: Deadline) -> SaveResult | None:
        """Answer from what is committed, if that is the answer; None sends the save to the lock."""
        return self._answer(save, await self._ask(save, deadline))

    async def _ask(self, save: PreparedSave, deadline: Deadline) -> Standing:
        """Ask the barrier what is committed."""
        deadline.check()
        probe = Probe(save.command.key, save.command.request_id)
        if self.groups is None:
            (standing,) = await self.store.barrier([probe])
            return standing
        return await self.groups.probe(probe)

    async def _through_lock(
        self,
        save: PreparedSave,
        deadline: Deadline,
        turn: Turn[RunKey],
        before: Sequence[asyncio.Future[SaveResult]],
    ) -> SaveResult:
        """Have a save decided under the lock of its head, and its turn left once it is queued."""
        await self._forget(save.command.key)
        if self.groups is None:
            return await self._alone(save, deadline)
        queued = self._queue(self.groups, save, deadline, before)
        turn.queue(queued)
        turn.leave()
        # A caller that goes away leaves the commit, and its place in the line, alone.
        return await asyncio.shield(queued)

    async def _batch_through_barrier(
        self, saves: Sequence[PreparedSave], deadline: Deadline, *, atomic: bool
    ) -> list[SaveResult | Exception | None]:
        results: list[SaveResult | Exception | None] = [None] * len(saves)
        asked = [i for i, save in enumerate(saves) if not self._must_lock(save.command)]
        if not asked:
            return results
        deadline.check()
        standings = await self.store.barrier(
            [Probe(saves[i].command.key, saves[i].command.request_id) for i in asked]
        )
        seen = dict(zip(asked, standings, strict=True))
        moved: set[RunKey] = set()
        earlier: Counter[RunKey] = Counter()
        for index, save in enumerate(saves):
            key = save.command.key
            if index in seen and key not in moved:
                try:
                    results[index] = self._answer(save, seen[index], earlier[key])
                except RequestIdReused as error:
                    if atomic:
                        raise AtomicBatchFailed(index, error) from error
                    results[index] = error
            if results[index] is None:
                moved.add(key)
            earlier[key] += 1
        return results

    def _answer(
        self, save: PreparedSave, standing: Standing, earlier: int = 0
    ) -> SaveResult | None:
        """Decide by what the barrier saw: an earlier result, a skip, or neither.

        `earlier` counts the saves of the run before this one in the same call: each may have been
        a skip, and `max_skips` is a bound.
        """
        if standing.earlier is not None:
            return answer_earlier(save, standing.earlier)
        decision = decide(
            save,
            standing.head,
            now_us=standing.now_us,
            rules=self._rules,
            skips_in_a_row=self._skips.get(save.command.key, 0) + earlier,
        )
        if standing.head is None or decision.outcome is Outcome.PERSISTED:
            return None
        return answer_skip(save, standing.head)

    def _append(self, save: PreparedSave, earlier: int = 0) -> Append:
        skips = self._skips.get(save.command.key, 0) + earlier
        shadow = None if self.shadow is None else self.shadow.rules_of(save.command.key)
        return Append(save=save, rules=self._rules, skips_in_a_row=skips, shadow=shadow)

    def _queue(
        self,
        groups: Groups,
        save: PreparedSave,
        deadline: Deadline,
        before: Sequence[asyncio.Future[SaveResult]],
    ) -> asyncio.Future[SaveResult]:
        """Queue a save for the next commit, at once: the order of the queue is that of the run.

        `before` are the saves of the run that are queued; this one goes with the last of them.
        """
        append = self._append(save, len(before))
        try:
            return groups.save(append, deadline, before[-1] if before else None)
        except QueueFull as error:
            raise Overloaded(
                f"the commit queue is full ({error.limit})", limit=error.limit
            ) from None

    async def _forget(self, key: RunKey) -> None:
        """Forget what is remembered of a run, before it is written."""
        if self.heads is not None:
            await self.heads.invalidate(key)

    async def _alone(self, save: PreparedSave, deadline: Deadline) -> SaveResult:
        """Write one save in a transaction of its own."""
        deadline.check()
        (answer,) = await self.store.append_many([self._append(save)])
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def _locked(
        self, saves: Sequence[PreparedSave], deadline: Deadline, *, atomic: bool = False
    ) -> Sequence[SaveResult | Exception]:
        """Decide a batch under the lock and write it, in a transaction of its own."""
        if not saves:
            return []
        for save in saves:
            await self._forget(save.command.key)
        deadline.check()
        earlier: Counter[RunKey] = Counter()
        appends = []
        for save in saves:
            appends.append(self._append(save, earlier[save.command.key]))
            earlier[save.command.key] += 1
        return await self.store.append_many(appends, atomic=atomic)

    async def _all_acknowledged(
        self, saves: Sequence[PreparedSave], answers: Sequence[SaveResult | Exception | None]
    ) -> None:
        for save, answer in zip(saves, answers, strict=True):
            if isinstance(answer, SaveResult):
                await self._acknowledged(save, answer)

    async def _acknowledged(self, save: PreparedSave, result: SaveResult) -> None:
        """Remember what is now known to be committed."""
        if result.replayed:
            return  # an old truth: the head may have moved since
        key = save.command.key
        if result.outcome is Outcome.SKIPPED:
            if len(self._skips) >= SKIP_COUNTS:
                self._skips.clear()
            self._skips[key] = self._skips.get(key, 0) + 1
        else:
            self._skips.pop(key, None)
        if self.heads is not None:
            await self.heads.put(key, CachedHead(result.version, save.comparison_hash))
        if self.shadow is not None:
            await self.shadow.saw(save, result)
