"""The known faults of `make mutants` still have their places: the code under them moves on."""

import pytest

from tests.support.project import ROOT
from tools.mutants import MUTANTS, PACKAGE, Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_place_of_a_fault_is_there(mutant: Mutant) -> None:
    for name, old, new in mutant.edits:
        assert (PACKAGE / name).read_text(encoding="utf-8").count(old) == 1, (name, old)
        assert old != new


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_tests_that_must_notice_are_there(mutant: Mutant) -> None:
    for test in mutant.tests:
        path, _, name = test.partition("::")
        assert (ROOT / path).exists(), test
        assert not name or f"def {name}(" in (ROOT / path).read_text(encoding="utf-8"), test
