"""The client's words are those of the contract, and it keeps to itself what is nobody's concern."""

import copy
import pickle
from enum import StrEnum
from typing import get_args

import pytest

import statekeep
from statekeep import (
    CheckpointType,
    CheckpointTypeName,
    DecisionReason,
    Save,
    SaveOutcome,
    ServingPath,
)
from statekeep._answers import (
    CHECKPOINT_TYPES,
    DECISION_REASONS,
    SAVE_OUTCOMES,
    SERVING_PATHS,
)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (CheckpointType, CHECKPOINT_TYPES),
        (DecisionReason, DECISION_REASONS),
        (SaveOutcome, SAVE_OUTCOMES),
        (ServingPath, SERVING_PATHS),
    ],
)
def test_enums_are_those_of_the_contract(kind: type[StrEnum], words: dict[int, str]) -> None:
    assert list(kind) == list(words.values())
    assert all(member.name == member.value for member in kind)


def test_names_of_checkpoint_types_may_be_written_as_text() -> None:
    assert list(get_args(CheckpointTypeName)) == list(CheckpointType)


def test_an_unknown_word_is_a_member_like_any_other() -> None:
    word = CheckpointType("UNKNOWN_99")
    assert isinstance(word, CheckpointType)
    assert word == CheckpointType("UNKNOWN_99") == "UNKNOWN_99"
    assert hash(word) == hash(CheckpointType("UNKNOWN_99"))
    assert word not in list(CheckpointType)
    assert pickle.loads(pickle.dumps(word)) == copy.deepcopy(word) == word
    for wrong in ("UNKNOWN", "UNKNOWN_x", "auto"):
        with pytest.raises(ValueError, match="is not a valid"):
            CheckpointType(wrong)


def test_a_save_does_not_print_its_state() -> None:
    assert "secret" not in repr(Save("run-1", {"token": "secret"}))


def test_the_package_exports_what_it_says() -> None:
    assert sorted(statekeep.__all__) == statekeep.__all__
    for name in statekeep.__all__:
        assert getattr(statekeep, name).__module__.startswith(("statekeep.", "typing"))
