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
        "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "Likewise, for logs alone; a server sends none.",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "A server speaks `grpc` alone.",
        "OTEL_SDK_DISABLED": "`true` switches all telemetry of a server off.",
        "OTEL_TRACES_EXPORTER": "`otlp` or `none`; `otlp` where an endpoint is set.",
        "OTEL_METRICS_EXPORTER": "`otlp`, `prometheus`, both with a comma between them, or `none`; "
        "`otlp` where an endpoint is set.",
        "OTEL_EXPORTER_PROMETHEUS_HOST": "Where the page for Prometheus is served; `localhost` if "
        "it is not set.",
        "OTEL_EXPORTER_PROMETHEUS_PORT": "Likewise its port, unless `STATEKEEP_METRICS_PORT` names "
        "one; 9464 if it is not set. Worker N has this port plus N.",
        "OTEL_TRACES_SAMPLER": "Which traces are recorded: `always_on`, `always_off` or "
        "`traceidratio`, each also with `parentbased_` before it; `parentbased_always_on` if it is "
        "not set.",
        "OTEL_TRACES_SAMPLER_ARG": "The share of the traces, from 0 to 1; 1 if it is not set.",
        "OTEL_SERVICE_NAME": "The name of the service in telemetry; `statekeep` if it is not set.",
        "OTEL_RESOURCE_ATTRIBUTES": "More about the service: `name=value` with commas between.",
        "OTEL_BSP_MAX_QUEUE_SIZE": "Spans that may wait for the collector; 2048 if it is not set.",
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "Spans that are sent together; 512 if it is not set.",
        "OTEL_BSP_SCHEDULE_DELAY": "Milliseconds that a span may wait; 5000 if it is not set.",
        "OTEL_METRIC_EXPORT_INTERVAL": "Milliseconds between two reports of the metrics; 60000 if "
        "it is not set.",
        "GRPC_VERBOSITY": "What gRPC's core says on stderr by itself; `NONE` if it is not set.",
        "NO_COLOR": "Set to anything: lines of the log have no colours on a terminal.",
        "TERM": "`dumb` has no colours either.",
        "XDG_DATA_HOME": "The folder below which the embedded database stands, where no database "
        "is named; `~/.local/share` if it is not set.",
    }
)
