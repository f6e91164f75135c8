"""An HTTP/1.1 server for blob bytes: blocking sockets, one thread per connection, bodies sent by `sendfile`.

h11 reads and writes the protocol; this module owns sockets, threads, deadlines and limits, and knows nothing of registries.
The registry endpoint (`agent.registry`) and the piece server (`agent.upload`) are handlers on top of it. Why threads and not an
event loop is written in docs/decisions/0001.
"""

from __future__ import annotations

import logging
import os
import re
import select
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import h11

from agent.errors import DarnerError, RequestError, UsageError, oci_body
from agent.settings import Address

log = logging.getLogger(__name__)

HEAD_BYTES_MAX = 16 << 10
HEAD_SECONDS_MAX = 5.0
"""From the first byte of a request, or from the connection, to the end of its head."""
SEND_STALL_SECONDS_MAX = 60.0
"""How long a client may take nothing before it is given up. containerd unpacks while it pulls, which is slow on slow disks."""
SENDFILE_BYTES_MAX = 8 << 20
LINGER_SECONDS = 0.05

_REQUEST_START = re.compile(rb"[A-Z]{1,24}( |\Z)")
_REQUEST_LINE = re.compile(rb"[A-Z]{1,24} [^ \r\n]+ HTTP/1\.[01]\r?\n")
_NOT_HTTP = RequestError(400, "UNSUPPORTED", "this port speaks HTTP/1.1 without TLS")
_TOO_MANY = RequestError(503, "TOOMANYREQUESTS", "too many connections")


class ClientGone(Exception):  # noqa: N818 (an event, not a fault)
    """The client left, or took nothing for too long. Whatever was done for it can stop."""


@dataclass(frozen=True)
class Request:
    method: str
    target: str
    headers: dict[str, str]
    """Names in lower case; repeated ones joined by a comma (RFC 9110 section 5.3)."""


Handler = Callable[["Exchange"], None]


