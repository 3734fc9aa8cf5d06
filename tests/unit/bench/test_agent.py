"""The demo agent: everything it does follows from its state."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from statekeep_server.bench.agent import FEWEST_STEPS, Agent

SEEDS = st.integers(min_value=0, max_value=10_000)
STEPS = st.integers(min_value=FEWEST_STEPS, max_value=90)


def finished(seed: int, steps: int) -> Agent:
    agent = Agent.start(seed=seed, steps=steps)
    while not agent.done:
        agent.step()
    return agent


def through_json(state: dict[str, Any]) -> dict[str, Any]:
    """What a server gives back."""
    loaded: dict[str, Any] = json.loads(json.dumps(state))
    return loaded


@given(seed=SEEDS, steps=STEPS, data=st.data())
@settings(max_examples=60, deadline=None)
def test_killed_at_any_step_it_ends_as_if_it_never_was(
    seed: int, steps: int, data: st.DataObject
) -> None:
    whole = finished(seed, steps)
    agent = Agent.start(seed=seed, steps=steps)
    kills = data.draw(st.sets(st.integers(min_value=0, max_value=steps - 1), max_size=4))
    while not agent.done:
        if len(agent.messages) in kills:
            kills.remove(len(agent.messages))
            state = through_json(agent.state())
            agent.step()  # lost with the process
            agent = Agent.resume(state)
        agent.step()
    assert agent.answer == whole.answer
    assert list(agent.messages) == list(whole.messages)
    assert agent.state() == whole.state()
    assert agent.reward == whole.reward


def test_every_single_step_may_be_the_last() -> None:
    whole = finished(3, 120)
    agent = Agent.start(seed=3, steps=120)
    while not agent.done:
        agent = Agent.resume(through_json(agent.state()))
        agent.step()
    assert list(agent.messages) == list(whole.messages)


@given(seed=SEEDS, steps=STEPS)
@settings(max_examples=30, deadline=None)
def test_it_takes_exactly_the_steps_it_was_given(seed: int, steps: int) -> None:
    agent = finished(seed, steps)
    assert len(agent.messages) == steps
    assert agent.messages[-1]["role"] == "assistant"
    assert agent.answer == agent.messages[-1]["content"]
    assert agent.state()["status"] == "completed"
    assert agent.state()["step_count"] == steps


def test_equal_seeds_work_equally_and_others_do_not() -> None:
    assert finished(5, 60).messages == finished(5, 60).messages
    assert finished(5, 60).messages != finished(6, 60).messages


@given(seed=SEEDS)
@settings(max_examples=20, deadline=None)
def test_its_conversation_is_one_of_a_tool_calling_model(seed: int) -> None:
    messages = finished(seed, 80).messages
    assert [message["role"] for message in messages[:3]] == ["system", "user", "assistant"]
    waiting: list[str] = []
    for message in messages:
        if message["role"] == "tool":
            assert message["tool_call_id"] == waiting.pop(0)
            assert isinstance(json.loads(message["content"]), dict)
        else:
            assert not waiting
            waiting = [call["id"] for call in message.get("tool_calls", [])]
    assert not waiting


def test_its_next_role_is_the_one_that_comes() -> None:
    agent = Agent.start(seed=9, steps=100)
    while not agent.done:
        expected = agent.next_role()
        assert agent.step()["role"] == expected


def test_its_steps_have_a_realistic_size() -> None:
    sizes = [len(json.dumps(message)) for message in finished(1, 200).messages]
    assert 300 < sorted(sizes)[len(sizes) // 2] < 5_000
    assert max(sizes) < 10_000


def test_a_state_that_was_given_does_not_change_any_more() -> None:
    agent = Agent.start(seed=2, steps=60)
    kept = []
    while not agent.done:
        state = agent.state()
        kept.append((state, json.dumps(state)))
        agent.step()
    assert all(json.dumps(state) == text for state, text in kept)


def test_it_works_on_its_plan() -> None:
    """The plan that stands is better than the first tour that was driven."""
    agent = Agent.start(seed=4, steps=120)
    costs = []
    while not agent.done and agent.state()["memory"]["events"] == 0:
        cost = agent.state()["memory"]["cost"]
        costs += [] if cost is None else [cost]
        agent.step()
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] < costs[0]


def test_it_refuses_too_few_steps() -> None:
    with pytest.raises(ValueError, match="at least 8 steps, not 7"):
        Agent.start(seed=1, steps=7)


def test_it_says_no_answer_before_the_end_and_does_nothing_after_it() -> None:
    agent = Agent.start(seed=1, steps=8)
    with pytest.raises(ValueError, match="has not finished"):
        _ = agent.answer
    while not agent.done:
        agent.step()
    with pytest.raises(ValueError, match="has finished"):
        agent.step()
