"""Saves, loads and lists over the wire, on both paths: every field arrives and comes back."""

import hashlib
import json
import time

import pytest

from statekeep.v1 import admin_service_pb2 as admin_pb
from statekeep.v1 import agent_state_pb2
from statekeep.v1 import agent_state_service_pb2 as pb
from statekeep_server.domain.model import Path
from tests.support.wire import Wire, new_run, save_request

AUTO = agent_state_pb2.CHECKPOINT_TYPE_AUTO
MANUAL = agent_state_pb2.CHECKPOINT_TYPE_MANUAL
PERSISTED = agent_state_pb2.SAVE_OUTCOME_PERSISTED
SKIPPED = agent_state_pb2.SAVE_OUTCOME_SKIPPED


async def test_every_field_of_a_save_comes_back(wire: Wire, path: Path) -> None:
    request = pb.SaveAgentStateRequest(
        run_id=new_run(),
        thread_id="thread-ü",
        user_id="user-1",
        state=agent_state_pb2.State(data=b'{"b": 1,  "a": "\xc3\xbc"}'),
        checkpoint_type=agent_state_pb2.CHECKPOINT_TYPE_PHASE_TRANSITION,
        agent_phase="planning",
        execution_context={"model": "none", "attempt": ""},
        is_recovery_point=True,
        request_id="r-1",
    )
    request.expires_at.FromSeconds(int(time.time()) + 3_600)
    saved = await wire.state.SaveAgentState(request)
    assert saved.outcome == PERSISTED
    assert saved.version == 1
    assert saved.state_sha256 == hashlib.sha256(request.state.data).digest()
    assert saved.reason == agent_state_pb2.DECISION_REASON_RECOVERY_POINT
    assert saved.path == serving(path)
    assert list(saved.changed_fields) == ["a", "b"]
    assert saved.request_id == "r-1"
    assert not saved.replayed
    assert not saved.HasField("fallback_cause")

    loaded = await wire.state.LoadAgentState(pb.LoadAgentStateRequest(run_id=request.run_id))
    assert loaded.state.data == request.state.data
    assert loaded.state.content_type == "application/json"
    assert loaded.head_version == 1
    snapshot = loaded.snapshot
    assert snapshot.snapshot_id == saved.snapshot_id
    assert snapshot.checkpoint_type == request.checkpoint_type
    assert snapshot.execution_context == request.execution_context
    assert snapshot.expires_at == request.expires_at
    assert snapshot.state_sha256 == saved.state_sha256
    assert snapshot.comparison_hash == saved.comparison_hash
    assert snapshot.state_bytes == len(request.state.data)
    assert snapshot.is_recovery_point
    assert (snapshot.run_id, snapshot.thread_id, snapshot.user_id, snapshot.agent_phase) == (
        request.run_id,
        "thread-ü",
        "user-1",
        "planning",
    )
    assert abs(snapshot.persisted_at.ToSeconds() - time.time()) < 60


async def test_an_unchanged_state_is_skipped_by_the_optimized_path_alone(
    wire: Wire, path: Path
) -> None:
    run_id = new_run()
    first = await wire.state.SaveAgentState(save_request({"a": 1}, run_id=run_id))
    again = await wire.state.SaveAgentState(save_request({"a": 1}, run_id=run_id))
    if path is Path.STANDARD:
        assert (again.outcome, again.version) == (PERSISTED, 2)
        return
    assert (again.outcome, again.reason) == (SKIPPED, agent_state_pb2.DECISION_REASON_UNCHANGED)
    assert (again.snapshot_id, again.version) == (first.snapshot_id, 1)
    changed = await wire.state.SaveAgentState(save_request({"a": 2}, run_id=run_id))
    assert (changed.outcome, changed.version) == (PERSISTED, 2)
    assert list(changed.changed_fields) == ["a"]


@pytest.mark.parametrize("kind", [0, 1, 3, 4, 5, 6, 8, 99, -1])
async def test_only_automatic_saves_are_skipped(wire: Wire, kind: int) -> None:
    request = save_request(
        run_id=new_run(), checkpoint_type=agent_state_pb2.CheckpointType.ValueType(kind)
    )
    for version in (1, 2):
        saved = await wire.state.SaveAgentState(request)
        assert (saved.outcome, saved.version) == (PERSISTED, version)
    loaded = await wire.state.LoadAgentState(pb.LoadAgentStateRequest(run_id=request.run_id))
    assert loaded.snapshot.checkpoint_type == (kind or MANUAL)


