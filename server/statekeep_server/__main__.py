"""Runs the `statekeep` command: `python -m statekeep_server` and the console script."""

import os

from statekeep_server.cli.main import app


def open_standard_streams() -> None:
    """Put the null device where standard input, output or error is closed.

    Otherwise a database or a socket gets the number of one, and then whatever is printed there.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one


def main() -> None:
    """Run the command line of this process."""
    open_standard_streams()
    # What gRPC's core says by itself goes to stderr unasked; our own errors say it better.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    app()


if __name__ == "__main__":
    main()
