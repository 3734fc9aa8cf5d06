"""The client's side of HTTP/2 for unary gRPC calls with prepared bodies, as far as a load needs it.

A Python gRPC client costs as much as the server that it measures, and a generator that sends one
body again and again cannot save distinct states. This one costs about a tenth: every header block
but the first is a few indexed bytes, bodies are joined from prepared parts, and answers are not
decoded beyond their gRPC status. RFC 9113 (frames, flow control), RFC 7541 (header compression).
"""

import struct
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS = 0x1, 0x1, 0x4
HEADER_BYTES = 9
SETTING_HEADER_TABLE_SIZE, SETTING_INITIAL_WINDOW, SETTING_MAX_FRAME = 1, 4, 5

DEFAULT_WINDOW = 65_535
DEFAULT_FRAME = 16_384
OWN_WINDOW = 2**31 - 1
"""The largest there is: this client never slows a server down."""
OWN_FRAME = 1 << 20
REFRESH_BYTES = 1 << 28
"""The connection's window is filled up again after so many bytes."""

STATUS_OK = b"grpc-status\x010"
"""The trailer as a literal; without a dynamic table it cannot be sent in another way."""


class ProtocolError(Exception):
    """The server ended the connection, or sent what this client does not understand."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished call.

    Attributes:
        stream_id: Of the request.
        ok: Whether the gRPC status was OK.
        trailers: The last header block as it came, to tell what failed.
    """

    stream_id: int
    ok: bool
    trailers: bytes


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """One frame."""
    return (
        struct.pack(">I", len(payload) << 8 | kind) + struct.pack(">BI", flags, stream_id) + payload
    )


