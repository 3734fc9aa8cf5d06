"""Writes the part of `requirements.lock` that some packages need: for images, without our tools.

    python tools/runtime_lock.py statekeep-server < requirements.lock > runtime.lock

The lock says below each package what needs it (`# via`). Followed backwards that gives all that a
package needs, with the pins and hashes of the one lock, and without asking an index. The standard
library alone: an image runs it before anything is installed.
"""

import re
import sys
from collections.abc import Iterable, Mapping


def blocks(lock: str) -> dict[str, str]:
    """Split a lock into its packages: the lines of each, by its name."""
    parts = re.split(r"^(?=[A-Za-z0-9])", lock, flags=re.MULTILINE)
    return {re.split(r"[=<>;\[ @]", part, maxsplit=1)[0]: part for part in parts if part.strip()}


def needed_by(block: str) -> set[str]:
    """List what needs a package."""
    lines = [line.strip() for line in block.splitlines() if line.strip().startswith("#")]
    names = (line.removeprefix("#").strip().removeprefix("via").strip() for line in lines)
    return {name.partition("[")[0] for name in names if name}


def runtime_lock(lock: str, packages: Iterable[str]) -> str:
    """Keep what the packages need, the packages themselves included where they are in the lock.

    Raises:
        ValueError: The lock knows nothing of a package.
    """
    found = blocks(lock)
    needed: Mapping[str, set[str]] = {name: needed_by(block) for name, block in found.items()}
    wanted = set(packages)
    for package in wanted:
        if package not in found and not any(package in names for names in needed.values()):
            raise ValueError(f"the lock knows nothing of {package}")
    while more := {name for name, by in needed.items() if by & wanted} - wanted:
        wanted |= more
    return "".join(block for name, block in found.items() if name in wanted)


def main() -> None:
    """Read a lock from stdin, and write the part that the arguments need."""
    try:
        sys.stdout.write(runtime_lock(sys.stdin.read(), sys.argv[1:]))
    except ValueError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
