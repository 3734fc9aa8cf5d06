"""The contract's enums and the domain's names for the same things.

Enums of proto3 are open: a caller built with a newer contract sends numbers that this server does
not know. Such a number travels through the domain as `UNKNOWN_<number>` and back.
"""

from collections.abc import Iterable

from statekeep.v1 import admin_service_pb2, agent_state_pb2, error_reason_pb2
from statekeep_server.domain.model import CheckpointType, Outcome, Path, Reason
from statekeep_server.flags import FlagSource
from statekeep_server.service.answers import Limit

UNKNOWN_PREFIX = "UNKNOWN_"


def _by_name(items: Iterable[tuple[str, int]], prefix: str) -> dict[str, int]:
    return {name.removeprefix(prefix): number for name, number in items}


_CHECKPOINT_TYPES = _by_name(agent_state_pb2.CheckpointType.items(), "CHECKPOINT_TYPE_")
_CHECKPOINT_NAMES = {number: name for name, number in _CHECKPOINT_TYPES.items()}
_CHECKPOINT_NAMES[agent_state_pb2.CHECKPOINT_TYPE_UNSPECIFIED] = CheckpointType.MANUAL

_OUTCOMES = _by_name(agent_state_pb2.SaveOutcome.items(), "SAVE_OUTCOME_")
_REASONS = _by_name(agent_state_pb2.DecisionReason.items(), "DECISION_REASON_")
_PATHS = _by_name(agent_state_pb2.ServingPath.items(), "SERVING_PATH_")

ERROR_REASONS: frozenset[str] = frozenset(
    _by_name(error_reason_pb2.ErrorReason.items(), "ERROR_REASON_")
) - {"UNSPECIFIED"}
"""Every reason that the contract promises."""

_FLAG_SOURCES = _by_name(admin_service_pb2.FlagSource.items(), "FLAG_SOURCE_")


def flag_source_number(source: FlagSource) -> admin_service_pb2.FlagSource.ValueType:
    """Number the source of a flag's value."""
    return admin_service_pb2.FlagSource.ValueType(_FLAG_SOURCES[source])


_TRIP_LIMITS = _by_name(admin_service_pb2.TripLimit.items(), "TRIP_LIMIT_")


def trip_limit_number(limit: Limit) -> admin_service_pb2.TripLimit.ValueType:
    """Number a limit at which a server trips."""
    return admin_service_pb2.TripLimit.ValueType(_TRIP_LIMITS[limit])


def checkpoint_name(number: int) -> str:
    """Name a checkpoint type; `UNKNOWN_<number>` when this server does not know it."""
    return _CHECKPOINT_NAMES.get(number) or f"{UNKNOWN_PREFIX}{number}"


def checkpoint_number(name: str) -> agent_state_pb2.CheckpointType.ValueType:
    """Number a checkpoint type again; 0 for a name that no contract ever had."""
    number = _CHECKPOINT_TYPES.get(name)
    if number is None:
        number = _unknown_number(name)
    return agent_state_pb2.CheckpointType.ValueType(number)


def _unknown_number(name: str) -> int:
    digits = name.removeprefix(UNKNOWN_PREFIX)
    try:
        number = int(digits)
    except ValueError:
        return 0
    fits = digits != name and -(2**31) <= number < 2**31
    return number if fits else 0


def outcome_number(outcome: Outcome) -> agent_state_pb2.SaveOutcome.ValueType:
    """Number an outcome."""
    return agent_state_pb2.SaveOutcome.ValueType(_OUTCOMES[outcome])


def reason_number(reason: Reason) -> agent_state_pb2.DecisionReason.ValueType:
    """Number the reason of a decision."""
    return agent_state_pb2.DecisionReason.ValueType(_REASONS[reason])


def path_number(path: Path) -> agent_state_pb2.ServingPath.ValueType:
    """Number a serving path."""
    return agent_state_pb2.ServingPath.ValueType(_PATHS[path])
