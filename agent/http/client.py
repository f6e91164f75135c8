"""The client side of HTTP: questions over blocking sockets, big bodies received straight into a buffer that is used again.

h11 reads heads and small bodies; the bytes of pieces and blobs go past it by `recv_into`. Nodes and registries are asked the same
way, over the connections of a pool, which keeps idle ones, a few for each server and for a short while. Which server is asked,
and with which credentials, is decided before (`agent.origin.redirects`). Small questions to registries are asked with httpx over
the same connections (docs/decisions/0005).
"""

from __future__ import annotations

import contextlib
import errno
import socket
import ssl
import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

import h11

from agent.http.sealed import RECORD_BYTES, Sealed
from agent.http.wire import (
    HEAD_BYTES_MAX,
    Stream,
    announced_length,
    bound_window,
    joined,
    receive_at_least,
    request_head,
    stays_open,
    wait_to_receive,
    wait_to_send,
)
from agent.values.address import Address
from agent.values.errors import DarnerError

HEAD_RECEIVE_BYTES = 2 << 10
"""At a time, of heads and small bodies: little of a big body comes with its head, to be copied once more."""
FRAMED_RECEIVE_BYTES = 64 << 10
"""At a time, of a body whose length nobody knows."""
WINDOW_SECONDS = 0.01
"""A bounded receive window holds what its connection brings in so long: then the queue of a link is no longer, however many
connections share it, and a shorter round trip leaves no link idle (docs/decisions/0040)."""
WINDOW_BYTES_MAX = 4 << 20
WINDOW_CHANGE_MIN = 1.25
"""A smaller change of a window is not worth telling the kernel."""
WINDOWS_MIN = 4
"""So many times the least window must a body have been to say anything about a rate."""
WAKE_BYTES = 16 << 10
"""A thread that waits for much is not woken for less: packets come one by one, and there are eleven in this. A quarter of the
smallest receive window, which must not fill up meanwhile."""
LOOK_SECONDS = 0.5
"""How long a thread waits before it looks at its deadline, so how late it may be."""
CONNECT_SECONDS_MAX = 5.0
"""For each address of a server, so that the next one has its chance too."""
EXHAUSTED_SECONDS_MAX = 2.0
"""How long a connection for which this process has no descriptor, port or memory is tried."""
EXHAUSTED_RETRY_SECONDS = 0.1
IDLE_SECONDS_MAX = 20.0
"""Less than the piece server's own limit, so that a connection is not used in the moment it is closed."""
KEPT_CONNECTION_TRIES_MAX = 3

_QUESTIONS = {method: h11.Request(method=method, target="/", headers=[("Host", "any")]) for method in ("GET", "HEAD", "CONNECT")}
"""What h11 is told was asked: to read an answer it has to know the method, and nothing else. Made once, for h11 takes 30
microseconds to make one (docs/decisions/0012)."""
_END_OF_QUESTION = h11.EndOfMessage()
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL)


class TransferError(DarnerError):
    """The network's fault or the server's: no connection, no whole answer, or bytes that are not HTTP."""


class NotTriedError(TransferError):
    """This process's own fault: it has no descriptor, port or memory left for a connection."""


class StalledError(TransferError):
    """Nothing came for as long as the caller was willing to wait."""


class Tunnel(NamedTuple):
    """What a proxy is asked for before anything else: a way to a server (CONNECT, RFC 9110 section 9.3.6)."""

    server: Address
    authorization: str = ""
    """For the proxy itself."""


class Place(NamedTuple):
    """A server: its addresses, the best first, and the name that its certificate has to bear; without a name, no TLS."""

    addresses: tuple[Address, ...]
    server_name: str = ""
    tunnel: Tunnel | None = None
    """The server behind a proxy, whose addresses these are."""
    tls: ssl.SSLContext | None = None
    """What this server has to prove, and is shown, if that is not what the pool has for all. It belongs to the name and port."""
    fingerprint: bytes = b""
    """Of the one certificate that this server has, which no authority vouches for; without it, no such TLS."""


