"""All scenarios, in the order in which a round goes through them."""

from benchmarks.scenarios import Scenario
from benchmarks.scenarios.agents import open_agents
from benchmarks.scenarios.growth import open_growth
from benchmarks.scenarios.large import open_large
from benchmarks.scenarios.lone import open_lone
from benchmarks.scenarios.memory import open_memory
from benchmarks.scenarios.rivals import CONFIGS, open_rivals
from benchmarks.scenarios.sqlite import open_sqlite
from benchmarks.scenarios.storage import open_sizes, open_versions
from benchmarks.scenarios.streaming import open_streaming
from benchmarks.scenarios.telemetry import CONTENDERS as WATCHED
from benchmarks.scenarios.telemetry import open_telemetry
from benchmarks.scenarios.throughput import open_throughput

SCENARIOS = (
    Scenario(
        "throughput",
        open_throughput,
        True,
        ("save", "save_plain", "standard", "orm", "echo", "skip", "load"),
    ),
    Scenario(
        "rivals",
        open_rivals,
        True,
        (
            "save_beside_rivals",
            *(f"langgraph_{config}" for config in CONFIGS),
            "pgbench",
        ),
    ),
    Scenario("telemetry", open_telemetry, True, WATCHED),
    Scenario("lone", open_lone, True, ("asyncpg",)),
    Scenario("streaming", open_streaming, True, ("python_unary", "python_stream")),
    Scenario("sqlite", open_sqlite, False, ("sqlite", "sqlite_orm", "langgraph_sqlite")),
    Scenario(
        "agents",
        open_agents,
        True,
        ("around_optimized", "around_standard", "agent_optimized", "agent_standard"),
    ),
    Scenario("versions", open_versions, True, ("version", "raw_row")),
    Scenario("large", open_large, True, ("small_alone", "small_beside_large", "large")),
    Scenario("growth", open_growth, True, ("growth",)),
    Scenario("sizes", open_sizes, True, ("growing", "after")),
    Scenario("memory", open_memory, True, ("memory_optimized", "memory_standard")),
)
