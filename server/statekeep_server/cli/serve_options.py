"""The options of `statekeep serve`. They arrive as texts: `settings` reads them as variables."""

from pathlib import Path
from typing import Annotated

import typer

from statekeep_server.flags import LOG_LEVELS
from statekeep_server.telemetry.process_log import LOG_FORMATS

Host = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Where to listen. Beyond loopback this needs TLS and a token. "
        "[STATEKEEP_HOST, else 127.0.0.1]",
    ),
]
Port = Annotated[
    str | None,
    typer.Option(metavar="PORT", help="0 takes any free port. [STATEKEEP_PORT, else 50551]"),
]
MetricsPort = Annotated[
    str | None,
    typer.Option(
        metavar="PORT",
        help="Serves /metrics for Prometheus; worker N has PORT+N. [STATEKEEP_METRICS_PORT]",
    ),
]
ServerToken = Annotated[
    str | None,
    typer.Option(
        metavar="TOKEN",
        help="What callers must send; the variable keeps it out of lists of processes. "
        "[STATEKEEP_TOKEN]",
    ),
]
TlsCert = Annotated[
    str | None, typer.Option(metavar="FILE", help="The certificate, PEM. [STATEKEEP_TLS_CERT]")
]
TlsKey = Annotated[
    str | None, typer.Option(metavar="FILE", help="Its key, PEM. [STATEKEEP_TLS_KEY]")
]
ServeInsecure = Annotated[
    bool | None,
    typer.Option(
        "--insecure",
        help="Listen beyond loopback without TLS or without a token. [STATEKEEP_INSECURE]",
    ),
]
AllowUnsafeDurability = Annotated[
    bool | None,
    typer.Option(
        "--allow-unsafe-durability",
        help="Serve although the database may lose what was acknowledged. "
        "[STATEKEEP_ALLOW_UNSAFE_DURABILITY]",
    ),
]
TrustTenantMetadata = Annotated[
    bool | None,
    typer.Option(
        "--trust-tenant-metadata",
        help="For development: take the tenant from the callers. [STATEKEEP_TRUST_TENANT_METADATA]",
    ),
]
MaxSkipAge = Annotated[
    str | None,
    typer.Option(
        metavar="SECONDS",
        help="After so long an unchanged state is persisted again. "
        "[STATEKEEP_MAX_SKIP_AGE, else 300]",
    ),
]
MaxSkips = Annotated[
    str | None,
    typer.Option(
        metavar="N",
        help="After so many skips in a row an unchanged state is persisted again. "
        "[STATEKEEP_MAX_SKIPS, else 1000]",
    ),
]
Compression = Annotated[
    str | None,
    typer.Option(
        metavar="on|off",
        help="Store states as frames that build on one another, on the optimized path. "
        "[STATEKEEP_COMPRESSION, else on]",
    ),
]
IgnoredField = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="A top-level field or JSON Pointer that no comparison looks at, besides the default "
        "list; may be repeated. [STATEKEEP_IGNORED_FIELDS, with commas]",
    ),
]
LogLevel = Annotated[
    str | None,
    typer.Option(metavar="LEVEL", help=f"{', '.join(LOG_LEVELS)}. [LOG_LEVEL, else INFO]"),
]
LogFormat = Annotated[
    str | None,
    typer.Option(
        metavar="FORMAT",
        help=f"{', '.join(LOG_FORMATS)}; auto is text on a terminal and JSON elsewhere. "
        "[STATEKEEP_LOG_FORMAT, else auto]",
    ),
]
Workers = Annotated[
    str | None,
    typer.Option(
        metavar="N",
        help="Serve with so many processes on the one port; more than one need PostgreSQL. "
        "[STATEKEEP_WORKERS, else 1]",
    ),
]
PortFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Write the port here once the server answers."),
]
