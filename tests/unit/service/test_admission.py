"""Admission bounds saves and bytes, and keeps a share for what is never skipped."""

import pytest

from statekeep_server.domain.errors import Overloaded
from statekeep_server.service.admission import Admission


def test_places_are_bounded_and_some_are_reserved() -> None:
    admission = Admission(max_saves=8, max_bytes=1_000)
    admission.enter(7, 0, reserved=False)
    with pytest.raises(Overloaded) as caught:
        admission.enter(1, 0, reserved=False)
    assert caught.value.metadata["limit"] == "7"
    admission.enter(1, 0, reserved=True)
    with pytest.raises(Overloaded):
        admission.enter(1, 0, reserved=True)
    admission.leave(1, 0)
    admission.enter(1, 0, reserved=True)


def test_bytes_are_bounded_and_some_are_reserved() -> None:
    admission = Admission(max_saves=100, max_bytes=800)
    admission.enter(1, 700, reserved=False)
    with pytest.raises(Overloaded) as caught:
        admission.enter(1, 1, reserved=False)
    assert caught.value.metadata["limit"] == "700"
    admission.enter(1, 100, reserved=True)
    with pytest.raises(Overloaded):
        admission.enter(1, 1, reserved=True)
    admission.leave(1, 700)
    admission.enter(1, 600, reserved=False)


def test_one_save_is_let_in_whatever_its_size() -> None:
    admission = Admission(max_saves=2, max_bytes=10)
    admission.enter(1, 1_000, reserved=False)
    with pytest.raises(Overloaded):
        admission.enter(1, 1, reserved=True)


def test_nothing_is_counted_of_what_was_refused() -> None:
    admission = Admission(max_saves=8, max_bytes=80)
    with pytest.raises(Overloaded):
        admission.enter(9, 0, reserved=True)
    admission.enter(7, 70, reserved=False)
    admission.leave(7, 70)
    admission.enter(7, 70, reserved=False)
