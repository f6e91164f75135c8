"""What both ends of a connection share: how heads are read and written, how long a socket waits, and where bytes go meanwhile.

h11 alone reads heads (`agent.http.server`, `agent.http.client`). They are written here: that takes no state machine, but each
line has to be one line, whatever somebody puts into a field (RFC 9110 section 5.5).

How long a blocking socket waits is kept by the kernel: SO_RCVTIMEO and SO_SNDTIMEO of socket(7). One system call then waits for
all that is wanted (MSG_WAITALL of recv(2), sendfile(2)). Python's own timeouts take a `poll` before each call and wake a thread
for whatever little has come: 16 KiB at 100 Mbit/s, which was most of what a pull cost there.
"""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol

HEAD_BYTES_MAX = 16 << 10
BUFFER_BYTES = 256 << 10
"""A piece of the shortest kind in one go, and little enough to stay in a core's own cache while it is hashed and written."""

_TARGET = re.compile(r"[!-~]+")
_LINE = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+: [ -~\t\x80-\xff]*")
_TIMEVAL = struct.Struct("@ll")
_MICROSECONDS = 1_000_000

_buffers = threading.local()

ReadInto = Callable[[memoryview], int]
"""Puts some bytes into a buffer and says how many; 0 at the end."""


class Stream(Protocol):
    """What HTTP needs of a connected socket, which may be inside TLS (`agent.http.sealed`)."""

    def recv(self, bufsize: int, /) -> bytes: ...
    def recv_into(self, buffer: memoryview, nbytes: int, flags: int, /) -> int: ...
    def sendall(self, data: bytes | memoryview, flags: int = ..., /) -> None: ...
    def setsockopt(self, level: int, option: int, value: int | bytes, /) -> None: ...
    def settimeout(self, seconds: float | None, /) -> None: ...
    def shutdown(self, how: int, /) -> None: ...
    def close(self) -> None: ...


# Heads.


def joined(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Headers by lower-case name, repeated ones joined by a comma (RFC 9110 section 5.3)."""
    result: dict[str, str] = {}
    for raw_name, raw_value in headers:
        name, value = raw_name.decode("ascii").lower(), raw_value.decode("latin-1")
        result[name] = f"{result[name]}, {value}" if name in result else value
    return result


def stays_open(http_version: bytes, headers: Mapping[str, str]) -> bool:
    """Whether the sender of a head lets another message follow on its connection; with HTTP/1.0 nobody does here."""
    return http_version == b"1.1" and "close" not in headers.get("connection", "").lower()


def announced_length(headers: Mapping[str, str]) -> int | None:
    """Bytes of an answer's body, if its head tells: h11 has checked that it is a number.

    It counts for nothing where chunks are announced (RFC 9112 section 6.3).
    """
    return int(headers["content-length"]) if "content-length" in headers and "transfer-encoding" not in headers else None


def request_head(method: str, target: str, headers: Mapping[str, str]) -> bytes:
    """A request without a body. Raises ValueError, without a value that may be a secret, for what HTTP cannot say."""
    if not _TARGET.fullmatch(target):
        raise ValueError("what is asked for is no target of a request")
    return _head(f"{method} {target} HTTP/1.1", headers)


def answer_head(status: int, headers: Mapping[str, str], phrase: str = "") -> bytes:
    """The head of an answer. Raises ValueError for what a field may not contain."""
    return _head(f"HTTP/1.1 {status} {phrase}", headers)


def _head(first: str, headers: Mapping[str, str]) -> bytes:
    lines = [f"{name}: {value}" for name, value in headers.items()]
    for line in lines:
        if not _LINE.fullmatch(line):
            raise ValueError(f"{line.partition(':')[0]!a} and its value are no field of HTTP")
    return "\r\n".join([first, *lines, "", ""]).encode("latin-1")


# Sockets.


def wait_to_receive(sock: Stream, seconds: float) -> None:
    """Receiving raises BlockingIOError when nothing came for so long, and gives what has come when not all of it came."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(seconds))


def wait_to_send(sock: Stream, seconds: float) -> None:
    """Sending raises BlockingIOError when nothing was taken for so long."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(seconds))


def receive_at_least(sock: Stream, count: int) -> None:
    """Whoever waits to receive is not woken for fewer bytes, unless the peer has ended or the receive window is full."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)


def bound_window(sock: Stream, count: int) -> None:
    """The peer may have sent so many bytes that were not read here, or as many as the system allows (net.core.rmem_max)."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, count)


def do_not_pace(sock: socket.socket) -> None:
    """What a listening socket accepts sends as fast as its client takes it: for clients on this machine, where no net is spared.

    BBR, where that is the system's choice, sends by a timer, on a loopback too, and that was most of what serving cost
    (docs/decisions/0013). Reno is what every system has, for whoever asks (tcp(7)).
    """
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")


def _timeval(seconds: float) -> bytes:
    """Zero would mean without end, so it becomes the least there is."""
    return _TIMEVAL.pack(*divmod(max(1, round(seconds * _MICROSECONDS)), _MICROSECONDS))


# Bytes.


def buffer() -> memoryview:
    """This thread's one buffer: nothing is allocated on the way. What is in it is gone when the thread asks for it again."""
    if not hasattr(_buffers, "view"):
        _buffers.view = memoryview(bytearray(BUFFER_BYTES))
    view: memoryview = _buffers.view
    return view


def chunks(read_into: ReadInto, bytes_max: int) -> Iterator[memoryview]:
    """What `read_into` gives, in this thread's one buffer: each chunk is gone when the next is taken."""
    view = buffer()
    while bytes_max > 0 and (count := read_into(view[: min(bytes_max, len(view))])):
        bytes_max -= count
        yield view[:count]
