"""Readiness flips within two seconds, and only after two answers in a row, by a virtual clock."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hypothesis import given
from hypothesis import strategies as st

from statekeep_server.domain.errors import StorageUnavailable
from statekeep_server.transport.health import (
    IN_A_ROW,
    NOT_SERVING,
    SERVING,
    Check,
    HealthServicer,
    polled,
)
from tests.support import virtual_time

INTERVAL_S = 0.5
"""What a server uses."""
PROMISED_S = 2.0
A_MOMENT_S = 1e-6
"""For sums of fractions."""


@asynccontextmanager
async def told(check: Check) -> AsyncIterator[list[tuple[float, int]]]:
    """Poll, and note each state that is told with its moment."""
    health, seen = HealthServicer(("a",)), list[tuple[float, int]]()
    clock = asyncio.get_running_loop().time

    async def note() -> None:
        while True:
            changed = health._changed
            seen.append((clock(), health._states["a"]))
            await changed.wait()

    async with polled(health, check, "a", interval_s=INTERVAL_S):
        noting = asyncio.create_task(note())
        try:
            yield seen
        finally:
            noting.cancel()


@given(
    dies_at_s=st.floats(0.5, 4.0),
    away_s=st.floats(PROMISED_S, 10.0),
    takes_s=st.floats(0.0, 0.49),
    hangs=st.booleans(),
)
def test_whatever_the_moment_the_database_is_missed_and_seen_again_in_time(
    dies_at_s: float, away_s: float, takes_s: float, hangs: bool
) -> None:
    back_at_s = dies_at_s + away_s + A_MOMENT_S

    async def outage() -> list[tuple[float, int]]:
        clock = asyncio.get_running_loop().time

        async def check() -> None:
            await asyncio.sleep(takes_s)
            while dies_at_s <= clock() < back_at_s:  # whatever it was asked before
                if not hangs:
                    raise StorageUnavailable("UNREACHABLE")
                await asyncio.sleep(back_at_s + takes_s - clock())

        async with told(check) as seen:
            await asyncio.sleep(back_at_s + PROMISED_S + A_MOMENT_S - clock())
            return seen.copy()

    (_, first), (missed_at_s, second), (seen_at_s, third) = virtual_time.run(outage)
    assert (first, second, third) == (SERVING, NOT_SERVING, SERVING)
    assert dies_at_s < missed_at_s <= dies_at_s + PROMISED_S + A_MOMENT_S
    assert back_at_s < seen_at_s <= back_at_s + PROMISED_S + A_MOMENT_S


@given(first=st.booleans(), answers=st.lists(st.booleans(), max_size=40))
def test_two_answers_in_a_row_change_what_is_told_and_one_does_not(
    first: bool, answers: list[bool]
) -> None:
    async def follow() -> list[int]:
        to_come = iter([first, *answers])

        async def check() -> None:
            if not next(to_come, expected[-1]):
                raise StorageUnavailable("LOCKED")

        async with told(check) as seen:
            await asyncio.sleep((len(answers) + 1) * INTERVAL_S)
            return [state == SERVING for _, state in seen]

    expected, against = [first], 0
    for answer in answers:
        against = against + 1 if answer != expected[-1] else 0
        if against == IN_A_ROW:
            expected.append(answer)
            against = 0
    assert virtual_time.run(follow) == expected
