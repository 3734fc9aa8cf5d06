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

HEADER = '''\
# Generated from _async_client.py by tools/unasync.py. Never edited: `make generate` writes it.
"""The synchronous client. Threads may share it."""
'''

# Applied in this order to the whole text, documentation included.
REPLACEMENTS: tuple[tuple[str, str], ...] = (
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
    (r"\bAsync(Client|Pipeline)\b", r"\1"),
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


def synchronous(source: str) -> str:
    """Translate the asynchronous client; raises ValueError where the table falls short."""
    text = source
    for pattern, replacement in REPLACEMENTS:
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
    fresh = synchronous(SOURCE.read_text(encoding="utf-8"))
    current = TARGET.read_text(encoding="utf-8") if TARGET.exists() else ""
    if not check:
        TARGET.write_text(fresh, encoding="utf-8")
        print(f"wrote {TARGET.name}, {'unchanged' if fresh == current else 'changed'}")
    elif fresh != current:
        sys.exit(f"{TARGET.name} is not current; run `make generate`")
    else:
        print(f"{TARGET.name} is current")


if __name__ == "__main__":
    main()
