"""The variables that are no setting of a server: who reads them, and what for.

`docs/configuration.md` lists them, and a server does not warn of them as misspelt.
"""

from collections.abc import Mapping
from types import MappingProxyType

OTHER_VARIABLES: Mapping[str, str] = MappingProxyType(
    {
        "STATEKEEP_TARGET": "The server that commands and clients talk to, `HOST:PORT`; "
        "`127.0.0.1:50551` if it is not set.",
        "STATEKEEP_DATABASE_URL_FILE": "A file that holds the database URL, read where "
        "`STATEKEEP_DATABASE_URL` is not set.",
        "STATEKEEP_TOKEN_FILE": "A file that holds the token, read by servers and commands where "
        "`STATEKEEP_TOKEN` is not set.",
        "STATEKEEP_TLS_CA": "A PEM file with the certificates that commands and clients trust. "
        "It makes them use TLS.",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "Where telemetry is sent, such as "
        "`http://collector:4317`. `statekeep doctor` knocks there.",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "Likewise, for traces alone.",
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "Likewise, for metrics alone.",
        "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "Likewise, for logs alone.",
        "GRPC_VERBOSITY": "What gRPC's core says on stderr by itself; `NONE` if it is not set.",
        "NO_COLOR": "Set to anything: lines of the log have no colours on a terminal.",
        "TERM": "`dumb` has no colours either.",
        "XDG_DATA_HOME": "The folder below which the embedded database stands, where no database "
        "is named; `~/.local/share` if it is not set.",
    }
)
