"""Outgoing connections: those in use, and idle ones, a few for each server and for a short while.

A connection is used again only for the address and the name that it was made for: its certificate was checked for no other.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections import defaultdict
from typing import NamedTuple

from agent.http.client import Answer, Connection, StalledError, TimeLimits, TransferError, Tunnel, connect
from agent.values.address import Address

CONNECT_SECONDS_MAX = 5.0
"""For each address of a server, so that the next one has its chance too."""
IDLE_SECONDS_MAX = 20.0
"""Less than the piece server's own limit, so that a connection is not used in the moment it is closed."""
KEPT_CONNECTION_TRIES_MAX = 3


class Place(NamedTuple):
    """A server: its addresses, the best first, and the name that its certificate has to bear; without a name, no TLS."""

    addresses: tuple[Address, ...]
    server_name: str = ""
    tunnel: Tunnel | None = None
    """The server behind a proxy, whose addresses these are."""


class ConnectionPool:
    def __init__(
        self,
        tls: ssl.SSLContext | None = None,
        idle_max: int = 0,
        window_bytes: int = 0,
        connect_seconds_max: float = CONNECT_SECONDS_MAX,
    ) -> None:
        """`idle_max` connections to each server are kept open when they are given back; without TLS only plain TCP is spoken.

        `window_bytes` bounds what a server may have sent that was not received yet; 0 leaves that to the kernel.
        """
        self._tls = tls
        self._idle_max = idle_max
        self._window_bytes = window_bytes
        self._connect_seconds_max = connect_seconds_max
        self._lock = threading.Lock()
        self._busy: set[Connection] = set()
        self._idle: defaultdict[tuple[Address, str, Tunnel | None], list[Connection]] = defaultdict(list)
        self._closed = False

    def ask(
        self, place: Place, method: str, target: str, headers: dict[str, str], limits: TimeLimits
    ) -> tuple[Connection, Answer]:
        """An answer, and the connection on which its body comes next. The caller gives that back. Raises TransferError."""
        until = time.monotonic() + limits.head
        for kept_ones in range(KEPT_CONNECTION_TRIES_MAX, -1, -1):
            connection = self._take_idle(place) if kept_ones else None
            kept = connection is not None
            connection = connection or self.connect(place, until)
            try:
                left = TimeLimits(max(0.0, until - time.monotonic()), limits.stall, limits.body)
                return connection, connection.ask(method, target, headers, left)
            except BaseException as error:
                self._drop(connection)
                # A server may close a connection that was kept, at any time: nothing is wrong with it.
                if not kept or not isinstance(error, TransferError) or isinstance(error, StalledError):
                    raise
        raise AssertionError("the last try is made on a connection of its own")

    def connect(self, place: Place, until: float) -> Connection:
        """A new connection, on which nothing was asked; small answers have to be here by `until` (monotonic) as well.

        The caller gives it back. Raises TransferError.
        """
        error: TransferError | None = None
        if place.server_name and self._tls is None:
            raise TransferError(f"{place.server_name} is not asked: there is no TLS here")
        for address in place.addresses:
            seconds = min(self._connect_seconds_max, until - time.monotonic())
            if seconds <= 0:
                break
            try:
                tls = self._tls if place.server_name else None
                connection = connect(address, place.server_name, tls, seconds, self._window_bytes, place.tunnel)
                connection.until = until
            except TransferError as failed:
                error = failed
                continue
            with self._lock:
                if not self._closed:
                    self._busy.add(connection)
                    return connection
            connection.close()
            raise TransferError("this process is stopping")
        raise error or StalledError(f"no time is left to connect to {place.addresses[0]}")

    def give_back(self, connection: Connection) -> None:
        """The caller is done with the answer, read to its end or not."""
        connection.idle_since = time.monotonic()
        with self._lock:
            self._drop_old(connection.idle_since)
            idle = self._idle[connection.where, connection.server_name, connection.tunnel]
            if connection.reusable and not self._closed and len(idle) < self._idle_max:
                self._busy.discard(connection)
                idle.append(connection)
                return
        self._drop(connection)

    def close(self) -> None:
        """End all connections. Whoever waits for one is told, and nobody gets one any more."""
        with self._lock:
            self._closed = True
            for connection in self._busy:
                connection.abort()
        self.rest()

    def rest(self) -> None:
        """Nobody will ask for a while: keep nothing open."""
        with self._lock:
            for idle in self._idle.values():
                for connection in idle:
                    connection.close()
            self._idle.clear()

    def _take_idle(self, place: Place) -> Connection | None:
        with self._lock:
            self._drop_old(time.monotonic())
            for address in place.addresses:
                if idle := self._idle.get((address, place.server_name, place.tunnel)):
                    connection = idle.pop()
                    self._busy.add(connection)
                    return connection
        return None

    def _drop(self, connection: Connection) -> None:
        with self._lock:
            self._busy.discard(connection)
        connection.close()

    def _drop_old(self, now: float) -> None:
        for key, idle in list(self._idle.items()):
            while idle and now - idle[0].idle_since > IDLE_SECONDS_MAX:
                idle.pop(0).close()
            if not idle:
                del self._idle[key]
