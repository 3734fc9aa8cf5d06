"""Where a server listens and how that is protected: loopback unless TLS and a token say otherwise.

A state store that is open to a network by accident gives away what agents know. So plaintext, or
no token, beyond this machine has to be asked for in as many words.
"""

import ipaddress
import socket
from pathlib import Path

import grpc

from statekeep_server.config import Settings


class CannotServe(Exception):
    """The server cannot start as it is set up. The text says what to do."""


def check_protection(settings: Settings) -> None:
    """Refuse settings that would open the server by accident.

    Raises:
        CannotServe: They would, or they contradict each other.
    """
    tls = _tls(settings)
    local = is_loopback(settings.host)
    if settings.token is not None and not settings.token.strip():
        raise CannotServe("the token is empty: give one, or none at all")
    if settings.trust_tenant_metadata and (tls or not local):
        raise CannotServe(
            "tenants are taken from metadata for development only: serve plaintext on loopback, "
            "or switch that off"
        )
    if local or settings.insecure or (tls and settings.token is not None):
        return
    missing = [
        what
        for what, given in (("a TLS certificate and key", tls), ("a token", settings.token))
        if not given
    ]
    raise CannotServe(
        f"{settings.host} can be reached from other machines: give {' and '.join(missing)}, serve "
        "on 127.0.0.1, or say --insecure if the network itself is trusted"
    )


def bind(server: grpc.aio.Server, settings: Settings) -> int:
    """Bind the address, with TLS if there is a certificate; return the port.

    Raises:
        CannotServe: The address or the certificate cannot be used.
    """
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    address = f"{host}:{settings.port}"
    credentials = _credentials(settings) if _tls(settings) else None
    try:
        if credentials is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise CannotServe(f"cannot listen on {address}: {_why(settings)}") from error


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a host. A name counts as such only if it says so."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _tls(settings: Settings) -> bool:
    certificate, key = settings.tls_certificate_path, settings.tls_key_path
    if (certificate is None) != (key is None):
        raise CannotServe("TLS needs both a certificate and its key")
    return certificate is not None


def _credentials(settings: Settings) -> grpc.ServerCredentials:
    key = _read(settings.tls_key_path, "key")
    certificate = _read(settings.tls_certificate_path, "certificate")
    return grpc.ssl_server_credentials([(key, certificate)])


def _read(path: str | None, what: str) -> bytes:
    try:
        return Path(path or "").read_bytes()
    except OSError as error:
        raise CannotServe(f"cannot read the TLS {what} {path}: {error.strerror}") from error


def _why(settings: Settings) -> str:
    """Ask the operating system why an address cannot be bound: gRPC does not say."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as attempt:
            attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            attempt.bind(address)
            attempt.listen()
    except OSError as error:
        return error.strerror or str(error)
    if _tls(settings):
        return "the TLS certificate and key do not fit together or are not PEM"
    return "try again"
