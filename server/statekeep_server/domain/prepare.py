"""Preparation: a valid save and everything derived from its payload, once and before any I/O.

The comparison hash says whether two saves of a run hold the same state. Its parts, framed as in
`domain.framing` under the tag `statekeep comparison`, in this order:

 1. the version of the canonical form;
 2. the digest of the list of ignored fields: servers with different lists never match;
 3. the normalised content type;
 4. the thread, 5. the user, 6. the agent's phase: a change of phase is a change;
 7. the execution context: key, value, key, value ... sorted by key, framed by itself;
 8. the canonical state, or the bytes themselves where the content type is not JSON.

The fingerprint says whether two saves with one request id are attempts of the same save. It
covers the raw bytes (by their SHA-256) and every option but the attempt's number and
`write_behind` (a save that may be late is the same save), and depends on no setting of the server,
so that an attempt may go to any server.
"""

from hashlib import sha256

from statekeep_server.domain.canonical import (
    CANONICAL_VERSION,
    IgnoredFields,
    canonicalize,
    merge_ignored,
)
from statekeep_server.domain.differ import encode_digests, encode_whole
from statekeep_server.domain.framing import digest, maybe, number, texts
from statekeep_server.domain.limits import Limits
from statekeep_server.domain.model import JSON_CONTENT_TYPE, PreparedSave, SaveCommand
from statekeep_server.domain.validation import validate_save

COMPARISON_TAG = "statekeep comparison"
FINGERPRINT_TAG = "statekeep fingerprint"


def prepare(command: SaveCommand, *, ignored: IgnoredFields, limits: Limits) -> PreparedSave:
    """Validate a save and derive its hashes; `ignored` is the server's list.

    Raises InvalidField, and its subclasses for a state that is too large or not acceptable JSON.
    """
    command = validate_save(command, limits)
    if command.ignored_fields:
        ignored = merge_ignored(ignored, command.ignored_fields)
    content_type = normalize_content_type(command.content_type)
    context = texts(text for pair in command.execution_context for text in pair)
    state_sha256 = sha256(command.state).digest()
    canonical, field_digests = _state(command.state, content_type, ignored, limits)
    comparison_hash = digest(
        COMPARISON_TAG,
        (
            number(CANONICAL_VERSION),
            ignored.digest,
            content_type.encode(),
            command.thread_id.encode(),
            command.user_id.encode(),
            command.agent_phase.encode(),
            context,
            canonical,
        ),
    )
    return PreparedSave(
        command=command,
        state_sha256=state_sha256,
        comparison_hash=comparison_hash,
        field_digests=field_digests,
        fingerprint=_fingerprint(command, state_sha256, context),
    )


def normalize_content_type(content_type: str) -> str:
    """Write a content type in one way: `Application/JSON; charset=UTF-8` is `application/json`.

    The media type is in lower case, parameters are trimmed, and a JSON type has no `charset`
    (JSON is UTF-8 whatever it says).
    """
    if content_type == JSON_CONTENT_TYPE:
        return content_type
    media_type, *parameters = (part.strip() for part in content_type.split(";"))
    media_type = media_type.lower()
    if is_json(media_type):
        parameters = [part for part in parameters if not part.lower().startswith("charset=")]
    return "; ".join([media_type, *filter(None, parameters)])


def is_json(content_type: str) -> bool:
    """Whether a normalised content type is JSON: `application/json` or any `+json` type."""
    media_type = content_type.partition(";")[0]
    return media_type == JSON_CONTENT_TYPE or media_type.endswith("+json")


def _state(
    state: bytes, content_type: str, ignored: IgnoredFields, limits: Limits
) -> tuple[bytes, bytes]:
    """Return what is compared of a state, and the digests of its top-level fields."""
    if not is_json(content_type):
        return state, encode_whole("opaque", state)
    canonical = canonicalize(state, ignored=ignored, limits=limits)
    if canonical.fields is None:
        return canonical.data, encode_whole("json", canonical.data)
    return canonical.data, encode_digests(canonical.fields, canonical.rest)


def _fingerprint(command: SaveCommand, state_sha256: bytes, context: bytes) -> bytes:
    return digest(
        FINGERPRINT_TAG,
        (
            command.key.tenant.encode(),
            command.key.run_id.encode(),
            state_sha256,
            command.content_type.encode(),
            command.thread_id.encode(),
            command.user_id.encode(),
            command.checkpoint_type.encode(),
            command.agent_phase.encode(),
            context,
            b"1" if command.is_recovery_point else b"0",
            _maybe_number(command.expires_at_us),
            _maybe_number(command.expected_version),
            texts(sorted(set(command.ignored_fields))),
            _maybe_number(command.writer_sequence),
        ),
    )


def _maybe_number(value: int | None) -> bytes:
    return maybe(None if value is None else number(value))
