"""An HTTP/1.1 server for blob bytes: blocking sockets, one thread per connection, each request given to a handler.

A `Listener` owns the sockets, the threads and how many there may be; `Requests` reads one client's requests by h11, each within
its deadline; an `Exchange` is one of them and the answer to it, kept within the length that its head announces, whose body may be
sent by `sendfile`. What clients send in a body is never read. The registry endpoint (`agent.registry.endpoint`) and the piece
server (`agent.swarm.piece_server`) are handlers on top of it. Why threads and not an event loop is in docs/decisions/0001.

A listener with a certificate speaks TLS too, to those whose first byte says that they do. One may be at a Unix socket instead of
a port: who may connect there is the file's mode to say.
"""

from __future__ import annotations

import errno
import ipaddress
import logging
import os
import re
import socket
import ssl
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import h11

from agent.http.port import listening_socket
from agent.http.sealed import HELLO_BYTE, SEALED_BYTES, Sealed
from agent.http.unix import UnixSocket
from agent.http.wire import (
    HEAD_BYTES_MAX,
    Stream,
    answer_head,
    buffer,
    do_not_pace,
    joined,
    stays_open,
    wait_to_receive,
    wait_to_send,
)
from agent.values.address import Address
from agent.values.errors import DarnerError, RequestError, StoreError, UsageError, oci_body

log = logging.getLogger(__name__)

BACKLOG = 1024
ACCEPT_RETRY_SECONDS = 0.1
ACCEPT_WARNING_SECONDS = 10.0
"""Between two lines in the log about connections that cannot be accepted."""
HEAD_SECONDS_MAX = 5.0
"""From the connection to the end of its first request's head, TLS included; of a later one from its first byte."""
WAIT_CHANGE_SECONDS_MIN = 0.01
"""How much sooner or later than it should a wait for a head may end, which its deadline is looked at again after."""
SEND_STALL_SECONDS_MAX = 60.0
"""How long a client may take nothing before it is given up. containerd unpacks while it pulls, which is slow on slow disks."""
SENDFILE_BYTES_MAX = 8 << 20
PACKET_BYTES_MAX = 64 << 10
"""The longest body that goes with its head in one call."""
LINGER_SECONDS = 0.05
"""How long a client that is turned away may go on sending, so that the answer reaches it before the end of the connection."""
LINGER_READS_MAX = 64
ENDING_MAX = 64
"""Connections that were told to make room, whose threads have not ended yet."""
SHOWN_CHARACTERS_MAX = 256

_USER = re.compile(r"//[^/@]*@")
_NAMED = re.compile(r"ns=[^@%]*(?:%3[Aa][0-9]+)?")
"""The registry that a runtime means by its mirror; all else of a query stays out of the log."""
_REQUEST_START = re.compile(rb"[A-Z]{1,24}( |\Z)")
_REQUEST_LINE = re.compile(rb"[A-Z]{1,24} [^ \r\n]+ HTTP/1\.[01]\r?\n")

_TOO_MANY = RequestError(503, "TOOMANYREQUESTS", "too many connections")
NOT_HTTP = RequestError(
    400, "UNSUPPORTED", f"this port speaks HTTP/1.1 without TLS, with heads of at most {HEAD_BYTES_MAX} bytes"
)


class ClientGone(Exception):  # noqa: N818 (an event, not a fault)
    """The client left, or took nothing for too long. Whatever was done for it can stop."""


@dataclass(frozen=True)
class Request:
    method: str
    target: str
    headers: dict[str, str]
    """Names in lower case; repeated ones joined by a comma (RFC 9110 section 5.3)."""
    keeps_connection: bool = True
    """Whether another request may follow on the connection: the client wants it, and sends no body, which nothing here reads."""

    def __str__(self) -> str:
        """For the log: nothing that it could break, not too much of it, and no secret that a client has put into its URL."""
        path, _, query = self.target.partition("?")
        named = next((field for field in query.split("&") if _NAMED.fullmatch(field)), "")
        shown = _USER.sub("//", path) + ("?" if query else "") + named
        return f"{self.method} {ascii(shown[:SHOWN_CHARACTERS_MAX])[1:-1]}"


