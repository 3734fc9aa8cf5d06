"""Shadow mode: standard answers, and what optimized would have decided is counted beside it.

The locked transition decides twice, with the same head, clock and save: once without rules, which
is the answer, and once with those of the optimized path, which is only told (`SaveResult.would`).
The routes that a head cache would have chosen are compared with that too. Nothing is written and
nothing waits. The head moves with every save here, so the age of what would stand and the skips in
a row are carried from save to save, by each server for itself: of a run that moves between servers
they are not exact.
"""

import logging
from collections import Counter
from collections.abc import Callable

from statekeep_server.domain.model import PreparedSave, Reason, RunKey, SaveResult
from statekeep_server.domain.policy import ShadowRules, SkipRules
from statekeep_server.service.answers import ShadowStatistics
from statekeep_server.service.kpis import ROWS_PER_SAVE
from statekeep_server.service.ports import CachedHead, HeadCache

NO_SHADOW = ShadowStatistics(
    would_skip=0,
    would_persist={},
    disagreements=0,
    rows_avoided=0,
    routes_right=0,
    routes_wrong=0,
)
"""What a path without a shadow counts."""

logger = logging.getLogger("statekeep.shadow")

RUNS = 100_000
"""Runs that are remembered; then all are forgotten, and the shadow leans on their heads again."""


class Shadow:
    """Counts what the optimized path would have done.

    Args:
        rules: Those of the optimized path.
        heads: A cache of its own, as the optimized path would fill it.
        wanted: OPTIMIZED_PERSISTENCE_SHADOW as it is now.
    """

    def __init__(self, *, rules: SkipRules, heads: HeadCache, wanted: Callable[[], bool]) -> None:
        self._fresh = ShadowRules(rules=rules)
        self._heads = heads
        self._wanted = wanted
        self._runs: dict[RunKey, ShadowRules] = {}
        self._would_skip = 0
        self._would_persist: Counter[str] = Counter()
        self._disagreements = 0
        self._routes: Counter[bool] = Counter()

    def rules_of(self, key: RunKey) -> ShadowRules | None:
        """What the shadow of the run's next save is decided with; None when nobody wants it."""
        return self._runs.get(key, self._fresh) if self._wanted() else None

    async def saw(self, save: PreparedSave, result: SaveResult) -> None:
        """Count a save that standard persisted."""
        would = result.would
        if would is None:
            return
        key = save.command.key
        skips = would.reason is Reason.UNCHANGED
        cached = await self._heads.get(key)
        if cached is not None:
            self._routes[skips == (cached.comparison_hash == save.comparison_hash)] += 1
        await self._heads.put(key, CachedHead(result.version, save.comparison_hash))
        before = self._runs.pop(key, self._fresh)
        if len(self._runs) >= RUNS:
            self._runs.clear()
        self._runs[key] = ShadowRules(
            rules=before.rules,
            skips_in_a_row=before.skips_in_a_row + 1 if skips else 0,
            persisted_at_us=would.persisted_at_us,
        )
        if not skips:
            self._would_persist[would.reason] += 1
            return
        self._would_skip += 1
        # The digests of the fields are compared apart from the hash, and must tell the same.
        if result.changed_fields or result.changed_fields_truncated:
            self._disagreements += 1
            logger.error(
                "Shadow disagrees: a changed state would have been skipped: run_id=%r version=%d "
                "fields_changed=%d",
                key.run_id,
                result.version,
                len(result.changed_fields),
            )

    async def forget(self, key: RunKey) -> None:
        """Forget a run that is deleted."""
        self._runs.pop(key, None)
        await self._heads.invalidate(key)

    def statistics(self) -> ShadowStatistics:
        """Tell what was counted."""
        return ShadowStatistics(
            would_skip=self._would_skip,
            would_persist=dict(self._would_persist),
            disagreements=self._disagreements,
            rows_avoided=self._would_skip * ROWS_PER_SAVE,
            routes_right=self._routes[True],
            routes_wrong=self._routes[False],
        )
