"""The client side of the data path: GET over a blocking socket, the body received straight into a buffer that is used again.

h11 reads the heads of answers; bodies go past it by `recv_into`. Pieces from nodes and blobs from registries both come this
way. Which host may be asked, and with which credentials, is decided before (`agent.origin`, `agent.destinations`).
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections import defaultdict
from dataclasses import dataclass

import h11

from agent.errors import DarnerError
from agent.listener import HEAD_BYTES_MAX, joined
from agent.settings import Address

CONNECT_SECONDS_MAX = 5.0
IDLE_CONNECTIONS_MAX = 2
"""Kept open to each node; scheduled pieces come from many nodes, a few from each at a time."""
IDLE_SECONDS_MAX = 20.0
"""Less than the piece server's own limit, so that a connection is not used in the moment it is closed."""


class TransferError(DarnerError):
    """The network's fault or the server's: no connection, no whole answer, or bytes that are not HTTP."""


class StalledError(TransferError):
    """Nothing came for as long as the caller was willing to wait."""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    length: int | None
    """Bytes of the body that follows; None when the server did not tell."""


class Connection:
    """One connection, one request at a time. Raises TransferError."""

    def __init__(self, where: Address, *, tls: ssl.SSLContext | None = None, server_name: str = "", stall_seconds: float) -> None:
        self.where = where
        self.used_at = time.monotonic()
        self._left = 0
        """Body bytes of the last answer that were not read yet."""
        self._buffered = memoryview(b"")
        try:
            sock = socket.create_connection(where, timeout=CONNECT_SECONDS_MAX)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sock = tls.wrap_socket(sock, server_hostname=server_name) if tls else sock
            self._sock.settimeout(stall_seconds)
        except TimeoutError:
            raise StalledError(f"{where} did not accept a connection within {CONNECT_SECONDS_MAX:.0f} s") from None
        except (OSError, ValueError) as error:
            raise TransferError(f"{where} cannot be connected to: {error}") from None

    def get(self, target: str, headers: dict[str, str]) -> Answer:
        """Ask for something. The body is then read by `read_into`, all of it or not at all."""
        protocol = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_BYTES_MAX)
        lines = {"Accept-Encoding": "identity", **headers}
        try:
            head = protocol.send(h11.Request(method="GET", target=target, headers=list(lines.items()))) or b""
            self._sock.sendall(head + (protocol.send(h11.EndOfMessage()) or b""))
            while not isinstance(event := protocol.next_event(), h11.Response):
                if event is h11.NEED_DATA:
                    protocol.receive_data(self._sock.recv(HEAD_BYTES_MAX))
                elif not isinstance(event, h11.InformationalResponse):
                    raise TransferError(f"{self.where} closed the connection instead of answering")
        except TimeoutError:
            raise StalledError(f"{self.where} did not answer in time") from None
        except (OSError, h11.ProtocolError) as error:
            raise TransferError(f"{self.where} did not answer in HTTP: {error}") from None
        found = joined(event.headers)
        self._buffered = memoryview(protocol.trailing_data[0])
        length = found.get("content-length")
        # h11 has checked that a length is a number; bodies in chunks are not read here.
        self._left = int(length) if length is not None else 0
        return Answer(event.status_code, found, int(length) if length is not None else None)

    def read_into(self, buffer: memoryview) -> int:
        """Some bytes of the body, at least one; 0 when all of it was read. Raises TransferError when it ends too early."""
        if not self._left:
            return 0
        wanted = min(len(buffer), self._left)
        if self._buffered:
            count = min(wanted, len(self._buffered))
            buffer[:count] = self._buffered[:count]
            self._buffered = self._buffered[count:]
        else:
            try:
                count = self._sock.recv_into(buffer, wanted)
            except TimeoutError:
                raise StalledError(f"{self.where} sent nothing for {self._sock.gettimeout():.0f} s") from None
            except OSError as error:
                raise TransferError(f"{self.where} broke off: {error}") from None
            if not count:
                raise TransferError(f"{self.where} ended the connection {self._left} bytes early")
        self._left -= count
        return count

    @property
    def reusable(self) -> bool:
        return not self._left and not self._buffered

    def close(self) -> None:
        self._sock.close()


class ConnectionPool:
    """Idle plain connections to nodes, a few for each, for a short while."""

    def __init__(self, stall_seconds: float) -> None:
        self._stall_seconds = stall_seconds
        self._idle: defaultdict[Address, list[Connection]] = defaultdict(list)
        self._lock = threading.Lock()

    def take(self, where: Address) -> tuple[Connection, bool]:
        """A connection, and whether it was used before: then its first request may find it closed."""
        with self._lock:
            while idle := self._idle.get(where):
                connection = idle.pop()
                if time.monotonic() - connection.used_at < IDLE_SECONDS_MAX:
                    return connection, True
                connection.close()
        return Connection(where, stall_seconds=self._stall_seconds), False

    def give_back(self, connection: Connection) -> None:
        connection.used_at = time.monotonic()
        with self._lock:
            self._drop_old(connection.used_at)
            idle = self._idle[connection.where]
            if connection.reusable and len(idle) < IDLE_CONNECTIONS_MAX:
                idle.append(connection)
                return
        connection.close()

    def _drop_old(self, now: float) -> None:
        for where, idle in list(self._idle.items()):
            while idle and now - idle[0].used_at > IDLE_SECONDS_MAX:
                idle.pop(0).close()
            if not idle:
                del self._idle[where]

    def close(self) -> None:
        with self._lock:
            for idle in self._idle.values():
                for connection in idle:
                    connection.close()
            self._idle.clear()
