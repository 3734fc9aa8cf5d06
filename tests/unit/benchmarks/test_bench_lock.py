"""The environment of the benchmarks runs the server with what it is shipped with."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PINNED = re.compile(r"^([a-z0-9-]+)==([^ ;]+)", re.MULTILINE)


def test_what_both_locks_name_has_one_version() -> None:
    server = dict(PINNED.findall((ROOT / "requirements.lock").read_text()))
    bench = dict(PINNED.findall((ROOT / "benchmarks" / "requirements.lock").read_text()))
    shared = set(server) & set(bench)
    assert {"grpcio", "sqlalchemy", "asyncpg", "uvloop", "orjson", "uuid-utils"} <= shared
    assert {name: bench[name] for name in shared} == {name: server[name] for name in shared}