class Exchange:
    """One request and the answer to it. Raises ClientGone from every method that writes."""

    def __init__(self, stream: Stream, sock: socket.socket, request: Request) -> None:
        """`stream` is the client's connection: the socket, or TLS over it."""
        self.request = request
        self.began = time.monotonic()
        self.answered = False
        self.reusable = False
        """Whether another request may follow on the same connection: this one was answered to its end."""
        self.body_sent = 0
        """Bytes of the body that the socket took."""
        self._body_bytes = 0
        """Of the whole body, as the head announces it."""
        self._sock = sock
        self._stream = stream
        self._unsent_head = b""
        """It goes with the first bytes of the body, in one packet."""

    @property
    def sealed(self) -> bool:
        """Whether nobody on the way can read what is sent."""
        return self._stream is not self._sock

    @property
    def reached(self) -> Address:
        """The address of this server that the client has connected to."""
        return Address(*self._sock.getsockname()[:2])

    def answer(self, status: int, headers: dict[str, str], body: bytes = b"", phrase: str = "") -> None:
        """A whole answer, in one packet if it is small. To a HEAD the body is left out, and its length is told all the same."""
        shown = b"" if self.request.method == "HEAD" else body
        head = self._head(status, {**headers, "Content-Length": str(len(body))}, phrase)
        if len(shown) > PACKET_BYTES_MAX:  # as it is, and not once more for each client
            self._send(head, socket.MSG_MORE)
            self._send(shown)
        else:
            self._send(head + shown)
        self._count(len(shown))
        self.finish()

    def fail(self, error: DarnerError, headers: dict[str, str] | None = None) -> None:
        self.answer(error.status, {"Content-Type": "application/json", **(headers or {})}, oci_body(error), error.phrase)

    def start(self, status: int, headers: dict[str, str]) -> None:
        """The head of an answer whose `Content-Length` is among the headers."""
        self._unsent_head = self._head(status, headers)

    def _head(self, status: int, headers: dict[str, str], phrase: str = "") -> bytes:
        self.answered = True
        self._body_bytes = 0 if self.request.method == "HEAD" else int(headers["Content-Length"])
        return answer_head(status, headers if self.request.keeps_connection else {**headers, "Connection": "close"}, phrase)

    def send_file(self, fd: int, offset: int, end: int) -> None:
        """Bytes of a file, straight from the page cache to the socket. Raises StoreError when it is the file that fails."""
        self._send_head(socket.MSG_MORE)
        while offset < end:
            try:
                if self.sealed:
                    sent = os.preadv(fd, [buffer()[: min(end - offset, SEALED_BYTES)]], offset)
                    self._send(buffer()[:sent])
                else:
                    sent = os.sendfile(self._sock.fileno(), fd, offset, min(end - offset, SENDFILE_BYTES_MAX))
            except OSError as error:
                if error.errno == errno.EIO:  # of all that can go wrong here this alone is not the socket's
                    raise StoreError(f"a blob cannot be read from the store: {error.strerror}") from error
                raise ClientGone from error
            if sent == 0:
                raise StoreError("a file in the store is shorter than its blob")
            offset += sent
            self._count(sent)

    def send(self, data: memoryview | bytes) -> None:
        """Bytes that are in no file."""
        if data:
            self._send_head(socket.MSG_MORE)
            self._send(data)
            self._count(len(data))

    def finish(self) -> None:
        """That was all of the answer. Raises ValueError when it is shorter than it announced."""
        self._send_head()
        if self.body_sent < self._body_bytes:
            raise ValueError("an answer is shorter than it announced")
        self.reusable = self.request.keeps_connection

    def client_left(self) -> bool:
        """Whether the client closed its side. Looks without waiting and takes nothing from the stream."""
        try:
            return self._sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    def abort(self) -> None:
        """End the connection so that the client cannot take what it got for the whole: by a reset."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._send_head()

    def _send_head(self, flags: int = 0) -> None:
        head, self._unsent_head = self._unsent_head, b""
        self._send(head, flags)

    def _send(self, data: bytes | memoryview | None, flags: int = 0) -> None:
        if data:
            try:
                self._stream.sendall(data, flags)
            except OSError as error:
                raise ClientGone from error

    def _count(self, length: int) -> None:
        self.body_sent += length
        if self.body_sent > self._body_bytes:
            raise ValueError("an answer is longer than it announced")


class Requests:
    """The requests of one client, one after the other."""

    def __init__(self, stream: Stream, until: float) -> None:
        """The first one's head has to be here by that time (monotonic)."""
        self._stream = stream
        self._until = until
        self._rest = b""
        """What came behind the last request."""
        self._waits_seconds = 0.0
        """What the socket was last told of how long it may wait; 0 when it was not."""

    def next(self, wait_seconds: float | None = None) -> Request | None:
        """The next request, or None when the client has no more. Raises RequestError when what comes is not one of HTTP/1.1.

        Its first byte is waited for as long as is said; of the first one it is known when all of its head is here.
        """
        protocol = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES_MAX)
        try:
            head = self._receive_head(protocol, wait_seconds)
        except h11.RemoteProtocolError:
            raise NOT_HTTP from None
        if head is None:
            return None
        self._rest = protocol.trailing_data[0]
        headers = joined(head.headers)
        has_body = "content-length" in headers or "transfer-encoding" in headers
        keeps_connection = stays_open(head.http_version, headers) and not has_body
        return Request(head.method.decode("ascii"), head.target.decode("latin-1"), headers, keeps_connection)

    def _receive_head(self, protocol: h11.Connection, wait_seconds: float | None) -> h11.Request | None:
        """What h11 makes of all that comes up to the end of a head. Raises what `next` raises, and h11's RemoteProtocolError."""
        seen = self._rest
        deadline = self._until
        if wait_seconds is not None:
            deadline = time.monotonic() + (HEAD_SECONDS_MAX if seen else wait_seconds)
        if seen:  # to h11, no bytes are the end of the connection
            protocol.receive_data(seen)
        while (event := protocol.next_event()) is h11.NEED_DATA:
            self._wait_at_most(max(0.001, deadline - time.monotonic()))
            try:
                data = self._stream.recv(HEAD_BYTES_MAX)
            except BlockingIOError:
                if time.monotonic() < deadline:
                    continue
                if seen:
                    raise NOT_HTTP from None
                return None
            if not data:
                return None
            if not seen and wait_seconds is not None:
                deadline = time.monotonic() + HEAD_SECONDS_MAX
            # What is plainly something else is answered now: h11 would wait for the rest of a head that never comes.
            seen += data
            if not (_REQUEST_LINE if b"\n" in seen else _REQUEST_START).match(seen):
                raise NOT_HTTP
            protocol.receive_data(data)
        return event if isinstance(event, h11.Request) else None

    def _wait_at_most(self, seconds: float) -> None:
        """A connection waits for each of its requests as long as for the one before; the kernel is not told that again."""
        if abs(seconds - self._waits_seconds) > WAIT_CHANGE_SECONDS_MIN:
            self._waits_seconds = seconds
            wait_to_receive(self._stream, seconds)


