"""Stands between a client and a server: passes the bytes of connections on, both ways, and keeps them.

With a host it is what `kubectl port-forward` is: it connects from the server's own host, to which the client has no other way.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from agent.values.address import Address
from hack.lab.network import Host

_CONNECT_SECONDS_MAX = 30.0


@dataclass
class Session:
    """What was said on one connection so far."""

    by_client: bytearray = field(default_factory=bytearray)
    by_server: bytearray = field(default_factory=bytearray)


class Forwarder:
    """Use as a context manager around what is to be heard."""

    def __init__(self, to: Address, host: Host | None = None) -> None:
        self._host = host
        self.sessions: list[Session] = []
        self._to = to
        self._server = socket.create_server(("127.0.0.1", 0))
        self.where = Address(*self._server.getsockname())
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, name="forwarder")]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for sock in (self._server, *self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for sock in (self._server, *self._open):
            sock.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                self._open.append(client)
                try:
                    self._forward(client, self._connect())
                except ConnectionError:
                    client.shutdown(socket.SHUT_RDWR)

    def _connect(self) -> socket.socket:
        if self._host:
            return self._host.connect(self._to.port, self._to.host, _CONNECT_SECONDS_MAX)
        return socket.create_connection(self._to, _CONNECT_SECONDS_MAX)

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        server.settimeout(None)
        self._open.append(server)
        session = Session()
        self.sessions.append(session)
        for way in ((client, server, session.by_client), (server, client, session.by_server)):
            self._threads.append(threading.Thread(target=_pass_on, args=way, name="forwarder"))
            self._threads[-1].start()


def _pass_on(source: socket.socket, target: socket.socket, kept: bytearray) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            kept += data
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
