"""The channels of both clients: one set of options, so that they behave alike."""

import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from statekeep._config import ClientConfig

MIB = 1024 * 1024

MAX_MESSAGE_BYTES = 16 * MIB
"""What a server takes and may answer; gRPC's own limit of 4 MiB is too small for a batch."""

ADMIN_SERVICE = "statekeep.v1.AdminService"
SERVICES = ("statekeep.v1.AgentStateService", ADMIN_SERVICE)

RETRY_POLICY = {
    "maxAttempts": 4,
    "initialBackoff": "0.1s",
    "maxBackoff": "2s",
    "backoffMultiplier": 3,
    # Nothing else is retried: a conflict needs a decision, a deadline is over.
    "retryableStatusCodes": ["UNAVAILABLE"],
}

NOT_REPEATED = ("SetFlag", "UnsetFlag")
"""Each change of a flag is one more in its history, and one that expects a version would be told of
a conflict with itself. All other calls may be repeated: a save carries its request id in all
attempts."""

# After ten failures in a row calls are no longer repeated; one success buys a tenth of one back.
# A server in trouble then gets each call once instead of four times.
RETRY_THROTTLING = {"maxTokens": 20, "tokenRatio": 0.1}


def service_config() -> str:
    """Say how calls are retried, in gRPC's own format."""
    methods = [
        {"name": [{"service": name} for name in SERVICES], "retryPolicy": RETRY_POLICY},
        {"name": [{"service": ADMIN_SERVICE, "method": method} for method in NOT_REPEATED]},
    ]
    return json.dumps({"methodConfig": methods, "retryThrottling": RETRY_THROTTLING})


def channel_options() -> list[tuple[str, Any]]:
    """List the options of a channel, each for a reason."""
    return [
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.service_config", service_config()),
        ("grpc.service_config_disable_resolution", 1),  # no DNS record changes the retries
        # A call that does not fit this buffer is never retried, and gRPC's own is 256 KiB.
        ("grpc.per_rpc_retry_buffer_size", 2 * MAX_MESSAGE_BYTES),
        # A restarted server is found again within two seconds; gRPC waits up to two minutes.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2_000),
        # A connection that died in silence is noticed during a long call.
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        # Connections belong to one client and end with it; two clients never share one.
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.primary_user_agent", f"statekeep-python/{_version()}"),
    ]


def credentials(config: ClientConfig) -> grpc.ChannelCredentials | None:
    """Make the credentials of a channel; None for plaintext.

    Raises:
        OSError: The PEM file cannot be read.
    """
    if isinstance(config.tls, grpc.ChannelCredentials):
        return config.tls
    if isinstance(config.tls, bool):
        return grpc.ssl_channel_credentials() if config.tls else None
    return grpc.ssl_channel_credentials(root_certificates=Path(config.tls).read_bytes())


def open_async_channel(config: ClientConfig) -> grpc.aio.Channel:
    """Open a channel on the running event loop. It connects with the first call."""
    secret = credentials(config)
    if secret is None:
        return grpc.aio.insecure_channel(config.target, options=channel_options())
    return grpc.aio.secure_channel(config.target, secret, options=channel_options())


def open_sync_channel(config: ClientConfig) -> grpc.Channel:
    """Open a channel. It connects with the first call."""
    secret = credentials(config)
    if secret is None:
        return grpc.insecure_channel(config.target, options=channel_options())
    return grpc.secure_channel(config.target, secret, options=channel_options())


def _version() -> str:
    try:
        return version("statekeep")
    except PackageNotFoundError:
        return "unknown"  # run from a folder that was never installed
