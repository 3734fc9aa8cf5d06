"""The calls of AdminService about flags: messages in, the follower asked, messages out."""

from statekeep.v1 import admin_service_pb2 as pb
from statekeep_server.domain.errors import InvalidField
from statekeep_server.domain.validation import MAX_INT64, page_size
from statekeep_server.flags import FlagChange, Scope, StoredFlag, unusable
from statekeep_server.service.flag_follower import FlagFollower
from statekeep_server.transport import convert, pages, words


def list_flags(flags: FlagFollower) -> pb.ListFlagsResponse:
    """Write what is set and what is in force here."""
    stored = flags.stored
    return pb.ListFlagsResponse(
        version=stored.version,
        flags=map(_flag, stored.flags),
        in_force=[
            pb.FlagInForce(
                name=each.name, value=each.value, source=words.flag_source_number(each.source)
            )
            for each in flags.in_force()
        ],
    )


async def set_flag(flags: FlagFollower, request: pb.SetFlagRequest) -> pb.SetFlagResponse:
    """Set a flag. Raises what `FlagFollower.change` raises."""
    return pb.SetFlagResponse(change=await _change(flags, request, request.value))


async def unset_flag(flags: FlagFollower, request: pb.UnsetFlagRequest) -> pb.UnsetFlagResponse:
    """Take a flag away. Raises what `FlagFollower.change` raises."""
    return pb.UnsetFlagResponse(change=await _change(flags, request, None))


async def list_flag_changes(
    flags: FlagFollower, request: pb.ListFlagChangesRequest
) -> pb.ListFlagChangesResponse:
    """Write a page of the history. Raises a StateError."""
    limit = page_size(request.page_size)
    before_version = pages.read_flag_changes_token(request.page_token)
    changes = await flags.changes(limit=limit, before_version=before_version)
    # The numbers have no gap: the last one says whether there are more.
    more = bool(changes) and changes[-1].version > 1
    return pb.ListFlagChangesResponse(
        changes=map(_flag_change, changes),
        next_page_token=pages.flag_changes_token(changes[-1].version if more else None),
    )


async def _change(
    flags: FlagFollower, request: pb.SetFlagRequest | pb.UnsetFlagRequest, value: str | None
) -> pb.FlagChange:
    expected_version = request.expected_version if request.HasField("expected_version") else None
    if expected_version is not None and not 0 <= expected_version <= MAX_INT64:
        raise InvalidField("expected_version", "must not be negative")
    change = await flags.change(
        request.name,
        Scope(request.tenant, request.run_id),
        value,
        changed_by=request.changed_by,
        expected_version=expected_version,
    )
    return _flag_change(change)


def _flag(flag: StoredFlag) -> pb.Flag:
    return pb.Flag(
        name=flag.name,
        tenant=flag.scope.tenant,
        run_id=flag.scope.run_id,
        value=flag.value,
        version=flag.version,
        set_by=flag.set_by,
        set_at=convert.timestamp(flag.set_at_us),
        problem=unusable(flag) or "",
    )


def _flag_change(change: FlagChange) -> pb.FlagChange:
    return pb.FlagChange(
        version=change.version,
        name=change.name,
        tenant=change.scope.tenant,
        run_id=change.scope.run_id,
        value_before=change.before,
        value_after=change.after,
        changed_by=change.changed_by,
        changed_at=convert.timestamp(change.changed_at_us),
    )
