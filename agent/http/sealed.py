"""TLS over blocking sockets, without an authority: one end of it by itself, and a connection that is used as a socket is.

`Tls` reads no socket. `Sealed` is a connected socket inside TLS whose limits on time are kept by the kernel, as those of a plain
one are (`agent.http.wire`). `ssl.SSLSocket` has a `poll` before each call and wakes its thread for each record. Who the other end
is, its certificate's fingerprint says, to whoever knows that (docs/decisions/0026).
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import socket
import ssl
import threading
import time
from functools import cache
from typing import Any

from agent.http.wire import wait_to_receive

RECORD_BYTES = 16 << 10
"""Of a TLS record at most. What is fed and sealed at once is no more, or a connection would keep the memory for it."""
SEALED_BYTES = 64 << 10
"""Likewise of a connection that moves pieces, of which there are hundreds and not ten thousand: four records for one call of the
system."""
HELLO_BYTE = b"\x16"
"""The first of what a client of TLS says (RFC 8446, section 5.1), which no request of HTTP begins with."""

_staging = threading.local()


def fingerprint_of(certificate: bytes) -> bytes:
    """SHA-256 of a certificate in DER."""
    return hashlib.sha256(certificate).digest()


@cache
def client_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # There is no authority to ask and no name to compare: the certificate itself is compared, or proven under the swarm's key.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Tls:
    """One end of TLS, which reads no socket: it is fed what came, and gives what is to be sent."""

    __slots__ = ("_incoming", "_object", "_outgoing", "_shaken")

    def __init__(self, context: ssl.SSLContext, *, server: bool) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object: Any = context.wrap_bio(self._incoming, self._outgoing, server_side=server)
        self._shaken = False

    @property
    def shaken(self) -> bool:
        """Whether both ends agree on keys: from then on `seal` may be called."""
        return self._shaken

    def feed(self, data: bytes | memoryview = b"") -> bytes:
        """What `data` says, or b"" when more of it has to come. `pending` may have to be sent. Raises ssl.SSLError."""
        said = bytearray()
        view = memoryview(data)
        for start in range(0, max(1, len(view)), RECORD_BYTES):
            self._incoming.write(view[start : start + RECORD_BYTES])
            with contextlib.suppress(ssl.SSLWantReadError):
                if not self._shaken:
                    self._object.do_handshake()
                    self._shaken = True
                while part := self._object.read(RECORD_BYTES):
                    said += part
                    if not self._incoming.pending and not self._object.pending():
                        break  # to ask once more would be an exception, which costs as much as all the rest
        return bytes(said)

    def shake(self, data: memoryview | bytes) -> None:
        """Go on agreeing with the other end, which has said `data`. `pending` may have to be sent. Raises ssl.SSLError."""
        self._incoming.write(data)
        with contextlib.suppress(ssl.SSLWantReadError):
            self._object.do_handshake()
            self._shaken = True

    def take(self, data: memoryview) -> None:
        """Keep what came, for `read_into`: not more than SEALED_BYTES, once all that came before was read."""
        self._incoming.write(data)

    def read_into(self, view: memoryview) -> int:
        """Put what was said into `view`, as much as is there; 0 when more has to come. Raises ssl.SSLError."""
        count = 0
        with contextlib.suppress(ssl.SSLWantReadError):
            while count < len(view) and (read := self._object.read(len(view) - count, view[count:])):
                count += read
        return count

    def seal(self, data: bytes) -> bytes:
        """The bytes that say `data`. Raises ssl.SSLError."""
        sealed = bytearray()
        for start in range(0, len(data), RECORD_BYTES):
            self._object.write(data[start : start + RECORD_BYTES])
            sealed += self._outgoing.read()
        return bytes(sealed)

    def seal_part(self, data: memoryview) -> bytes:
        """The same of at most SEALED_BYTES, copied as seldom as can be."""
        self._object.write(data)
        return self._outgoing.read()

    def pending(self) -> bytes:
        """What TLS itself has to say."""
        return self._outgoing.read()

    def certificate(self) -> bytes:
        """The other end's, in DER."""
        certificate: bytes = self._object.getpeercert(binary_form=True) or b""
        return certificate


class Sealed:
    """A connected socket inside TLS, with the methods of a socket that HTTP needs here. One thread uses it at a time."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, *, server: bool) -> None:
        self.plain = sock
        """The socket itself, for what TLS has no part in."""
        self._tls = Tls(context, server=server)
        self.setsockopt, self.settimeout, self.shutdown, self.close = sock.setsockopt, sock.settimeout, sock.shutdown, sock.close

    @classmethod
    def to(cls, sock: socket.socket, fingerprint: bytes, until: float) -> Sealed:
        """A client's, to whoever has the certificate of that fingerprint. Raises what `shake` raises, also for another one."""
        sealed = cls(sock, client_context(), server=False)
        sealed.shake(until)
        if not hmac.compare_digest(fingerprint_of(sealed._tls.certificate()), fingerprint):
            raise ConnectionError("it has another certificate than the supernode says")
        return sealed

    def shake(self, until: float) -> None:
        """Agree with the other end on keys, by that time (monotonic). Raises TimeoutError, ssl.SSLError and OSError."""
        data = b""
        while True:
            self._tls.shake(data)
            if pending := self._tls.pending():
                self.plain.sendall(pending)
            if self._tls.shaken:
                return
            if (left := until - time.monotonic()) <= 0:
                raise TimeoutError
            wait_to_receive(self.plain, left)
            try:
                data = self.plain.recv(RECORD_BYTES)
            except BlockingIOError:
                raise TimeoutError from None
            if not data:
                raise ConnectionError("it ended the connection instead of beginning TLS")

    def recv_into(self, view: memoryview, count: int, flags: int = 0) -> int:
        """As a socket's, but for one thing: BlockingIOError may also mean that what came says nothing yet."""
        view = view[:count]
        if read := self._tls.read_into(view):
            return read
        staged = _staged()
        came = self.plain.recv_into(staged, min(count, len(staged)), flags)
        if not came:
            return 0
        self._tls.take(staged[:came])
        read = self._tls.read_into(view)
        if pending := self._tls.pending():
            self.plain.sendall(pending)
        if not read:
            raise BlockingIOError
        return read

    def recv(self, count: int) -> bytes:
        data = bytearray(count)
        return bytes(data[: self.recv_into(memoryview(data), count)])

    def sendall(self, data: bytes | memoryview, flags: int = 0) -> None:
        view = memoryview(data)
        for start in range(0, len(view), SEALED_BYTES):
            self.plain.sendall(self._tls.seal_part(view[start : start + SEALED_BYTES]), flags)


def _staged() -> memoryview:
    """This thread's buffer for what comes inside TLS."""
    if not hasattr(_staging, "view"):
        _staging.view = memoryview(bytearray(SEALED_BYTES))
    view: memoryview = _staging.view
    return view
