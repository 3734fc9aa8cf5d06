"""The load's own HTTP/2: frames, flow control and gRPC statuses."""

import struct

import pytest

from benchmarks.http2 import (
    ACK,
    DATA,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    RST_STREAM,
    SETTINGS,
    STATUS_OK,
    WINDOW_UPDATE,
    Connection,
    ProtocolError,
    frame,
)


def frames(data: bytes) -> list[tuple[int, int, int, bytes]]:
    found = []
    while data:
        head, flags, stream_id = struct.unpack(">IBI", data[:9])
        size = head >> 8
        found.append((head & 0xFF, flags, stream_id, data[9 : 9 + size]))
        data = data[9 + size :]
    return found


@pytest.fixture
def connection() -> Connection:
    opened = Connection("127.0.0.1:1", "/service/Method")
    opened.take_output()
    return opened


def answer(stream_id: int, trailers: bytes = STATUS_OK) -> bytes:
    return (
        frame(HEADERS, 0x4, stream_id, b"\x88")
        + frame(DATA, 0, stream_id, b"\x00\x00\x00\x00\x00")
        + frame(HEADERS, 0x4 | END_STREAM, stream_id, trailers)
    )


def sent(connection: Connection, stream_id: int) -> bytes:
    return b"".join(
        payload
        for kind, _, number, payload in frames(connection.take_output())
        if kind == DATA and number == stream_id
    )


def test_a_call_is_headers_and_a_message_with_its_length(connection: Connection) -> None:
    assert connection.request(b"hello") == 1
    (headers, data) = frames(connection.take_output())
    assert (headers[0], headers[2]) == (HEADERS, 1)
    assert b"/service/Method" in headers[3]
    assert data == (DATA, END_STREAM, 1, b"\x00\x00\x00\x00\x05hello")


def test_later_calls_name_their_headers_by_number(connection: Connection) -> None:
    connection.request(b"")
    assert connection.request(b"") == 3
    later = frames(connection.take_output())[2]
    assert later[3] == bytes([0x83, 0x86, *range(0x80 | 67, 0x80 | 61, -1)])


def test_an_answer_is_found_however_its_bytes_arrive(connection: Connection) -> None:
    connection.request(b"")
    found = [each for byte in answer(1) for each in connection.receive(bytes([byte]))]
    assert [(each.stream_id, each.ok) for each in found] == [(1, True)]


def test_another_status_is_no_success(connection: Connection) -> None:
    failed = answer(1, b"\x00\x0bgrpc-status\x0214")
    (found,) = connection.receive(failed)
    assert not found.ok


def test_a_reset_is_no_success(connection: Connection) -> None:
    (found,) = connection.receive(frame(RST_STREAM, 0, 5, struct.pack(">I", 7)))
    assert (found.stream_id, found.ok) == (5, False)


def test_what_the_windows_do_not_allow_waits(connection: Connection) -> None:
    message = b"x" * 100_000
    connection.request(message)
    first = sent(connection, 1)
    assert len(first) == 65_535
    list(connection.receive(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 200_000))))
    assert sent(connection, 1) == b""  # the stream's own window is still used up
    list(connection.receive(frame(WINDOW_UPDATE, 0, 1, struct.pack(">I", 200_000))))
    assert first + sent(connection, 1) == b"\x00" + struct.pack(">I", 100_000) + message


def test_a_larger_window_in_the_settings_lets_streams_go_on(connection: Connection) -> None:
    list(connection.receive(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1_000_000))))
    connection.request(b"x" * 100_000)
    before = len(sent(connection, 1))
    list(connection.receive(frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 1 << 20))))
    assert before + len(sent(connection, 1)) == 100_005


def test_what_waits_goes_first_when_the_connection_has_room_again(connection: Connection) -> None:
    list(connection.receive(frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 1 << 20))))
    connection.request(b"x" * 100_000)
    connection.request(b"small")
    connection.take_output()
    list(connection.receive(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1_000))))
    assert [(kind, stream) for kind, _, stream, _ in frames(connection.take_output())] == [
        (DATA, 1)
    ]


def test_pings_and_settings_are_answered(connection: Connection) -> None:
    list(connection.receive(frame(PING, 0, 0, b"12345678") + frame(SETTINGS, 0, 0)))
    assert frames(connection.take_output()) == [
        (PING, ACK, 0, b"12345678"),
        (SETTINGS, ACK, 0, b""),
    ]


def test_a_server_that_goes_away_is_an_error(connection: Connection) -> None:
    with pytest.raises(ProtocolError, match="too_many"):
        list(connection.receive(frame(GOAWAY, 0, 0, bytes(8) + b"too_many")))
