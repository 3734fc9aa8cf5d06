"""What a servicer may know of its call: tenant, time left, earlier attempts. Set once per call."""

from collections.abc import Iterable
from contextvars import ContextVar

from statekeep_server.domain.errors import InvalidField
from statekeep_server.domain.model import DEFAULT_TENANT
from statekeep_server.domain.values import value_class

TENANT = "statekeep-tenant"
PREVIOUS_ATTEMPTS = "grpc-previous-rpc-attempts"
_MAX_TENANT_CHARACTERS = 64

Metadata = Iterable[tuple[str, str | bytes]]


@value_class()
class Caller:
    """Who calls.

    Attributes:
        previous_attempts: How often the caller's gRPC library has sent this call before.
    """

    tenant: str
    previous_attempts: int


@value_class()
class Call:
    """A call as its servicer sees it.

    Attributes:
        deadline_s: Seconds that were left when the servicer began.
    """

    caller: Caller
    deadline_s: float

    @property
    def tenant(self) -> str:
        """The tenant of the caller."""
        return self.caller.tenant

    @property
    def previous_attempts(self) -> int:
        """How often the caller's gRPC library has sent this call before."""
        return self.caller.previous_attempts


ANYBODY = Caller(DEFAULT_TENANT, 0)
"""Nearly every caller; one value serves all of them."""

current_caller: ContextVar[Caller] = ContextVar("current_caller", default=ANYBODY)
"""Who made the call that the running task serves."""
current_call: ContextVar[Call] = ContextVar("current_call")
"""The call that the running task serves."""


def read_caller(metadata: Metadata, *, trust_tenant: bool) -> Caller:
    """Read who calls.

    The tenant is the constant default unless `trust_tenant`, for development and tests: tenants
    will come from credentials.

    Raises:
        InvalidField: The tenant that the metadata names is not one.
    """
    tenant, attempts = DEFAULT_TENANT, 0
    for name, value in metadata:
        if name == PREVIOUS_ATTEMPTS:
            attempts = _count(value)
        elif name == TENANT and trust_tenant:
            tenant = _tenant(value)
    if tenant == DEFAULT_TENANT and not attempts:
        return ANYBODY
    return Caller(tenant, attempts)


def values(metadata: Metadata, name: str) -> list[str | bytes]:
    """Find every value of a metadata key."""
    return [value for key, value in metadata if key == name]


def _count(value: str | bytes) -> int:
    """Read a count that gRPC libraries write; anything else is no reason to fail a call."""
    return int(value) if isinstance(value, str) and value.isdecimal() and len(value) < 4 else 0


def _tenant(value: str | bytes) -> str:
    if not isinstance(value, str) or not value or len(value) > _MAX_TENANT_CHARACTERS:
        raise InvalidField(TENANT, "must have 1 to 64 characters", limit=_MAX_TENANT_CHARACTERS)
    return value
