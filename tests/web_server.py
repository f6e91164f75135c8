"""A web server with files, on loopback, for tests: entity tags, ranges, redirects and credentials, and what it was asked."""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

CHUNK_BYTES = 64 << 10


@dataclass
class Asked:
    method: str
    path: str
    headers: Message
    status: int = 0
    sent: int = 0
    """Bytes of the body."""


@dataclass
class Page:
    """What is at a path."""

    body: bytes = b""
    etag: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    authorization: str = ""
    """Without it the page is refused by 401."""
    methods: tuple[str, ...] = ("GET", "HEAD")
    is_sized: bool = True
    """Whether its length is said."""
    rate: float = 0.0
    """Bytes a second; 0 for no limit."""
    break_at: int = 0
    """The connection ends there, once."""


class WebServer:
    """Use it as a context manager. `pages` may be changed at any time."""

    def __init__(self) -> None:
        self.pages: dict[str, Page] = {}
        self.asked: list[Asked] = []
        self.on_chunk: Callable[[str, int], None] = lambda path, sent: None
        """Told, before a part of a body is sent, how much of it was."""
        self._server: ThreadingHTTPServer | None = None

    def put(self, path: str, body: bytes, **said: Any) -> Page:
        """With an entity tag of its bytes."""
        said.setdefault("etag", f'"{hashlib.sha256(body).hexdigest()[:16]}"')
        page = self.pages[path] = Page(body, **said)
        return page

    @property
    def address(self) -> str:
        assert self._server
        return f"127.0.0.1:{self._server.server_address[1]}"

    def url(self, path: str) -> str:
        return f"http://{self.address}{path}"

    def sent(self, path: str = "") -> int:
        """Bytes of bodies."""
        return sum(asked.sent for asked in self.asked if path in asked.path)

    def __enter__(self) -> WebServer:
        web = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                web._answer(self)

            def do_HEAD(self) -> None:
                web._answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = False
        self._server.block_on_close = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), name="web server").start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server
        self._server.shutdown()
        self._server.server_close()

    def _page(self, handler: BaseHTTPRequestHandler) -> Page:
        page = self.pages.get(handler.path) or self.pages.get(handler.path.partition("?")[0]) or Page(b"not here", status=404)
        if page.authorization and handler.headers.get("Authorization") != page.authorization:
            return Page(b"who are you?", status=401)
        return page if handler.command in page.methods else Page(status=403)

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        asked = Asked(handler.command, handler.path, handler.headers)
        self.asked.append(asked)
        handler.close_connection = True  # no thread waits for another request
        page = self._page(handler)
        start, end, status = 0, len(page.body), page.status
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", handler.headers.get("Range", ""))
        if span and status == 200 and page.etag and handler.headers.get("If-Range", page.etag) == page.etag:
            start, end, status = int(span[1]), min(int(span[2] or end - 1) + 1, end), 206
            if start >= len(page.body):
                start, end, status = 0, 0, 416
        asked.status = status
        handler.send_response(status)
        if page.etag:
            handler.send_header("ETag", page.etag)
        if status == 206:
            handler.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(page.body)}")
        if page.is_sized:
            handler.send_header("Content-Length", str(end - start))
        for name, value in page.headers.items():
            handler.send_header(name, value)
        handler.send_header("Connection", "close")
        handler.end_headers()
        if handler.command == "HEAD":
            return
        with contextlib.suppress(OSError):
            self._send(handler, page, asked, start, end)

    def _send(self, handler: BaseHTTPRequestHandler, page: Page, asked: Asked, start: int, end: int) -> None:
        for position in range(start, end, CHUNK_BYTES):
            self.on_chunk(asked.path, position)
            if page.break_at and position >= page.break_at:
                page.break_at = 0
                handler.connection.close()
                return
            chunk = page.body[position : min(end, position + CHUNK_BYTES)]
            handler.wfile.write(chunk)
            asked.sent += len(chunk)
            if page.rate:
                time.sleep(len(chunk) / page.rate)
