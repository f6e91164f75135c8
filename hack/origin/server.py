"""The origin as a server: sockets and threads, the faults carried out, and the count of what was sent.

Owns its listening socket and its connections; `stop` ends both at once, as a machine that loses its power would, and `start`
comes back on the same port. What is answered is decided in `answers`; nothing here knows what a manifest is.
"""

from __future__ import annotations

import contextlib
import copy
import gzip
import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from hack.origin.access import Access
from hack.origin.answers import Answer, Repositories, document, refusal
from hack.origin.faults import NO_FAULT, TOO_MANY, Fault, ResetError
from hack.origin.image import Image
from hack.ports import free_port

CHUNK_BYTES = 256 << 10
IDLE_SECONDS = 60
TLS = ssl.SSLContext | None
SENT = "/-/sent"
"""Tells the blob bytes sent so far; neither logged nor broken, so that a look does not change what is seen."""


@dataclass
class Request:
    """One request, from its arrival on: `status` is 0 until it is answered, `body_bytes` grows while the body is sent."""

    method: str
    path: str
    headers: Message
    """Looked up without regard to case, as in `request.headers.get("range")`."""
    status: int = 0
    body_bytes: int = 0
    body_bytes_max: int = 0
    """What the body has, if nothing breaks it off."""


@dataclass
class _Switched:
    fault: Fault
    times: float


