"""A port that a test listens at: each connection has a thread, and the end of the port is the end of all of them."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

from agent.values.address import Address

JOIN_SECONDS = 20.0


class Acceptor:
    def __init__(self, name: str, serve: Callable[[socket.socket], None], host: str = "127.0.0.1", port: int = 0) -> None:
        """`serve` is called with each connection, in a thread that bears the name; an OSError ends that connection."""
        self._name = name
        self._serve = serve
        self._server = socket.create_server((host, port))
        self.where = Address(*self._server.getsockname())
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.run(self._accept)

    def keep(self, sock: socket.socket) -> None:
        """Another one that ends with the port."""
        self._open.append(sock)

    def run(self, do: Callable[..., None], *arguments: object) -> None:
        """In a thread that is waited for at the end."""
        thread = threading.Thread(target=do, args=arguments, name=self._name)
        self._threads.append(thread)
        thread.start()

    def close(self) -> None:
        for sock in (self._server, *self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for thread in list(self._threads):
            thread.join(JOIN_SECONDS)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._server.accept()
                self.keep(sock)
                self.run(self._converse, sock)

    def _converse(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            self._serve(sock)
