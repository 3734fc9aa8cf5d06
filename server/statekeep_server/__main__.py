"""Runs the `statekeep` command: `python -m statekeep_server` and the console script."""

import os

from statekeep_server.cli.main import app


def main() -> None:
    """Run the command line of this process."""
    # What gRPC's core says by itself goes to stderr unasked; our own errors say it better.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    app()


if __name__ == "__main__":
    main()
