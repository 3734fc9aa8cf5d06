"""Write-behind over the wire, on both paths: what is refused, and what is answered."""

import hashlib
from typing import Any

import grpc

from statekeep.v1 import admin_service_pb2 as admin_pb
from statekeep.v1 import agent_state_pb2
from statekeep.v1 import agent_state_service_pb2 as pb
from statekeep_server.domain.model import Path
from tests.support.wire import Wire, new_run, refusal, save_request

AUTO = agent_state_pb2.CHECKPOINT_TYPE_AUTO
PERSISTED = agent_state_pb2.SAVE_OUTCOME_PERSISTED
BUFFERED = agent_state_pb2.SAVE_OUTCOME_BUFFERED


def late(run_id: str, state: bytes = b'{"step": 70}', **options: Any) -> pb.SaveAgentStateRequest:
    options.setdefault("checkpoint_type", AUTO)
    return pb.SaveAgentStateRequest(
        run_id=run_id, state=agent_state_pb2.State(data=state), write_behind=True, **options
    )


REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("checkpoint_type", {"checkpoint_type": agent_state_pb2.CHECKPOINT_TYPE_UNSPECIFIED}),
    *(
        ("checkpoint_type", {"checkpoint_type": kind})
        for kind in (*agent_state_pb2.CheckpointType.values(), 99)
        if kind not in {AUTO, agent_state_pb2.CHECKPOINT_TYPE_INTERMEDIATE}
    ),
    ("is_recovery_point", {"is_recovery_point": True}),
    ("expected_version", {"expected_version": 1}),
    ("writer_sequence", {"writer_sequence": 1}),
]


async def test_what_must_not_be_late_is_refused(wire: Wire) -> None:
    for field, options in REFUSED:
        request = late(new_run(), **options)
        found = await refusal(wire.state.SaveAgentState(request))
        assert found.code is grpc.StatusCode.INVALID_ARGUMENT
        assert (found.reason, found.field) == ("INVALID_FIELD", field)
        answers = await wire.state.BatchSaveAgentStates(
            pb.BatchSaveAgentStatesRequest(saves=[request])
        )
        assert answers.results[0].error.metadata["field"] == field
    stats = (await wire.admin.GetStats(admin_pb.GetStatsRequest())).write_behind
    assert (stats.buffered, dict(stats.declined)) == (0, {})


async def test_a_save_that_may_be_late_is_buffered_on_the_optimized_path_alone(
    wire: Wire, path: Path
) -> None:
    run = new_run()
    first = await wire.state.SaveAgentState(save_request(run_id=run))
    saved = await wire.state.SaveAgentState(late(run, request_id="r"))
    again = await wire.state.SaveAgentState(late(run, request_id="r", attempt=2))
    assert saved.state_sha256 == hashlib.sha256(b'{"step": 70}').digest()
    assert again.replayed
    stats = (await wire.admin.GetStats(admin_pb.GetStatsRequest())).write_behind
    if path is Path.STANDARD:
        assert (saved.outcome, saved.version) == (PERSISTED, first.version + 1)
        assert stats.buffered == 0
        assert dict(stats.declined) == {"STANDARD_PATH": 2}
    else:
        assert (saved.outcome, saved.version, saved.snapshot_id) == (BUFFERED, 0, "")
        assert saved.reason == agent_state_pb2.DECISION_REASON_WRITE_BEHIND
        assert (stats.buffered, stats.max_runs, stats.max_age_s) == (1, 1_000, 1.0)
    loaded = await wire.state.LoadAgentState(pb.LoadAgentStateRequest(run_id=run))
    assert (loaded.state.data, loaded.head_version) == (b'{"step": 70}', 2)


async def test_a_batch_is_durable(wire: Wire) -> None:
    run = new_run()
    saves = [late(run, state) for state in (b'{"step": 70}', b'{"step": 2}')]
    for atomic in (False, True):
        answers = await wire.state.BatchSaveAgentStates(
            pb.BatchSaveAgentStatesRequest(saves=saves, atomic=atomic)
        )
        assert [result.saved.outcome for result in answers.results] == [PERSISTED, PERSISTED]


async def test_a_state_in_chunks_may_be_late(wire: Wire, path: Path) -> None:
    run = new_run()
    await wire.state.SaveAgentState(save_request(run_id=run))
    header = late(run, b"")

    def parts() -> Any:
        yield pb.SaveLargeAgentStateRequest(save=header)
        yield pb.SaveLargeAgentStateRequest(chunk=b'{"step": 70}')

    answer = await wire.state.SaveLargeAgentState(parts())
    assert answer.saved.outcome == (PERSISTED if path is Path.STANDARD else BUFFERED)
    loaded = await wire.state.LoadAgentState(pb.LoadAgentStateRequest(run_id=run))
    assert loaded.state.data == b'{"step": 70}'


async def test_a_stream_keeps_the_order_of_saves_of_both_kinds(wire: Wire) -> None:
    run = new_run()

    def requests() -> Any:
        for step in range(40):
            request = late(run, b'{"step": %d}' % step)
            request.write_behind = step % 4 != 0
            yield pb.SaveAgentStateStreamRequest(save=request)

    answers = [answer async for answer in wire.state.SaveAgentStateStream(requests())]
    assert len(answers) == 40
    versions = [each.saved.version for each in answers if each.saved.outcome == PERSISTED]
    assert versions == sorted(set(versions))
    loaded = await wire.state.LoadAgentState(pb.LoadAgentStateRequest(run_id=run))
    assert loaded.state.data == b'{"step": 39}'
    stats = (await wire.admin.GetStats(admin_pb.GetStatsRequest())).write_behind
    assert (stats.superseded, stats.lost, stats.pending) == (0, 0, 0)
    assert stats.buffered == stats.persisted + stats.skipped + stats.coalesced
