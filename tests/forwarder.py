"""A way between two ends that a test puts under a connection: it breaks once, or keeps what passes."""

from __future__ import annotations

import contextlib
import socket
import struct
from math import inf

from agent.values.address import Address
from tests.acceptor import Acceptor


class Forwarder:
    """A way to a server that is cut once, after so many bytes, by a reset of its connection."""

    def __init__(self, target: Address, after_bytes: float = inf, host: str = "127.0.0.1", port: int = 0) -> None:
        self.resets = 0
        self.carried = bytearray()
        """What has passed, in either direction."""
        self._target = target
        self._left = after_bytes
        self._acceptor = Acceptor("forwarder", self._forward, host, port)
        self.where = self._acceptor.where

    def close(self) -> None:
        self._acceptor.close()

    def _forward(self, client: socket.socket) -> None:
        server = socket.create_connection(self._target)
        self._acceptor.keep(server)
        self._acceptor.run(self._pump, client, server)
        self._pump(server, client)

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with source, contextlib.suppress(OSError):
            while data := source.recv(64 << 10):
                self.carried += data
                sink.sendall(data)
                self._left -= len(data)
                if self._left < 0 and not self.resets:
                    self.resets += 1
                    for sock in (source, sink):
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        sock.shutdown(socket.SHUT_RD)
                    sink.close()
                    return
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)
