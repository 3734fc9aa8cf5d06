"""What this build can do, asked of its contract and its settings and not of its version.

A row whose feature is missing is reported as not available, so that this file needs no change when
the feature lands.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from statekeep.v1 import agent_state_service_pb2 as contract
from statekeep_server.cli.settings import KNOBS
from statekeep_server.flags import parse_switch

STREAM = "SaveAgentStateStream"
COMPRESSION = re.compile(r"compress")
TELEMETRY = re.compile(r"telemetry|monitoring")


@dataclass(frozen=True, slots=True)
class StreamCall:
    """The streaming save: where it is, and how a save's bytes become one of its messages."""

    path: str
    wrap: Callable[[bytes], bytes]


def streaming() -> StreamCall | None:
    """The bidirectional save of the contract, if it has one."""
    service = contract.DESCRIPTOR.services_by_name["AgentStateService"]
    method = service.methods_by_name.get(STREAM)
    if method is None:
        return None
    path = f"/{service.full_name}/{STREAM}"
    wanted = contract.SaveAgentStateRequest.DESCRIPTOR
    if method.input_type == wanted:
        return StreamCall(path, bytes)
    for field in method.input_type.fields:
        if field.message_type == wanted:
            return StreamCall(path, partial(_embedded, field.number))
    return None


def _embedded(number: int, message: bytes) -> bytes:
    """A message as a field of another one."""
    size, length = len(message), bytearray()
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    length.append(size)
    return bytes([number << 3 | 2]) + bytes(length) + message


def plain_variables() -> dict[str, str] | None:
    """The variables that switch compression and telemetry off, if there is such a switch."""
    switches: Any = [knob for knob in KNOBS if knob.parse is parse_switch]
    compression = [knob.variable for knob in switches if COMPRESSION.search(knob.field)]
    telemetry = [knob.variable for knob in switches if TELEMETRY.search(knob.field)]
    if not compression:
        return None
    return dict.fromkeys([*compression, *telemetry], "false")
