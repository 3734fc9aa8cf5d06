"""What happened between two looks at a server."""

import json
from typing import Any

import pytest

from statekeep import ServerStats
from statekeep._admin_answers import server_stats
from statekeep.v1 import admin_service_pb2 as pb
from statekeep.v1 import agent_state_pb2
from statekeep_server.cli.output import Format
from statekeep_server.cli.rates import rates
from statekeep_server.cli.watch import line, screen

OPTIMIZED = agent_state_pb2.SERVING_PATH_OPTIMIZED


def stats(*, workers: int = 1, hits: int = 0, misses: int = 0, **counts: Any) -> ServerStats:
    """A server whose optimized path counted something."""
    return server_stats(
        pb.GetStatsResponse(
            paths=[pb.PathStats(path=OPTIMIZED, **counts)],
            cache=pb.CacheStats(hits=hits, misses=misses),
            pools=[pb.PoolStats(path=OPTIMIZED, pool_size=3, max_overflow=1, checked_out=1)],
            workers=[pb.WorkerStats(index=index) for index in range(workers)],
        )
    )


BEFORE = stats(
    saves=100,
    persisted=100,
    persisted_mean_s=0.010,
    rows_written=400,
    fallbacks={"INTERNAL": 3},
    failures={"INTERNAL": 1},
    hits=10,
    misses=10,
)
AFTER = stats(
    saves=150,
    persisted=110,
    skipped=40,
    persisted_mean_s=0.020,
    skipped_mean_s=0.001,
    rows_written=440,
    statements=20,
    fallbacks={"INTERNAL": 13},
    failures={"INTERNAL": 1, "OVERLOADED": 2},
    loads=4,
    hits=40,
    misses=20,
)


def test_only_what_happened_in_between_counts() -> None:
    found = rates(BEFORE, AFTER, 2.0)
    assert found is not None
    assert (found.saves_per_s, found.rows_per_s, found.statements_per_s) == (25.0, 20.0, 10.0)
    assert (found.loads_per_s, found.failures_per_s) == (2.0, 1.0)
    assert found.kpis.skip_rate == 0.8
    assert found.kpis.saved_mean_s == pytest.approx(0.120), "110 x 20 ms less 100 x 10 ms"
    assert found.kpis.skipped_mean_s == pytest.approx(0.001)
    assert found.kpis.fallback_rate == pytest.approx(10 / 60)
    assert found.kpis.cache_hit_rate == 0.75
    assert found.kpis.pool_use == 0.25
    assert found.kpis.writes_avoided == 160


def test_nothing_in_between_is_no_rate() -> None:
    found = rates(AFTER, AFTER, 1.0)
    assert found is not None
    assert found.saves_per_s == 0.0
    assert (found.kpis.skip_rate, found.kpis.saved_mean_s, found.kpis.skipped_mean_s) == (None,) * 3


@pytest.mark.parametrize("later", [BEFORE, stats(workers=2, saves=200, persisted=200)])
def test_counts_that_begin_anew_are_not_compared(later: ServerStats) -> None:
    assert rates(AFTER, later, 1.0) is None


def test_a_look_is_one_line_without_control_characters() -> None:
    said = line(rates(BEFORE, AFTER, 2.0), "")
    assert "saves/s=25.00" in said
    assert "skipped_%=80.00" in said
    assert "tripped=no" in said
    assert "\n" not in said
    assert line(None, "no answer: \x1b[2J").endswith("no answer: \\x1b[2J")


def test_a_look_is_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    with screen(Format.JSON) as show:
        show(rates(BEFORE, AFTER, 2.0), "")
        show(None, "no answer")
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["kpis"]["skip_rate"] == 0.8
    assert second["problem"] == "no answer"


def test_on_a_terminal_it_is_a_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    with screen(Format.TABLE) as show:
        show(rates(BEFORE, AFTER, 2.0), "")
        show(None, "no answer")
    out = capsys.readouterr().out
    assert "Ctrl-C ends" in out
    assert "no answer" in out
