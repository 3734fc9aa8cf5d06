"""A small receiver of OpenTelemetry's protocol over gRPC, as a process: takes all, and counts it.

    python -m benchmarks.otlp_receiver

Prints its port, and answers each line on stdin with what it has taken since it started: requests
and bytes of traces, metrics and logs. It reads nothing of what it takes, because it shares the
machine with what is measured; a collector would take more.
"""

import asyncio
import sys
from collections import Counter
from typing import Any

import grpc
import orjson
import uvloop

SIGNALS = {
    name.lower() + "s": f"opentelemetry.proto.collector.{name.lower()}{more}.v1.{name}{more}Service"
    for name, more in (("Trace", ""), ("Metric", "s"), ("Log", "s"))
}
"""The services by what they take; each has one method, `Export`."""
MAX_MESSAGE_BYTES = 64 * 1024 * 1024
EMPTY = b""
"""An answer of any of the services in which nothing was refused."""


class Receiver:
    """Takes everything."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def handlers(self) -> tuple[Any, ...]:
        """The three services for a server."""
        return tuple(
            grpc.method_handlers_generic_handler(
                service, {"Export": grpc.unary_unary_rpc_method_handler(self._export(signal))}
            )
            for signal, service in SIGNALS.items()
        )

    def _export(self, signal: str) -> Any:
        async def export(request: bytes, _context: object) -> bytes:
            self.counts[f"{signal}_requests"] += 1
            self.counts[f"{signal}_bytes"] += len(request)
            return EMPTY

        return export


def new_server(receiver: Receiver) -> tuple[grpc.aio.Server, int]:
    """A server on a free port of loopback, not started yet, and the port."""
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", MAX_MESSAGE_BYTES)])
    server.add_generic_rpc_handlers(receiver.handlers())
    return server, server.add_insecure_port("127.0.0.1:0")


async def _serve() -> None:
    receiver = Receiver()
    server, port = new_server(receiver)
    await server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    while await asyncio.to_thread(sys.stdin.buffer.readline):
        sys.stdout.buffer.write(orjson.dumps(receiver.counts) + b"\n")
        sys.stdout.buffer.flush()
    await server.stop(1.0)


if __name__ == "__main__":
    uvloop.run(_serve())
