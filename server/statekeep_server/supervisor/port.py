"""The port that workers share, held so that nobody else gets it.

With SO_REUSEPORT any process of the same user may listen on a port that has the option, and would
silently get a share of the calls. So the supervisor first binds the port for itself alone, which
fails when anybody is there, and only then opens its socket for sharing. That socket never listens,
so no call reaches it; it keeps the port while workers come and go.
"""

import contextlib
import errno
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

NO_SUCH_ADDRESS = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}


class CannotSupervise(Exception):
    """The workers cannot be started as the settings say. The text says why."""


def check_system() -> None:
    """Refuse systems whose SO_REUSEPORT does not spread connections over processes.

    Raises CannotSupervise.
    """
    if sys.platform != "linux":
        raise CannotSupervise(
            "several workers need Linux: elsewhere the system does not spread the connections of "
            "one port over processes"
        )


@contextmanager
def held_port(host: str, port: int) -> Iterator[int]:
    """Hold a port of a host for the workers; yield it, also when 0 left the choice to the system.

    Raises CannotSupervise when somebody else has it or the host is none of this machine's.
    """
    with contextlib.ExitStack() as stack:
        held = 0
        for family, address in _addresses(host, port):
            try:
                held = _hold(stack, family, address, held or port)
            except OSError as error:
                if held and error.errno in NO_SUCH_ADDRESS:
                    continue  # `localhost` on a machine without IPv6
                raise CannotSupervise(
                    f"cannot listen on {host}:{port}: {error.strerror or error}"
                ) from error
        yield held


def _addresses(host: str, port: int) -> list[tuple[int, str]]:
    """List the addresses of a host, each with its family."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise CannotSupervise(
            f"cannot listen on {host}:{port}: {error.strerror or error}"
        ) from error
    return [(family, str(address[0])) for family, _, _, _, address in found]


def _hold(stack: contextlib.ExitStack, family: int, address: str, port: int) -> int:
    held = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
    # For the bind alone: connections of an earlier server that are still closing do no harm.
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind((address, port))
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    bound: int = held.getsockname()[1]
    return bound
