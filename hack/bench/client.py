"""A client that takes bytes and forgets them: dropped in the kernel (MSG_TRUNC, tcp(7)), or received into one buffer.

One that drops them is never behind, so on a loopback whoever sends pays for all of the sending. One that receives them is the
least that a real client costs.
"""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import time

from agent.http.sealed import Sealed, client_context

_BUFFER_BYTES = 1 << 20
_HEAD_BYTES_MAX = 16 << 10
_HEAD = re.compile(rb"HTTP/1\.1 (\d{3}) .*?\r\n\r\n", re.DOTALL)
_RECORD = struct.Struct(">3xH")
_RECORD_EXTRA_BYTES = 17
"""Of a record of TLS 1.3: its kind, and the tag by which it is known to be whole (RFC 8446, section 5.2)."""
_SECONDS = 60.0
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)


class ClientError(Exception):
    """The answer was no success, or shorter than it announced."""


class Client(contextlib.AbstractContextManager["Client"]):
    """One connection, kept open over its requests."""

    def __init__(self, address: str, *, receives: bool = False) -> None:
        host, _, port = address.rpartition(":")
        self._address = address
        self._sock = socket.create_connection((host, int(port)), _SECONDS)
        self._flags = 0 if receives else socket.MSG_TRUNC
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))

    def __exit__(self, *_: object) -> None:
        self._sock.close()

    def take(self, path: str, headers: dict[str, str] | None = None) -> int:
        """Take a body, and say how many bytes it had."""
        lines = [
            f"GET {path} HTTP/1.1",
            f"Host: {self._address}",
            *(f"{name}: {value}" for name, value in (headers or {}).items()),
        ]
        self._sock.sendall("\r\n".join([*lines, "", ""]).encode())
        left = length = self._length(path)
        while left:
            taken = self._sock.recv_into(self._buffer, min(left, _BUFFER_BYTES), self._flags)
            if not taken:
                raise ClientError(f"{self._address} ended {path} {left} bytes early")
            left -= taken
        return length

    def _length(self, path: str) -> int:
        """Read the head, and no byte of the body."""
        while not (head := _HEAD.match(seen := self._sock.recv(_HEAD_BYTES_MAX, socket.MSG_PEEK))):
            if not seen or len(seen) == _HEAD_BYTES_MAX:
                raise ClientError(f"{self._address} does not answer to {path}: {seen[:100]!r}")
        length = _LENGTH.search(head[0])
        if head[1] != b"200" or not length:
            raise ClientError(f"{self._address} answered {head[1].decode()} to {path}")
        self._sock.recv(head.end())
        return int(length[1])


class SealedClient(contextlib.AbstractContextManager["SealedClient"]):
    """The same inside TLS: what comes is dropped as it came, so that this client, too, is never behind."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._address = address
        self._sock = socket.create_connection((host, int(port)))
        self._tls = Sealed(self._sock, client_context(), server=False)
        self._tls.shake(time.monotonic() + _SECONDS)
        self._sock.settimeout(_SECONDS)

    def __exit__(self, *_: object) -> None:
        self._sock.close()

    def take(self, path: str, headers: dict[str, str], length: int) -> None:
        """Take an answer, whose first record is its head, and a body of that many bytes behind it."""
        lines = [f"GET {path} HTTP/1.1", f"Host: {self._address}", *(f"{name}: {value}" for name, value in headers.items())]
        self._tls.sendall("\r\n".join([*lines, "", ""]).encode())
        self._drop_record()
        while length > 0:
            length -= self._drop_record()

    def _drop_record(self) -> int:
        """The bytes that a record said."""
        head = self._sock.recv(_RECORD.size, socket.MSG_WAITALL)
        if len(head) < _RECORD.size:
            raise ClientError(f"{self._address} ended too early")
        left = size = int(_RECORD.unpack(head)[0])
        while left:
            taken = self._sock.recv_into(bytearray(left), left, socket.MSG_TRUNC)
            if not taken:
                raise ClientError(f"{self._address} ended in the middle of a record")
            left -= taken
        return size - _RECORD_EXTRA_BYTES