class Exchange:
    """One request and the answer to it. Raises ClientGone from every method that writes."""

    def __init__(self, sock: socket.socket, protocol: h11.Connection, request: Request) -> None:
        self.request = request
        self.answered = False
        self._sock = sock
        self._protocol = protocol

    def answer(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        """A whole answer. To a HEAD the body is left out, and its length is told all the same."""
        self.start(status, {**headers, "Content-Length": str(len(body))})
        if self.request.method != "HEAD" and body:
            self._send(self._protocol.send(h11.Data(data=body)))
        self.finish()

    def fail(self, error: DarnerError, headers: dict[str, str] | None = None) -> None:
        self.answer(error.status, {"Content-Type": "application/json", **(headers or {})}, oci_body(error))

    def start(self, status: int, headers: dict[str, str]) -> None:
        """The head of an answer whose `Content-Length` is among the headers."""
        self.answered = True
        self._send(self._protocol.send(h11.Response(status_code=status, headers=list(headers.items()))))

    def send_file(self, fd: int, offset: int, end: int) -> None:
        """Bytes `offset` to `end` of a file, straight from the page cache to the socket."""
        self._protocol.send_with_data_passthrough(h11.Data(data=_Counted(end - offset)))  # type: ignore[arg-type]
        while offset < end:
            try:
                sent = os.sendfile(self._sock.fileno(), fd, offset, min(end - offset, SENDFILE_BYTES_MAX))
            except BlockingIOError:
                self._wait_writable()
                continue
            except OSError as error:
                raise ClientGone from error
            if sent == 0:
                raise ClientGone("the file ended before its blob")
            offset += sent

    def send(self, data: memoryview | bytes) -> None:
        """Bytes that are in no file."""
        self._protocol.send_with_data_passthrough(h11.Data(data=_Counted(len(data))))  # type: ignore[arg-type]
        self._send(data)

    def finish(self) -> None:
        self._send(self._protocol.send(h11.EndOfMessage()))

    def client_left(self) -> bool:
        """Whether the client closed its side. Looks without waiting and takes nothing from the stream."""
        poll = select.poll()  # a socket with a timeout waits in `recv`, whatever flags it is given
        poll.register(self._sock, select.POLLIN)
        try:
            return bool(poll.poll(0)) and self._sock.recv(1, socket.MSG_PEEK) == b""
        except OSError:
            return True

    def abort(self) -> None:
        """End the connection so that the client cannot take what it got for the whole: by a reset."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._protocol.send_failed()

    def _send(self, data: bytes | memoryview | None) -> None:
        if data:
            try:
                self._sock.sendall(data)
            except OSError as error:
                raise ClientGone from error

    def _wait_writable(self) -> None:
        poll = select.poll()
        poll.register(self._sock, select.POLLOUT)
        if not poll.poll(SEND_STALL_SECONDS_MAX * 1000):
            raise ClientGone(f"took nothing for {SEND_STALL_SECONDS_MAX:.0f} s")


class _Counted:
    """Stands for bytes that `sendfile` sends, so that h11 counts them (h11's own advice on sendfile)."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __len__(self) -> int:
        return self._length


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
        self._open: set[socket.socket] = set()
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
        """Accept nothing more, let what is under way go on for a while, then cut it off."""
        self._stopping = True
        _shut(self._sock)  # wakes the accepting thread, which a close alone would not
        self._sock.close()
        end = time.monotonic() + drain_seconds
        while self._open and time.monotonic() < end:
            time.sleep(0.05)
        with self._lock:
            for sock in self._open:
                _shut(sock)

    def _accept(self) -> None:
        while not self._stopping:
            try:
                sock, peer = self._sock.accept()
            except OSError as error:
                if self._stopping:
                    return
                log.warning("%s: a connection cannot be accepted: %s", self.name, error)
                time.sleep(0.1)  # out of descriptors: some will be closed
                continue
            host = peer[0]
            with self._lock:
                refused = len(self._open) >= self._connections_max or self._from[host] >= self._per_address_max
                if not refused:
                    self._open.add(sock)
                    self._from[host] += 1
            if refused:
                _refuse(sock, _TOO_MANY)
                sock.close()
                continue
            try:
                threading.Thread(target=self._serve, args=(sock, host), name=f"{self.name} {host}", daemon=True).start()
            except RuntimeError:  # out of threads: this client can come back, the others go on
                _refuse(sock, _TOO_MANY)
                self._forget(sock, host)

    def _serve(self, sock: socket.socket, host: str) -> None:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._converse(sock)
        except (ClientGone, OSError) as error:
            log.debug("%s: %s left: %s", self.name, host, error)
        except Exception:
            log.exception("%s: a request failed inside", self.name)
        finally:
            self._forget(sock, host)

    def _forget(self, sock: socket.socket, host: str) -> None:
        with self._lock:
            self._open.discard(sock)
            self._from[host] -= 1
            if not self._from[host]:
                del self._from[host]
        sock.close()

    def _converse(self, sock: socket.socket) -> None:
        protocol = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES_MAX)
        wait_seconds = HEAD_SECONDS_MAX
        while not self._stopping:
            try:
                request = _read_request(sock, protocol, wait_seconds)
            except (h11.RemoteProtocolError, RequestError):
                _refuse(sock, _NOT_HTTP)
                return
            if request is None:
                return
            sock.settimeout(SEND_STALL_SECONDS_MAX)
            exchange = Exchange(sock, protocol, request)
            try:
                self._handle(exchange)
            except DarnerError as error:
                if exchange.answered:
                    log.warning("%s: %s is cut off: %s", self.name, request.target, error)
                    exchange.abort()
                    return
                exchange.fail(error)
            except Exception:
                exchange.abort()
                raise
            if protocol.our_state is not h11.DONE or protocol.their_state is not h11.DONE:
                _shut(sock)
                return
            protocol.start_next_cycle()
            wait_seconds = self._idle_seconds


def bind(where: Address, name: str) -> socket.socket:
    """A listening socket. Raises UsageError with one line when the port is taken or the address is not this machine's."""
    family = socket.AF_INET6 if ":" in where.host else socket.AF_INET
    try:
        return socket.create_server(where, family=family, backlog=1024)
    except OSError as error:
        raise UsageError(f"the {name} cannot listen on {where}: {os.strerror(error.errno or 0)}") from None


def _read_request(sock: socket.socket, protocol: h11.Connection, wait_seconds: float) -> Request | None:
    """The next request, or None when the client has no more. Raises when what comes is not a request of HTTP/1.1."""
    seen, _ = protocol.trailing_data
    deadline = time.monotonic() + (HEAD_SECONDS_MAX if seen else wait_seconds)
    while (event := protocol.next_event()) is h11.NEED_DATA:
        sock.settimeout(max(0.001, deadline - time.monotonic()))
        try:
            data = sock.recv(HEAD_BYTES_MAX)
        except TimeoutError:
            if seen:
                raise _NOT_HTTP from None
            return None
        if not data:
            return None
        if not seen:
            deadline = time.monotonic() + HEAD_SECONDS_MAX
        # What is plainly something else is answered now: h11 would wait for the rest of a head that never comes.
        seen += data
        if not (_REQUEST_LINE if b"\n" in seen else _REQUEST_START).match(seen):
            raise _NOT_HTTP
        protocol.receive_data(data)
    if not isinstance(event, h11.Request):
        return None
    headers = joined(event.headers)
    if "content-length" not in headers and "transfer-encoding" not in headers:
        protocol.next_event()  # the end of a message without a body
    return Request(event.method.decode("ascii"), event.target.decode("latin-1"), headers)


def joined(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Headers by lower-case name, repeated ones joined by a comma."""
    result: dict[str, str] = {}
    for raw_name, raw_value in headers:
        name, value = raw_name.decode("ascii").lower(), raw_value.decode("latin-1")
        result[name] = f"{result[name]}, {value}" if name in result else value
    return result


def _refuse(sock: socket.socket, error: DarnerError) -> None:
    """Answer in HTTP/1.1 whatever the client speaks, and close: containerd 2 goes on from TLS to HTTP only when it sees that."""
    body = oci_body(error)
    head = (
        f"HTTP/1.1 {error.status} Refused\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    try:
        sock.settimeout(LINGER_SECONDS)
        sock.sendall(head.encode() + body)
        sock.shutdown(socket.SHUT_WR)
        sock.recv(HEAD_BYTES_MAX)  # unread bytes at close would reset the connection under the answer
    except OSError:
        return


def _shut(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        return
