"""What is held for write-behind: at most one state per run, bounded, and what became of each.

Every state that enters leaves by exactly one `Fate`, so the counts add up: what was buffered is
the sum of all fates and of what is held now. One event loop, so no lock.
"""

from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from statekeep_server.domain.model import Head, PreparedSave, RunKey
from statekeep_server.service.answers import WriteBehindStatistics

REMEMBERED = 10_000
"""Saves whose retry is recognised: at 1,000 a second those of ten seconds, which is more than a
client waits before it sends a save again. About 4 MB."""

FIRST_REST_S = 0.1
LONGEST_REST_S = 5.0
"""Between attempts to write a state, each rest twice the one before: the database that comes back
is noticed soon, and one that is away is not asked all the time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteBehindLimits:
    """The bounds of what is held (`config.Settings` says why these).

    Attributes:
        max_age_s: A state is being written after so long.
        give_up_s: One that cannot be written is given up after so long.
    """

    max_age_s: float
    max_runs: int
    max_bytes: int
    give_up_s: float


class Fate(StrEnum):
    """What became of a buffered state.

    COALESCED is that something newer, which came through this server, took its place; SUPERSEDED
    that another server had written the run; LOST that it was given up.
    """

    PERSISTED = "PERSISTED"
    SKIPPED = "SKIPPED"
    COALESCED = "COALESCED"
    SUPERSEDED = "SUPERSEDED"
    LOST = "LOST"


class Declined(StrEnum):
    """Why a save that may be buffered is durable instead."""

    STANDARD_PATH = "STANDARD_PATH"
    FIRST_SAVE = "FIRST_SAVE"
    FULL = "FULL"
    NOT_WRITABLE = "NOT_WRITABLE"
    RETRIED = "RETRIED"
    STOPPING = "STOPPING"


@dataclass(frozen=True, slots=True)
class Held:
    """The state of a run that is to be written.

    Attributes:
        base: The head that stood when the first of the states that it replaces came. The run must
            not have moved since.
        since_s: When that was: a newer state does not make the wait longer.
        due_s: When it is to be written, or tried again.
        failures: Attempts to write it that failed. One of them may have happened, so from then on
            the state must not be replaced.
    """

    save: PreparedSave
    base: Head
    since_s: float
    due_s: float
    failures: int = 0


@dataclass(frozen=True, slots=True)
class _Answered:
    fingerprint: bytes
    buffered: bool


class WriteBuffer:
    """Holds states within its limits."""

    def __init__(self, limits: WriteBehindLimits) -> None:
        self._limits = limits
        self._held: dict[RunKey, Held] = {}
        self._bytes = 0
        self._buffered = 0
        self._failures = 0
        self._fates: Counter[Fate] = Counter()
        self._declined: Counter[str] = Counter()
        self._answered: OrderedDict[tuple[RunKey, str], _Answered] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, key: RunKey) -> bool:
        return key in self._held

    def get(self, key: RunKey) -> Held | None:
        """What is held of a run."""
        return self._held.get(key)

    def keys(self) -> list[RunKey]:
        """The runs of which something is held, oldest first."""
        return list(self._held)

    def due(self, now_s: float) -> list[RunKey]:
        """The runs whose state is to be written now."""
        return [key for key, held in self._held.items() if held.due_s <= now_s]

    def has_room(self, save: PreparedSave) -> bool:
        """Whether a state may be held, in the place of what is held of its run."""
        held = self._held.get(save.command.key)
        runs = len(self._held) + (held is None)
        freed = 0 if held is None else len(held.save.command.state)
        size_bytes = self._bytes - freed + len(save.command.state)
        return runs <= self._limits.max_runs and size_bytes <= self._limits.max_bytes

    def put(self, save: PreparedSave, base: Head, now_s: float) -> None:
        """Hold the first state of a run.

        It is due after half of its age: somebody looks as often.
        """
        due_s = now_s + self._limits.max_age_s / 2
        self._held[save.command.key] = Held(save, base, now_s, due_s)
        self._bytes += len(save.command.state)
        self._buffered += 1
        self.remember(save, buffered=True)

    def replace(self, held: Held, save: PreparedSave) -> None:
        """Hold a newer state of a run instead."""
        self._bytes += len(save.command.state) - len(held.save.command.state)
        self._held[save.command.key] = replace(held, save=save)
        self._buffered += 1
        self._fates[Fate.COALESCED] += 1
        self.remember(save, buffered=True)

    def put_off(self, held: Held, now_s: float) -> bool:
        """Let a state that could not be written rest; False where it has waited for too long."""
        self._failures += 1
        rest_s = min(FIRST_REST_S * 2 ** min(held.failures, 10), LONGEST_REST_S)
        key = held.save.command.key
        if key in self._held:
            self._held[key] = replace(held, due_s=now_s + rest_s, failures=held.failures + 1)
        return now_s - held.since_s < self._limits.give_up_s

    def settle(self, key: RunKey, fate: Fate) -> None:
        """Let go of what is held of a run, and count what became of it."""
        held = self._held.pop(key, None)
        if held is None:
            return  # given up while an attempt was still under way
        command = held.save.command
        self._bytes -= len(command.state)
        self._fates[fate] += 1
        if fate is Fate.LOST:
            # Whoever tries again saves it after all.
            self._answered.pop((key, command.request_id), None)

    def remember(self, save: PreparedSave, *, buffered: bool) -> None:
        """Remember how a save that may be buffered was answered."""
        named = (save.command.key, save.command.request_id)
        self._answered[named] = _Answered(save.fingerprint, buffered)
        self._answered.move_to_end(named)
        if len(self._answered) > REMEMBERED:
            self._answered.popitem(last=False)

    def answered_before(self, save: PreparedSave) -> bool | None:
        """Say whether a save was buffered before; None where its request id is not known.

        False also where the id belongs to another save: only the store can tell.
        """
        earlier = self._answered.get((save.command.key, save.command.request_id))
        if earlier is None:
            return None
        return earlier.buffered and earlier.fingerprint == save.fingerprint

    def declined(self, reasons: Sequence[Declined]) -> None:
        """Count a save that is durable although it need not be, by the first reason."""
        self._declined.update(reasons[:1])

    def statistics(self, now_s: float) -> WriteBehindStatistics:
        """Tell what became of all."""
        oldest_s = min((held.since_s for held in self._held.values()), default=now_s)
        return WriteBehindStatistics(
            buffered=self._buffered,
            persisted=self._fates[Fate.PERSISTED],
            skipped=self._fates[Fate.SKIPPED],
            coalesced=self._fates[Fate.COALESCED],
            superseded=self._fates[Fate.SUPERSEDED],
            lost=self._fates[Fate.LOST],
            pending=len(self._held),
            pending_bytes=self._bytes,
            oldest_age_s=now_s - oldest_s,
            flush_failures=self._failures,
            declined=dict(self._declined),
            max_runs=self._limits.max_runs,
            max_bytes=self._limits.max_bytes,
            max_age_s=self._limits.max_age_s,
        )
