"""Options that several commands share, so that they mean and read the same everywhere."""

from pathlib import Path
from typing import Annotated

import typer

from statekeep_server.cli.output import Format

Output = Annotated[
    Format, typer.Option("--output", "-o", help="Print a table for people or JSON for programs.")
]
Json = Annotated[bool, typer.Option("--json", help="The same as --output json.")]
Run = Annotated[str, typer.Argument(metavar="RUN", help="The run's id.", show_default=False)]
Target = Annotated[
    str | None,
    typer.Option(
        "--target",
        metavar="HOST:PORT",
        help="The server to ask. [STATEKEEP_TARGET, else 127.0.0.1:50551]",
    ),
]
Targets = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        metavar="HOST:PORT",
        help="A server to ask; repeat it for all of the fleet. "
        "[STATEKEEP_TARGET, else 127.0.0.1:50551]",
    ),
]
Token = Annotated[
    str | None,
    typer.Option(
        "--token",
        metavar="TOKEN",
        help="The server's token; the variable keeps it out of lists of processes. "
        "[STATEKEEP_TOKEN]",
    ),
]
TlsCa = Annotated[
    Path | None,
    typer.Option(
        "--tls-ca",
        metavar="FILE",
        help="Use TLS and trust the certificates in this PEM file. [STATEKEEP_TLS_CA]",
    ),
]
Tls = Annotated[bool, typer.Option("--tls", help="Use TLS and trust the system's certificates.")]
Insecure = Annotated[
    bool, typer.Option("--insecure", help="Send the token in plaintext to another machine.")
]
Timeout = Annotated[
    float,
    typer.Option("--timeout", metavar="SECONDS", help="Wait so long for an answer.", min=0.1),
]
Limit = Annotated[int, typer.Option("--limit", metavar="N", help="Show at most N.", min=1)]
DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        "--database-url",
        metavar="URL",
        help="sqlite:///FILE or postgresql://USER@HOST/DATABASE. "
        "[STATEKEEP_DATABASE_URL, else a SQLite file in the user's data folder]",
    ),
]
