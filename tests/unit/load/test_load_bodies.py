"""The bodies that ghz sends are what a scenario promises."""

from collections import Counter
from pathlib import Path

import orjson
import pytest

from benchmarks.states import States, make_states
from load.bodies import (
    STORE,
    dapr_bodies,
    load_bodies,
    save_bodies,
    skip_bodies,
    write_bodies,
)
from statekeep.v1.agent_state_service_pb2 import LoadAgentStateRequest, SaveAgentStateRequest
from statekeep_server.bench.record import record
from statekeep_server.bench.trajectories import write_trajectories
from statekeep_server.domain.ignored import DEFAULT_IGNORED_FIELDS

RUNS, CALLS = 8, 40
STATE_BYTES = 2_048


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> States:
    path = tmp_path_factory.mktemp("recording") / "recording.jsonl.gz"
    write_trajectories(path, record(runs=1, steps=20, seed=1))
    return make_states(path, state_bytes=STATE_BYTES)


def saves(bodies: object) -> list[SaveAgentStateRequest]:
    assert hasattr(bodies, "__iter__")
    return [SaveAgentStateRequest.FromString(body) for body in bodies]


def meaning(request: SaveAgentStateRequest) -> dict[str, object]:
    state = orjson.loads(request.state.data)
    return {name: each for name, each in state.items() if name not in DEFAULT_IGNORED_FIELDS}


def test_a_file_holds_every_body_behind_its_length(tmp_path: Path, states: States) -> None:
    bodies = list(save_bodies(states, "a", runs=RUNS, calls=CALLS))
    assert write_bodies(tmp_path / "bodies", bodies) == CALLS
    content, at, found = (tmp_path / "bodies").read_bytes(), 0, []
    while at < len(content):
        size, at = varint(content, at)
        found.append(content[at : at + size])
        at += size
    assert found == bodies


def test_saves_are_distinct_and_differ_from_the_save_before(states: States) -> None:
    requests = saves(save_bodies(states, "a", runs=RUNS, calls=CALLS))
    assert Counter(request.run_id for request in requests) == {
        f"a-{run}": CALLS // RUNS for run in range(RUNS)
    }
    assert len({request.request_id for request in requests}) == CALLS
    assert len({orjson.dumps(meaning(request)) for request in requests}) == CALLS


def test_skips_mean_what_the_first_save_of_the_run_left(states: States) -> None:
    first = {
        request.run_id: request
        for request in saves(save_bodies(states, "a", runs=RUNS, calls=RUNS))
    }
    skips = saves(skip_bodies(states, "a", runs=RUNS, calls=CALLS))
    for skip in skips:
        assert meaning(skip) == meaning(first[skip.run_id])
        assert skip.state.data != first[skip.run_id].state.data
        assert skip.checkpoint_type == first[skip.run_id].checkpoint_type
    assert len(
        {skip.request_id for skip in skips} | {each.request_id for each in first.values()}
    ) == (CALLS + RUNS)


def test_loads_prefer_few_runs_and_are_always_the_same() -> None:
    bodies = list(load_bodies("a", runs=100, calls=5_000, zipf_exponent=1.1))
    asked = Counter(LoadAgentStateRequest.FromString(body).run_id for body in bodies)
    assert set(asked) <= {f"a-{run}" for run in range(100)}
    assert asked["a-0"] > 1.5 * asked["a-1"] > 1.5 * asked["a-9"]
    assert bodies == list(load_bodies("a", runs=100, calls=5_000, zipf_exponent=1.1))


def test_dapr_keeps_the_same_states(states: States) -> None:
    ours = saves(save_bodies(states, "a", runs=RUNS, calls=CALLS))
    theirs = list(dapr_bodies(states, "a", runs=RUNS, calls=CALLS))
    for request, body in zip(ours, theirs, strict=True):
        store, items = fields(body)
        assert store == (1, STORE.encode())
        assert items[0] == 2
        assert fields(items[1]) == [(1, request.run_id.encode()), (2, request.state.data)]


def fields(message: bytes) -> list[tuple[int, bytes]]:
    """Split a message into its fields, all of which have a length."""
    at, found = 0, []
    while at < len(message):
        tag, at = varint(message, at)
        size, at = varint(message, at)
        assert tag & 7 == 2
        found.append((tag >> 3, message[at : at + size]))
        at += size
    return found


def varint(content: bytes, at: int) -> tuple[int, int]:
    """Read a number; return it and where the next thing begins."""
    value, shift = 0, 0
    while True:
        value |= (content[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not content[at - 1] & 0x80:
            return value, at
