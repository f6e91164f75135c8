"""Blobs on their way to a client of the registry endpoint: from the store, while they arrive, or past a disk that fails.

`Blobs.answer` is a blob request from its permission to its last byte. An answer says nothing before its first byte is there, so
that an error can still be told; after that, an answer that cannot go on is cut off by a reset.
"""

from __future__ import annotations

import hashlib
import logging
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass

from agent import metrics
from agent.download.download import Reader
from agent.download.manager import DownloadManager
from agent.http.server import ClientGone, Exchange, Request
from agent.http.wire import chunks
from agent.origin.client import Origin
from agent.registry.client_wait import LOOK_SECONDS, ClientWait
from agent.registry.permission import Permission
from agent.registry.target import BlobResource, parse_range
from agent.storage.blob import Blob
from agent.storage.store import Store
from agent.values.credential import Credential
from agent.values.errors import DigestError, OriginError, StoreError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Part:
    """Bytes `start` to `end` of a blob of `size` bytes: the body of one answer."""

    start: int
    end: int
    size: int
    status: int

    @classmethod
    def wanted(cls, request: Request, size: int) -> Part:
        """Raises RangeError. An If-Range names a validator that was never given here: such a Range does not count."""
        span = None if "if-range" in request.headers else parse_range(request.headers.get("range"), size)
        return cls(*span, size, 206) if span else cls(0, size, size, 200)

    @property
    def headers(self) -> dict[str, str]:
        length = {"Content-Length": str(self.end - self.start)}
        return length | ({"Content-Range": f"bytes {self.start}-{self.end - 1}/{self.size}"} if self.status == 206 else {})


