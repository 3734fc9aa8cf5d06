"""The outermost step: every error of a call becomes a status, and a bug is told to the log only.

A cancellation is no error and never comes here, nor does gRPC's AbortError, an Exception that
stands for a status already sent.
"""

import logging
import secrets
import traceback
from collections.abc import Iterator

from google.protobuf.message import DecodeError

from statekeep_server.domain.errors import AtomicBatchFailed, Failed, InvalidField, StateError
from statekeep_server.transport import status

_LOG = logging.getLogger("statekeep.transport")


def explain(error: Exception, method: str) -> status.Failure:
    """Find the status of any error that a call ended with, and log what an operator must know."""
    if isinstance(error, AtomicBatchFailed):
        return status.of_batch_item(explain(error.error, method), error.index)
    if isinstance(error, DecodeError):
        error = InvalidField("request", "the message does not match the contract")
    if not isinstance(error, StateError):
        return status.failure(_bug(error, method))
    failed = status.failure(error)
    level = logging.WARNING if isinstance(error, Failed) else logging.DEBUG
    _LOG.log(level, "%s failed: %s: %s", method, failed.reason, failed.message)
    return failed


def _bug(error: Exception, method: str) -> StateError:
    """Log an error that nobody foresaw, and make the one that its caller sees instead.

    The text of such an error may hold anything, a state or a connection string too, and so may
    the source lines of a traceback: the log gets types, files, lines and functions only.
    """
    trace_id = secrets.token_hex(16)
    where = " <- ".join(f"{_name(link)} at {_frames(link)}" for link in _chain(error))
    _LOG.error("%s failed by a bug, trace_id=%s: %s", method, trace_id, where)
    return StateError(
        f"internal error; the server's log says more under trace id {trace_id}", trace_id=trace_id
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Walk from an error to the errors that caused it, each once."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def _name(error: BaseException) -> str:
    kind = type(error)
    return f"{kind.__module__}.{kind.__qualname__}"


def _frames(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return ", ".join(f"{frame.filename}:{frame.lineno} in {frame.name}" for frame in frames)