def refuse(sock: Stream, error: DarnerError, linger_seconds: float = LINGER_SECONDS) -> None:
    """Answer in HTTP/1.1 whatever the client speaks, and close: containerd 2 goes on from TLS to HTTP only when it sees that."""
    body = oci_body(error)
    headers = {"Connection": "close", "Content-Type": "application/json", "Content-Length": str(len(body))}
    try:
        sock.settimeout(linger_seconds)
        sock.sendall(answer_head(error.status, headers) + body)
    except OSError:
        return
    part(sock, linger_seconds)


def part(sock: Stream, linger_seconds: float = LINGER_SECONDS) -> None:
    """Say that nothing more comes, and take a little of what the client still sends.

    What is unread when a socket is closed resets the connection under the answer (RFC 9112 section 9.6).
    """
    deadline = time.monotonic() + linger_seconds
    try:
        sock.shutdown(socket.SHUT_WR)
        for _ in range(LINGER_READS_MAX):
            sock.settimeout(max(0.0, deadline - time.monotonic()))
            if not sock.recv(HEAD_BYTES_MAX):
                return
    except OSError:
        return


Handler = Callable[[Exchange], None]


class State(Enum):
    """Of a connection."""

    SILENT = "it has made no request yet"
    BUSY = "a request is under way"
    IDLE = "its last request was answered"