async def test_an_unknown_type_is_persisted_and_counted(wire: Wire) -> None:
    unknown = agent_state_pb2.CheckpointType.ValueType(77)
    saved = await wire.state.SaveAgentState(save_request(run_id=new_run(), checkpoint_type=unknown))
    assert saved.reason == agent_state_pb2.DECISION_REASON_UNKNOWN_CHECKPOINT_TYPE
    stats = await wire.admin.GetStats(admin_pb.GetStatsRequest())
    assert stats.unknown_checkpoint_types == 1


@pytest.mark.parametrize("size", [20, 1_000, 100_000, 3_000_000, 3_670_016])
async def test_states_come_back_byte_for_byte(wire: Wire, size: int) -> None:
    state = b'"' + "äöü€".encode() * (size // 9 - 1)
    state += b"x" * (size - len(state) - 1) + b'"'
    assert len(state) == size
    run_id = new_run()
    await wire.state.SaveAgentState(save_request(state, run_id=run_id))
    loaded = await wire.state.LoadAgentState(pb.LoadAgentStateRequest(run_id=run_id))
    assert loaded.state.data == state


async def test_bytes_that_are_not_json_are_kept_too(wire: Wire) -> None:
    run_id = new_run()
    await wire.state.SaveAgentState(
        save_request(b"\x00\xff\n", content_type="application/octet-stream", run_id=run_id)
    )
    loaded = await wire.state.LoadAgentState(pb.LoadAgentStateRequest(run_id=run_id))
    assert loaded.state.data == b"\x00\xff\n"
    assert loaded.state.content_type == "application/octet-stream"


async def test_a_repeated_request_gets_the_first_answer(wire: Wire) -> None:
    run_id = new_run()
    request = save_request({"a": 1}, run_id=run_id, request_id="r-1", checkpoint_type=MANUAL)
    first = await wire.state.SaveAgentState(request)
    await wire.state.SaveAgentState(save_request({"a": 2}, run_id=run_id))
    request.attempt = 2
    again = await wire.state.SaveAgentState(request)
    assert again.replayed
    assert (again.snapshot_id, again.version) == (first.snapshot_id, 1)


async def test_a_server_names_a_save_that_has_no_name(wire: Wire) -> None:
    saved = await wire.state.SaveAgentState(save_request(run_id=new_run()))
    assert saved.request_id


async def test_any_snapshot_of_a_run_can_be_loaded(wire: Wire) -> None:
    run_id = new_run()
    saved = [
        await wire.state.SaveAgentState(save_request({"step": step}, run_id=run_id))
        for step in range(3)
    ]
    for step, answer in enumerate(saved):
        for request in (
            pb.LoadAgentStateRequest(run_id=run_id, version=answer.version),
            pb.LoadAgentStateRequest(run_id=run_id, snapshot_id=answer.snapshot_id),
        ):
            loaded = await wire.state.LoadAgentState(request)
            assert json.loads(loaded.state.data) == {"step": step}
            assert loaded.head_version == 3


async def test_history_is_paged_newest_first(wire: Wire) -> None:
    run_id = new_run()
    for step in range(5):
        await wire.state.SaveAgentState(save_request({"step": step}, run_id=run_id))
    request = pb.ListSnapshotsRequest(run_id=run_id, page_size=2)
    pages: list[list[int]] = []
    while not pages or request.page_token:
        page = await wire.state.ListSnapshots(request)
        pages.append([snapshot.version for snapshot in page.snapshots])
        request.page_token = page.next_page_token
    assert pages == [[5, 4], [3, 2], [1]]
    everything = await wire.state.ListSnapshots(
        pb.ListSnapshotsRequest(run_id=run_id, page_size=2**31 - 1)
    )
    assert len(everything.snapshots) == 5
    assert not everything.next_page_token
    nobody = await wire.state.ListSnapshots(pb.ListSnapshotsRequest(run_id=new_run()))
    assert not nobody.snapshots


async def test_runs_are_paged_and_filtered(wire: Wire) -> None:
    runs = [new_run() for _ in range(5)]
    for index, run_id in enumerate(runs):
        await wire.state.SaveAgentState(
            save_request(run_id=run_id, thread_id=f"thread-{index % 2}", user_id="user-1")
        )
    request = pb.ListRunsRequest(page_size=2)
    found: list[str] = []
    while True:
        page = await wire.state.ListRuns(request)
        found += [run.run_id for run in page.runs]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert found == runs[::-1]
    of_thread = await wire.state.ListRuns(pb.ListRunsRequest(thread_id="thread-1"))
    assert [run.run_id for run in of_thread.runs] == [runs[3], runs[1]]
    assert {run.thread_id for run in of_thread.runs} == {"thread-1"}
    nobody = await wire.state.ListRuns(pb.ListRunsRequest(user_id="user-2"))
    assert not nobody.runs


async def test_a_deleted_run_is_gone_and_its_versions_are_not_used_again(wire: Wire) -> None:
    run_id = new_run()
    for step in range(3):
        await wire.state.SaveAgentState(save_request({"step": step}, run_id=run_id))
    deleted = await wire.state.DeleteRun(pb.DeleteRunRequest(run_id=run_id))
    assert deleted.deleted_snapshots == 3
    again = await wire.state.DeleteRun(pb.DeleteRunRequest(run_id=run_id))
    assert again.deleted_snapshots == 0
    assert not (await wire.state.ListRuns(pb.ListRunsRequest())).runs
    saved = await wire.state.SaveAgentState(
        save_request({"step": 2}, run_id=run_id, expected_version=0)
    )
    assert (saved.outcome, saved.version) == (PERSISTED, 5)


async def test_a_batch_answers_each_save(wire: Wire, path: Path) -> None:
    run_id, other = new_run(), new_run()
    await wire.state.SaveAgentState(save_request({"a": 1}, run_id=run_id))
    saves = [
        save_request({"a": 1}, run_id=run_id),
        save_request({"a": 2}, run_id=run_id),
        save_request({"a": 3}, run_id=run_id, expected_version=9),
        save_request({"a": 1}, run_id=other),
    ]
    answer = await wire.state.BatchSaveAgentStates(pb.BatchSaveAgentStatesRequest(saves=saves))
    outcomes = [result.saved.outcome for result in answer.results]
    unchanged = SKIPPED if path is Path.OPTIMIZED else PERSISTED
    assert outcomes == [unchanged, PERSISTED, 0, PERSISTED]
    error = answer.results[2].error
    assert (error.code, error.reason) == (10, "VERSION_CONFLICT")
    assert error.metadata["expected_version"] == "9"


async def test_an_atomic_batch_is_kept_whole_or_not_at_all(wire: Wire) -> None:
    run_id, other = new_run(), new_run()
    saves = [save_request({"a": 1}, run_id=run_id), save_request({"a": 1}, run_id=other)]
    good = pb.BatchSaveAgentStatesRequest(saves=saves, atomic=True)
    answer = await wire.state.BatchSaveAgentStates(good)
    assert [result.saved.version for result in answer.results] == [1, 1]


async def test_the_server_says_what_it_is(wire: Wire, path: Path, database_url: str) -> None:
    info = await wire.admin.GetServerInfo(admin_pb.GetServerInfoRequest())
    assert info.version
    assert info.path == serving(path)
    assert info.database == database_url.partition("+")[0]
    assert info.limits.max_state_bytes == 3_670_016
    assert info.limits.max_batch_items == 256
    assert info.skip_rules.canonical_version == 1
    assert "updated_at" in info.skip_rules.ignored_fields
    assert info.skip_rules.max_skip_age_s == 300.0
    assert info.skip_rules.max_skips == 1_000


async def test_the_server_counts_what_it_does(wire: Wire, path: Path) -> None:
    run_id = new_run()
    for _ in range(2):
        await wire.state.SaveAgentState(save_request({"a": 1}, run_id=run_id))
    await wire.state.LoadAgentState(pb.LoadAgentStateRequest(run_id=run_id))
    stats = await wire.admin.GetStats(admin_pb.GetStatsRequest())
    (mine,) = [counts for counts in stats.paths if counts.path == serving(path)]
    assert (mine.saves, mine.loads) == (2, 1)
    assert mine.skipped == (1 if path is Path.OPTIMIZED else 0)
    assert sum(mine.decisions.values()) == 2
    assert mine.rows_written > 0
    assert mine.statements > 0
    assert abs(stats.started_at.ToSeconds() - time.time()) < 60
    assert stats.cache.max_entries > 0
    assert not stats.circuit_open


def serving(path: Path) -> agent_state_pb2.ServingPath.ValueType:
    return agent_state_pb2.ServingPath.Value(f"SERVING_PATH_{path}")
