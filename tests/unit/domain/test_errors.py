"""Errors: each has a reason of its own, a sentence, and facts that are texts."""

from typing import Any

import pytest

from statekeep_server.domain import errors
from statekeep_server.domain.model import make_context

EVERY = [
    errors.StateError(),
    errors.InvalidField("run_id", "is required", limit=256),
    errors.StateTooLarge("state.data", "has too many bytes"),
    errors.StateNotJson("state.data", "is empty", problem="EMPTY"),
    errors.DuplicateKey("state.data", "an object names a key twice"),
    errors.TooDeep("state.data", "is nested too deeply"),
    errors.IntegerTooLong("state.data", "an integer is too long"),
    errors.TooManyMembers("state.data", "has too many members"),
    errors.RequestIdReused("request-1"),
    errors.VersionConflict(1, 2),
    errors.FlagConflict("LOG_LEVEL", 1, 2),
    errors.StaleWriter(1, 2),
    errors.RunNotFound("run-1"),
    errors.SnapshotNotFound("run-1", version=3),
    errors.Unauthenticated(),
    errors.Overloaded(),
    errors.ShuttingDown(),
    errors.DeadlineExceeded(),
    errors.StorageUnavailable("LOCKED"),
    errors.CommitUnknown(),
    errors.SchemaMismatch("0009", "0001"),
    errors.CircuitOpen(),
    errors.StateCorrupt("run-1", "snapshot-1"),
]


@pytest.mark.parametrize("error", EVERY, ids=lambda error: type(error).__name__)
def test_an_error_has_a_sentence_and_facts(error: errors.StateError) -> None:
    assert error.message
    assert str(error) == error.message
    assert all(isinstance(value, str) for value in error.metadata.values())
    assert isinstance(error, errors.Refused | errors.Failed) or type(error) is errors.StateError


def test_every_error_has_a_reason_of_its_own() -> None:
    assert len({error.reason for error in EVERY}) == len(EVERY)


def subclasses(of: type[Any]) -> set[type[Any]]:
    return {of, *(below for child in of.__subclasses__() for below in subclasses(child))}


def test_every_error_is_here() -> None:
    domain = {e for e in subclasses(errors.StateError) if e.__module__ == errors.__name__}
    assert {type(error) for error in EVERY} == domain - {errors.Refused, errors.Failed}


def test_the_schema_error_says_which_side_is_old() -> None:
    assert "statekeep migrate" in errors.SchemaMismatch(None, "0001").message
    assert "statekeep migrate" in errors.SchemaMismatch("0001", "0002").message
    assert "upgrade" in errors.SchemaMismatch("0002", "0001").message


def test_an_extended_error_is_a_copy() -> None:
    error = errors.VersionConflict(1, 2)
    error.__cause__ = ValueError("below")
    copy = error.extended("another sentence", request_id=7)
    assert (type(copy), copy.message) == (errors.VersionConflict, "another sentence")
    assert copy.metadata == {**error.metadata, "request_id": "7"}
    assert (copy.expected_version, copy.__cause__) == (1, error.__cause__)
    assert "request_id" not in error.metadata
    assert error.extended().message == error.message


def test_an_atomic_batch_names_its_item() -> None:
    failed = errors.AtomicBatchFailed(3, errors.Overloaded())
    assert (failed.index, type(failed.error)) == (3, errors.Overloaded)
    assert "save 3" in str(failed)


def test_a_context_is_sorted() -> None:
    assert make_context({"b": "1", "a": "2"}) == (("a", "2"), ("b", "1"))
