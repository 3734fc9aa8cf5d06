"""Asking a running server, and what to tell the user when it does not answer."""

import asyncio
import functools
import inspect
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from statekeep_server.cli import options
from statekeep_server.cli.errors import (
    FAILED,
    UNREACHABLE,
    WRONG_USAGE,
    CommandFailed,
    failing_politely,
)
from statekeep_server.cli.settings import read_variable

if TYPE_CHECKING:  # the client brings gRPC, which `--help` does not need
    from statekeep import AsyncClient, StatekeepError

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """Which server to ask, and how. What is None or empty comes from the environment."""

    target: str | None = None
    token: str | None = field(default=None, repr=False)
    tls_ca: Path | None = None
    tls: bool = False
    insecure: bool = False
    timeout_s: float = 10.0

    def to(self, target: str | None) -> "Connection":
        """The same for another server."""
        return replace(self, target=target)

    def told_token(self) -> str | None:
        """The token of the option, the variable or its file. Raises ValueError."""
        return self.token or read_variable("STATEKEEP_TOKEN", os.environ)

    def client(self) -> "AsyncClient":
        """A client that is not open yet. Raises CommandFailed for settings that cannot be."""
        from statekeep import AsyncClient

        try:
            return AsyncClient(
                self.target,
                token=self.told_token(),
                tls=self.tls_ca or (True if self.tls else None),
                timeout_s=self.timeout_s,
                insecure=self.insecure,
            )
        except ValueError as error:
            text = str(error).replace("tls=…", "--tls").replace("insecure=True", "--insecure")
            raise CommandFailed(text, code=WRONG_USAGE) from None


def connected(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of a connection, and let it fail politely.

    The command takes them as one keyword argument, `connection`; the command line sees the
    options instead. A command that asks several servers has `targets` of its own.
    """
    signature = inspect.signature(command)
    own = [each for each in signature.parameters.values() if each.name != "connection"]
    shared = dict(inspect.signature(_connection_options).parameters)
    if "targets" in signature.parameters:
        del shared["target"]

    @functools.wraps(command)
    def connecting(**given: Any) -> None:
        connection = Connection(**{name: given.pop(name) for name in shared})
        with failing_politely():
            command(connection=connection, **given)

    # What typer reads: the options by name, and their types.
    vars(connecting)["__signature__"] = signature.replace(parameters=[*own, *shared.values()])
    connecting.__annotations__ = {
        **{each.name: each.annotation for each in (*own, *shared.values())},
        "return": None,
    }
    return connecting


def _connection_options(
    *,
    target: options.Target = None,
    token: options.Token = None,
    tls_ca: options.TlsCa = None,
    tls: options.Tls = False,
    insecure: options.Insecure = False,
    timeout_s: options.Timeout = 10.0,
) -> None:
    """Never called: its parameters are the options that `connected` adds."""


def ask(connection: Connection, question: Callable[["AsyncClient"], Awaitable[T]]) -> T:
    """Open a client, ask one question, and return the answer. Raises CommandFailed."""
    from statekeep import StatekeepError

    async def asking() -> T:
        async with connection.client() as client:
            return await question(client)

    try:
        return asyncio.run(asking())
    except StatekeepError as error:
        raise failure(error) from None
    except OSError as error:
        raise CommandFailed(
            f"cannot read {error.filename}: {error.strerror}", code=WRONG_USAGE
        ) from None


def failure(error: "StatekeepError") -> CommandFailed:
    """What a command says when a call failed."""
    from statekeep import (
        DeadlineExceeded,
        Overloaded,
        SchemaMismatch,
        Unauthenticated,
        Unavailable,
    )

    if isinstance(error, Unauthenticated):
        return CommandFailed(error.message, hint="give the token in STATEKEEP_TOKEN or --token")
    if isinstance(error, SchemaMismatch):
        return CommandFailed(error.message, code=UNREACHABLE, hint="run `statekeep migrate`")
    # A server that is not there is unavailable too; the client's message says how to start one.
    unreachable = isinstance(error, (Unavailable, Overloaded, DeadlineExceeded))
    return CommandFailed(error.message, code=UNREACHABLE if unreachable else FAILED)
