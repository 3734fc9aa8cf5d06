"""The checkpoint streams, against trajectories counted by hand."""

from datetime import datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from statekeep_server.bench.streams import StreamName, StreamSave, count_saves, stream
from statekeep_server.bench.trajectories import Trajectory

TRIVIAL = {"last_updated", "heartbeat_count"}


def trajectory(*roles: str) -> Trajectory:
    messages = [{"role": role, "content": f"{i}"} for i, role in enumerate(roles)]
    return Trajectory("t", 1.0, tuple(messages))


def seen(save: StreamSave) -> tuple[str, int, int, bool]:
    """Type, messages, heartbeats, recovery point."""
    return (
        save.checkpoint_type,
        len(save.state["messages"]),
        save.state["heartbeat_count"],
        save.is_recovery_point,
    )


def test_around_as_counted_by_hand() -> None:
    saves = list(stream(StreamName.AROUND, trajectory("user", "assistant", "tool", "tool"), "r"))
    assert [seen(save) for save in saves] == [
        ("AUTO", 0, 1, False),
        ("AUTO", 1, 1, False),
        ("AUTO", 1, 2, False),
        ("AUTO", 2, 2, False),
        ("PHASE_TRANSITION", 2, 2, False),  # the first answer to a tool call
        ("AUTO", 2, 3, False),
        ("AUTO", 3, 3, False),
        ("AUTO", 3, 4, False),  # the second answer is none
        ("AUTO", 4, 4, False),
        ("MANUAL", 4, 4, False),
        ("AUTO", 4, 4, True),
    ]


def test_after_as_counted_by_hand() -> None:
    saves = list(stream(StreamName.AFTER, trajectory("user", "assistant", "tool", "tool"), "r"))
    assert [seen(save) for save in saves] == [
        ("AUTO", 1, 0, False),
        ("AUTO", 2, 0, False),
        ("AUTO", 3, 0, False),
        ("AUTO", 4, 0, False),
    ]


def test_each_call_of_a_tool_is_a_transition_and_only_its_first_answer() -> None:
    roles = ["user", "assistant", "tool", "assistant", "tool", "tool", "assistant"]
    saves = stream(StreamName.AROUND, trajectory(*roles), "r")
    at = [save.state["step_count"] for save in saves if save.checkpoint_type == "PHASE_TRANSITION"]
    assert at == [2, 4]


def test_a_conversation_that_begins_with_a_tool_begins_with_a_transition() -> None:
    first = next(stream(StreamName.AROUND, trajectory("tool"), "r"))
    assert first.checkpoint_type == "PHASE_TRANSITION"


def test_a_state_has_the_fields_of_the_format_and_no_others() -> None:
    saves = list(stream(StreamName.AROUND, trajectory("user", "assistant"), "run-7"))
    for save in saves:
        assert list(save.state) == [
            "run_id",
            "messages",
            "step_count",
            "status",
            "last_updated",
            "heartbeat_count",
        ]
        assert save.state["run_id"] == "run-7"
        assert save.state["step_count"] == len(save.state["messages"])
    assert [save.state["status"] for save in saves] == ["running"] * 3 + ["completed"] * 3


ROLES = st.lists(st.sampled_from(["system", "user", "assistant", "tool"]), max_size=12)


def meaning(save: StreamSave) -> dict[str, Any]:
    return {name: value for name, value in save.state.items() if name not in TRIVIAL}


@given(roles=ROLES)
def test_around_has_two_saves_a_message_its_transitions_and_two_at_the_end(
    roles: list[str],
) -> None:
    recorded = trajectory(*roles)
    saves = list(stream(StreamName.AROUND, recorded, "r"))
    calls = sum(
        role == "tool" and (not i or roles[i - 1] != "tool") for i, role in enumerate(roles)
    )
    assert len(saves) == count_saves(StreamName.AROUND, recorded) == 2 * len(roles) + calls + 2
    assert count_saves(StreamName.AFTER, recorded) == len(roles)
    # An AUTO save that does not follow a new message repeats the one before it.
    new = [i for i in range(1, len(saves)) if meaning(saves[i]) != meaning(saves[i - 1])]
    assert len(new) == len(roles)
    assert all(saves[i].checkpoint_type == "AUTO" for i in new)


@given(roles=ROLES)
def test_a_stream_is_always_the_same_and_its_clock_goes_on(roles: list[str]) -> None:
    recorded = trajectory(*roles)
    for name in StreamName:
        saves = list(stream(name, recorded, "r"))
        assert saves == list(stream(name, recorded, "r"))
        times = [datetime.fromisoformat(save.state["last_updated"]) for save in saves]
        assert times == sorted(set(times))