@dataclass(frozen=True)
class TimeLimits:
    """How long a server is waited for, in seconds."""

    head: float
    """From before the connection is made to the end of the answer's head; a small body has to come within it as well."""
    stall: float = 0.0
    """For the next bytes of a big body."""
    body: float = inf
    """For all of a big body."""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    length: int | None
    """Bytes of the body; None when the server did not tell. The answer to a HEAD has a length, and no body."""


def connect(
    where: Address,
    server_name: str,
    tls: ssl.SSLContext | None,
    seconds: float,
    window_bytes: int = 0,
    tunnel: Tunnel | None = None,
    fingerprint: bytes = b"",
) -> Connection:
    """A connection to a server, through the proxy at `where` if a tunnel is wanted. Raises TransferError.

    Its receive window holds `window_bytes`, until it is fitted; the kernel decides where that is 0.
    """
    until = time.monotonic() + seconds
    stream: Stream
    with contextlib.ExitStack() as undo:
        try:
            stream = sock = _connected(where, until)
            undo.callback(sock.close)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if window_bytes:
                bound_window(sock, window_bytes)
            sock.setblocking(True)
            wait_to_send(sock, seconds)
            if tunnel:
                Connection(sock, where).pass_through(tunnel, until)
            if tls:
                sock.settimeout(max(0.1, until - time.monotonic()))
                stream = tls.wrap_socket(sock, server_hostname=server_name)  # closes it when the handshake fails
            elif fingerprint:
                stream = Sealed.to(sock, fingerprint, until + seconds)  # not its kernel alone has to answer now
        except TimeoutError:
            raise StalledError(f"{where} did not accept a connection within {seconds:.0f} s") from None
        except ssl.SSLCertVerificationError as error:
            raise TransferError(f"the certificate of {where} is not accepted: {error.verify_message}") from None
        except (OSError, ValueError) as error:
            kind = NotTriedError if isinstance(error, OSError) and error.errno in _EXHAUSTED else TransferError
            raise kind(f"{where} cannot be connected to: {error}") from None
        undo.pop_all()
    return Connection(stream, where, server_name, tunnel, fingerprint, window_bytes)


def window_for(bytes_per_second: float, window_bytes_min: int) -> int:
    """Bytes of the receive window of a connection on which the last body came at that rate."""
    return max(window_bytes_min, min(int(bytes_per_second * WINDOW_SECONDS), WINDOW_BYTES_MAX))


def _connected(where: Address, until: float) -> socket.socket:
    """A shortage of descriptors may be over in a moment, as connections are closed that others had."""
    give_up = min(until, time.monotonic() + EXHAUSTED_SECONDS_MAX)
    while True:
        try:
            return socket.create_connection(where, timeout=max(0.001, until - time.monotonic()))
        except OSError as error:
            if error.errno not in _EXHAUSTED or time.monotonic() >= give_up:
                raise
        time.sleep(EXHAUSTED_RETRY_SECONDS)


