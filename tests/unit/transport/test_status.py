"""The table is complete, and what it makes always fits."""

from collections.abc import Iterator
from typing import Any

import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc import StatusCode
from hypothesis import given
from hypothesis import strategies as st

from statekeep_server.domain import errors
from statekeep_server.transport import status, words


def kinds(root: type[errors.StateError]) -> Iterator[type[errors.StateError]]:
    yield root
    for kind in root.__subclasses__():
        yield from kinds(kind)


# Subclasses that tests make are not the domain's.
DOMAIN = {kind for kind in kinds(errors.StateError) if kind.__module__ == errors.__name__}
ABSTRACT = {errors.Refused, errors.Failed}
# Only ever the cause of a fallback: a resting path is answered by the standard one.
NEVER_SENT = {errors.CircuitOpen}

MANY = st.text(st.characters(), max_size=3_000)


def half() -> float:
    return 0.5


def details(failed: status.Failure) -> list[Any]:
    """Open what a failed call carries."""
    trailers = dict(status.trailers(failed, half))
    opened = []
    for detail in status_pb2.Status.FromString(trailers[status.DETAILS_TRAILER]).details:
        name = detail.type_url.rpartition(".")[2]
        message = getattr(error_details_pb2, name)()
        assert detail.Unpack(message)
        opened.append(message)
    return opened


@pytest.mark.parametrize("kind", sorted(DOMAIN - ABSTRACT, key=str))
def test_every_error_has_a_row_of_its_own_and_a_reason_of_the_contract(
    kind: type[errors.StateError],
) -> None:
    assert kind in status.CODES
    assert (kind.reason in words.ERROR_REASONS) == (kind not in NEVER_SENT)


def test_every_reason_of_the_contract_has_an_error() -> None:
    assert {kind.reason for kind in DOMAIN - NEVER_SENT} == words.ERROR_REASONS


def test_no_two_errors_share_a_reason() -> None:
    concrete = DOMAIN - ABSTRACT
    assert len({kind.reason for kind in concrete}) == len(concrete)


def test_an_error_without_a_row_has_its_ancestors() -> None:
    class Odd(errors.VersionConflict):
        """Odd."""

    assert status.code_of(Odd) is StatusCode.ABORTED
    assert status.code_of(errors.Failed) is StatusCode.INTERNAL


def test_a_conflict_carries_its_facts_and_no_retry() -> None:
    failed = status.failure(errors.VersionConflict(4, 5))
    assert failed.code is StatusCode.ABORTED
    assert details(failed) == [
        error_details_pb2.ErrorInfo(
            reason="VERSION_CONFLICT",
            domain="statekeep.v1",
            metadata={"expected_version": "4", "actual_version": "5"},
        )
    ]
    assert [name for name, _ in status.trailers(failed, half)] == [status.DETAILS_TRAILER]


def test_a_bad_field_is_named_twice_for_programs_and_for_tools() -> None:
    failed = status.failure(errors.StateTooLarge("state.data", "too large", size=9, limit=8))
    info, bad_request = details(failed)
    assert info.metadata == {"field": "state.data", "size": "9", "limit": "8"}
    (violation,) = bad_request.field_violations
    assert violation.field == "state.data"
    assert violation.reason == "STATE_TOO_LARGE"
    assert violation.description == "state.data: too large"


@pytest.mark.parametrize(
    "error",
    [
        errors.StorageUnavailable("LOCKED"),
        errors.CommitUnknown(),
        errors.CircuitOpen(),
        errors.Overloaded(limit=3),
    ],
)
def test_what_may_work_later_says_when(error: errors.StateError) -> None:
    failed = status.failure(error)
    retry = details(failed)[-1]
    assert isinstance(retry, error_details_pb2.RetryInfo)
    pushback_ms = int(dict(status.trailers(failed, half))[status.PUSHBACK_TRAILER])
    assert retry.retry_delay.ToMilliseconds() == pushback_ms > 0


def test_callers_that_failed_together_return_apart() -> None:
    failed = status.failure(errors.CircuitOpen())
    early, late = (
        int(dict(status.trailers(failed, jitter))[status.PUSHBACK_TRAILER])
        for jitter in (lambda: 0.0, lambda: 0.999)
    )
    assert 0 < early < late


@given(MANY, st.dictionaries(st.text(max_size=40), MANY, max_size=6), MANY)
def test_any_text_fits_the_trailers_of_a_client(
    message: str, metadata: dict[str, str], field: str
) -> None:
    error = errors.InvalidField("x", "y")
    error.args = (message,)
    error.metadata = {"field": field, **metadata}
    failed = status.of_batch_item(status.failure(error), 255)
    (_, raw), *rest = status.trailers(failed, half)
    percent_encoded = 3 * len(failed.message.encode())
    base64_encoded = len(raw) * 4 / 3 + 4
    assert percent_encoded + base64_encoded + 100 * len(rest) < 8_192 - 256
    assert failed.message.isprintable()
    assert details(failed)


@given(st.text(max_size=200), st.integers(1, 50))
def test_texts_are_cut_at_a_character(text: str, limit: int) -> None:
    cut = status._truncated(text, limit)
    assert len(cut.encode()) <= limit
    assert text.startswith(cut)


def test_a_whole_id_is_never_cut() -> None:
    run_id = "\U0001f600" * 256
    assert status.failure(errors.RunNotFound(run_id)).metadata["run_id"] == run_id


def test_facts_beyond_the_room_are_left_out() -> None:
    error = errors.RunNotFound("run-1")
    error.metadata = {"first": "x" * 1_000, "second": "y" * 2_000, "third": "z" * 9_000, "z": ""}
    failed = status.failure(error)
    assert list(failed.metadata) == ["first", "second", "third"]
    assert [len(value) for value in failed.metadata.values()] == [1_000, 1_024, 520]
    error.metadata = {f"{number:0100}": "" for number in range(100)}
    assert len(status.failure(error).metadata) == 25


def test_a_message_cannot_forge_a_line_of_a_log() -> None:
    failed = status.failure(errors.InvalidField("run_id", "evil\r\nINFO all is well\x1b[2J\u202e"))
    assert failed.message == r"run_id: evil\r\nINFO all is well\x1b[2J\u202e"


def test_the_failure_of_an_atomic_batch_names_its_save() -> None:
    plain = status.failure(errors.VersionConflict(4, 5))
    failed = status.of_batch_item(plain, 3)
    assert failed.metadata["index"] == "3"
    assert failed.field is None
    bad = status.failure(errors.InvalidField("run_id", "is required", limit=256))
    failed = status.of_batch_item(bad, 3)
    assert failed.field == "saves[3].run_id"
    assert failed.metadata == {"index": "3", "field": "saves[3].run_id", "limit": "256"}


def test_an_item_of_a_batch_fails_like_a_call_of_its_own() -> None:
    answer = status.batch_save_error(status.failure(errors.VersionConflict(4, 5)))
    assert answer.code == 10
    assert answer.reason == "VERSION_CONFLICT"
    assert answer.message == "expected version 4, but the run is at version 5"
    assert answer.metadata == {"expected_version": "4", "actual_version": "5"}
