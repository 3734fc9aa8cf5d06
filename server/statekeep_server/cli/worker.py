"""What a worker process runs: `python -m statekeep_server.cli.worker`, started by the supervisor.

It reads its order from stdin and says on stdout whether it serves (see `supervisor.process`). It
ends when stdin closes, so it does not outlive its supervisor, or at SIGTERM. A signal that comes
twice, from the supervisor's own and from whoever stops all processes of a service, is one.
"""

import asyncio
import json
import os
import signal
import sys

from statekeep_server.cli.ending import Stopping, bounded_end
from statekeep_server.cli.errors import CommandFailed
from statekeep_server.cli.serve import serving_errors
from statekeep_server.supervisor.order import Order, read_order
from statekeep_server.telemetry.process_log import logging_to_stderr

COMMAND = (sys.executable, "-m", "statekeep_server.cli.worker")


async def serve_until_stopped(order: Order, stopping: Stopping) -> None:
    """Serve until stdin closes or a signal comes, then drain."""
    from statekeep_server.app import open_server  # late: it imports gRPC and SQLAlchemy

    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def on_stop() -> None:
        if not stop.is_set():
            stopping(False)
        stop.set()

    def on_input() -> None:
        if not os.read(sys.stdin.fileno(), 1024):
            loop.remove_reader(sys.stdin.fileno())
            on_stop()

    loop.add_reader(sys.stdin.fileno(), on_input)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_stop)
    async with open_server(order.settings, worker=order.worker):
        tell({"ready": True})
        await stop.wait()


def tell(answer: dict[str, object]) -> None:
    """Tell the supervisor, in one line."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Serve as one worker."""
    import uvloop

    order = read_order(sys.stdin.buffer)
    with logging_to_stderr(order.log_level, order.log_format, worker=order.worker.index):
        try:
            bound = bounded_end(order.settings.drain_timeout_s)
            with serving_errors(), bound as stopping:
                uvloop.run(serve_until_stopped(order, stopping))
        except CommandFailed as error:
            tell({"error": str(error), "code": error.code, "hint": error.hint})
            sys.exit(error.code)


if __name__ == "__main__":
    main()
