"""Load tests of a user's own server: who does what, the states, and what the figures say."""

import asyncio
from collections.abc import Mapping
from dataclasses import asdict, replace
from itertools import pairwise
from typing import Any, cast

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from statekeep import AsyncClient, SaveOutcome, Unavailable
from statekeep_server.bench.load_client import Caller, Tally, closed_loop, open_loop
from statekeep_server.bench.load_figures import figures_of
from statekeep_server.bench.load_plan import Kind, LoadPlan, Part
from statekeep_server.bench.load_states import LoadStates
from statekeep_server.service.histogram import Histogram

PLAN = LoadPlan(
    kind=Kind.MIXED,
    processes=3,
    concurrency=10,
    rate=None,
    duration_s=2.0,
    warm_up_s=0.0,
    state_bytes=2_000,
    runs=8,
    prefix="bench-load-x",
)


@given(st.integers(1, 9), st.integers(9, 200), st.integers(9, 50))
def test_the_parts_of_all_processes_are_the_plan(
    processes: int, concurrency: int, runs: int
) -> None:
    plan = replace(PLAN, processes=processes, concurrency=concurrency, runs=runs, rate=100.0)
    parts = plan.parts()
    assert sum(part.concurrency for part in parts) == concurrency
    assert sum(part.runs for part in parts) == runs
    assert sum(part.rate or 0 for part in parts) == pytest.approx(100.0)


def test_every_run_is_named_once_and_by_the_prefix() -> None:
    run_ids = PLAN.run_ids()
    assert len(set(run_ids)) == len(run_ids) == 2 * PLAN.runs
    assert all(run_id.startswith("bench-load-x-") for run_id in run_ids)


def test_a_part_arrives_as_it_was_sent() -> None:
    part = replace(PLAN, rate=7.5).parts()[1]
    assert Part.from_json(orjson.loads(orjson.dumps(part.to_json()))) == part


def test_a_mixed_load_has_two_skips_for_each_save_and_load() -> None:
    assert sorted(Kind.MIXED.turns) == ["load", "save", "skip", "skip"]