class Connection:
    """One connection, one request at a time. Raises TransferError."""

    def __init__(
        self,
        sock: Stream,
        where: Address,
        server_name: str = "",
        tunnel: Tunnel | None = None,
        fingerprint: bytes = b"",
        window_bytes: int = 0,
    ) -> None:
        """On a socket that is connected, and waits no longer than it may when it sends. Of its window `connect` tells."""
        self.where = where
        self.fingerprint = fingerprint
        self.server_name = server_name
        self.tunnel = tunnel
        self.idle_since = 0.0
        self._sock = sock
        self._is_tls = isinstance(sock, ssl.SSLSocket)
        self._unread_bytes = RECORD_BYTES if fingerprint else 0
        """Of a body, so much may have come that is not readable yet: a part of a TLS record."""
        self._protocol = h11.Connection(h11.CLIENT)
        self.until = 0.0
        """When the head of an answer, and a small body, have to be here."""
        self._body_until = 0.0
        self._stall_seconds = 0.0
        self._left: int | None = 0
        """Bytes of the body that were not read yet; None when nobody knows."""
        self._buffered = memoryview(b"")
        self._kept_alive = True
        self._waits_seconds = 0.0
        """What the socket was last told of how long it may wait; 0 when it was not."""
        self._wakes_bytes = 1
        """What it was last told of how much is worth waking for."""
        self.window_bytes = window_bytes
        """What may have come and was not read, as the kernel was told; 0 where it decides."""
        self._asked_at, self._body_bytes = 0.0, 0
        """When the last body was asked for, and its length."""

    def pass_through(self, tunnel: Tunnel, until: float) -> None:
        """Get the proxy's yes. What goes over the socket afterwards is between us and the server."""
        self.until = until
        authorization = {"Proxy-Authorization": tunnel.authorization} if tunnel.authorization else {}
        refused = f"the proxy {self.where} gives no way to {tunnel.server}"
        answer = self._answer_to("CONNECT", str(tunnel.server), {"Host": str(tunnel.server), **authorization})
        if answer.status // 100 != 2:
            raise TransferError(f"{refused}: it answers {answer.status}")
        if self._protocol.trailing_data[0]:
            raise TransferError(f"{refused}: it speaks in the server's place")

    def ask(self, method: str, target: str, headers: dict[str, str], limits: TimeLimits) -> Answer:
        """Ask for something. The body is then read by `read_into` or by `read_all`, to its end or not at all."""
        self._asked_at = time.monotonic()
        self.until = self._asked_at + limits.head
        answer = self._answer_to(method, target, {"Accept-Encoding": "identity", **headers})
        self._stall_seconds = limits.stall
        self._body_bytes = answer.length or 0
        self._body_until = time.monotonic() + limits.body
        return answer

    def fit_window(self, window_bytes_min: int, now: float) -> None:
        """The body was read to its end: let the next one come as fast as this one could, and wait in no long queue."""
        if self._body_bytes < WINDOWS_MIN * window_bytes_min:
            return
        wanted = window_for(self._body_bytes / (now - self._asked_at), window_bytes_min)
        if max(wanted, self.window_bytes) >= WINDOW_CHANGE_MIN * min(wanted, self.window_bytes):
            self.window_bytes = wanted
            with contextlib.suppress(OSError):  # its end shows when it is asked again
                bound_window(self._sock, wanted)

    def paused(self, seconds: float) -> None:
        """The caller was busy with what had come, in the middle of a body: that is no time of the server's."""
        self._asked_at += seconds
        self._body_until += seconds

    def send(self, data: bytes) -> None:
        """All of a request, for a caller that reads its answer by `receive`; `until` says how long that may take."""
        try:
            if self._is_tls:  # else the kernel keeps the time for sending
                self._wait_at_most(max(LOOK_SECONDS, self.until - time.monotonic()))
            self._sock.sendall(data)
        except (TimeoutError, BlockingIOError):
            raise StalledError(f"{self.where} does not take a request") from None
        except OSError as error:
            raise TransferError(f"{self.where} cannot be asked: {error}") from None

    def receive(self, bytes_max: int) -> bytes:
        """Some bytes of a head or a small body, at least one before the server's end."""
        data = bytearray(bytes_max)
        try:
            count = self._receive(memoryview(data), self.until)
        except TimeoutError:
            raise StalledError(f"{self.where} did not answer in time") from None
        except OSError as error:
            raise TransferError(f"{self.where} did not answer in HTTP: {error}") from None
        return bytes(data[:count])

    def _answer_to(self, method: str, target: str, headers: dict[str, str]) -> Answer:
        try:
            self.send(request_head(method, target, headers))
        except ValueError as error:
            raise TransferError(f"{self.where} cannot be asked: {error}") from None
        self._protocol = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_BYTES_MAX)
        self._protocol.send(_QUESTIONS[method])
        self._protocol.send(_END_OF_QUESTION)
        while isinstance(event := self._next_event(), h11.InformationalResponse):
            continue
        if not isinstance(event, h11.Response):
            raise TransferError(f"{self.where} closed the connection instead of answering")
        found = joined(event.headers)
        answer = Answer(event.status_code, found, announced_length(found))
        self._left = 0 if method == "HEAD" else answer.length
        self._buffered = memoryview(b"" if self._left is None else self._protocol.trailing_data[0])
        self._kept_alive = stays_open(event.http_version, found)
        return answer

    def read_into(self, buffer: memoryview) -> int:
        """Bytes of a body: as many as the buffer takes, or all that are left; 0 when all of it was read.

        Of a body whose length nobody knows, there may be fewer.
        """
        if self._left is None:
            return self._read_framed(buffer)
        if not self._left:
            return 0
        wanted = min(len(buffer), self._left)
        count = min(wanted, len(self._buffered))
        if count:
            buffer[:count] = self._buffered[:count]
            self._buffered = self._buffered[count:]
        while count < wanted:
            # What is worth waking for must never be more than what still comes, so the end of a body is received on its own.
            ahead = self._left - count - WAKE_BYTES - self._unread_bytes
            self._wake_for(WAKE_BYTES if ahead > 0 else 1)
            upto = min(wanted, count + ahead) if ahead > 0 else wanted
            try:
                until = min(time.monotonic() + self._stall_seconds, self._body_until)
                flags = socket.MSG_WAITALL if ahead > 0 or not self._unread_bytes else 0
                received = self._receive(buffer[count:upto], until, flags)
            except TimeoutError:
                raise StalledError(f"{self.where} sends too slowly, or nothing any more") from None
            except OSError as error:
                raise TransferError(f"{self.where} broke off: {error}") from None
            if not received:
                raise TransferError(f"{self.where} ended the connection {self._left - count} bytes early")
            count += received
        self._left -= count
        return count

    def _read_framed(self, buffer: memoryview) -> int:
        """Bytes of a body in chunks, or one that ends with the connection: those have to go through h11."""
        if not self._buffered:
            self.until = min(time.monotonic() + self._stall_seconds, self._body_until)
            event = self._next_event(FRAMED_RECEIVE_BYTES)
            if not isinstance(event, h11.Data):
                self._left = 0
                self._kept_alive = self._protocol.their_state is h11.DONE
                return 0
            self._buffered = memoryview(bytes(event.data))
        count = min(len(buffer), len(self._buffered))
        buffer[:count] = self._buffered[:count]
        self._buffered = self._buffered[count:]
        return count

    def read_all(self, bytes_max: int) -> bytes:
        """A small body, however it is framed."""
        body = bytearray()
        while isinstance(event := self._next_event(), h11.Data):
            body += event.data
            if len(body) > bytes_max:
                raise TransferError(f"{self.where} sends more than {bytes_max} bytes")
        self._left, self._buffered = 0, memoryview(self._protocol.trailing_data[0])
        self._kept_alive = self._protocol.their_state is h11.DONE
        return bytes(body)

    @property
    def reusable(self) -> bool:
        """Whether the answer was read to its end, and another may follow."""
        return self._left == 0 and self._kept_alive and not self._buffered

    def abort(self) -> None:
        """Make another thread, which waits for this connection, see its end."""
        with contextlib.suppress(OSError):
            if isinstance(self._sock, socket.socket):
                # Not SSLSocket's own, after which that thread would take encrypted bytes for the body.
                socket.socket.shutdown(self._sock, socket.SHUT_RDWR)
            else:
                self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._sock.close()

    def _next_event(self, bytes_max: int = HEAD_RECEIVE_BYTES) -> object:
        """What h11 makes of what comes: an event, or that there is none any more."""
        try:
            while (event := self._protocol.next_event()) is h11.NEED_DATA:
                self._protocol.receive_data(self.receive(bytes_max))
        except h11.ProtocolError as error:
            raise TransferError(f"{self.where} did not answer in HTTP: {error}") from None
        return event

    def _receive(self, view: memoryview, until: float, flags: int = 0) -> int:
        """What came of as many bytes as `view` takes; 0 when the server has ended. Raises TimeoutError if none came in time."""
        while (left := until - time.monotonic()) > 0:
            self._wait_at_most(min(left, LOOK_SECONDS))
            try:
                return self._sock.recv_into(view, len(view), 0 if self._is_tls else flags)
            except (BlockingIOError, TimeoutError):
                continue
        raise TimeoutError

    def _wake_for(self, count: int) -> None:
        if count != self._wakes_bytes and not self._is_tls:
            self._wakes_bytes = count
            receive_at_least(self._sock, count)

    def _wait_at_most(self, seconds: float) -> None:
        if seconds != self._waits_seconds:
            self._waits_seconds = seconds
            if self._is_tls:
                self._sock.settimeout(seconds)
            else:
                wait_to_receive(self._sock, seconds)


