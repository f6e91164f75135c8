"""An HTTP/1.1 server for blob bytes: blocking sockets, one thread per connection, each request given to a handler.

This module owns the sockets, the threads and how many there may be; what is said on one connection is `agent.http.request`'s. The
registry endpoint (`agent.registry.endpoint`) and the piece server (`agent.swarm.piece_server`) are handlers on top of it. Why
threads and not an event loop is written in docs/decisions/0001.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable

from agent.http.port import listening_socket
from agent.http.request import HEAD_SECONDS_MAX, ClientGone, Exchange, Requests, part, refuse
from agent.http.wire import do_not_pace
from agent.values.address import Address
from agent.values.errors import DarnerError, RequestError, UsageError

log = logging.getLogger(__name__)

BACKLOG = 1024
ACCEPT_RETRY_SECONDS = 0.1
ACCEPT_WARNING_SECONDS = 10.0
"""Between two lines in the log about connections that cannot be accepted."""

_TOO_MANY = RequestError(503, "TOOMANYREQUESTS", "too many connections")

Handler = Callable[[Exchange], None]


class Listener:
    """Accepts connections and gives each request to `handle`. Limits are numbers of connections, in all and from one address."""

    def __init__(
        self, where: Address, handle: Handler, *, name: str, connections_max: int, per_address_max: int, idle_seconds: float
    ) -> None:
        self.name = name
        self._handle = handle
        self._connections_max = connections_max
        self._per_address_max = per_address_max
        self._idle_seconds = idle_seconds
        self._lock = threading.Lock()
        self._from: Counter[str] = Counter()
        self._open: dict[socket.socket, bool] = {}
        """The connections, and whether a request is under way on each."""
        self._stopping = False
        self._sock = bind(where, name)
        self._thread = threading.Thread(target=self._accept, name=name, daemon=True)

    @property
    def address(self) -> Address:
        host, port = self._sock.getsockname()[:2]
        return Address(host, port)

    def start(self) -> None:
        self._thread.start()

    def stop(self, drain_seconds: float = 0.0) -> None:
        """Accept nothing more, close what is idle, let what is under way go on for a while, then cut it off."""
        self._stopping = True
        _shut(self._sock)  # wakes the accepting thread, which a close alone would not
        self._sock.close()
        self._shut_open(busy=False)
        end = time.monotonic() + drain_seconds
        while self._open and time.monotonic() < end:
            time.sleep(0.01)
        self._shut_open(busy=True)

    def _shut_open(self, *, busy: bool) -> None:
        with self._lock:
            for sock in [sock for sock, is_busy in self._open.items() if is_busy == busy]:
                _shut(sock)

    def _accept(self) -> None:
        warned_at = -ACCEPT_WARNING_SECONDS
        while not self._stopping:
            try:
                sock, peer = self._sock.accept()
            except OSError as error:
                if self._stopping:
                    return
                if time.monotonic() - warned_at >= ACCEPT_WARNING_SECONDS:
                    warned_at = time.monotonic()
                    log.warning("%s: connections cannot be accepted: %s", self.name, error)
                time.sleep(ACCEPT_RETRY_SECONDS)  # out of descriptors: some will be closed
                continue
            self._admit(sock, peer[0])

    def _admit(self, sock: socket.socket, host: str) -> None:
        """Give the connection a thread, or turn it away without waiting for it: others wait behind it."""
        with self._lock:
            admitted = len(self._open) < self._connections_max and self._from[host] < self._per_address_max
            if admitted:
                self._open[sock] = False
                self._from[host] += 1
        if not admitted:
            refuse(sock, _TOO_MANY, linger_seconds=0)
            sock.close()
            return
        try:
            threading.Thread(target=self._serve, args=(sock, host), name=f"{self.name} {host}", daemon=True).start()
        except RuntimeError:  # out of threads: this client can come back, the others go on
            refuse(sock, _TOO_MANY, linger_seconds=0)
            self._forget(sock, host)

    def _serve(self, sock: socket.socket, host: str) -> None:
        try:
            self._converse(sock)
        except (ClientGone, OSError) as error:
            log.debug("%s: %s left: %s", self.name, host, error)
        except Exception:
            log.exception("%s: a connection failed inside", self.name)
        finally:
            self._forget(sock, host)

    def _forget(self, sock: socket.socket, host: str) -> None:
        with self._lock:
            self._open.pop(sock, None)
            self._from[host] -= 1
            if not self._from[host]:
                del self._from[host]
        sock.close()

    def _converse(self, sock: socket.socket) -> None:
        requests = Requests(sock)
        wait_seconds = HEAD_SECONDS_MAX
        while not self._stopping:
            try:
                request = requests.next(wait_seconds)
            except RequestError as error:
                refuse(sock, error)
                return
            if request is None:
                return
            self._open[sock] = True
            exchange = Exchange(sock, request)
            if not self._answer(exchange):
                return
            if not exchange.reusable:
                part(sock)
                return
            self._open[sock] = False
            wait_seconds = self._idle_seconds

    def _answer(self, exchange: Exchange) -> bool:
        """Whether the request was answered to its end. An answer that broke off is cut, never ended cleanly."""
        try:
            self._handle(exchange)
            return True
        except ClientGone:
            raise
        except DarnerError as error:
            failure = error
        except Exception as error:
            log.exception("%s: %s failed inside", self.name, exchange.request)
            failure = DarnerError(f"the request failed inside: {type(error).__name__}")
        if exchange.answered:
            log.warning("%s: %s is cut off: %s", self.name, exchange.request, failure)
            exchange.abort()
            return False
        exchange.fail(failure)
        return True


def bind(where: Address, name: str) -> socket.socket:
    """A listening socket. Raises UsageError with one line when the port stays taken or the address is not this machine's."""
    try:
        sock = listening_socket(where, name, BACKLOG)
    except OSError as error:
        # Numbers below zero are the resolver's, which says in words what they mean.
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise UsageError(f"the {name} cannot listen on {where}: {reason}") from None
    if ipaddress.ip_address(sock.getsockname()[0]).is_loopback:
        do_not_pace(sock)
    return sock


def _shut(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        return