@pytest.mark.parametrize("state_bytes", [256, 2_000, 10_240, 300_000])
def test_a_state_has_the_wished_size_and_every_step_another(state_bytes: int) -> None:
    states = LoadStates(state_bytes=state_bytes, agents=2)
    made = [states.state("run-7", 7, step) for step in range(5)]
    assert all(abs(len(state) - state_bytes) <= max(160, state_bytes // 10) for state in made)
    parsed = [orjson.loads(state) for state in made]
    assert all(before != after for before, after in pairwise(parsed))


def test_another_heartbeat_changes_the_bytes_and_not_the_meaning() -> None:
    states = LoadStates(state_bytes=2_000, agents=1)
    first, second = (orjson.loads(states.state("run-0", 0, 3, heartbeat=beat)) for beat in (0, 1))
    assert first != second
    assert {**first, "heartbeat_count": 1} == second


class Keeper:
    """Answers like a server, or fails, and counts the calls under way."""

    def __init__(self, *, fails: bool = False) -> None:
        self.fails = fails
        self.under_way = self.most_under_way = 0
        self.saved: dict[str, list[bytes]] = {}
        self.loaded: list[str] = []

    async def _answer(self) -> None:
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        await asyncio.sleep(0)
        self.under_way -= 1
        if self.fails:
            raise Unavailable("there is nobody", reason="", metadata={})

    async def save(self, run_id: str, state: bytes, **_options: object) -> Any:
        await self._answer()
        states = self.saved.setdefault(run_id, [])
        states.append(state)
        before = {**orjson.loads(states[-2]), "heartbeat_count": 0} if len(states) > 1 else {}
        same = before == {**orjson.loads(state), "heartbeat_count": 0}
        return _Saved(SaveOutcome.SKIPPED if same else SaveOutcome.PERSISTED)

    async def load(self, run_id: str) -> None:
        await self._answer()
        self.loaded.append(run_id)


class _Saved:
    def __init__(self, outcome: SaveOutcome) -> None:
        self.outcome = outcome


async def loaded(kind: Kind, keeper: Keeper, **changes: Any) -> Tally:
    part = replace(PLAN, kind=kind, processes=1, duration_s=0.3, **changes).parts()[0]
    client = cast("AsyncClient", keeper)
    caller = Caller(client, part, LoadStates(state_bytes=500, agents=1))
    if not keeper.fails:
        await caller.prepare()
    tally = Tally(part)
    if part.rate is None:
        await closed_loop(part, caller, tally)
    else:
        await open_loop(part, caller, tally, part.rate)
    return tally


@pytest.mark.parametrize(
    ("kind", "outcomes"),
    [
        (Kind.SAVE, {"PERSISTED"}),
        (Kind.SKIP, {"SKIPPED"}),
        (Kind.LOAD, {"LOADED"}),
        (Kind.MIXED, {"PERSISTED", "SKIPPED", "LOADED"}),
    ],
)
async def test_each_kind_does_what_it_says(kind: Kind, outcomes: set[str]) -> None:
    tally = await loaded(kind, Keeper())
    assert set(tally.outcomes) == outcomes
    assert sum(each.count for each in tally.durations.values()) == tally.outcomes.total() > 0


async def test_a_closed_loop_keeps_its_calls_under_way() -> None:
    keeper = Keeper()
    await loaded(Kind.SAVE, keeper, concurrency=5)
    assert keeper.most_under_way == 5


async def test_an_open_loop_begins_no_more_than_its_rate() -> None:
    keeper = Keeper()
    tally = await loaded(Kind.SAVE, keeper, rate=50.0)
    assert 0 < sum(map(len, keeper.saved.values())) <= 15
    assert tally.outcomes.total() <= 15


async def test_a_call_that_waits_for_room_counts_from_when_it_was_due() -> None:
    """One call at a time for a rate that needs many: what waits is late, and says so."""

    class Slow(Keeper):
        async def _answer(self) -> None:
            await asyncio.sleep(0.05)

    tally = await loaded(Kind.SAVE, Slow(), rate=1_000.0, concurrency=1)
    assert tally.late > 0
    slowest_us = max(tally.durations["save"].durations().buckets)
    assert slowest_us > 60_000


async def test_failed_calls_are_counted_by_their_kind() -> None:
    tally = await loaded(Kind.LOAD, Keeper(fails=True), concurrency=1)
    assert tally.errors["load", "Unavailable"] > 0
    assert tally.first_errors == {"Unavailable": "there is nobody"}
    assert not tally.outcomes


def told(
    counts: Mapping[str, int], *, cpu_share: float = 0.2, outcome: str = "", late: int = 0
) -> dict[str, Any]:
    durations = {}
    for name, number in counts.items():
        histogram = Histogram()
        for each in range(number):
            histogram.record(0.001 * (each + 1))
        durations[name] = asdict(histogram.durations())
    answer = {
        "durations": durations,
        "outcomes": {outcome: sum(counts.values())} if outcome else {},
        "errors": [["load", "Unavailable", 2]],
        "first_errors": {"Unavailable": "there is nobody"},
        "late": late,
        "cpu_share": cpu_share,
    }
    # As it comes through the pipe: the keys of buckets are text there.
    piped: dict[str, Any] = orjson.loads(orjson.dumps(answer, option=orjson.OPT_NON_STR_KEYS))
    return piped


def test_the_processes_are_added_up() -> None:
    figures = figures_of(PLAN, [told({"save": 100, "load": 20}), told({"save": 100})], cores=4)
    assert [(each.name, each.calls, each.errors) for each in figures.calls] == [
        ("save", 200, 0),
        ("load", 20, 4),
        ("all", 220, 4),
    ]
    save = figures.calls[0]
    assert save.rate == 100.0
    assert save.p50_ms == pytest.approx(50, rel=0.04)
    assert save.p90_ms == pytest.approx(90, rel=0.04)
    assert save.p99_ms == pytest.approx(99, rel=0.04)
    assert figures.errors == {"Unavailable": 4}
    assert figures.warnings == []


@pytest.mark.parametrize(
    ("changes", "shares", "cores", "words"),
    [
        ({}, (0.1, 0.95), 8, "a client process took 95 % of a core"),
        ({}, (0.7, 0.7), 1, "its processes took 1.4 of the 1 cores"),
        ({"rate": 500.0}, (0.1,), 4, "fell behind: 100 of the 500"),
        ({"kind": Kind.SKIP}, (0.1,), 4, "answers were not SKIPPED"),
    ],
)
def test_what_makes_figures_doubtful_is_said(
    changes: dict[str, Any], shares: tuple[float, ...], cores: int, words: str
) -> None:
    each = [told({"save": 200}, cpu_share=share, outcome="PERSISTED") for share in shares]
    (warning,) = figures_of(replace(PLAN, **changes), each, cores=cores).warnings
    assert words in warning


def test_a_load_that_kept_up_is_not_doubtful() -> None:
    plan = replace(PLAN, kind=Kind.SAVE, rate=100.0)
    assert not figures_of(plan, [told({"save": 200}, outcome="PERSISTED")], cores=2).warnings
