"""Bad input: each kind has its own status, reason and field, and the server survives it."""

import dataclasses
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from grpc import StatusCode

from statekeep.v1 import agent_state_service_pb2 as pb
from statekeep_server.domain.limits import Limits
from tests.support.wire import SAVE, Refusal, Wire, new_run, refusal, save_request

MAX_STATE = Limits().max_state_bytes


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture
def wire(shared_wire: Wire) -> Wire:
    """One server takes it all."""
    return shared_wire


@dataclass(frozen=True)
class Bad:
    """A save that must be refused, and how."""

    name: str
    field: str
    reason: str = "INVALID_FIELD"
    state: object = None
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    facts: dict[str, str] = dataclasses.field(default_factory=dict)

    def request(self) -> pb.SaveAgentStateRequest:
        return save_request(self.state, **{"run_id": new_run(), **self.options})

    def matches(self, refused: Refusal) -> None:
        assert refused.code is StatusCode.INVALID_ARGUMENT
        assert (refused.reason, refused.field) == (self.reason, self.field)
        assert refused.metadata["field"] == self.field
        assert self.facts.items() <= refused.metadata.items()
        assert refused.message.startswith(f"{self.field}: ")
        assert refused.retry_after_ms is refused.pushback_ms is None


def bad_text(name: str, limit: int, **more: str) -> list[Bad]:
    """List what no id and no short text may hold."""
    limits = {"limit": str(limit)}
    return [
        Bad(f"{name} too long", name, options={name: "x" * (limit + 1)}, facts=limits),
        Bad(f"{name} with a line break", name, options={name: "a\nb"}),
        Bad(f"{name} with NUL", name, options={name: "a\0b"}),
        Bad(f"{name} with a hidden direction", name, options={name: "a\u202eb"}),
    ]


def bad_state(name: str, reason: str, state: bytes, **facts: str) -> Bad:
    return Bad(name, "state.data", reason, state, facts=facts)


def members(count: int) -> bytes:
    return b"{" + b",".join(b'"%x":0' % number for number in range(count)) + b"}"


BAD_SAVES = [
    Bad("run_id empty", "run_id", options={"run_id": ""}),
    *bad_text("run_id", 256),
    *bad_text("thread_id", 256),
    *bad_text("user_id", 256),
    *bad_text("request_id", 128),
    *bad_text("agent_phase", 256),
    Bad(
        "too many context entries",
        "execution_context",
        options={"execution_context": {f"k{number}": "" for number in range(65)}},
        facts={"limit": "64"},
    ),
    Bad(
        "too large a context",
        "execution_context",
        options={"execution_context": {"k": "x" * 16_384}},
        facts={"limit": "16384"},
    ),
    Bad("empty context key", "execution_context", options={"execution_context": {"": "x"}}),
    Bad("NUL in the context", "execution_context", options={"execution_context": {"k": "\0"}}),
    Bad(
        "too many ignored fields",
        "ignored_fields",
        options={"ignored_fields": [f"f{number}" for number in range(65)]},
        facts={"limit": "64"},
    ),
    Bad("bad pointer", "ignored_fields", options={"ignored_fields": ["/a/~2"]}),
    Bad("empty ignored field", "ignored_fields", options={"ignored_fields": [""]}),
    Bad("expired already", "expires_at", options={"expires_at": Timestamp(seconds=1)}),
    Bad("no moment", "expires_at", options={"expires_at": Timestamp(nanos=-1)}),
    Bad("year 10000", "expires_at", options={"expires_at": Timestamp(seconds=253_402_300_800)}),
    Bad("negative version", "expected_version", options={"expected_version": -1}),
    Bad("negative sequence", "writer_sequence", options={"writer_sequence": -1}),
    Bad("long type", "state.content_type", options={"content_type": "x/" + "y" * 127}),
    Bad("type with a line break", "state.content_type", options={"content_type": "a/b\r\nc"}),
    Bad(
        "JSON by a suffix",
        "state.data",
        "STATE_NOT_JSON",
        b"\x81\xa1a\x01",
        options={"content_type": "application/vnd.example+json; charset=utf-8"},
    ),
    bad_state("wrong content type", "STATE_NOT_JSON", b"\x81\xa1a\x01"),
    bad_state("no bytes", "STATE_NOT_JSON", b""),
    bad_state("cut short", "STATE_NOT_JSON", b'{"a": 1'),
    bad_state("NaN", "STATE_NOT_JSON", b'{"a": NaN}'),
    bad_state("infinity", "STATE_NOT_JSON", b'{"a": -Infinity}'),
    bad_state("no double", "STATE_NOT_JSON", b'{"a": 1e999}'),
    bad_state("lone surrogate", "STATE_NOT_JSON", rb'{"a": "\ud800"}'),
    bad_state("lone surrogate in a key", "STATE_NOT_JSON", rb'{"\udc00": 1}'),
    bad_state("invalid UTF-8", "STATE_NOT_JSON", b'{"a": "\xff"}'),
    bad_state("overlong UTF-8", "STATE_NOT_JSON", b'{"a": "\xc0\x80"}'),
    bad_state("duplicate key", "STATE_DUPLICATE_KEY", b'{"a": 1, "b": 2, "a": 1}', key="a"),
    bad_state("deep duplicate", "STATE_DUPLICATE_KEY", b'[{"x": {"a": 1, "\\u0061": 2}}]'),
    bad_state("one level too deep", "STATE_TOO_DEEP", b"[" * 129 + b"]" * 129, limit="128"),
    bad_state("depth bomb", "STATE_TOO_DEEP", b"[" * 1_000_000, limit="128"),
    bad_state("depth bomb of objects", "STATE_TOO_DEEP", b'{"a":' * 500_000, limit="128"),
    bad_state("long integer", "STATE_INTEGER_TOO_LONG", b"1" * 4_301, limit="4300"),
    bad_state("very long integer", "STATE_INTEGER_TOO_LONG", b"[-" + b"9" * 1_000_000 + b"]"),
    bad_state("many members", "STATE_TOO_MANY_MEMBERS", members(100_001), limit="100000"),
    bad_state("many tiny arrays", "STATE_TOO_MANY_MEMBERS", b"[[]" + b",[]" * 1_000_000 + b"]"),
    bad_state("a million tiny keys", "STATE_TOO_LARGE", members(1_000_000), limit=str(MAX_STATE)),
    bad_state(
        "one byte too large",
        "STATE_TOO_LARGE",
        b'"' + b"x" * (MAX_STATE - 1) + b'"',
        size=str(MAX_STATE + 1),
        limit=str(MAX_STATE),
    ),
]


