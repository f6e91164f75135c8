"""What tests of web servers' files share: a lab whose nodes have sockets, and clients that ask there."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from agent.http.server import Listener
from agent.http.unix import UnixSocket
from agent.values.pattern import pattern
from agent.web.endpoint import FilesEndpoint
from tests.swarm import Lab, Node
from tests.web_server import WebServer

SECONDS = 20.0


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=SECONDS)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


@dataclass
class Got:
    status: int
    body: bytes
    headers: dict[str, str]
    whole: bool

    @property
    def said(self) -> str:
        return str(json.loads(self.body)["errors"][0]["message"])


class Site:
    """A lab whose nodes have sockets, a web server, and another one that it redirects to."""

    def __init__(self, lab: Lab, web: WebServer, other: WebServer) -> None:
        self.lab, self.web, self.other = lab, web, other
        self.sockets: list[Path] = []
        self.listeners: list[Listener] = []

    def nodes(self, count: int) -> None:
        for _ in range(count):
            self.serve(self.lab.node())

    def serve(self, node: Node, *allow: str) -> Path:
        allowed = tuple(pattern(name) for name in allow or (self.web.address,))
        where = self.lab.root / f"{len(self.sockets)}.sock"
        listener = FilesEndpoint(node.store, node.downloads, node.client, allowed).listener(UnixSocket(where, 0o600))
        listener.start()
        self.sockets.append(where)
        self.listeners.append(listener)
        return where

    def get(self, node: int, url: str, *, digest: str = "", own: dict[str, str] | None = None, **headers: str) -> Got:
        target = f"/v1/file?url={quote(url, safe='')}" + (f"&digest={digest}" if digest else "")
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        if own:
            fields["Darner-Headers"] = json.dumps(own)
        with closing(UnixConnection(self.sockets[node])) as connection:
            connection.request("GET", target, headers=fields)
            answer = connection.getresponse()
            body, whole = bytearray(), True
            try:
                while chunk := answer.read1(1 << 20):
                    body += chunk
                whole = len(body) == int(answer.headers["Content-Length"])
            except (OSError, http.client.HTTPException):
                whole = False
            return Got(answer.status, bytes(body), dict(answer.headers), whole)

    def everywhere(self, url: str, **said: Any) -> list[Got]:
        with ThreadPoolExecutor(len(self.sockets)) as pool:
            return list(pool.map(lambda node: self.get(node, url, **said), range(len(self.sockets))))


@contextlib.contextmanager
def site_of_files(root: Path) -> Iterator[Site]:
    """Its supernode may ask the one server for files, and not the other."""
    with WebServer() as web, WebServer() as other:
        lab = Lab(root, files_allow=(pattern(web.address),))
        lab.insecure += [web.address, other.address]
        with lab:
            site = Site(lab, web, other)
            yield site
            for listener in site.listeners:
                listener.stop()
