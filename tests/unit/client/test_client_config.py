"""Where a client connects, who it says it is, and what it keeps to itself."""

import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError
from types import ModuleType
from typing import Any

import grpc
import pytest

from statekeep import AsyncClient, Client
from statekeep._channel import channel_options, credentials, service_config
from statekeep._config import ClientConfig, is_local, resolve
from statekeep._ids import made_at, new_request_id
from tests.support.both_clients import Kind, connect
from tests.support.scripted_server import ScriptedServer


def settled(environ: Mapping[str, str] | None = None, **options: Any) -> ClientConfig:
    defaults: dict[str, Any] = {
        "token": None,
        "tls": None,
        "tenant": None,
        "timeout_s": 10.0,
        "metadata": None,
        "insecure": False,
    }
    target = options.pop("target", None)
    return resolve(target, **{**defaults, **options}, environ=environ or {})


def test_arguments_come_before_the_environment() -> None:
    environ = {
        "STATEKEEP_TARGET": "state.example:443",
        "STATEKEEP_TOKEN": "from-environment",
        "STATEKEEP_TLS_CA": "/ca.pem",
    }
    config = settled(environ)
    assert (config.target, config.token, config.tls) == (
        "state.example:443",
        "from-environment",
        "/ca.pem",
    )
    config = settled(environ, target="localhost:1", token="", tls=False)
    assert (config.target, config.token, config.tls) == ("localhost:1", "", False)
    config = settled(dict.fromkeys(environ, ""))
    assert (config.target, config.token, config.tls) == ("127.0.0.1:50551", "", False)


def test_a_token_never_leaves_the_machine_in_plaintext() -> None:
    with pytest.raises(ValueError, match=r"state\.example:443 in plaintext"):
        settled(target="state.example:443", token="secret")
    settled(target="state.example:443", token="secret", tls=True)
    settled(target="state.example:443", token="secret", insecure=True)
    settled(target="state.example:443")
    settled(target="[::1]:50551", token="secret")


def test_a_token_is_never_printed() -> None:
    assert "secret" not in repr(settled(token="secret"))
    assert "secret" not in repr(Client(token="secret"))


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("127.0.0.1:50551", True),
        ("127.8.8.8", True),
        ("localhost:1", True),
        ("[::1]:1", True),
        ("unix:/run/statekeep.sock", True),
        ("unix-abstract:statekeep", True),
        ("dns:///localhost:1", True),
        ("dns:localhost:1", True),
        ("ipv4:127.0.0.1:1", True),
        ("ipv6:[::1]:1", True),
        ("ipv4:10.0.0.1:1", False),
        ("dns:///state.example:1", False),
        ("dns:50551", False),
        ("state.example:50551", False),
        ("localhost.example:1", False),
        ("10.0.0.1:1", False),
        ("[2001:db8::1]:1", False),
        ("", False),
    ],
)
def test_what_is_local(target: str, expected: bool) -> None:
    assert is_local(target) is expected


@pytest.mark.parametrize("timeout_s", [0, -1, float("inf"), float("nan")])
async def test_every_call_has_an_end(timeout_s: float, client: AsyncClient) -> None:
    with pytest.raises(ValueError, match="timeout_s"):
        Client(timeout_s=timeout_s)
    with pytest.raises(ValueError, match="timeout_s"):
        await client.load("run-1", timeout_s=timeout_s)


async def test_who_calls_travels_with_every_call(server: ScriptedServer, kind: Kind) -> None:
    tokens = iter("ab")
    async with connect(
        kind,
        server.target,
        token="secret",
        tenant="tenant-1",
        metadata=lambda: [("x-trace", next(tokens))],
    ) as client:
        await client.load("run-1")
        await client.server_info()
    for asked, expected in zip(server.asked, "ab", strict=True):
        assert asked.metadata["authorization"] == "Bearer secret"
        assert asked.metadata["statekeep-tenant"] == "tenant-1"
        assert asked.metadata["x-trace"] == expected
        assert str(asked.metadata["user-agent"]).startswith("statekeep-python/")


async def test_nothing_travels_that_nobody_gave(
    client: AsyncClient, server: ScriptedServer
) -> None:
    await client.load("run-1")
    assert server.asked[0].metadata.keys() == {"user-agent"}


async def test_the_trace_context_travels_where_opentelemetry_is_installed(
    server: ScriptedServer, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    spans = iter(["00-aa-01-01", "00-bb-02-01"])
    package, propagate = ModuleType("opentelemetry"), ModuleType("opentelemetry.propagate")
    propagate.inject = lambda carrier: carrier.update(traceparent=next(spans))  # type: ignore[attr-defined]  # a module of our own
    monkeypatch.setitem(sys.modules, "opentelemetry", package)
    monkeypatch.setitem(sys.modules, "opentelemetry.propagate", propagate)
    async with connect(kind, server.target) as client:
        await client.load("run-1")
        await client.load("run-1")
    assert [asked.metadata["traceparent"] for asked in server.asked] == [
        "00-aa-01-01",
        "00-bb-02-01",
    ]


def test_credentials_are_made_of_what_was_given(tmp_path: Any) -> None:
    own = grpc.ssl_channel_credentials()
    assert credentials(settled(tls=own)) is own
    assert credentials(settled(tls=False)) is None
    assert credentials(settled(tls=True)) is not None
    with pytest.raises(FileNotFoundError):
        credentials(settled(tls=tmp_path / "missing.pem"))


def test_a_client_that_was_never_installed_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("statekeep._channel.version", missing)
    assert dict(channel_options())["grpc.primary_user_agent"] == "statekeep-python/unknown"


def test_only_unavailable_is_retried_and_at_most_three_times() -> None:
    assert '"maxAttempts": 4' in service_config()
    assert '"retryableStatusCodes": ["UNAVAILABLE"]' in service_config()
    assert len(dict(channel_options())) == len(channel_options())


def test_request_ids_are_unique_and_dated() -> None:
    ids = [new_request_id() for _ in range(1_000)]
    assert len(set(ids)) == len(ids)
    moments = [made_at(request_id) for request_id in ids]
    assert moments == sorted(moment for moment in moments if moment)
    assert made_at("mine") is None
    assert made_at("123e4567-e89b-42d3-a456-426614174000") is None
