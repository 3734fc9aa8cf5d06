"""Every name of the domain has a number in the contract, and unknown numbers come back."""

from hypothesis import given
from hypothesis import strategies as st

from statekeep.v1 import agent_state_pb2
from statekeep_server.domain.model import CheckpointType, Outcome, Path, Reason
from statekeep_server.transport import words


def test_every_name_of_the_domain_is_in_the_contract() -> None:
    assert {words.outcome_number(outcome) for outcome in Outcome} == {1, 2, 3}
    assert len({words.reason_number(reason) for reason in Reason}) == len(Reason)
    assert len({words.path_number(path) for path in Path}) == len(Path)
    for kind in CheckpointType:
        assert words.checkpoint_name(words.checkpoint_number(kind)) == kind


def test_the_contract_has_no_checkpoint_type_that_the_domain_lacks() -> None:
    numbers = agent_state_pb2.CheckpointType.values()
    assert {words.checkpoint_name(number) for number in numbers} == set(CheckpointType)


def test_an_unspecified_type_is_manual() -> None:
    assert words.checkpoint_name(0) == CheckpointType.MANUAL


@given(st.integers(-(2**31), 2**31 - 1).filter(lambda number: not 0 <= number <= 8))
def test_an_unknown_number_comes_back(number: int) -> None:
    name = words.checkpoint_name(number)
    assert name == f"UNKNOWN_{number}"
    assert words.checkpoint_number(name) == number


@given(st.text())
def test_any_name_has_a_number_that_a_message_can_hold(name: str) -> None:
    number = words.checkpoint_number(name)
    agent_state_pb2.SnapshotMetadata(checkpoint_type=number)


def test_a_name_that_no_contract_had_has_no_number() -> None:
    for name in ("", "AUTOMATIC", "UNKNOWN_", "UNKNOWN_x", "7", "UNKNOWN_99999999999"):
        assert words.checkpoint_number(name) == 0
