"""Runs the `statekeep` command: `python -m statekeep_server` and the console script."""

from statekeep_server.cli.main import app


def main() -> None:
    """Run the command line of this process."""
    app()


if __name__ == "__main__":
    main()
