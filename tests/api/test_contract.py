"""The contract: the protos are clean and unbroken, and code says the same words as they do."""

import re
from enum import StrEnum

import pytest
from google.protobuf.descriptor import EnumDescriptor

from statekeep.v1 import agent_state_pb2, error_reason_pb2
from statekeep_server.domain import errors
from statekeep_server.domain.model import CheckpointType, Outcome, Path, Reason
from tests.support.project import ROOT, TOOLS, must_pass

# The breaker's error only ever travels as the cause of a fallback, never as a call's own error.
NEVER_ON_THE_WIRE = {"CIRCUIT_OPEN"}
# The errors of a call that no domain error stands for: a bug has no class of its own.
NO_CLASS = {"INTERNAL"}


def names(enum: EnumDescriptor, prefix: str) -> set[str]:
    """List the values of a proto enum without their prefix, the unspecified one left out."""
    assert all(value.name.startswith(prefix) for value in enum.values)
    return {value.name.removeprefix(prefix) for value in enum.values} - {"UNSPECIFIED"}


def tree(base: type[errors.StateError]) -> set[type[errors.StateError]]:
    """List an error class and everything below it."""
    return {base}.union(*(tree(child) for child in base.__subclasses__()))


def test_buf_finds_no_fault_in_the_protos() -> None:
    must_pass(TOOLS / "buf", "lint")


def test_the_protos_are_formatted() -> None:
    must_pass(TOOLS / "buf", "format", "--diff", "--exit-code")


def test_the_protos_break_no_client_of_the_last_release() -> None:
    must_pass(TOOLS / "buf", "breaking", "--against", "protos/baseline.binpb")


def test_the_generated_code_is_current() -> None:
    must_pass(TOOLS / "python", "tools/generate.py", "--check")


@pytest.mark.parametrize(
    ("enum", "prefix", "words"),
    [
        (agent_state_pb2.CheckpointType.DESCRIPTOR, "CHECKPOINT_TYPE_", CheckpointType),
        (agent_state_pb2.SaveOutcome.DESCRIPTOR, "SAVE_OUTCOME_", Outcome),
        (agent_state_pb2.DecisionReason.DESCRIPTOR, "DECISION_REASON_", Reason),
        (agent_state_pb2.ServingPath.DESCRIPTOR, "SERVING_PATH_", Path),
    ],
)
def test_the_domain_says_the_words_of_the_contract(
    enum: EnumDescriptor, prefix: str, words: type[StrEnum]
) -> None:
    assert names(enum, prefix) == set(words)
    assert all(word.name == word.value for word in words)


def test_every_error_has_a_reason_of_the_contract() -> None:
    classes = tree(errors.StateError) - {errors.StateError, errors.Refused, errors.Failed}
    reasons = [cls.reason for cls in classes if cls.__module__ == errors.__name__]
    assert len(reasons) == len(set(reasons)), "two errors share a reason"
    promised = names(error_reason_pb2.ErrorReason.DESCRIPTOR, "ERROR_REASON_")
    assert set(reasons) - NEVER_ON_THE_WIRE == promised - NO_CLASS


def test_every_error_reason_shows_its_metadata() -> None:
    text = (ROOT / "protos/statekeep/v1/error_reason.proto").read_text(encoding="utf-8")
    for name in names(error_reason_pb2.ErrorReason.DESCRIPTOR, "ERROR_REASON_"):
        assert re.search(rf'"reason": "{name}", "metadata": {{.*}} }}', text), name
