"""What an error of a call becomes, and what of it reaches the log."""

import logging

import pytest
from google.protobuf.message import DecodeError
from grpc import StatusCode

from statekeep_server.domain.errors import (
    AtomicBatchFailed,
    InvalidField,
    StorageUnavailable,
    VersionConflict,
)
from statekeep_server.transport.interceptors.errors import explain


def fail_deeply() -> None:
    try:
        dict[str, str]()["secret-1"]
    except KeyError as inner:
        raise RuntimeError("secret-2") from inner


def test_a_bug_shows_nothing_but_where_it_is(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(RuntimeError) as caught:
        fail_deeply()
    failed = explain(caught.value, "/x/Y")
    assert failed.code is StatusCode.INTERNAL
    assert failed.reason == "INTERNAL"
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert failed.metadata["trace_id"] in record.getMessage()
    assert failed.metadata["trace_id"] in failed.message
    assert "builtins.RuntimeError at " in record.getMessage()
    assert "builtins.KeyError at " in record.getMessage()
    assert "in fail_deeply" in record.getMessage()
    for text in (caplog.text, failed.message, str(failed.metadata)):
        assert "secret" not in text


def test_errors_that_cause_each_other_end(caplog: pytest.LogCaptureFixture) -> None:
    first, second = RuntimeError(), RuntimeError()
    first.__cause__, second.__cause__ = second, first
    assert explain(first, "/x/Y").reason == "INTERNAL"


def test_two_bugs_have_two_traces() -> None:
    traces = {explain(ValueError(), "/x/Y").metadata["trace_id"] for _ in range(2)}
    assert len(traces) == 2


def test_a_message_that_cannot_be_read_is_the_callers_fault() -> None:
    failed = explain(DecodeError("secret"), "/x/Y")
    assert failed.code is StatusCode.INVALID_ARGUMENT
    assert failed.field == "request"
    assert "secret" not in failed.message


def test_an_atomic_batch_fails_as_its_save_did() -> None:
    failed = explain(AtomicBatchFailed(2, VersionConflict(1, 2)), "/x/Y")
    assert failed.code is StatusCode.ABORTED
    assert failed.metadata["index"] == "2"
    failed = explain(AtomicBatchFailed(2, RuntimeError("secret")), "/x/Y")
    assert failed.reason == "INTERNAL"
    assert "secret" not in failed.message


def test_the_system_at_fault_is_a_warning_and_the_caller_is_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    explain(StorageUnavailable("LOCKED"), "/x/Y")
    explain(InvalidField("run_id", "is\nrequired"), "/x/Y")
    levels = [(record.levelname, "\n" in record.getMessage()) for record in caplog.records]
    assert levels == [("WARNING", False), ("DEBUG", False)]