@pytest.mark.parametrize("bad", BAD_SAVES, ids=lambda bad: re.sub(r"\W+", "-", bad.name))
async def test_a_bad_save_names_its_field(wire: Wire, bad: Bad) -> None:
    bad.matches(await refusal(wire.state.SaveAgentState(bad.request())))
    await wire.works()


async def test_a_bad_save_fails_alone_in_a_batch(wire: Wire) -> None:
    bad = [case for case in BAD_SAVES if len(case.request().state.data) < 100_000]
    good = [save_request(run_id=new_run()) for _ in bad]
    pairs = zip((case.request() for case in bad), good, strict=True)
    mixed = [save for pair in pairs for save in pair]
    results = (await wire.state.BatchSaveAgentStates(batch(mixed))).results
    assert len(results) == len(mixed)
    for case, refused, kept in zip(bad, results[::2], results[1::2], strict=True):
        assert (refused.error.code, refused.error.reason) == (3, case.reason), case.name
        assert refused.error.metadata["field"] == case.field
        assert kept.saved.version == 1
    await wire.works()


@pytest.mark.parametrize("bad", BAD_SAVES[::8], ids=lambda bad: re.sub(r"\W+", "-", bad.name))
async def test_a_bad_save_fails_an_atomic_batch_whole(wire: Wire, bad: Bad) -> None:
    good = save_request(run_id=new_run())
    refused = await refusal(
        wire.state.BatchSaveAgentStates(batch([good, bad.request(), good], atomic=True))
    )
    assert (refused.code, refused.reason) == (StatusCode.INVALID_ARGUMENT, bad.reason)
    assert refused.field == refused.metadata["field"] == f"saves[1].{bad.field}"
    assert refused.metadata["index"] == "1"
    assert await versions(wire, good.run_id) == []
    await wire.works()


