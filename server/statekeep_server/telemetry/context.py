"""The W3C trace context of a call, and the decision whether its trace is recorded.

The decision is that of OpenTelemetry's samplers of the same names, taken before anything is made:
the SDK's takes ten times as long, and nearly every call of a busy server is not recorded.
"""

import random
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"

_SAMPLED = 1
_FORM = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?", re.ASCII)
_LENGTH = 55
_MAX_STATE_CHARACTERS = 512
"""What the W3C asks everyone to hand on at least."""

BOUND = 1 << 64


@dataclass(frozen=True, slots=True)
class Parent:
    """The span of a caller."""

    trace_id: bytes
    span_id: bytes
    sampled: bool
    state: str = ""


def read_parent(metadata: Iterable[tuple[str, str | bytes]]) -> Parent | None:
    """Find the caller's span in the metadata of a call; None where there is none that is valid."""
    given, state = None, ""
    for name, value in metadata:
        if name == TRACEPARENT:
            if given is not None:
                return None  # two of them: neither is known to be right
            given = value
        elif name == TRACESTATE and isinstance(value, str):
            state = f"{state},{value}" if state else value
    if not isinstance(given, str):
        return None
    return parse_parent(given, state if len(state) <= _MAX_STATE_CHARACTERS else "")


def parse_parent(text: str, state: str = "") -> Parent | None:
    """Read a `traceparent`; None where it is not valid (W3C Trace Context, level 1)."""
    if len(text) < _LENGTH or _FORM.fullmatch(text) is None:
        return None
    version = text[:2]
    if version == "ff" or (version == "00" and len(text) != _LENGTH):
        return None
    trace_id, span_id = bytes.fromhex(text[3:35]), bytes.fromhex(text[36:52])
    if not any(trace_id) or not any(span_id):
        return None
    return Parent(trace_id, span_id, bool(int(text[53:55], 16) & _SAMPLED), state)


@dataclass(frozen=True, slots=True)
class Sampling:
    """Which traces are recorded.

    Attributes:
        parent_based: Whether the caller's decision holds where there is a caller.
        bound: Traces whose number, the last 64 bits of the id, lies below it are recorded.
    """

    parent_based: bool = True
    bound: int = BOUND

    def records(self, trace_id: bytes, parent: Parent | None) -> bool:
        """Decide about a trace."""
        if self.parent_based and parent is not None:
            return parent.sampled
        return int.from_bytes(trace_id[8:]) < self.bound


ALWAYS_ON = "parentbased_always_on"


def read_sampling(name: str, argument: str) -> Sampling | None:
    """Read OTEL_TRACES_SAMPLER and its argument; None for a sampler that is not known here."""
    name = name or ALWAYS_ON
    kind = name.removeprefix("parentbased_")
    if kind not in {"always_on", "always_off", "traceidratio"}:
        return None
    share = {"always_on": 1.0, "always_off": 0.0}.get(kind)
    return Sampling(
        parent_based=name != kind,
        bound=round((_share(argument) if share is None else share) * BOUND),
    )


def _share(argument: str) -> float:
    """Read a share of 1; what is none is 1, as OpenTelemetry has it."""
    try:
        share = float(argument or 1)
    except ValueError:
        return 1.0
    return share if 0 <= share <= 1 else 1.0


def new_trace_id(bits: Callable[[int], int] = random.getrandbits) -> bytes:
    """Make the id of a trace; never all zeros, which is no id."""
    return (bits(128) or 1).to_bytes(16)


def new_span_id(bits: Callable[[int], int] = random.getrandbits) -> bytes:
    """Make the id of a span."""
    return (bits(64) or 1).to_bytes(8)
