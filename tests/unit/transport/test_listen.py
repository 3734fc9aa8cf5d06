"""A server is not opened by accident, and what is wrong with a set-up is said."""

import pytest

from statekeep_server.config import Settings
from statekeep_server.transport.listen import CannotServe, check_protection, is_loopback

TLS = {"tls_certificate_path": "cert.pem", "tls_key_path": "key.pem"}


def settings(**options: object) -> Settings:
    return Settings(database_url="memory", **options)  # type: ignore[arg-type]  # any of its fields


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_is_served_as_it_is(host: str) -> None:
    assert is_loopback(host)
    check_protection(settings(host=host))
    check_protection(settings(host=host, token="t", **TLS))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.0.2.1", "example.org", "localhost.x"])
def test_beyond_loopback_tls_and_token_are_needed(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(CannotServe, match="give a TLS certificate and key and a token"):
        check_protection(settings(host=host))
    with pytest.raises(CannotServe, match="give a TLS certificate and key, serve"):
        check_protection(settings(host=host, token="t"))
    with pytest.raises(
        CannotServe, match=r"give a token, serve on 127\.0\.0\.1, or say --insecure"
    ):
        check_protection(settings(host=host, **TLS))
    check_protection(settings(host=host, token="t", **TLS))
    check_protection(settings(host=host, insecure=True))


@pytest.mark.parametrize("part", TLS)
def test_half_a_tls_is_none(part: str) -> None:
    with pytest.raises(CannotServe, match="both"):
        check_protection(settings(**{part: "x"}))


@pytest.mark.parametrize("token", ["", "  "])
def test_an_empty_token_is_a_mistake(token: str) -> None:
    with pytest.raises(CannotServe, match="token is empty"):
        check_protection(settings(token=token))


@pytest.mark.parametrize("options", [TLS, {"host": "0.0.0.0", "insecure": True}])
def test_tenants_from_metadata_are_for_plaintext_loopback_only(options: dict[str, object]) -> None:
    with pytest.raises(CannotServe, match="development only"):
        check_protection(settings(trust_tenant_metadata=True, **options))
    check_protection(settings(trust_tenant_metadata=True))
