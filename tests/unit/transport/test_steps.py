"""The steps of a call, each by itself: limiter, token, caller."""

import pytest

from statekeep_server.domain.errors import InvalidField, Overloaded, Unauthenticated
from statekeep_server.domain.model import DEFAULT_TENANT
from statekeep_server.transport.interceptors.auth import TokenCheck
from statekeep_server.transport.interceptors.call import Caller, read_caller
from statekeep_server.transport.interceptors.limiter import Limiter


def test_calls_are_counted_in_and_out() -> None:
    limiter = Limiter(2)
    limiter.enter(10)
    limiter.enter(10)
    with pytest.raises(Overloaded) as caught:
        limiter.enter(10)
    assert caught.value.metadata == {"limit": "2"}
    with pytest.raises(Overloaded):
        limiter.check()
    limiter.leave(10)
    limiter.check()
    limiter.enter(10)
    limiter.leave(10)
    limiter.leave(10)
    assert limiter.calls == 0


def test_bytes_are_counted_too() -> None:
    limiter = Limiter(100, max_bytes=50)
    limiter.enter(30)
    with pytest.raises(Overloaded, match="bytes"):
        limiter.enter(21)
    limiter.enter(20)
    limiter.leave(20)
    limiter.leave(30)
    limiter.enter(51)  # alone, or it never could
    with pytest.raises(Overloaded, match="bytes"):
        limiter.enter(1)
    limiter.leave(51)
    limiter.enter(1)


@pytest.mark.parametrize("value", ["Bearer secret", "bearer secret", "BEARER  secret "])
def test_the_token_opens(value: str) -> None:
    TokenCheck("secret").check((("authorization", value),))


@pytest.mark.parametrize(
    "metadata",
    [
        (),
        (("authorization", "secret"),),
        (("authorization", "Bearer"),),
        (("authorization", "Bearer "),),
        (("authorization", "Bearer other"),),
        (("authorization", "Bearer secret2"),),
        (("authorization", "Basic secret"),),
        (("authorization", b"Bearer secret"),),
        (("authorization", "Bearer secret"), ("authorization", "Bearer secret")),
        (("x-authorization", "Bearer secret"),),
    ],
)
def test_nothing_else_opens(metadata: tuple[tuple[str, str | bytes], ...]) -> None:
    with pytest.raises(Unauthenticated) as caught:
        TokenCheck("secret").check(metadata)
    assert "secret" not in caught.value.message


def test_without_a_token_the_server_is_open() -> None:
    TokenCheck(None).check(())


def test_the_token_is_not_kept() -> None:
    assert "secret" not in repr(vars(TokenCheck("secret")))


def test_the_tenant_is_the_constant_unless_metadata_is_trusted() -> None:
    metadata = (("statekeep-tenant", "acme"), ("other", "x"))
    assert read_caller(metadata, trust_tenant=False).tenant == DEFAULT_TENANT
    assert read_caller(metadata, trust_tenant=True).tenant == "acme"
    assert read_caller((), trust_tenant=True).tenant == DEFAULT_TENANT


@pytest.mark.parametrize("tenant", ["", "x" * 65, b"acme"])
def test_a_bad_tenant_is_refused(tenant: str | bytes) -> None:
    with pytest.raises(InvalidField, match="statekeep-tenant"):
        read_caller((("statekeep-tenant", tenant),), trust_tenant=True)


@pytest.mark.parametrize(
    ("value", "attempts"),
    [("1", 1), ("3", 3), ("", 0), ("-1", 0), ("x", 0), ("99999", 0), (b"2", 0), ("²", 0)],
)
def test_earlier_attempts_are_read_and_nonsense_is_none(value: str | bytes, attempts: int) -> None:
    caller = read_caller((("grpc-previous-rpc-attempts", value),), trust_tenant=False)
    assert caller == Caller(DEFAULT_TENANT, attempts)