async def test_a_save_without_a_state_is_refused(wire: Wire) -> None:
    refused = await refusal(wire.state.SaveAgentState(pb.SaveAgentStateRequest(run_id=new_run())))
    assert (refused.code, refused.reason) == (StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert refused.field == "state"
    await wire.works()


@pytest.mark.parametrize(
    "message",
    [
        b"\xff\xff\xff",  # no message at all
        b"\x0a\x05ab",  # a field longer than the message
        b"\x0a\x02\xff\xfe",  # run_id in invalid UTF-8
        b"\x0a\x03\xed\xa0\x80",  # run_id with a lone surrogate
    ],
)
async def test_a_malformed_message_is_refused(wire: Wire, message: bytes) -> None:
    refused = await refusal(wire.raw(SAVE)(message))
    assert (refused.code, refused.reason) == (StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert refused.field == "request"
    await wire.works()


# Requests that are well formed and do not fit what is stored.


async def test_a_request_id_names_one_save(wire: Wire) -> None:
    run_id = new_run()
    await wire.state.SaveAgentState(save_request({"a": 1}, run_id=run_id, request_id="r-1"))
    for other in (
        save_request({"a": 2}, run_id=run_id, request_id="r-1"),
        save_request(b'{"a":  1}', run_id=run_id, request_id="r-1"),
        save_request({"a": 1}, run_id=run_id, request_id="r-1", agent_phase="other"),
    ):
        refused = await refusal(wire.state.SaveAgentState(other))
        assert refused.code is StatusCode.ALREADY_EXISTS
        assert refused.reason == "REQUEST_ID_REUSED"
        assert refused.metadata == {"field": "request_id", "request_id": "r-1"}
    assert await versions(wire, run_id) == [1]
    await wire.works()


async def test_a_stale_version_names_both(wire: Wire) -> None:
    run_id = new_run()
    for step in range(3):
        await wire.state.SaveAgentState(save_request({"step": step}, run_id=run_id))
    for expected in (0, 2, 4, 2**63 - 1):
        stale = save_request({"step": 9}, run_id=run_id, expected_version=expected)
        refused = await refusal(wire.state.SaveAgentState(stale))
        assert (refused.code, refused.reason) == (StatusCode.ABORTED, "VERSION_CONFLICT")
        assert refused.metadata["expected_version"] == str(expected)
        assert refused.metadata["actual_version"] == "3"
        assert refused.retry_after_ms is None
    good = save_request({"step": 9}, run_id=run_id, expected_version=3)
    assert (await wire.state.SaveAgentState(good)).version == 4


async def test_a_stale_writer_names_both_sequences(wire: Wire) -> None:
    run_id = new_run()
    await wire.state.SaveAgentState(save_request({"a": 1}, run_id=run_id, writer_sequence=9))
    stale = save_request({"a": 2}, run_id=run_id, writer_sequence=7)
    refused = await refusal(wire.state.SaveAgentState(stale))
    assert (refused.code, refused.reason) == (StatusCode.ABORTED, "STALE_WRITER")
    assert refused.metadata["writer_sequence"] == "7"
    assert refused.metadata["actual_writer_sequence"] == "9"
    await wire.works()


async def test_what_is_not_there_is_not_found(wire: Wire) -> None:
    run_id, other = new_run(), new_run()
    saved = await wire.state.SaveAgentState(save_request(run_id=run_id))
    await wire.state.SaveAgentState(save_request(run_id=other))
    asked: list[tuple[pb.LoadAgentStateRequest, str]] = [
        (pb.LoadAgentStateRequest(run_id=new_run()), "RUN_NOT_FOUND"),
        (pb.LoadAgentStateRequest(run_id=run_id, version=2), "SNAPSHOT_NOT_FOUND"),
        (pb.LoadAgentStateRequest(run_id=run_id, version=2**63 - 1), "SNAPSHOT_NOT_FOUND"),
        (pb.LoadAgentStateRequest(run_id=run_id, snapshot_id="no-such"), "SNAPSHOT_NOT_FOUND"),
        # A snapshot of another run is as unknown as one that never was.
        (
            pb.LoadAgentStateRequest(run_id=other, snapshot_id=saved.snapshot_id),
            "SNAPSHOT_NOT_FOUND",
        ),
    ]
    for request, reason in asked:
        refused = await refusal(wire.state.LoadAgentState(request))
        assert (refused.code, refused.reason) == (StatusCode.NOT_FOUND, reason)
        assert refused.metadata["run_id"] == request.run_id
        assert refused.field is None
    await wire.works()


# Requests other than saves.

BAD_RUN_IDS = ["", "x" * 257, "a\nb", "a\0b", " a"]


@pytest.mark.parametrize("run_id", BAD_RUN_IDS)
async def test_every_request_checks_its_run(wire: Wire, run_id: str) -> None:
    calls: list[Awaitable[Any]] = [
        wire.state.LoadAgentState(pb.LoadAgentStateRequest(run_id=run_id)),
        wire.state.ListSnapshots(pb.ListSnapshotsRequest(run_id=run_id)),
        wire.state.DeleteRun(pb.DeleteRunRequest(run_id=run_id)),
    ]
    for call in calls:
        refused = await refusal(call)
        assert (refused.code, refused.field) == (StatusCode.INVALID_ARGUMENT, "run_id")
    await wire.works()


LIST_RUNS, LIST_SNAPSHOTS, LOAD = (
    pb.ListRunsRequest,
    pb.ListSnapshotsRequest,
    pb.LoadAgentStateRequest,
)
BAD_QUESTIONS: list[tuple[str, Any]] = [
    ("thread_id", LIST_RUNS(thread_id="a\0b")),
    ("thread_id", LIST_RUNS(thread_id="x" * 257)),
    ("user_id", LIST_RUNS(user_id="a\0b")),
    ("page_size", LIST_RUNS(page_size=-1)),
    ("page_token", LIST_RUNS(page_token="nonsense")),
    ("page_token", LIST_RUNS(page_token="x" * 100_000)),
    ("page_size", LIST_SNAPSHOTS(run_id="r", page_size=-(2**31))),
    ("page_token", LIST_SNAPSHOTS(run_id="r", page_token="\0")),
    ("version", LOAD(run_id="r", version=0)),
    ("version", LOAD(run_id="r", version=-(2**63))),
    ("snapshot_id", LOAD(run_id="r", snapshot_id="")),
    ("snapshot_id", LOAD(run_id="r", snapshot_id="a\0b")),
    ("snapshot_id", LOAD(run_id="r", snapshot_id="x" * 1_000_000)),
]


@pytest.mark.parametrize(("field", "request_"), BAD_QUESTIONS)
async def test_a_bad_question_names_its_field(wire: Wire, field: str, request_: Any) -> None:
    method = {LIST_RUNS: "ListRuns", LIST_SNAPSHOTS: "ListSnapshots", LOAD: "LoadAgentState"}
    ask: Callable[[Any], Awaitable[Any]] = getattr(wire.state, method[type(request_)])
    refused = await refusal(ask(request_))
    assert (refused.code, refused.reason) == (StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert refused.field == field
    await wire.works()


async def test_a_token_of_another_listing_is_refused(wire: Wire) -> None:
    run_id = new_run()
    for step in range(2):
        await wire.state.SaveAgentState(save_request({"step": step}, run_id=run_id))
    page = await wire.state.ListSnapshots(LIST_SNAPSHOTS(run_id=run_id, page_size=1))
    assert page.next_page_token
    other = LIST_SNAPSHOTS(run_id=new_run(), page_token=page.next_page_token)
    assert (await refusal(wire.state.ListSnapshots(other))).field == "page_token"


@pytest.mark.parametrize("atomic", [False, True])
async def test_a_batch_has_saves_and_not_too_many(wire: Wire, atomic: bool) -> None:
    for count in (0, 257):
        saves = [save_request(run_id=new_run())] * count
        refused = await refusal(wire.state.BatchSaveAgentStates(batch(saves, atomic=atomic)))
        assert refused.code is StatusCode.INVALID_ARGUMENT
        assert refused.field == "saves"
        assert refused.metadata.get("limit", "256") == "256"
    saves = [save_request(run_id=new_run()) for _ in range(256)]
    assert len((await wire.state.BatchSaveAgentStates(batch(saves, atomic=atomic))).results) == 256


async def test_a_message_beyond_the_limit_is_refused(wire: Wire) -> None:
    huge = save_request(b"x" * (17 * 1024 * 1024), run_id=new_run())
    with pytest.raises(Exception, match="RESOURCE_EXHAUSTED"):  # gRPC's own, before any of ours
        await wire.state.SaveAgentState(huge)
    await wire.works()


def batch(
    saves: list[pb.SaveAgentStateRequest], *, atomic: bool = False
) -> pb.BatchSaveAgentStatesRequest:
    return pb.BatchSaveAgentStatesRequest(saves=saves, atomic=atomic)


async def versions(wire: Wire, run_id: str) -> list[int]:
    page = await wire.state.ListSnapshots(LIST_SNAPSHOTS(run_id=run_id))
    return [snapshot.version for snapshot in page.snapshots]
