"""The outermost step: every error of a call becomes a status, and a bug is told to the log only.

A cancellation is no error and never comes here, nor does gRPC's AbortError, an Exception that
stands for a status already sent.
"""

import logging
import secrets

from google.protobuf.message import DecodeError

from statekeep_server.domain.errors import AtomicBatchFailed, Failed, InvalidField, StateError
from statekeep_server.telemetry import current_ids
from statekeep_server.telemetry.tracebacks import told
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

    The log gets types, files, lines and functions only (see `telemetry.tracebacks`).
    """
    ids = current_ids()
    trace_id = ids[0] if ids is not None else secrets.token_hex(16)
    _LOG.error("%s failed by a bug, trace_id=%s: %s", method, trace_id, told(error))
    return StateError(
        f"internal error; the server's log says more under trace id {trace_id}", trace_id=trace_id
    )
