"""The calls of an asynchronous client to the admin service."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

from statekeep._admin_answers import flag_change, flag_list, server_info, server_stats
from statekeep._admin_types import FlagChange, FlagList, ServerInfo, ServerStats
from statekeep._requests import (
    list_flag_changes_request,
    set_flag_request,
    unset_flag_request,
)
from statekeep.v1.admin_service_pb2 import (
    GetServerInfoRequest,
    GetStatsRequest,
    ListFlagsRequest,
)

if TYPE_CHECKING:  # this name exists in the stubs' types only
    from statekeep.v1.admin_service_pb2_grpc import AdminServiceAsyncStub

R = TypeVar("R")


class AsyncAdminCalls(ABC):
    """What operators ask a server. `AsyncClient` has these calls."""

    async def server_info(self, *, timeout_s: float | None = None) -> ServerInfo:
        """Ask the server for its version, limits, skip rules and serving path."""
        method = self._admin().GetServerInfo
        return server_info(await self._call(method, GetServerInfoRequest(), timeout_s))

    async def stats(self, *, timeout_s: float | None = None) -> ServerStats:
        """Ask the server what it counted since it started."""
        method = self._admin().GetStats
        return server_stats(await self._call(method, GetStatsRequest(), timeout_s))

    async def flags(self, *, timeout_s: float | None = None) -> FlagList:
        """Ask which flags are set for the fleet, and which hold in the server that answers."""
        method = self._admin().ListFlags
        return flag_list(await self._call(method, ListFlagsRequest(), timeout_s))

    async def set_flag(
        self,
        name: str,
        value: str,
        *,
        tenant: str = "",
        run_id: str = "",
        changed_by: str = "",
        expected_version: int | None = None,
        timeout_s: float | None = None,
    ) -> FlagChange:
        """Set a flag for all servers of the fleet, which follow within a second.

        Args:
            name: For example `ENABLE_OPTIMIZED_PERSISTENCE`.
            value: `true` or `false`, a percentage, or a log level, as the flag wants.
            tenant: Sets it for one tenant only.
            run_id: Sets it for one run of the tenant only.
            changed_by: Who sets it, for the history.
            expected_version: Fails with FlagConflict unless the flag has this version; 0 for one
                that is not set. Without it the later of two changes stands.
            timeout_s: Of all attempts together; the client's when not given.

        Raises:
            StatekeepError: The flag was not set; InvalidRequest names the allowed values.
        """
        request = set_flag_request(
            name,
            value,
            tenant=tenant,
            run_id=run_id,
            changed_by=changed_by,
            expected_version=expected_version,
        )
        response = await self._call(self._admin().SetFlag, request, timeout_s)
        return flag_change(response.change)

    async def unset_flag(
        self,
        name: str,
        *,
        tenant: str = "",
        run_id: str = "",
        changed_by: str = "",
        expected_version: int | None = None,
        timeout_s: float | None = None,
    ) -> FlagChange:
        """Take a flag away, so that the tenant's, the fleet's or each server's own holds again.

        The arguments are those of `set_flag`.
        """
        request = unset_flag_request(
            name,
            tenant=tenant,
            run_id=run_id,
            changed_by=changed_by,
            expected_version=expected_version,
        )
        response = await self._call(self._admin().UnsetFlag, request, timeout_s)
        return flag_change(response.change)

    async def list_flag_changes(
        self, *, page_size: int = 50, timeout_s: float | None = None
    ) -> AsyncIterator[FlagChange]:
        """List who changed which flag, from what to what, newest first.

        Pages are fetched as they are needed; `timeout_s` is for each.
        """
        request = list_flag_changes_request(page_size=page_size)
        while True:
            page = await self._call(self._admin().ListFlagChanges, request, timeout_s)
            for message in page.changes:
                yield flag_change(message)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    @abstractmethod
    def _admin(self) -> "AdminServiceAsyncStub": ...

    @abstractmethod
    async def _call(
        self,
        method: Callable[..., Awaitable[R]],
        request: Any,
        timeout_s: float | None,
        request_id: str = "",
    ) -> R: ...