class Listener:
    """Accepts connections and gives each request to `handle`. Limits are numbers of connections, in all and from one address.

    Where there are as many as may be, the one that has been silent for longest makes room for a new one.
    """

    def __init__(
        self,
        where: Address | UnixSocket,
        handle: Handler,
        *,
        name: str,
        connections_max: int,
        per_address_max: int,
        idle_seconds: float,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.name = name
        self._tls = tls
        self._handle = handle
        self._connections_max = connections_max
        self._per_address_max = per_address_max
        self._idle_seconds = idle_seconds
        self._lock = threading.Lock()
        self._from: Counter[str] = Counter()
        self._open: dict[socket.socket, State] = {}
        """The connections, the oldest first."""
        self._ending = 0
        """Those that make room, until their threads have ended."""
        self._stopping = False
        self._where = where
        self._sock = where.listen(BACKLOG) if isinstance(where, UnixSocket) else bind(where, name)
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
        if isinstance(self._where, UnixSocket):
            self._where.remove()  # as long as it is surely this one's: the next process makes its own when nobody listens
        _shut(self._sock)  # wakes the accepting thread, which a close alone would not
        self._sock.close()
        self._shut_open(busy=False)
        end = time.monotonic() + drain_seconds
        while self._open and time.monotonic() < end:
            time.sleep(0.01)
        self._shut_open(busy=True)

    def _shut_open(self, *, busy: bool) -> None:
        with self._lock:
            for sock in [sock for sock, state in self._open.items() if (state is State.BUSY) == busy]:
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
            self._admit(sock, peer[0] if peer else "")

    def _admit(self, sock: socket.socket, host: str) -> None:
        """Give the connection a thread, or turn it away without waiting for it: others wait behind it."""
        with self._lock:
            admitted = self._from[host] < self._per_address_max and self._has_room()
            if admitted:
                self._open[sock] = State.SILENT
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

    def _has_room(self) -> bool:
        """Whether there is room for one more, after making it if need be. Called with the lock."""
        if len(self._open) < self._connections_max:
            return True
        silent = next((sock for sock, state in self._open.items() if state is State.SILENT), None)
        if silent is None or self._ending >= ENDING_MAX:
            return False
        del self._open[silent]
        self._ending += 1
        _shut(silent)
        return True

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
            if self._open.pop(sock, None) is None:
                self._ending -= 1
            self._from[host] -= 1
            if not self._from[host]:
                del self._from[host]
        sock.close()

    def _converse(self, sock: socket.socket) -> None:
        wait_to_send(sock, SEND_STALL_SECONDS_MAX)
        until = time.monotonic() + HEAD_SECONDS_MAX
        stream = self._opened(sock, until) if self._tls else sock
        requests = Requests(stream, until)
        wait_seconds: float | None = None
        while not self._stopping:
            try:
                request = requests.next(wait_seconds)
            except RequestError as error:
                refuse(stream, error)
                return
            if request is None or not self._note(sock, State.BUSY):
                return
            exchange = Exchange(stream, sock, request)
            if not self._answer(exchange):
                return
            if not exchange.reusable:
                part(sock)
                return
            self._note(sock, State.IDLE)
            wait_seconds = self._idle_seconds

    def _opened(self, sock: socket.socket, until: float) -> Stream:
        """The connection, inside TLS if its client speaks that. Raises OSError."""
        assert self._tls  # noqa: S101 (who calls has looked)
        wait_to_receive(sock, until - time.monotonic())
        if sock.recv(1, socket.MSG_PEEK) != HELLO_BYTE:
            return sock
        sealed = Sealed(sock, self._tls, server=True)
        sealed.shake(until)
        return sealed

    def _note(self, sock: socket.socket, state: State) -> bool:
        """Whether the connection goes on: it may have had to make room."""
        with self._lock:
            if sock not in self._open:
                return False
            self._open[sock] = state
            return True

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
