"""A port is held for the workers: they may share it, and nobody else gets in."""

import socket

import pytest

from statekeep_server.supervisor import port as module
from statekeep_server.supervisor.port import CannotSupervise, check_system, held_port

LOOPBACK = "127.0.0.1"


def listener(port: int, *, shares: bool) -> socket.socket:
    """Listen as a server does that may restart at once."""
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shares))
    try:
        server.bind((LOOPBACK, port))
        server.listen()
    except OSError:
        server.close()
        raise
    return server


def test_workers_share_the_port_and_strangers_do_not() -> None:
    with held_port(LOOPBACK, 0) as port:
        for _ in range(2):  # before the workers listen, and beside them
            with pytest.raises(OSError, match="in use"):
                listener(port, shares=False)
            with (
                listener(port, shares=True),
                listener(port, shares=True),
                pytest.raises(CannotSupervise, match=f"cannot listen on {LOOPBACK}:{port}"),
                held_port(LOOPBACK, port),
            ):
                pass
    listener(port, shares=False).close()


@pytest.mark.parametrize("shares", [False, True])
def test_a_port_that_anybody_listens_on_is_refused(shares: bool) -> None:
    with (
        listener(0, shares=shares) as taken,
        pytest.raises(CannotSupervise, match="Address already in use"),
        held_port(LOOPBACK, taken.getsockname()[1]),
    ):
        pass


def test_no_call_ends_up_in_the_holding_socket() -> None:
    with held_port(LOOPBACK, 0) as port, socket.socket() as caller:
        assert caller.connect_ex((LOOPBACK, port))


def test_a_name_is_held_at_all_its_addresses() -> None:
    with (
        held_port("localhost", 0) as port,
        pytest.raises(CannotSupervise),
        held_port(LOOPBACK, port),
    ):
        pass


def test_an_address_that_the_machine_does_not_have_is_missed_only_beside_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    elsewhere = (socket.AF_INET, "192.0.2.1")
    monkeypatch.setattr(module, "_addresses", lambda *_: [(socket.AF_INET, LOOPBACK), elsewhere])
    with held_port("both", 0) as port:
        assert port
    monkeypatch.setattr(module, "_addresses", lambda *_: [elsewhere])
    with pytest.raises(CannotSupervise, match="Cannot assign"), held_port("elsewhere", 0):
        pass


def test_a_host_that_nobody_knows_is_refused() -> None:
    with pytest.raises(CannotSupervise, match=r"cannot listen on no\.such\.invalid:0"):
        held_port("no.such.invalid", 0).__enter__()


def test_other_systems_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    check_system()
    monkeypatch.setattr("sys.platform", "darwin")
    with pytest.raises(CannotSupervise, match="need Linux"):
        check_system()
