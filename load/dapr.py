"""A Dapr sidecar on loopback, keeping states in PostgreSQL as its own users have it.

It is asked for nothing that statekeep does besides: no history, no versions, no audit record. A
save overwrites the row of its key.
"""

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from load.bodies import STORE
from load.servers import end

START_TIMEOUT_S = 60.0
APP_ID = "load"
LOOPBACK = "127.0.0.1"


class DaprDidNotStart(Exception):
    """The sidecar ended before it answered. The text is what it said last."""


@asynccontextmanager
async def dapr_sidecar(daprd: Path, folder: Path, *, dsn: str) -> AsyncIterator[str]:
    """Start a sidecar with one state store; yield host and port of its gRPC API.

    Args:
        daprd: The program.
        folder: Takes its configuration and log; must be new.
        dsn: The address of an empty database, as libpq takes it.

    Raises DaprDidNotStart.
    """
    resources, configuration, log_path = _write_configuration(folder, dsn)
    api, http, internal, metrics = _free_ports(4)
    with log_path.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            str(daprd),
            *("--app-id", APP_ID, "--log-level", "warn"),
            *("--resources-path", str(resources), "--config", str(configuration)),
            *("--dapr-listen-addresses", LOOPBACK),
            *("--dapr-grpc-port", str(api), "--dapr-http-port", str(http)),
            *("--dapr-internal-grpc-listen-address", LOOPBACK),
            *("--dapr-internal-grpc-port", str(internal)),
            *("--metrics-listen-address", LOOPBACK, "--metrics-port", str(metrics)),
            *("--placement-host-address", "", "--dapr-graceful-shutdown-seconds", "1"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=_environment(),
            start_new_session=True,  # Ctrl-C is ours to handle
        )
    try:
        await _wait_until_it_listens(process, api, log_path)
        yield f"{LOOPBACK}:{api}"
    finally:
        await asyncio.shield(end(process))


def _write_configuration(folder: Path, dsn: str) -> tuple[Path, Path, Path]:
    """Write the component and the configuration; JSON is YAML."""
    resources = folder / "resources"
    resources.mkdir(parents=True)
    component = {
        "apiVersion": "dapr.io/v1alpha1",
        "kind": "Component",
        "metadata": {"name": STORE},
        "spec": {
            "type": "state.postgresql",
            "version": "v2",
            "metadata": [{"name": "connectionString", "value": dsn}],
        },
    }
    (resources / "statestore.yaml").write_text(json.dumps(component))
    # The default resolver announces the sidecar to the network by multicast. This one does
    # nothing until another application is called.
    configuration = {
        "apiVersion": "dapr.io/v1alpha1",
        "kind": "Configuration",
        "metadata": {"name": "load"},
        "spec": {"nameResolution": {"component": "kubernetes"}},
    }
    path = folder / "configuration.yaml"
    path.write_text(json.dumps(configuration))
    return resources, path, folder / "daprd.log"


def _environment() -> dict[str, str]:
    """This process's variables without any of Dapr's own."""
    kept = {name: each for name, each in os.environ.items() if not name.startswith("DAPR_")}
    return kept | {"DAPR_HOST_IP": LOOPBACK}  # else it looks for the machine's address


def _free_ports(count: int) -> list[int]:
    """Ports that are free now."""
    sockets = [socket.create_server((LOOPBACK, 0)) for _ in range(count)]
    ports = [int(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


async def _wait_until_it_listens(
    process: asyncio.subprocess.Process, port: int, log_path: Path
) -> None:
    """The API listens once its components are there."""
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            while process.returncode is None:
                with suppress(OSError):
                    _, writer = await asyncio.open_connection(LOOPBACK, port)
                    writer.close()
                    await writer.wait_closed()
                    return
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise DaprDidNotStart(f"no answer in {START_TIMEOUT_S:.0f} s") from None
    raise DaprDidNotStart(_last_line(log_path))


def _last_line(log_path: Path) -> str:
    lines = log_path.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
