"""The causes of a fallback in words: for the log, the answer, and a save that failed twice."""

from statekeep_server.domain.errors import CommitUnknown, Failed, Refused, StateError
from statekeep_server.domain.model import PreparedSave
from statekeep_server.service.counters import reason_of


class Unexpected(Exception):
    """Stands in the log for an error of somebody else's, whose text may quote what was saved."""


def loggable(error: Exception) -> Exception:
    """Make of an error what a log may print: where it happened, and no text but our own."""
    if isinstance(error, StateError):
        return error
    return Unexpected(type(error).__name__).with_traceback(error.__traceback__)


def describe(error: Exception) -> str:
    """One sentence about an error that holds nothing of a state."""
    if isinstance(error, StateError):
        return error.message
    return f"an unexpected {type(error).__name__}"


def with_both_causes(first: Exception, second: Exception) -> Exception:
    """Make the error of a save that failed on both paths: the second, naming the first too."""
    causes = {"optimized_cause": reason_of(first), "standard_cause": reason_of(second)}
    if isinstance(first, CommitUnknown) and not isinstance(second, Refused):
        error: StateError = CommitUnknown()  # the first attempt may still have happened
    elif isinstance(second, StateError):
        error = second
    else:
        error = Failed(f"an unexpected {type(second).__name__}")
    both = f"optimized path: {describe(first)}; standard path: {describe(second)}"
    return error.extended(f"{error.message} ({both})", **causes)


def named_error(error: StateError, save: PreparedSave) -> StateError:
    """Say in an error which save it is about."""
    return error.extended(**{"request_id": save.command.request_id, **error.metadata})
