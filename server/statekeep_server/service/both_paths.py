"""Both paths of the service, and what leads from the optimized one to standard.

A fallback is for "the optimized path could not run". A save that was refused (bad field, conflict,
overload, deadline) is refused on both paths alike and does not fall back. The standard attempt
carries the same request id and the next attempt number, so that a save whose first commit was
lost on the way back happens once.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

from statekeep_server.batching.detached import Detached
from statekeep_server.domain.errors import (
    AtomicBatchFailed,
    DeadlineExceeded,
    Overloaded,
    Refused,
    StateError,
    StorageUnavailable,
)
from statekeep_server.domain.model import Path, PreparedSave, SaveResult
from statekeep_server.service.answers import FallbackCause, SaveAck
from statekeep_server.service.breaker import Breaker
from statekeep_server.service.causes import describe, loggable, with_both_causes
from statekeep_server.service.counters import reason_of
from statekeep_server.service.hold import Hold
from statekeep_server.service.state_service import StateService
from statekeep_server.service.tracing import traced_save
from statekeep_server.telemetry import names
from statekeep_server.telemetry.spans import current

logger = logging.getLogger("statekeep.facade")

T = TypeVar("T")

Serve = Callable[[StateService, PreparedSave], Awaitable[SaveResult]]
"""Serves one attempt of a save on one path."""


class BothPaths:
    """The service of each path, with the way from optimized to standard.

    Args:
        detached: Runs a save that fell back to its end, also when its caller goes away.
    """

    def __init__(
        self,
        *,
        standard: StateService,
        optimized: StateService,
        breaker: Breaker,
        detached: Detached,
    ) -> None:
        self.standard = standard
        self.optimized = optimized
        self.breaker = breaker
        self._detached = detached

    def service(self, path: Path) -> StateService:
        """The service of a path."""
        return self.optimized if path is Path.OPTIMIZED else self.standard

    def admit(self, path: Path) -> None:
        """Refuse the optimized path while its breaker is open; raises CircuitOpen."""
        if path is Path.OPTIMIZED:
            self.breaker.admit()

    def save(
        self,
        path: Path,
        save: PreparedSave,
        serve: Serve,
        hold: Hold | None = None,
    ) -> Awaitable[SaveAck]:
        """Serve a save on its path, and through standard when the optimized one cannot run."""
        serving = self._save(path, save, serve, hold)
        span = current()
        return serving if span is None else traced_save(span, save, serving)

    async def _save(
        self, path: Path, save: PreparedSave, serve: Serve, hold: Hold | None
    ) -> SaveAck:
        service = self.service(path)
        try:
            self.admit(path)
            result = await serve(service, save)
        except asyncio.CancelledError as gone:
            self.judge(path, gone)
            raise
        except Refused as error:
            self.judge(path, error)
            service.counters.failed(error)
            raise
        except Exception as first:
            self.judge(path, first)
            if path is Path.STANDARD:
                service.counters.failed(first)
                raise
            standard = self._serve_standard(save, serve, first, hold and hold.share())
            return await (standard if hold is None else self._detached.run(standard))
        self.judge(path, None)
        return SaveAck(result, path)

    async def _serve_standard(
        self,
        save: PreparedSave,
        serve: Serve,
        first: Exception,
        hold: Hold | None,
    ) -> SaveAck:
        cause = self.falling_back(first)
        try:
            result = await serve(self.standard, next_attempt(save))
        except Exception as second:  # noqa: BLE001  # the fallback keeps it
            self.standard.counters.failed(second)
            raise with_both_causes(first, second) from first
        finally:
            if hold is not None:
                hold.release()
        return SaveAck(result, Path.STANDARD, cause)

    def falling_back(self, first: Exception) -> FallbackCause:
        """Keep the first error: in the log with its traceback, in the counts, for the answer."""
        reason = reason_of(first)
        # A resting path is no news, and a traceback per save would drown the one that matters.
        logger.error(
            "Optimized persistence failed: reason=%s",
            reason,
            exc_info=None if reason == "CIRCUIT_OPEN" else loggable(first),
        )
        self.optimized.counters.fell_back(first)
        span = current()
        if span is not None:
            span.event(names.FALLBACK, reason)
        return FallbackCause(reason, describe(first))

    def judge(self, path: Path, error: BaseException | None) -> None:
        """Tell the breaker what a request says about the optimized path."""
        if path is Path.STANDARD:
            return
        if error is not None and reason_of(error) == "CIRCUIT_OPEN":
            return
        if isinstance(error, DeadlineExceeded | Overloaded | asyncio.CancelledError):
            self.breaker.released()
        elif error is None or isinstance(error, Refused | AtomicBatchFailed):
            self.breaker.succeeded()
        else:
            self.breaker.failed()

    async def read(self, path: Path, ask: Callable[[StateService], Awaitable[T]]) -> T:
        """Ask a path; a failure of the optimized one is asked again of standard.

        Each path has a pool of its own, so that an exhausted pool of one leaves the other.
        """
        try:
            return await ask(self.service(path))
        except StorageUnavailable as first:
            if path is Path.STANDARD:
                raise
            self.falling_back(first)
            try:
                return await ask(self.standard)
            except StateError as second:
                raise with_both_causes(first, second) from first


def next_attempt(save: PreparedSave) -> PreparedSave:
    """Make the next attempt of the same save."""
    return replace(save, command=replace(save.command, attempt=save.command.attempt + 1))
