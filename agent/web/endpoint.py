"""The agent's socket, at which `darner get` on this node asks for files of web servers.

The server is asked first which version of the file it has now, with the user's own header fields: so nobody gets what the server
would refuse. The bytes of that version come as those of a blob do (`agent.download`), from the swarm or the server, and go out
while they arrive. A file that takes a credential is this node's alone, unless the server gives the same version to everybody.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import secrets
import time
import weakref
from collections.abc import Mapping

from agent.download.download import Reader
from agent.download.file_origin import FileOrigin
from agent.download.manager import DownloadManager
from agent.http.server import ClientGone, Exchange, Listener
from agent.http.unix import UnixSocket
from agent.origin.client import Origin
from agent.pulls import SOURCES, BlobPull
from agent.registry.endpoint import Part
from agent.registry.target import RangeError
from agent.storage.blob import Blob
from agent.storage.store import Store
from agent.values.errors import OriginError, RequestError
from agent.values.pattern import Pattern
from agent.values.web_file import WebFile, files_allowed
from agent.web.request import FileProgress, WantedFile, parse_request

log = logging.getLogger(__name__)

CONNECTIONS_MAX = 128
IDLE_SECONDS = 30.0
LOOK_SECONDS = 0.1
"""How soon a client that left while it waited is noticed."""
COUNTED_SECONDS_MAX = 1.0
"""How long the end of a download is waited for whose last byte a client has already."""
COUNT_LOOK_SECONDS = 0.005
NOT_LISTED = "NOT_LISTED"
"""The code of the error for a server that the operator's list does not have."""

_CREDENTIAL = re.compile(r"authorization|cookie|.*(token|key|secret).*", re.IGNORECASE)
"""Header fields that say who asks, and nothing of what is asked for."""


class FilesEndpoint:
    def __init__(self, store: Store, downloads: DownloadManager, origin: Origin, allow: tuple[Pattern, ...]) -> None:
        self._store = store
        self._downloads = downloads
        self._origin = origin
        self._allow = allow
        self._salt = secrets.token_bytes(32)
        """For the names of files that are this node's alone, which nobody shall be able to find a credential by."""
        self._pulls: weakref.WeakValueDictionary[str, BlobPull] = weakref.WeakValueDictionary()

    def listener(self, where: UnixSocket) -> Listener:
        return Listener(
            where,
            self.handle,
            name="files",
            connections_max=CONNECTIONS_MAX,
            per_address_max=CONNECTIONS_MAX,
            idle_seconds=IDLE_SECONDS,
        )

    def handle(self, exchange: Exchange) -> None:
        request = exchange.request
        if request.method not in ("GET", "HEAD"):
            raise RequestError(405, "UNSUPPORTED", "files are only read here")
        wanted = parse_request(request.target, request.headers)
        if isinstance(wanted, FileProgress):
            body = json.dumps({"sources": self._sources(wanted.task)}).encode()
            exchange.answer(200, {"Content-Type": "application/json"}, body)
            return
        if not files_allowed(self._allow, wanted.url):
            server = wanted.url.split("/")[2]
            words = f"{server} is not on this node's list of servers that files may be asked from (files.allow, --files-allow)"
            raise RequestError(403, NOT_LISTED, words)
        origin = self._origin_of(wanted)
        try:
            self._serve(exchange, origin)
        except RangeError as error:
            exchange.fail(error, {"Content-Range": f"bytes */{error.size}"})

    def _sources(self, task: str) -> dict[str, int]:
        """Bytes by source, of a file that is here whole all of them: its last pieces are counted after a client may have them."""
        pull = self._pulls.get(task)
        if pull is None:
            return {}
        until = time.monotonic() + COUNTED_SECONDS_MAX
        while not pull.ended_at and self._store.blob(task) and time.monotonic() < until:
            time.sleep(COUNT_LOOK_SECONDS)
        return {source: pull.sources[source] for source in SOURCES}

    def _origin_of(self, wanted: WantedFile) -> FileOrigin:
        """The version that the server has now for whoever asks. Raises OriginError."""
        web, headers = self._origin.web, wanted.headers
        file = web.find(wanted.url, headers, wanted.digest)
        if not file.validator or not file.size:
            return FileOrigin.of(file, headers, f"sha256:{secrets.token_hex(32)}")
        if not headers or self._is_public(file, headers):
            return FileOrigin.of(file, {})
        said = json.dumps([file.task, file.url, sorted(headers.items())]).encode()
        return FileOrigin.of(file, headers, f"sha256:{hashlib.sha256(self._salt + said).hexdigest()}")

    def _is_public(self, file: WebFile, headers: Mapping[str, str]) -> bool:
        """Whether the server gives this version to everybody, so that the credential is of no matter."""
        if not all(_CREDENTIAL.fullmatch(name) for name in headers):
            return False
        try:
            return self._origin.web.find(file.url, {}, file.digest) == file
        except OriginError:
            return False

    def _serve(self, exchange: Exchange, origin: FileOrigin) -> None:
        part = _part(exchange, origin.wanted)
        if exchange.request.method == "HEAD":
            _start(exchange, origin, part)
            exchange.finish()
            return
        asked_by = exchange.request.headers.get("user-agent", "")
        if blob := self._store.blob(origin.digest):
            self._send(exchange, origin, part, blob, None)
            return
        with self._downloads.reading_from(origin, part.start, asked_by) as reader:
            self._pulls[origin.digest] = reader.download.pull
            while not reader.download.known(LOOK_SECONDS):
                _look(exchange)
            self._send(exchange, origin, part, reader.download.blob(0), reader)

    def _send(self, exchange: Exchange, origin: FileOrigin, part: Part, blob: Blob, reader: Reader | None) -> None:
        """Each run of bytes as soon as it is there, the last byte when all of them are known to be right."""
        while not _has(blob, part.start):  # so that what goes wrong before the first byte can still be said
            _look(exchange)
        _start(exchange, origin, part)
        while (position := part.start + exchange.body_sent) < part.end:
            if reader:
                reader.offset = position
            ready = min(blob.wait(position, LOOK_SECONDS), part.end)
            if ready == part.end and not blob.wait_whole(LOOK_SECONDS if position == ready - 1 else 0.0):
                ready -= 1
            if ready > position:
                if reader and reader.download.pull.first_byte_at is None:
                    reader.download.pull.first_byte_at = time.monotonic()
                exchange.send_file(blob.fd, position, ready)
            else:
                _look(exchange)
        exchange.finish()


def _part(exchange: Exchange, file: WebFile) -> Part:
    """What the client wants of the file. It goes on with an earlier part only if that was of the same version."""
    headers = exchange.request.headers
    is_same = bool(file.validator) and headers.get("if-range", file.validator) == file.validator
    return Part.of(headers.get("range") if is_same else None, file.size)


def _start(exchange: Exchange, origin: FileOrigin, part: Part) -> None:
    validator = origin.wanted.validator
    headers = {
        "Content-Type": "application/octet-stream",
        "Accept-Ranges": "bytes" if validator else "none",
        "Darner-File": origin.digest,
        "Darner-Shared": "yes" if origin.shared else "no",
    }
    if validator:
        headers["ETag" if validator.startswith('"') else "Last-Modified"] = validator
    exchange.start(part.status, headers | part.headers)


def _has(blob: Blob, offset: int) -> bool:
    """Whether there is something to be sent from `offset` on, after waiting for it a little."""
    return blob.wait(offset, LOOK_SECONDS) > offset if offset < blob.size - 1 else blob.wait_whole(LOOK_SECONDS)


def _look(exchange: Exchange) -> None:
    if exchange.client_left():
        raise ClientGone
