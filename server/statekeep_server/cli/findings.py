"""What `statekeep doctor` finds: one line each, with what to do about it."""

from dataclasses import dataclass
from enum import StrEnum


class Health(StrEnum):
    """How a finding is to be taken. Only a problem makes the command fail."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One finding.

    Attributes:
        about: What was looked at.
        found: What was seen; never a secret.
        cure: What to do; empty when all is well.
    """

    about: str
    health: Health
    found: str
    cure: str = ""


def ok(about: str, found: str) -> Finding:
    """All is well."""
    return Finding(about=about, health=Health.OK, found=found)


def note(about: str, found: str) -> Finding:
    """Nothing is wrong; it could not be looked at, or is worth to know."""
    return Finding(about=about, health=Health.NOTE, found=found)


def warning(about: str, found: str, cure: str) -> Finding:
    """It works, and may surprise."""
    return Finding(about=about, health=Health.WARNING, found=found, cure=cure)


def problem(about: str, found: str, cure: str) -> Finding:
    """It does not work, or not as promised."""
    return Finding(about=about, health=Health.PROBLEM, found=found, cure=cure)
