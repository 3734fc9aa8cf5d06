"""Page tokens: where a listing goes on, opaque to its caller.

A token is URL-safe base64 (no padding) of a JSON list: the version of this format, the digest of
the tenant and the filters that the token belongs to, and the position. It is bound to its filters
so that a token of one listing cannot silently continue another; it is not a secret, for it shows
nothing that its caller could not list.
"""

import base64
import binascii
import hashlib
import json
from typing import Any

from statekeep_server.domain.errors import InvalidField
from statekeep_server.domain.model import RunKey
from statekeep_server.service.ports import RunCursor

_FORMAT = 1
_MAX_TOKEN_CHARACTERS = 2_048  # a run id of 256 characters of four bytes, encoded, and room
_MAX_INT64 = 2**63 - 1


def snapshots_token(key: RunKey, before_version: int | None) -> str:
    """Name the next page of a run's snapshots; empty when there is none."""
    if before_version is None:
        return ""
    return _encode([_FORMAT, _binding("snapshots", key.tenant, key.run_id), before_version])


def read_snapshots_token(token: str, key: RunKey) -> int | None:
    """Read where a listing of snapshots goes on: before this version; None from the start.

    Raises:
        InvalidField: The token is not one of this run.
    """
    match _decode(token, _binding("snapshots", key.tenant, key.run_id)):
        case None:
            return None
        case [int(before_version)] if 0 < before_version <= _MAX_INT64:
            return before_version
        case _:
            raise _bad_token()


def runs_token(tenant: str, thread_id: str, user_id: str, after: RunCursor | None) -> str:
    """Name the next page of runs; empty when there is none."""
    if after is None:
        return ""
    binding = _binding("runs", tenant, thread_id, user_id)
    return _encode([_FORMAT, binding, after.persisted_at_us, after.run_id])


def read_runs_token(token: str, tenant: str, thread_id: str, user_id: str) -> RunCursor | None:
    """Read where a listing of runs goes on; None from the start.

    Raises:
        InvalidField: The token is not one of a listing with these filters.
    """
    match _decode(token, _binding("runs", tenant, thread_id, user_id)):
        case None:
            return None
        case [int(at_us), str(run_id)] if 0 <= at_us <= _MAX_INT64 and _storable(run_id):
            return RunCursor(at_us, run_id)
        case _:
            raise _bad_token()


def flag_changes_token(before_version: int | None) -> str:
    """Name the next page of the history of flags; empty when there is none."""
    if before_version is None:
        return ""
    return _encode([_FORMAT, _binding("flag_changes"), before_version])


def read_flag_changes_token(token: str) -> int | None:
    """Read where the history of flags goes on: before this version; None from the start.

    Raises:
        InvalidField: The token is not one of this listing.
    """
    match _decode(token, _binding("flag_changes")):
        case None:
            return None
        case [int(before_version)] if 0 < before_version <= _MAX_INT64:
            return before_version
        case _:
            raise _bad_token()


def _binding(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _encode(content: list[Any]) -> str:
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False)
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _decode(token: str, binding: str) -> list[Any] | None:
    """Open a token; its position is what is left. None for the empty token of the first page."""
    if not token:
        return None
    if len(token) > _MAX_TOKEN_CHARACTERS:
        raise _bad_token()
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        content = json.loads(raw)
    except (binascii.Error, ValueError, RecursionError):
        raise _bad_token() from None
    match content:
        case [version, bound_to, *position] if version == _FORMAT and bound_to == binding:
            return position
        case _:
            raise _bad_token()


def _storable(text: str) -> bool:
    """Whether a database can compare with this text: a forged token may hold what no run id may."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def _bad_token() -> InvalidField:
    return InvalidField("page_token", "is not a token of this listing")
