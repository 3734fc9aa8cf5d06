"""Where a client connects and who it is: arguments first, then the environment, then defaults.

| variable | argument |
|---|---|
| `STATEKEEP_TARGET` | `target` |
| `STATEKEEP_TOKEN` | `token` |
| `STATEKEEP_TLS_CA` | `tls`: the path of a PEM file with the certificates to trust |
"""

import ipaddress
import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import grpc

DEFAULT_TARGET = "127.0.0.1:50551"
DEFAULT_TIMEOUT_S = 10.0

MetadataHook = Callable[[], Iterable[tuple[str, str]]]
Tls = bool | str | os.PathLike[str] | grpc.ChannelCredentials


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientConfig:
    """The settings of one client.

    Attributes:
        tls: False for plaintext, True for the system's certificates, a path for those of a PEM
            file, or credentials made by hand (for client certificates).
        tenant: Only servers in development take it; others know it from the token.
        timeout_s: Of every call that names none, all its attempts together.
        metadata: Called for every call; gives metadata to send along.
    """

    target: str
    token: str = field(repr=False)
    tls: Tls
    tenant: str
    timeout_s: float
    metadata: MetadataHook | None


def resolve(
    target: str | None,
    *,
    token: str | None,
    tls: Tls | None,
    tenant: str | None,
    timeout_s: float,
    metadata: MetadataHook | None,
    insecure: bool,
    environ: Mapping[str, str] = os.environ,
) -> ClientConfig:
    """Settle the settings of a client. Nothing is opened or read from disk.

    Raises:
        ValueError: A timeout is not positive, or the token would travel in plaintext beyond this
            machine.
    """
    config = ClientConfig(
        target=target or environ.get("STATEKEEP_TARGET") or DEFAULT_TARGET,
        token=environ.get("STATEKEEP_TOKEN", "") if token is None else token,
        tls=(environ.get("STATEKEEP_TLS_CA") or False) if tls is None else tls,
        tenant=tenant or "",
        timeout_s=positive_s(timeout_s),
        metadata=metadata,
    )
    if config.token and config.tls is False and not insecure and not is_local(config.target):
        raise ValueError(
            f"the token would travel to {config.target} in plaintext: "
            "give tls=…, or insecure=True where something else protects the way"
        )
    return config


def positive_s(timeout_s: float) -> float:
    """Check a timeout: every call has one, or a dead server would hold its caller for ever."""
    if not 0 < timeout_s < math.inf:
        raise ValueError(f"timeout_s: {timeout_s!r} is not a positive number of seconds")
    return timeout_s


def is_local(target: str) -> bool:
    """Whether a gRPC target cannot leave this machine."""
    scheme, _, rest = target.partition(":")
    if scheme in {"unix", "unix-abstract"}:
        return True
    if scheme in {"dns", "ipv4", "ipv6"} and not rest.isdecimal():
        target = rest.rpartition("/")[2] if scheme == "dns" else rest
    host = target.partition("]")[0].removeprefix("[") if "[" in target else target.split(":")[0]
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
