"""Validation: what every field of a request may hold, before anything is derived or stored.

Every failure is an InvalidField that names the field by its path in the contract and carries the
limit where there is one. Values are never shown: a message must not hold what a caller sent.
"""

import re
import unicodedata
from dataclasses import replace
from itertools import pairwise

from statekeep_server.domain.errors import InvalidField, StateTooLarge
from statekeep_server.domain.limits import Limits
from statekeep_server.domain.model import (
    JSON_CONTENT_TYPE,
    SKIPPABLE_TYPES,
    ById,
    ByVersion,
    RunKey,
    SaveCommand,
    Selector,
)

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 1_000
"""Larger pages are cut, not refused: a page may always be shorter than asked."""

MAX_CHECKPOINT_TYPE_CHARACTERS = 64
"""Room for every name that a later version may bring."""

MAX_CONTENT_TYPE_CHARACTERS = 128

MEDIA_TYPE = re.compile(r"[\w!#$&^.+-]+/[\w!#$&^.+-]+ *(;[ -~]*)?", re.ASCII)
"""The shape of a media type (RFC 6838), with any parameters."""

MAX_INT64 = 2**63 - 1

YEAR_10000_US = 253_402_300_800_000_000
"""The first instant that neither a timestamp of the contract nor one of a database can hold."""

FORBIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Control, format and surrogate characters, line and paragraph separators: invisible in a log,
some of them impossible in a database."""


def validate_save(command: SaveCommand, limits: Limits) -> SaveCommand:
    """Check every option of a save and the size of its state; return it with its defaults.

    An attempt of 0 becomes 1 and an empty content type becomes JSON.
    """
    validate_key(command.key, limits)
    size = len(command.state)
    if size > limits.max_state_bytes:
        message = f"has {size} bytes, the limit is {limits.max_state_bytes}"
        raise StateTooLarge("state.data", message, size=size, limit=limits.max_state_bytes)
    validate_text("thread_id", command.thread_id, limits)
    validate_text("user_id", command.user_id, limits)
    _characters("agent_phase", command.agent_phase, limits.max_id_characters)
    if command.request_id:
        _id("request_id", command.request_id, limits.max_request_id_characters)
    _content_type(command.content_type)
    _id("checkpoint_type", command.checkpoint_type, MAX_CHECKPOINT_TYPE_CHARACTERS)
    _context(command.execution_context, limits)
    if len(command.ignored_fields) > limits.max_ignored_fields:
        _refuse_number("ignored_fields", "has too many entries", limits.max_ignored_fields)
    _whole_number("attempt", command.attempt)
    _whole_number("expected_version", command.expected_version)
    _whole_number("writer_sequence", command.writer_sequence)
    if command.expires_at_us is not None and not 0 < command.expires_at_us < YEAR_10000_US:
        raise InvalidField("expires_at", "must lie after 1970 and before the year 10000")
    if command.write_behind:
        _write_behind(command)
    if command.attempt and command.content_type:
        return command
    return replace(
        command,
        attempt=command.attempt or 1,
        content_type=command.content_type or JSON_CONTENT_TYPE,
    )


def validate_key(key: RunKey, limits: Limits) -> None:
    """Check the key of a run."""
    _id("tenant", key.tenant, limits.max_id_characters)
    _id("run_id", key.run_id, limits.max_id_characters)


def validate_text(field: str, value: str, limits: Limits) -> None:
    """Check an id that may be empty."""
    if value:
        _id(field, value, limits.max_id_characters)


def validate_selector(selector: Selector, limits: Limits) -> None:
    """Check what selects a snapshot."""
    if isinstance(selector, ByVersion) and not 1 <= selector.version <= MAX_INT64:
        raise InvalidField("version", "must be at least 1")
    if isinstance(selector, ById):
        _id("snapshot_id", selector.snapshot_id, limits.max_id_characters)


def page_size(requested: int) -> int:
    """Return the size of a page: 0 asks for the default, more than the maximum for the maximum."""
    if requested < 0:
        raise InvalidField("page_size", "must not be negative", limit=MAX_PAGE_SIZE)
    return min(requested or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)


def _id(field: str, value: str, limit: int) -> None:
    if not value:
        raise InvalidField(field, "is required", limit=limit)
    _characters(field, value, limit)
    if value != value.strip():
        raise InvalidField(field, "begins or ends with white space", limit=limit)


def _characters(field: str, value: str, limit: int) -> None:
    if len(value) > limit:
        _refuse_number(field, f"has more than {limit} characters", limit)
    if value.isprintable():  # quick, and never true where a forbidden character is
        return
    for position, character in enumerate(value):
        if unicodedata.category(character) in FORBIDDEN_CATEGORIES:
            message = f"has a control or invisible character at position {position}"
            raise InvalidField(field, message, limit=limit)


def _content_type(value: str) -> None:
    field = "state.content_type"
    _characters(field, value, MAX_CONTENT_TYPE_CHARACTERS)
    if value and not MEDIA_TYPE.fullmatch(value):
        raise InvalidField(field, "is not a media type such as application/json")


def _context(context: tuple[tuple[str, str], ...], limits: Limits) -> None:
    field = "execution_context"
    if len(context) > limits.max_context_entries:
        _refuse_number(field, "has too many entries", limits.max_context_entries)
    if any(before >= after for (before, _), (after, _) in pairwise(context)):
        raise InvalidField(field, "its keys must be sorted and different")
    size = 0
    for key, value in context:
        if "\0" in value:
            raise InvalidField(field, "a value holds a NUL character")
        if not key:
            raise InvalidField(field, "a key is empty")
        _characters(field, key, limits.max_id_characters)
        try:
            size += len(key.encode()) + len(value.encode())
        except UnicodeEncodeError:
            raise InvalidField(field, "a value is not Unicode text") from None
    if size > limits.max_context_bytes:
        _refuse_number(field, f"has {size} bytes", limits.max_context_bytes)


def _write_behind(command: SaveCommand) -> None:
    """Refuse what must not be late: who asks for it relies on the answer."""
    if command.checkpoint_type not in SKIPPABLE_TYPES:
        types = " or ".join(sorted(SKIPPABLE_TYPES))
        raise InvalidField("checkpoint_type", f"must be {types} with write_behind")
    if command.is_recovery_point:
        raise InvalidField("is_recovery_point", "cannot be combined with write_behind")
    if command.expected_version is not None:
        raise InvalidField("expected_version", "cannot be combined with write_behind")
    if command.writer_sequence is not None:
        raise InvalidField("writer_sequence", "cannot be combined with write_behind")


def _whole_number(field: str, value: int | None) -> None:
    if value is not None and not 0 <= value <= MAX_INT64:
        raise InvalidField(field, "must be a whole number from 0 and fit 64 bits")


def _refuse_number(field: str, message: str, limit: int) -> None:
    raise InvalidField(field, f"{message}, the limit is {limit}", limit=limit)
