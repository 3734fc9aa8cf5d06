"""Request ids: time-ordered UUIDs (RFC 9562, version 7), which also date their save."""

import secrets
import time
import uuid
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def new_request_id() -> str:
    """Make an id that no other save has: 48 bits of milliseconds, then 74 random bits."""
    milliseconds = time.time_ns() // 1_000_000
    random = secrets.randbits(74)
    value = milliseconds << 80 | 0x7 << 76 | (random >> 62) << 64 | 0b10 << 62
    return str(uuid.UUID(int=value | random & (1 << 62) - 1))


def made_at(request_id: str) -> datetime | None:
    """Say when a request id was made, to the millisecond; None if it is not of our kind."""
    try:
        parsed = uuid.UUID(request_id)
    except ValueError:
        return None
    if parsed.version != 7:
        return None
    return _EPOCH + timedelta(milliseconds=parsed.int >> 80)