class Connection:
    """One connection without its socket: bytes in, answers and bytes out."""

    def __init__(self, authority: str, path: str, *, timeout_s: int = 30) -> None:
        self._first = _literal_headers(authority, path, timeout_s)
        self._later = _indexed_headers()
        self._next_id = 1
        self._received = bytearray()
        self._out: list[bytes] = []
        self._window = DEFAULT_WINDOW
        self._stream_window = DEFAULT_WINDOW
        self._max_frame = DEFAULT_FRAME
        # Of streams that are not sent completely: what is left, and what may be sent of it.
        self._blocked: deque[int] = deque()
        self._left: dict[int, memoryview] = {}
        self._credit: dict[int, int] = {}
        self._consumed = 0
        self._out.append(
            PREFACE
            + frame(
                SETTINGS,
                0,
                0,
                struct.pack(
                    ">HIHIHI",
                    *(SETTING_HEADER_TABLE_SIZE, 0),
                    *(SETTING_INITIAL_WINDOW, OWN_WINDOW),
                    *(SETTING_MAX_FRAME, OWN_FRAME),
                ),
            )
            + frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", OWN_WINDOW - DEFAULT_WINDOW))
        )

    def request(self, message: bytes) -> int:
        """Begin a call with a serialized message; return its stream id."""
        stream_id = self._next_id
        self._next_id += 2
        block = self._first if stream_id == 1 else self._later
        self._out.append(frame(HEADERS, END_HEADERS, stream_id, block))
        size = len(message) + 5
        if size <= min(self._window, self._stream_window, self._max_frame):
            self._window -= size
            # The frame's header, then gRPC's own prefix: not compressed, and the length.
            self._out.append(
                struct.pack(">IBIBI", size << 8, END_STREAM, stream_id, 0, len(message))
            )
            self._out.append(message)
        else:
            self._left[stream_id] = memoryview(struct.pack(">BI", 0, len(message)) + message)
            self._credit[stream_id] = self._stream_window
            self._blocked.append(stream_id)
            self._send_blocked()
        return stream_id

    def take_output(self) -> bytes:
        """What is to be sent now."""
        if not self._out:
            return b""
        output = b"".join(self._out)
        self._out.clear()
        return output

    def receive(self, data: bytes) -> Iterator[Answer]:
        """Take bytes from the server; yield the calls that they finish.

        Raises ProtocolError.
        """
        received = self._received
        received += data
        at = 0
        while len(received) - at >= HEADER_BYTES:
            head, flags, stream_id = struct.unpack_from(">IBI", received, at)
            size = head >> 8
            end = at + HEADER_BYTES + size
            if len(received) < end:
                break
            kind = head & 0xFF
            if kind == DATA:
                self._consume(size)
            elif kind == HEADERS:
                if flags & END_STREAM:
                    block = bytes(received[at + HEADER_BYTES : end])
                    yield Answer(stream_id, STATUS_OK in block, block)
            else:
                payload = bytes(received[at + HEADER_BYTES : end])
                if kind == RST_STREAM:
                    yield Answer(stream_id, False, payload)
                else:
                    self._control(kind, flags, stream_id, payload)
            at = end
        del received[:at]

    def _control(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if kind == WINDOW_UPDATE:
            (more,) = struct.unpack(">I", payload)
            if stream_id == 0:
                self._window += more
            elif stream_id in self._credit:
                self._credit[stream_id] += more
            self._send_blocked()
        elif kind == PING and not flags & ACK:
            self._out.append(frame(PING, ACK, 0, payload))
        elif kind == SETTINGS and not flags & ACK:
            self._settings(payload)
            self._out.append(frame(SETTINGS, ACK, 0))
            self._send_blocked()
        elif kind == GOAWAY:
            raise ProtocolError(f"the server ended the connection: {payload[8:]!r}")

    def _settings(self, payload: bytes) -> None:
        for name, value in struct.iter_unpack(">HI", payload):
            if name == SETTING_INITIAL_WINDOW:
                for stream_id in self._credit:
                    self._credit[stream_id] += value - self._stream_window
                self._stream_window = value
            elif name == SETTING_MAX_FRAME:
                self._max_frame = value

    def _consume(self, size: int) -> None:
        self._consumed += size
        if self._consumed >= REFRESH_BYTES:
            self._out.append(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", self._consumed)))
            self._consumed = 0

    def _send_blocked(self) -> None:
        """Send what the windows allow, the oldest stream first."""
        for _ in range(len(self._blocked)):
            stream_id = self._blocked.popleft()
            left, credit = self._left[stream_id], self._credit[stream_id]
            while left and (size := min(len(left), self._window, credit, self._max_frame)) > 0:
                last = size == len(left)
                self._out.append(
                    frame(DATA, END_STREAM if last else 0, stream_id, bytes(left[:size]))
                )
                left = left[size:]
                self._window -= size
                credit -= size
            if left:
                self._left[stream_id], self._credit[stream_id] = left, credit
                self._blocked.append(stream_id)
            else:
                del self._left[stream_id], self._credit[stream_id]


def _headers(authority: str, path: str, timeout_s: int) -> list[tuple[bytes, bytes]]:
    return [
        (b":path", path.encode()),
        (b":authority", authority.encode()),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
        (b"user-agent", b"statekeep-bench"),
        (b"grpc-timeout", f"{timeout_s}S".encode()),
    ]


METHOD_POST, SCHEME_HTTP = 0x83, 0x86
FIRST_DYNAMIC = 62
HEADER_COUNT = len(_headers("", "", 1))


def _literal_headers(authority: str, path: str, timeout_s: int) -> bytes:
    """The first block: every header a literal that the server's table remembers."""
    block = bytes([METHOD_POST, SCHEME_HTTP])
    for name, value in _headers(authority, path, timeout_s):
        if len(name) > 126 or len(value) > 126:
            raise ValueError(f"too long for a length of one byte: {value!r}")
        block += bytes([0x40, len(name)]) + name + bytes([len(value)]) + value
    return block


def _indexed_headers() -> bytes:
    """Every later block: the same headers by their place in the table, where the last is first."""
    places = reversed(range(HEADER_COUNT))
    return bytes([METHOD_POST, SCHEME_HTTP, *(0x80 | FIRST_DYNAMIC + place for place in places)])
