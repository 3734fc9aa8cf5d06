"""The synchronous client is the asynchronous one, translated."""

import inspect
from pathlib import Path

import pytest

from statekeep import AsyncClient, Client
from tools import unasync


@pytest.mark.parametrize(
    ("source", "target", "table"),
    [
        (unasync.SOURCE, unasync.TARGET, unasync.REPLACEMENTS),
        (unasync.ADMIN_SOURCE, unasync.ADMIN_TARGET, unasync.ADMIN_REPLACEMENTS),
    ],
)
def test_the_synchronous_client_is_current(
    source: Path, target: Path, table: unasync.Table
) -> None:
    fresh = unasync.synchronous(source.read_text(encoding="utf-8"), table)
    assert target.read_text(encoding="utf-8") == fresh, "run `make generate`"


def test_what_the_table_does_not_cover_fails() -> None:
    source = unasync.SOURCE.read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="is left"):
        unasync.synchronous(source + "\nAsyncThing = 1\n")
    with pytest.raises(ValueError, match="nothing to replace"):
        unasync.synchronous(source.replace("asyncio.sleep", "anyio.sleep"))


def test_both_clients_have_the_same_methods_and_arguments() -> None:
    def face(kind: type) -> dict[str, list[str]]:
        return {
            name: list(inspect.signature(method).parameters)
            for name, method in inspect.getmembers(kind)
            if not name.startswith("_") and callable(method)
        }

    only_asynchronous = {"stream": ["self", "timeout_s"]}
    assert face(AsyncClient) == face(Client) | only_asynchronous
    assert len(face(Client)) == 14
    assert not any(inspect.iscoroutinefunction(method) for _, method in inspect.getmembers(Client))
