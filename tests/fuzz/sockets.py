"""Sockets whose other end has said all that it will say, and what connections stand on in the place of a network."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from functools import cache
from itertools import chain, repeat
from typing import Any, cast
from unittest import mock

from agent.http import client
from agent.http.client import Connection
from agent.values.address import Address

HERE = Address("127.0.0.1", 65002)
NEXT_CONNECTION = b"\x1e"
"""Between what a server says on one connection and on the next one; the last is said on all that follow."""


class Said:
    """A socket from which `data` comes, and then the end; what is sent to it is gone."""

    family = socket.AF_INET

    def __init__(self, data: bytes) -> None:
        self._left = memoryview(data)

    def recv(self, count: int, flags: int = 0) -> bytes:
        if flags & socket.MSG_PEEK and not self._left:
            raise BlockingIOError  # the client still waits for its answer
        data = bytes(self._left[:count])
        if not flags & socket.MSG_PEEK:
            self._left = self._left[count:]
        return data

    def recv_into(self, view: memoryview, count: int, flags: int = 0) -> int:
        data = self.recv(count, flags)
        view[: len(data)] = data
        return len(data)

    def sendall(self, data: bytes, flags: int = 0) -> None:
        """Taken."""

    def fileno(self) -> int:
        return _nowhere()

    def getsockname(self) -> Address:
        return HERE

    def setsockopt(self, *_: object) -> None:
        """As it wishes."""

    settimeout = setblocking = shutdown = setsockopt

    def close(self) -> None:
        """Nothing is open."""


@cache
def _nowhere() -> int:
    return os.open("/dev/null", os.O_WRONLY)


def said(data: bytes) -> socket.socket:
    return cast(socket.socket, Said(data))


@contextlib.contextmanager
def servers_say(data: bytes) -> Iterator[None]:
    """Whoever is connected to says this."""
    parts = data.split(NEXT_CONNECTION)
    answers = chain(parts, repeat(parts[-1]))

    def connect(where: Address, server_name: str, *_: Any, **__: Any) -> Connection:
        return Connection(said(next(answers)), where, server_name)

    with mock.patch.object(client, "connect", connect):
        yield
