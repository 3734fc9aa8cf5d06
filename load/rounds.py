"""The rounds of a load run: every contender takes its turn in each of them.

What ghz saw is compared with what the servers counted. A call that fails and a count that does not
agree are faults, and a run with a fault has failed.
"""

import asyncio
import statistics
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from benchmarks.states import States
from load import bodies
from load.ghz import OK, Order, Seen, run_ghz, together
from load.plan import MIXED, Plan
from statekeep import AsyncClient, ServerStats

CLOSED, OPEN = "closed", "open"  # loops
ECHO, SAVE, SKIP, LOAD, MIX, DAPR = "echo", "save", "skip", "load", "mixed", "dapr"
STATEKEEP = "statekeep"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What was seen of one scenario or contender in one round.

    Attributes:
        name: `save`, `skip`, `load`, `mixed` and its parts (`mixed: save`), `echo` or `dapr`.
        loop: `closed` or `open`.
        rps: The rate that was asked for in the open loop.
    """

    name: str
    loop: str
    concurrency: int
    round: int
    seen: Seen
    rps: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Where a load run happens.

    Attributes:
        targets: Host and port by contender: `statekeep`, `echo`, and `dapr` if it takes part.
        dapr_keys: Counts the keys in the sidecar's table that begin with the runs of a step.
        folder: Takes bodies and ghz's reports.
        tell: Called with a line before each measurement.
    """

    ghz: Path
    plan: Plan
    states: States
    targets: Mapping[str, str]
    dapr_keys: Callable[[str], Awaitable[int]]
    folder: Path
    tell: Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What the measurements of one turn have in common."""

    loop: str
    concurrency: int
    round: int
    calls: int
    rps: int | None = None

    @property
    def where(self) -> str:
        """The step in words."""
        pace = f"{self.concurrency} concurrent" if self.rps is None else f"{self.rps:,}/s"
        return f"round {self.round + 1}, {self.loop}, {pace}"


@dataclass(frozen=True, slots=True)
class Counts:
    """What a statekeep server counted since it started, or between two moments."""

    persisted: int
    skipped: int
    loads: int
    failures: int
    fallbacks: int

    @classmethod
    def of(cls, stats: ServerStats) -> "Counts":
        """Add up the paths."""
        return cls(
            persisted=sum(path.persisted for path in stats.paths),
            skipped=sum(path.skipped for path in stats.paths),
            loads=sum(path.loads for path in stats.paths),
            failures=sum(sum(path.failures.values()) for path in stats.paths),
            fallbacks=sum(sum(path.fallbacks.values()) for path in stats.paths),
        )

    def since(self, before: "Counts") -> "Counts":
        """What was counted after an earlier moment."""
        return Counts(
            self.persisted - before.persisted,
            self.skipped - before.skipped,
            self.loads - before.loads,
            self.failures - before.failures,
            self.fallbacks - before.fallbacks,
        )

    def unlike(self, expected: "Counts") -> str:
        """Which counts are not as expected, in words; nothing if all are."""
        return ", ".join(
            f"{item.name} {is_now:,} instead of {wanted:,}"
            for item in fields(self)
            if (is_now := getattr(self, item.name)) != (wanted := getattr(expected, item.name))
        )


def expected_counts(seen: Mapping[str, Seen]) -> Counts:
    """What a server must have counted when ghz saw this of its scenarios."""
    ok = {name: each.ok for name, each in seen.items()}
    return Counts(ok.get(SAVE, 0), ok.get(SKIP, 0), ok.get(LOAD, 0), failures=0, fallbacks=0)


def find_faults(step: Step, seen: Mapping[str, Seen]) -> Iterator[str]:
    """Say which calls of a turn failed, and how."""
    for name, each in seen.items():
        failed = {status: count for status, count in each.statuses.items() if status != OK}
        for status, count in failed.items():
            why = next(iter(each.errors), "without a word")
            yield f"{step.where}: {name}: {count} of {each.calls} calls: {status}: {why}"
        if not each.calls:
            yield f"{step.where}: {name}: no call was answered"


class Rounds:
    """Measures; `measurements` and `faults` grow while `run` is under way."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._plan = stage.plan
        self._rivals = [DAPR] if DAPR in stage.targets else []
        self._prefix = ""
        self.measurements: list[Measurement] = []
        self.faults: list[str] = []

    async def run(self) -> None:
        """Measure all rounds, the closed loop first.

        Raises GhzFailed, and StatekeepError when the server does not say what it counted.
        """
        plan = self._plan
        async with AsyncClient(self._stage.targets[STATEKEEP]) as client:
            await self._warm_up(client)
            for number in range(plan.rounds):
                for concurrency in plan.concurrency:
                    await self._turn(
                        client,
                        Step(loop=CLOSED, concurrency=concurrency, round=number, calls=plan.calls),
                    )
            if self.faults:
                return  # a rate for the open loop would be made up
            rps = self._open_loop_rps()
            for number in range(plan.rounds):
                step = Step(
                    loop=OPEN,
                    concurrency=max(plan.concurrency),
                    round=number,
                    calls=max(1, round(rps * plan.open_loop_duration_s)),
                    rps=rps,
                )
                await self._turn(client, step)

    def _open_loop_rps(self) -> int:
        """A share of what the server can save, the same for all contenders."""
        highest = max(self._plan.concurrency)
        rates = [
            each.seen.rate
            for each in self.measurements
            if each.name == SAVE and each.concurrency == highest
        ]
        return max(1, round(self._plan.open_loop_share * statistics.median(rates)))

    async def _warm_up(self, client: AsyncClient) -> None:
        """Let every server answer some calls that do not count."""
        step = Step(loop="warm-up", concurrency=16, round=0, calls=self._plan.runs)
        self._stage.tell("warming up")
        self._prefix = step.loop
        for name in (SAVE, ECHO, *self._rivals):
            await self._scenario(client, step, name)
        self.measurements.clear()

    async def _turn(self, client: AsyncClient, step: Step) -> None:
        """Measure everything once, in every other round in the opposite order."""
        self._prefix = f"{step.loop}-{step.concurrency}-{step.round}"
        kept = Step(loop="preparing", concurrency=64, round=step.round, calls=self._plan.runs)
        await self._statekeep(client, kept, {SAVE: self._order(kept, SAVE, self._kept)})
        names = [ECHO, SAVE, SKIP, LOAD]
        names += [MIX, *self._rivals] if step.loop == CLOSED else []
        for name in names if step.round % 2 == 0 else reversed(names):
            self._stage.tell(f"{step.where}: {name}")
            await self._scenario(client, step, name)

    async def _scenario(self, client: AsyncClient, step: Step, name: str) -> None:
        if name == MIX:
            await self._mixed(client, step)
        elif name == ECHO:
            self._note(step, {name: await self._ghz(self._order(step, name, self._prefix))})
        elif name == DAPR:
            await self._dapr(step)
        else:
            order = self._order(step, name, self._prefix if name == SAVE else self._kept)
            self._note(step, await self._statekeep(client, step, {name: order}))

    @property
    def _kept(self) -> str:
        """Begins the ids of the runs that a turn prepares for skips and loads."""
        return f"{self._prefix}-kept"

    async def _mixed(self, client: AsyncClient, step: Step) -> None:
        """Save, skip and load at the same time, each with its share."""
        parts = sum(self._plan.mixed.values())
        orders = {}
        for name in MIXED:
            share = self._plan.mixed[name] / parts
            part = Step(
                loop=step.loop,
                concurrency=max(1, round(step.concurrency * share)),
                round=step.round,
                calls=max(1, round(step.calls * share)),
            )
            prefix = f"{self._prefix}-mixed" if name == SAVE else self._kept
            orders[name] = self._order(part, name, prefix)
        seen = await self._statekeep(client, step, orders)
        mixed = {f"{MIX}: {name}": each for name, each in seen.items()}
        if all(each.ok for each in seen.values()) and (whole := together(list(seen.values()))).ok:
            mixed[MIX] = whole
        self._note(step, mixed)

    async def _dapr(self, step: Step) -> None:
        seen = await self._ghz(self._order(step, DAPR, self._prefix))
        self._note(step, {DAPR: seen})
        expected = min(seen.ok, self._plan.runs)
        if (keys := await self._stage.dapr_keys(self._prefix)) != expected:
            self.faults.append(f"{step.where}: dapr keeps {keys} keys, not {expected}")

    async def _statekeep(
        self, client: AsyncClient, step: Step, orders: Mapping[str, Order]
    ) -> dict[str, Seen]:
        """Run scenarios at the same time, and compare with what the server counts."""
        before = Counts.of(await client.stats())
        try:
            async with asyncio.TaskGroup() as group:
                tasks = {
                    name: group.create_task(self._ghz(order)) for name, order in orders.items()
                }
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        seen = {name: task.result() for name, task in tasks.items()}
        counted = Counts.of(await client.stats()).since(before)
        if wrong := counted.unlike(expected_counts(seen)):
            self.faults.append(f"{step.where}: {', '.join(seen)}: the server counted {wrong}")
        self.faults += find_faults(step, seen)
        return seen

    def _note(self, step: Step, seen: Mapping[str, Seen]) -> None:
        for name, each in seen.items():
            self.measurements.append(
                Measurement(
                    name=name,
                    loop=step.loop,
                    concurrency=step.concurrency,
                    round=step.round,
                    seen=each,
                    rps=step.rps,
                )
            )
        self.faults += find_faults(
            step, {name: each for name, each in seen.items() if name in (ECHO, DAPR)}
        )

    def _order(self, step: Step, name: str, prefix: str) -> Order:
        """Write the bodies of a scenario and say what ghz is to do with them."""
        plan, states = self._plan, self._stage.states
        file = self._stage.folder / f"{name}.bodies"
        made = {
            ECHO: bodies.save_bodies,
            SAVE: bodies.save_bodies,
            SKIP: bodies.skip_bodies,
            DAPR: bodies.dapr_bodies,
        }
        if name == LOAD:
            every = bodies.load_bodies(
                prefix, runs=plan.runs, calls=step.calls, zipf_exponent=plan.zipf_exponent
            )
        else:
            every = made[name](states, prefix, runs=plan.runs, calls=step.calls)
        return Order(
            options=name,
            target=self._stage.targets[name if name in (ECHO, DAPR) else STATEKEEP],
            bodies=file,
            calls=bodies.write_bodies(file, every),
            concurrency=step.concurrency,
            connections=plan.connections,
            max_duration_s=plan.max_duration_s,
            rps=step.rps,
        )

    async def _ghz(self, order: Order) -> Seen:
        output = self._stage.folder / f"{order.options}.report"
        return await run_ghz(self._stage.ghz, order, output)
