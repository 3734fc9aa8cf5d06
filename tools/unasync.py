"""Write the synchronous Python client from the asynchronous one.

`--check` compares instead and fails when the committed client differs. The table below is the
whole translation; what it does not cover fails loudly, for no `async` or `await` may remain.
"""

import argparse
import io
import re
import sys
import tokenize
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CLIENT = ROOT / "client" / "python" / "statekeep"
SOURCE = CLIENT / "_async_client.py"
TARGET = CLIENT / "_sync_client.py"
ADMIN_SOURCE = CLIENT / "_async_admin.py"
ADMIN_TARGET = CLIENT / "_sync_admin.py"

HEADER = '''\
# Generated from _async_client.py by tools/unasync.py. Never edited: `make generate` writes it.
"""The synchronous client. Threads may share it."""
'''
ADMIN_HEADER = '''\
# Generated from _async_admin.py by tools/unasync.py. Never edited: `make generate` writes it.
"""The calls of a synchronous client to the admin service."""
'''

# Applied in this order to the whole text, documentation included.
Table = tuple[tuple[str, str], ...]
REPLACEMENTS: Table = (
    (r'\A"""(?s:.*?)"""\n', HEADER),
    (r"^    # Only asynchronous\.\n(?s:.*?)^    # Both ways again\.\n", ""),
    (r"^from statekeep\._stream import SaveStream\n", ""),
    (r"\basync (def|with|for)\b", r"\1"),
    (r"\bawait ", ""),
    (r"\bAwaitable\[(\w+)\]", r"\1"),
    (r"\bAsyncIterator, Awaitable, Callable, Mapping\b", "Callable, Iterator, Mapping"),
    (r"\bAsyncIterator\b", "Iterator"),
    (r"\b__aenter__\b", "__enter__"),
    (r"\b__aexit__\b", "__exit__"),
    (r"\bAsync(Client|Pipeline|AdminCalls)\b", r"\1"),
    (r"\b_async_admin\b", "_sync_admin"),
    (r"\bopen_async_channel\b", "open_sync_channel"),
    (r"^if TYPE_CHECKING:.*\n(?:    .*\n)+\n", ""),
    (r"\bTYPE_CHECKING, ", ""),
    (r"\b(\w+)AsyncStub\b", r"\1Stub"),
    (r"^import grpc\.aio\n", ""),
    (r"\bgrpc\.aio\.", "grpc."),
    (r"^import asyncio\n", ""),
    (r"^(import random\n)", r"\1import time\n"),
    (r"\basyncio\.sleep\b", "time.sleep"),
    (r"\btasks of one event\n    loop may use it", "threads may\n    use it"),
)

ADMIN_REPLACEMENTS: Table = (
    (r'\A"""(?s:.*?)"""\n', ADMIN_HEADER),
    (r"\basync (def)\b", r"\1"),
    (r"\bawait ", ""),
    (r"\bAwaitable\[(\w+)\]", r"\1"),
    (r"\bAsyncIterator, Awaitable, Callable\b", "Callable, Iterator"),
    (r"\bAsyncIterator\b", "Iterator"),
    (r"\bAsync(Client|AdminCalls)\b", r"\1"),
    (r"\b(\w+)AsyncStub\b", r"\1Stub"),
    (r"\nif TYPE_CHECKING:.*\n    (from .*)\n", r"\1\n"),
    (r"\bTYPE_CHECKING, ", ""),
)


def synchronous(source: str, table: Table = REPLACEMENTS) -> str:
    """Translate an asynchronous module; raises ValueError where the table falls short."""
    text = source
    for pattern, replacement in table:
        text, count = re.subn(pattern, replacement, text, flags=re.MULTILINE)
        if not count:
            raise ValueError(f"nothing to replace for {pattern!r}")
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if "async" in token.string.lower() and token.type == tokenize.NAME:
            raise ValueError(f"line {token.start[0]}: {token.string!r} is left")
        if token.string == "await":
            raise ValueError(f"line {token.start[0]}: an await is left")
    return text


def main() -> None:
    """Write the synchronous client, or compare it with what is committed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare only, change nothing")
    check: bool = parser.parse_args().check
    for source, target, table in (
        (SOURCE, TARGET, REPLACEMENTS),
        (ADMIN_SOURCE, ADMIN_TARGET, ADMIN_REPLACEMENTS),
    ):
        fresh = synchronous(source.read_text(encoding="utf-8"), table)
        current = target.read_text(encoding="utf-8") if target.exists() else ""
        if not check:
            target.write_text(fresh, encoding="utf-8")
            print(f"wrote {target.name}, {'unchanged' if fresh == current else 'changed'}")
        elif fresh != current:
            sys.exit(f"{target.name} is not current; run `make generate`")
        else:
            print(f"{target.name} is current")


if __name__ == "__main__":
    main()
