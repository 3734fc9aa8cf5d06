"""The bodies that a benchmark sends: what the contract reads in them, and that they differ."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import orjson
import pytest

from benchmarks.features import streaming
from benchmarks.growing import growing_states
from benchmarks.load import Spec, read_script, requests_of, write_script
from benchmarks.states import States, load_request, make_states, save_request
from statekeep.v1 import agent_state_pb2
from statekeep.v1 import agent_state_service_pb2 as contract
from statekeep_server.bench.record import record
from statekeep_server.bench.trajectories import write_trajectories


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recording") / "work.jsonl.gz"
    write_trajectories(path, record(runs=3, steps=20, seed=1))
    return path


@pytest.fixture(scope="module")
def states(recording: Path) -> States:
    return make_states(recording, state_bytes=4_000)


def test_a_save_is_what_the_contract_reads() -> None:
    body = save_request("run-1", b'{"a":1}', request_id="r-1", is_recovery_point=True)
    save = contract.SaveAgentStateRequest.FromString(body)
    assert (save.run_id, save.state.data, save.request_id) == ("run-1", b'{"a":1}', "r-1")
    assert save.state.content_type == "application/json"
    assert save.checkpoint_type == agent_state_pb2.CHECKPOINT_TYPE_AUTO
    assert save.is_recovery_point


def test_a_load_is_what_the_contract_reads() -> None:
    newest = contract.LoadAgentStateRequest.FromString(load_request("run-1"))
    assert (newest.run_id, newest.WhichOneof("selector")) == ("run-1", None)
    one = contract.LoadAgentStateRequest.FromString(load_request("run-1", 300))
    assert (one.run_id, one.version) == ("run-1", 300)


def test_every_run_and_step_has_its_own_state_of_about_the_size(states: States) -> None:
    made = [states.state(f"run-{run}", step) for run in range(5) for step in range(20)]
    assert len(set(made)) == len(made)
    assert all(abs(len(state) - 4_000) < 200 for state in made)
    assert all(orjson.loads(state)["messages"] for state in made)


def test_another_heartbeat_changes_nothing_else(states: States) -> None:
    first, second = (orjson.loads(states.state("run-1", 3, heartbeat=beat)) for beat in (1, 2))
    assert first.pop("heartbeat_count") != second.pop("heartbeat_count")
    assert first == second


def spec(recording: Path, kind: str, **changes: object) -> Spec:
    values: dict[str, object] = {
        "kind": kind,
        "port": 1,
        "path": "",
        "concurrency": 1,
        "recording": str(recording),
        "prefix": "run",
        "runs": 4,
        "state_bytes": 2_000,
    }
    return Spec(**(values | changes))  # type: ignore[arg-type]  # each by its name


def saves(bodies: Iterator[bytes], number: int) -> list[contract.SaveAgentStateRequest]:
    found = [contract.SaveAgentStateRequest.FromString(next(bodies)) for _ in range(number)]
    assert len({save.request_id for save in found}) == number
    return found


def test_runs_take_turns_and_each_save_of_a_run_differs(recording: Path) -> None:
    found = saves(requests_of(spec(recording, "save")), 12)
    assert [save.run_id for save in found] == [f"run-{i % 4}" for i in range(12)]
    assert len({save.state.data for save in found}) == 12


def test_a_skip_repeats_what_was_prepared(recording: Path) -> None:
    prepared = {save.run_id: save for save in saves(requests_of(spec(recording, "prepare")), 4)}
    for save in saves(requests_of(spec(recording, "skip")), 8):
        first, now = orjson.loads(prepared[save.run_id].state.data), orjson.loads(save.state.data)
        assert first != now
        assert {**first, "heartbeat_count": 0} == {**now, "heartbeat_count": 0}


def test_preparing_goes_on_where_it_ended(recording: Path) -> None:
    whole = list(requests_of(spec(recording, "prepare", saves=10)))
    second = list(requests_of(spec(recording, "prepare", saves=4, first_save=6)))

    def parts(bodies: list[bytes]) -> list[tuple[str, bytes]]:
        found = [contract.SaveAgentStateRequest.FromString(body) for body in bodies]
        return [(save.run_id, save.state.data) for save in found]

    assert parts(whole)[6:] == parts(second)


def test_a_script_is_read_as_it_was_written(tmp_path: Path) -> None:
    agents = [[b"one\n", b"", b"three"], [], [b"\x00" * 5]]
    write_script(tmp_path / "script", agents)
    assert read_script(tmp_path / "script") == agents


def test_a_growing_run_only_appends(recording: Path) -> None:
    ((_, found),) = growing_states(recording, "growing", steps=12)
    states = list(found)
    assert len(states) == 12
    for before, after in pairwise(states):
        assert after["messages"][: len(before["messages"])] == before["messages"]
    assert abs(len(orjson.dumps(states[-1])) - 12 * 1_870) < 6_000


def test_a_stream_carries_the_same_saves() -> None:
    found = streaming()
    if found is None:
        pytest.skip("the contract has no streaming save")
    body = save_request("run-1", b"x" * 300, request_id="r-1")
    method = contract.DESCRIPTOR.services_by_name["AgentStateService"].methods_by_name[
        found.path.rpartition("/")[2]
    ]
    message = getattr(contract, method.input_type.name).FromString(found.wrap(body))
    parts = [value for _, value in message.ListFields()]
    assert contract.SaveAgentStateRequest.FromString(body) in (message, *parts)
