"""A server whose own clock jumps answers as ever: ages are told by the database's clock."""

import pytest

from statekeep_server.config import Settings
from statekeep_server.domain.errors import InvalidField
from statekeep_server.domain.model import (
    CheckpointType,
    Newest,
    Outcome,
    Reason,
    RunKey,
    SaveCommand,
)
from statekeep_server.flags import Flags
from statekeep_server.paths import open_facade
from statekeep_server.service.clock import SystemClock
from statekeep_server.service.ids import new_id
from statekeep_server.service.sweeper import sweep_once

KEY = RunKey("default", "run-1")
YEAR_US = 365 * 86_400 * 1_000_000
HOUR_US = 3_600 * 1_000_000


class JumpingClock(SystemClock):
    """This machine's clock, set wrong by so much."""

    wrong_us = 0

    def now_us(self) -> int:
        return super().now_us() + self.wrong_us


def save(step: int, request_id: str, expires_at_us: int | None = None) -> SaveCommand:
    return SaveCommand(
        key=KEY,
        state=b'{"step": %d}' % step,
        checkpoint_type=CheckpointType.AUTO,
        request_id=request_id,
        expires_at_us=expires_at_us,
    )


@pytest.mark.parametrize("wrong_us", [10 * YEAR_US, -10 * YEAR_US], ids=["ahead", "behind"])
async def test_a_jump_of_the_servers_clock_changes_no_answer(
    database_url: str, wrong_us: int
) -> None:
    clock = JumpingClock()
    true_us = clock.now_us()
    settings = Settings(database_url=database_url)
    flags = Flags(enable_optimized_persistence=True)
    async with open_facade(settings, flags=lambda: flags, clock=clock, new_id=new_id) as facade:
        first = await facade.save(save(1, "r-1", true_us + HOUR_US))
        clock.wrong_us = wrong_us
        # A skip has an age, by which it is allowed.
        skipped = await facade.save(save(1, "r-2", true_us + HOUR_US))
        assert skipped.result.outcome is Outcome.SKIPPED
        assert skipped.result.version == first.result.version
        # What expires in an hour has not, and what expired an hour ago is refused.
        assert (await facade.load(KEY, Newest())).snapshot.version == first.result.version
        with pytest.raises(InvalidField):
            await facade.save(save(2, "r-3", true_us - HOUR_US))
        changed = await facade.save(save(2, "r-4", true_us + HOUR_US))
        assert (changed.result.reason, changed.result.version) == (Reason.CHANGED, 2)
        # Neither snapshots nor what a retry is answered with go before their time.
        store = facade._paths.standard.store
        assert await sweep_once(store, batch_rows=100, request_result_ttl_s=86_400) == 0
        again = await facade.save(save(2, "r-4", true_us + HOUR_US))
        assert again.result.replayed
        assert again.result.version == 2
        assert (await facade.load(KEY, Newest())).head_version == 2
