"""A client that takes bytes and forgets them: dropped in the kernel (MSG_TRUNC, tcp(7)), or received into one buffer.

One that drops them is never behind, so on a loopback whoever sends pays for all of the sending. One that receives them is the
least that a real client costs.
"""

from __future__ import annotations

import contextlib
import re
import socket

_BUFFER_BYTES = 1 << 20
_HEAD_BYTES_MAX = 16 << 10
_HEAD = re.compile(rb"HTTP/1\.1 (\d{3}) .*?\r\n\r\n", re.DOTALL)
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)


class ClientError(Exception):
    """The answer was no success, or shorter than it announced."""


class Client(contextlib.AbstractContextManager["Client"]):
    """One connection, kept open over its requests."""

    def __init__(self, address: str, *, receives: bool = False) -> None:
        host, _, port = address.rpartition(":")
        self._address = address
        self._sock = socket.create_connection((host, int(port)), 60)
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