class Blobs:
    def __init__(
        self,
        store: Store,
        downloads: DownloadManager,
        origin: Origin,
        permission: Permission,
        client_wait: ClientWait,
        common_headers: dict[str, str],
    ) -> None:
        self._store = store
        self._downloads = downloads
        self._origin = origin
        self._permission = permission
        self._client_wait = client_wait
        self._common = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes", **common_headers}

    def answer(self, exchange: Exchange, resource: BlobResource, credential: Credential | None) -> None:
        """The answer to a HEAD or a GET: may this client have the blob, how large is it, and its bytes.

        The origin is asked only for permission that this node does not remember, and that tells the size too. Without it the size
        comes from the store, from the origin, or, when the origin is away, from other nodes.
        """
        registry, repository, digest = resource.registry, resource.repository, resource.digest
        size: int | None = None
        if self._permission.shown_at(registry, repository, credential, digest, time.monotonic()) is None:
            size = self._size_at_origin(exchange, resource, credential)
            self._permission.show(registry, repository, credential, [digest], time.monotonic())
        if exchange.request.method == "GET":
            self._serve(exchange, resource, credential)
            return
        if size is None and (blob := self._store.blob(digest) or self._store.arriving(digest)):
            size = blob.size
        if size is None:
            try:
                size = self._size_at_origin(exchange, resource, credential)
            except OriginError as error:
                if error.answered:
                    raise
                with self._reading(resource, credential) as reader:
                    size = self._await_blob(exchange, resource, reader).size
        self._start(exchange, resource, Part(0, size, size, 200))  # ranges are for GET alone (RFC 9110 section 14.2)
        exchange.finish()

    def _size_at_origin(self, exchange: Exchange, resource: BlobResource, credential: Credential | None) -> int:
        """Bytes of the blob, if the origin shows it to this credential. Raises OriginError."""
        registry, repository, digest = resource.registry, resource.repository, resource.digest
        size = self._client_wait.ask(exchange, registry, lambda: self._origin.blob_size(registry, repository, digest, credential))
        if size is None:
            raise OriginError(404, f"{repository} has no {digest}", "BLOB_UNKNOWN")
        return size

    def _serve(self, exchange: Exchange, resource: BlobResource, credential: Credential | None) -> None:
        """From the store, or while the blob arrives; past a store that fails, straight from the origin."""
        blob = self._store.blob(resource.digest)
        try:
            if blob:
                self._send(exchange, resource, blob, None)
                return
            with self._reading(resource, credential) as reader:
                blob = self._await_blob(exchange, resource, reader)
                self._send(exchange, resource, blob, reader)
        except DigestError:
            if exchange.answered or not (blob and blob.stored):
                raise
            self._serve(exchange, resource, credential)  # the stored blob is damaged, and dropped by now: get it anew
        except StoreError as error:
            log.warning("%s is passed through from its registry: %s", resource.digest, error)
            if blob and blob.stored:
                self._store.drop(blob)
            self._pass_through(exchange, resource, credential, blob)

    def _reading(self, resource: BlobResource, credential: Credential | None) -> AbstractContextManager[Reader]:
        return self._downloads.reading(resource.registry, resource.repository, resource.digest, credential, 0)

    def _await_blob(self, exchange: Exchange, resource: BlobResource, reader: Reader) -> Blob:
        """The arriving blob, once its size is known. Raises the download's error, and those of `ClientWait.look`."""
        while not reader.download.known(LOOK_SECONDS):
            self._client_wait.look(exchange, resource.registry)
        return reader.download.blob(0)

    def _start(self, exchange: Exchange, resource: BlobResource, part: Part) -> None:
        exchange.start(part.status, {"Docker-Content-Digest": resource.digest, **self._common, **part.headers})

    def _send(self, exchange: Exchange, resource: BlobResource, blob: Blob, reader: Reader | None) -> None:
        """Each run of bytes as soon as it is there."""
        part = Part.wanted(exchange.request, blob.size)
        if reader:
            reader.offset = part.start
        while not _ready(blob, part.start):
            self._client_wait.look(exchange, resource.registry)
        self._start(exchange, resource, part)
        while (position := part.start + exchange.body_sent) < part.end:
            if reader:
                reader.offset = position
            ready = min(blob.wait(position, LOOK_SECONDS), part.end)
            if ready > position:
                exchange.send_file(blob.fd, position, ready)
            elif exchange.client_left():
                raise ClientGone
        exchange.finish()
        if reader is None:
            metrics.RECEIVED_BYTES.labels("store").inc(part.end - part.start)

    def _pass_through(self, exchange: Exchange, resource: BlobResource, credential: Credential | None, blob: Blob | None) -> None:
        """The last resort: from the origin straight to the client, going on where the disk failed. Nothing is kept.

        The last bytes of a whole blob wait for its digest. A client that asks for a part gets the
        registry's bytes as they come, and checks the whole itself.
        """
        registry = resource.registry
        part = Part.wanted(exchange.request, blob.size if blob else self._size_at_origin(exchange, resource, credential))
        position = part.start + exchange.body_sent
        whole = part.end - part.start == part.size
        hasher = blob.hash_to(position) if blob and whole else hashlib.sha256()
        stream = self._origin.open_blob(registry, resource.repository, resource.digest, credential, position)
        try:
            if stream.size != part.size:
                raise OriginError(502, f"the registry {registry} names another size for {resource.digest} than before")
            if not exchange.answered:
                self._start(exchange, resource, part)
            held_back = b""
            for chunk in chunks(stream.read_into, part.end - position):
                hasher.update(chunk)
                exchange.send(held_back)
                held_back = bytes(chunk)
            if whole and "sha256:" + hasher.hexdigest() != resource.digest:
                raise DigestError(f"the registry {registry} sent something else than {resource.digest}")
            exchange.send(held_back)
            exchange.finish()
            metrics.RECEIVED_BYTES.labels("origin").inc(part.end - position)
        finally:
            stream.close()


def _ready(blob: Blob, offset: int) -> bool:
    """Whether the byte at `offset` can be sent, after waiting for it a little; at the end, whether the blob is whole."""
    return blob.wait(offset, LOOK_SECONDS) > offset if offset < blob.size else blob.wait_whole(LOOK_SECONDS)
