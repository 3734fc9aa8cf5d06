"""Servers between `least` and statekeep: what a durable save of ours is made of, a step at a time.

    least      a sorted form, a hash, and groups of one statement
    prepared   `least` with all that statekeep derives of a save: the checks, the canonical form, a
               digest of each field, the hash that tells a change, the fingerprint of the request
    stored     and statekeep's own groups and store: decided on the known head, an audit chain,
               request ids, frames, and who else may write the run
    save       and all around it: admission, turns, both paths, the breaker, counts and monitoring

Each is a server without what comes after it, so the difference between two is what a step costs
where it runs. One thing blurs it: a save of a run whose head was forgotten takes the lock in
`stored`, and a look at the head in `save`.
"""

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from benchmarks.rivals.least import open_least
from statekeep.v1 import agent_state_service_pb2 as messages
from statekeep_server.app import calm_the_collector
from statekeep_server.batching.group_commit import GroupLimits
from statekeep_server.config import Settings
from statekeep_server.domain.canonical import DEFAULT_IGNORED_FIELDS, compile_ignored
from statekeep_server.domain.model import DEFAULT_TENANT, Path, PreparedSave
from statekeep_server.domain.prepare import prepare
from statekeep_server.paths import group_settings, skip_rules, store_memory
from statekeep_server.service.answers import SaveAck
from statekeep_server.service.clock import SystemClock
from statekeep_server.service.deadline import Deadline
from statekeep_server.service.groups import open_groups
from statekeep_server.service.ids import new_id
from statekeep_server.service.ports import Append
from statekeep_server.storage.sql_store import open_sql_store
from statekeep_server.transport import convert

Save = Callable[[messages.SaveAgentStateRequest], Awaitable[messages.SaveAgentStateResponse]]


@asynccontextmanager
async def open_prepared(url: str) -> AsyncIterator[Save]:
    """Prepare each save as statekeep does, and write it as `least` does."""
    prepared = _preparation(Settings(database_url=url))
    async with open_least(url) as least:

        async def save(
            request: messages.SaveAgentStateRequest,
        ) -> messages.SaveAgentStateResponse:
            one = prepared(request)
            snapshot_id = str(uuid.uuid4())
            return messages.SaveAgentStateResponse(
                snapshot_id=snapshot_id,
                version=await least.write(request.run_id, snapshot_id, one.command.state),
                state_sha256=one.state_sha256,
                comparison_hash=one.comparison_hash,
            )

        calm_the_collector()
        yield save


@asynccontextmanager
async def open_stored(url: str) -> AsyncIterator[Save]:
    """Prepare each save and write it through statekeep's groups and store; `url` is migrated."""
    settings = Settings(database_url=url)
    prepared, rules, clock = _preparation(settings), skip_rules(settings), SystemClock()
    async with (
        open_sql_store(
            url,
            settings=group_settings(settings),
            pool=settings.optimized_pool,
            new_id=new_id,
            memory=store_memory(settings),
        ) as store,
        open_groups(store, GroupLimits(), clock) as groups,
    ):

        async def save(
            request: messages.SaveAgentStateRequest,
        ) -> messages.SaveAgentStateResponse:
            append = Append(save=prepared(request), rules=rules, skips_in_a_row=0)
            result = await groups.save(append, Deadline(clock, None))
            return convert.save_response(SaveAck(result, Path.OPTIMIZED))

        calm_the_collector()
        yield save


def _preparation(
    settings: Settings,
) -> Callable[[messages.SaveAgentStateRequest], PreparedSave]:
    """Make what reads and prepares a save."""
    ignored = compile_ignored((*DEFAULT_IGNORED_FIELDS, *settings.ignored_fields))

    def prepared(request: messages.SaveAgentStateRequest) -> PreparedSave:
        command = convert.save_command(request, tenant=DEFAULT_TENANT)
        return prepare(command, ignored=ignored, limits=settings.limits)

    return prepared