class Origin:
    """An origin registry on loopback. Use it as a context manager, or call `start` and `stop`."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0, access: Access | None = None, tls: TLS = None) -> None:
        self.repositories = Repositories(access or Access())
        self.requests: list[Request] = []
        self.blob_bytes_sent = 0
        self._host, self._port, self._tls = host, port, tls
        self._faults: list[_Switched] = []
        self._habits: list[Fault] = []
        self._under_way: list[Request] = []
        self._lock = threading.Lock()
        self._server: _Server | None = None

    @property
    def address(self) -> str:
        """HOST:PORT, the same before, during and after a stop once it has been started."""
        return f"{self._host}:{self._port}"

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://{self.address}"

    def push(self, repository: str, tag: str, image: Image) -> Image:
        """Holds the image from now on, and moves the tag to it."""
        return self.repositories.push(repository, tag, image)

    def fail(self, fault: Fault, times: float = float("inf")) -> None:
        """The next `times` requests that the fault hits are answered by it. Of several faults the first that hits is taken."""
        with self._lock:
            self._faults.append(_Switched(fault, times))

    def behave(self, habit: Fault) -> None:
        """All requests that the habit hits are answered so, besides what else happens to them. Of two the first counts more."""
        with self._lock:
            self._habits.append(habit)

    @property
    def faults(self) -> list[Fault]:
        """Those that are switched on, and the habits."""
        return [*(switched.fault for switched in self._faults), *self._habits]

    def heal(self) -> None:
        """No fault is switched on any more; habits stay."""
        with self._lock:
            self._faults.clear()

    def asked(self, path: str = "", method: str = "") -> list[Request]:
        """The requests so far, those whose path contains `path` and whose method is `method`."""
        return [seen for seen in list(self.requests) if path in seen.path and method in ("", seen.method)]

    def start(self) -> None:
        self._port = self._port or free_port(self._host)  # the same again, when it is started anew
        self._server = _Server((self._host, self._port), self, self._tls)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), name=f"origin-{self._port}").start()

    def stop(self) -> None:
        """Refuses connections and cuts those that are open, in the middle of what they send. Nothing is left running."""
        if self._server:
            self._server.stop()
            self._server = None

    def __enter__(self) -> Origin:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    @contextlib.contextmanager
    def answering(self, request: Request) -> Iterator[Fault]:
        """What is wrong with the answer that is given while this lasts."""
        with self._lock:
            fault = self._fault_for(request)
            self.requests.append(request)
            if fault is not TOO_MANY:
                self._under_way.append(request)
        try:
            yield fault
        finally:
            self._ended(request)

    def begun(self, request: Request, answer: Answer) -> None:
        request.status, request.body_bytes_max = answer.status, answer.end - answer.start
        if request.method == "HEAD" or not request.body_bytes_max:
            self._ended(request)

    def sent(self, request: Request, body_bytes: int, is_blob: bool) -> None:
        with self._lock:
            request.body_bytes += body_bytes
            self.blob_bytes_sent += body_bytes if is_blob else 0
        if request.body_bytes >= request.body_bytes_max:
            self._ended(request)

    def _fault_for(self, request: Request) -> Fault:
        hit = [switched for switched in self._faults if switched.times > 0 and _hits(switched.fault, request)][:1]
        habits = [habit for habit in self._habits if _hits(habit, request)]
        if any(self._is_full(fault) for fault in [*(switched.fault for switched in hit), *habits]):
            return TOO_MANY
        fault = NO_FAULT
        for switched in hit:
            switched.times -= 1
            fault = switched.fault
        for habit in habits:
            fault = fault.besides(habit)
        return fault

    def _is_full(self, fault: Fault) -> bool:
        return fault.at_once_max is not None and sum(_hits(fault, other) for other in self._under_way) >= fault.at_once_max

    def _ended(self, request: Request) -> None:
        """Before its last byte leaves, so that who has that may ask again at once."""
        with self._lock, contextlib.suppress(ValueError):
            self._under_way.remove(request)


def _hits(fault: Fault, request: Request) -> bool:
    return fault.hits(request.method, request.path)


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 256

    def __init__(self, address: tuple[str, int], origin: Origin, tls: TLS) -> None:
        self.origin, self.tls = origin, tls
        self.stopping = threading.Event()
        self.connections: set[socket.socket] = set()
        super().__init__(address, _Handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        if self.tls:
            connection = self.tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        self.connections.add(connection)
        return connection, address

    def close_request(self, request: Any) -> None:
        self.connections.discard(request)
        super().close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves is everyday business; anything else is a mistake of ours and must be seen."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    def stop(self) -> None:
        self.shutdown()
        self.stopping.set()
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = IDLE_SECONDS
    server: _Server

    def do_GET(self) -> None:
        origin = self.server.origin
        request = Request(self.command, self.path, self.headers)
        if self.path == SENT:
            self._send(request, document({"blob_bytes": origin.blob_bytes_sent}), NO_FAULT)
            return
        with origin.answering(request) as fault:
            self.server.stopping.wait(fault.delay_seconds)
            self._send(request, self._answer(fault), fault)

    def _answer(self, fault: Fault) -> Answer:
        if fault.status is not None:
            return Answer(fault.status, fault.body)
        if fault.runs_out and not _until(self.path) > time.time():
            return Answer(403, b"this URL has run out")
        headers = copy.copy(self.headers)
        if fault.ignores_range or fault.gzip:
            del headers["Range"]
        origin = self.server.origin
        answer = origin.repositories.answer(self.path, headers, origin.url, fault.etag)
        return in_gzip(answer) if fault.gzip and answer.status == 200 else answer

    do_HEAD = do_GET  # noqa: N815 (the name that http.server looks for)

    def do_POST(self) -> None:
        """containerd asks for tokens like that first, and by GET where it is told that nobody understands it."""
        self.close_connection = True  # whatever the body says
        self._send(Request(self.command, self.path, self.headers), refusal(405, "UNSUPPORTED", "read only"), NO_FAULT)

    def _send(self, request: Request, answer: Answer, fault: Fault) -> None:
        self.server.origin.begun(request, answer)
        framing = {"Content-Length": None, "Transfer-Encoding": "chunked"} if fault.chunked else {}
        self._send_head(answer, {**framing, **fault.headers}, time.time() + fault.valid_seconds)
        if self.command == "HEAD":
            return
        # A slow body comes in small pieces many times a second, as from a slow line, and not in bursts.
        chunk_bytes = min(CHUNK_BYTES, max(1, (fault.bytes_per_second or CHUNK_BYTES * 20) // 20))
        try:
            for chunk in fault.through(body_of(answer, chunk_bytes), answer.start, self.server.stopping.wait):
                # Counted first, so that whoever has read a body to its end finds all of it counted.
                self.server.origin.sent(request, len(chunk), answer.is_blob)
                self.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk) if fault.chunked else chunk)
            if fault.chunked:
                self.wfile.write(b"0\r\n\r\n")
        except ResetError:
            self._reset()

    def _send_head(self, answer: Answer, replaced: Mapping[str, str | None], until: float) -> None:
        headers: dict[str, str | None] = {**answer.headers, **replaced}
        self.send_response(answer.status)
        for name, value in headers.items():
            if value is not None:
                told = value.replace("{path}", urlsplit(self.path).path).replace("{until}", f"{until:.3f}")
                self.send_header(name, told)  # "Connection: close" among them is understood by http.server
        self.end_headers()
        if headers["Content-Length"] is None:
            self.close_connection = True

    def _reset(self) -> None:
        """A TCP reset, as from a crashed host, instead of an orderly end."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def log_message(self, *args: object) -> None:
        """Silent: the requests are in `Origin.requests`."""


def _until(target: str) -> float:
    """The time until which a URL is good."""
    return float(parse_qs(urlsplit(target).query).get("until", ["0"])[0])


def in_gzip(answer: Answer) -> Answer:
    """The same content, encoded."""
    coded = gzip.compress(b"".join(body_of(answer, CHUNK_BYTES)), 1, mtime=0)
    headers = {**answer.headers, "Content-Length": str(len(coded)), "Content-Encoding": "gzip"}
    return replace(answer, content=coded, headers=headers, start=0, end=len(coded))


def body_of(answer: Answer, chunk_bytes: int) -> Iterator[bytes]:
    with answer.content.open("rb") if isinstance(answer.content, Path) else BytesIO(answer.content) as file:
        file.seek(answer.start)
        left = answer.end - answer.start
        while left > 0:
            chunk = file.read(min(chunk_bytes, left))
            left -= len(chunk)
            yield chunk