class ConnectionPool:
    """Outgoing connections: those in use, and idle ones.

    A connection is used again only for the address, and the name or the fingerprint, that it was made for: its certificate was
    checked for no other.
    """

    def __init__(
        self,
        tls: ssl.SSLContext | None = None,
        idle_max: int = 0,
        window_bytes: int = 0,
        connect_seconds_max: float = CONNECT_SECONDS_MAX,
    ) -> None:
        """`idle_max` connections to each server are kept open when they are given back; without TLS only plain TCP is spoken.

        `window_bytes` bounds what a server may have sent that was not received yet, unless more comes in WINDOW_SECONDS; 0 leaves
        that to the kernel.
        """
        self._tls = tls
        self._idle_max = idle_max
        self._window_bytes = self._fitted_bytes = window_bytes
        """The least of a connection, and of a new one, which gets what the last one was found to need."""
        self._connect_seconds_max = connect_seconds_max
        self._lock = threading.Lock()
        self._busy: set[Connection] = set()
        self._idle: defaultdict[tuple[Address, str, Tunnel | None, bytes], list[Connection]] = defaultdict(list)
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
        if place.server_name and not (place.tls or self._tls):
            raise TransferError(f"{place.server_name} is not asked: there is no TLS here")
        for address in place.addresses:
            seconds = min(self._connect_seconds_max, until - time.monotonic())
            if seconds <= 0:
                break
            try:
                tls = (place.tls or self._tls) if place.server_name else None
                connection = connect(
                    address, place.server_name, tls, seconds, self._fitted_bytes, place.tunnel, place.fingerprint
                )
                connection.until = until
            except TransferError as failed:
                error = failed
                continue
            with self._lock:
                if not self._closed:
                    self._busy.add(connection)
                    return connection
            connection.close()
            raise NotTriedError("this process is stopping")
        raise error or StalledError(f"no time is left to connect to {place.addresses[0]}")

    def give_back(self, connection: Connection) -> None:
        """The caller is done with the answer, read to its end or not."""
        connection.idle_since = time.monotonic()
        with self._lock:
            self._drop_old(connection.idle_since)
            idle = self._idle[connection.where, connection.server_name, connection.tunnel, connection.fingerprint]
            if connection.reusable and not self._closed and len(idle) < self._idle_max:
                if self._window_bytes:
                    connection.fit_window(self._window_bytes, connection.idle_since)
                    self._fitted_bytes = connection.window_bytes
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
            self._fitted_bytes = self._window_bytes
            for idle in self._idle.values():
                for connection in idle:
                    connection.close()
            self._idle.clear()

    def _take_idle(self, place: Place) -> Connection | None:
        with self._lock:
            self._drop_old(time.monotonic())
            for address in place.addresses:
                if idle := self._idle.get((address, place.server_name, place.tunnel, place.fingerprint)):
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
