"""What a worker is told to do: the first thing that the supervisor writes to its stdin."""

import pickle
from dataclasses import dataclass
from typing import BinaryIO

from statekeep_server.config import Settings, Worker
from statekeep_server.telemetry.process_log import LogFormat


@dataclass(frozen=True, slots=True)
class Order:
    """The order of a worker.

    Attributes:
        settings: With the port that the supervisor holds.
    """

    settings: Settings
    worker: Worker
    log_level: str
    log_format: LogFormat

    def write(self) -> bytes:
        """Write the order as bytes that know their own end. They may hold a password."""
        return pickle.dumps(self)


def read_order(pipe: BinaryIO) -> Order:
    """Read an order off a pipe that stays open."""
    # The other end is the process that started this one, and nobody else's.
    order = pickle.load(pipe)  # noqa: S301  # see above
    if not isinstance(order, Order):
        raise TypeError(f"a {type(order).__name__} is no order")
    return order
