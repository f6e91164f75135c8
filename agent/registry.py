"""The registry endpoint: what the container runtime on this node pulls from (OCI distribution specification 1.1, pull part).

Every request becomes a value (`agent.route`), every answer comes from the ladder of sources: the store, the swarm, the origin.
Read only. What a client may have is decided by what the origin allowed it (`agent.permission`), not by what is in the store.
"""

from __future__ import annotations

import hashlib
import logging
import time

from agent import metrics
from agent.blob import Blob
from agent.channel import Swarm
from agent.credentials import Credential, from_authorization
from agent.download import Downloads, Reader
from agent.errors import DarnerError, DigestError, OriginError, RequestError, StoreError
from agent.fetch import chunks
from agent.listener import ClientGone, Exchange
from agent.manifest import Manifest
from agent.manifests import Manifests
from agent.origin import Origin
from agent.permission import Permission
from agent.pieces import BLOB_BYTES_MAX
from agent.route import BlobResource, ListingResource, ManifestResource, Ping, parse_range, parse_target
from agent.store import Store

log = logging.getLogger(__name__)

CONNECTIONS_MAX = 512
IDLE_SECONDS = 90.0
HEADERS_SECONDS_MAX = 25.0
"""containerd gives up when it has no headers after 30 s."""
LOOK_SECONDS = 0.25
"""How soon a client that left while it waited is noticed."""

CHALLENGE = {"WWW-Authenticate": 'Basic realm="darner"'}
VERSION = {"Docker-Distribution-Api-Version": "registry/2.0"}
STALE = {"Warning": '110 darner "the registry cannot be asked; this is its last answer"'}


class Registry:
    def __init__(
        self, store: Store, downloads: Downloads, manifests: Manifests, permission: Permission, swarm: Swarm, origin: Origin
    ) -> None:
        self._store = store
        self._downloads = downloads
        self._manifests = manifests
        self._permission = permission
        self._swarm = swarm
        self._origin = origin

    def handle(self, exchange: Exchange) -> None:
        if exchange.request.method not in ("GET", "HEAD"):
            exchange.fail(RequestError(405, "UNSUPPORTED", "this registry is read only"), {"Allow": "GET, HEAD"})
            return
        what = "other"
        try:
            resource = parse_target(exchange.request.target)
            what = type(resource).__name__.removesuffix("Resource").lower()
            credential = from_authorization(exchange.request.headers.get("authorization"))
            match resource:
                case Ping():
                    exchange.answer(200, {"Content-Type": "application/json", **VERSION}, b"{}")
                case ManifestResource():
                    self._manifest(exchange, resource, credential)
                case BlobResource():
                    self._blob(exchange, resource, credential)
                case ListingResource():
                    path = f"/v2/{resource.repository}/{resource.rest}"
                    media_type, body = self._origin.listing(resource.registry, resource.repository, path, credential)
                    exchange.answer(200, {"Content-Type": media_type, **VERSION}, body)
            metrics.REGISTRY_ANSWERS.labels(what, "ok").inc()
        except DarnerError as error:
            metrics.REGISTRY_ANSWERS.labels(what, str(error.status)).inc()
            if exchange.answered:
                raise
            log.warning("%s %s: %d %s", exchange.request.method, ascii(exchange.request.target)[1:-1], error.status, error)
            exchange.fail(error, {**VERSION, **(CHALLENGE if error.status == 401 else {})})

    # Manifests.

    def _manifest(self, exchange: Exchange, resource: ManifestResource, credential: Credential | None) -> None:
        manifest = self._resolve(resource, credential)
        self._permission.show(
            resource.registry, resource.repository, credential, [manifest.digest, *manifest.lists()], time.monotonic()
        )
        headers = {"Content-Type": manifest.media_type, "Docker-Content-Digest": manifest.digest, **VERSION}
        exchange.answer(200, headers | (STALE if manifest.stale else {}), manifest.body)

    def _resolve(self, resource: ManifestResource, credential: Credential | None) -> Manifest:
        """What the name means now: a manifest shown to this credential just before, the supernode's answer, or the origin's."""
        registry, repository, reference = resource.registry, resource.repository, resource.reference
        if self._permission.covers(registry, repository, credential, reference, time.monotonic()):
            known = self._manifests.kept(reference)
            if known:
                return known
        if credential is None:  # others' credentials never leave this node but to the origin itself
            manifest = self._swarm.resolve(registry, repository, reference)
            if manifest and not manifest.stale:
                self._manifests.remember(registry, repository, reference, None, manifest)
            if manifest:
                return manifest
        return self._manifests.resolve(registry, repository, reference, credential)

    # Blobs.

    def _blob(self, exchange: Exchange, resource: BlobResource, credential: Credential | None) -> None:
        self._permit(resource, credential)
        blob = self._store.blob(resource.digest)
        if blob:
            self._serve(exchange, resource, blob, None)
        elif exchange.request.method == "HEAD":
            size = self._origin.blob_size(resource.registry, resource.repository, resource.digest, credential)
            if size is None:
                raise OriginError(404, f"{resource.repository} has no {resource.digest}", "BLOB_UNKNOWN")
            exchange.start(200, {**_blob_headers(resource), "Content-Length": str(size)})
            exchange.finish()
        else:
            self._pull(exchange, resource, credential)

    def _permit(self, resource: BlobResource, credential: Credential | None) -> None:
        """Raises unless the origin has shown, or shows now, this blob in this repository to this credential."""
        registry, repository, digest = resource.registry, resource.repository, resource.digest
        if self._permission.covers(registry, repository, credential, digest, time.monotonic()):
            return
        if self._origin.blob_size(registry, repository, digest, credential) is None:
            raise OriginError(404, f"{repository} has no {digest}", "BLOB_UNKNOWN")
        self._permission.show(registry, repository, credential, [digest], time.monotonic())

    def _pull(self, exchange: Exchange, resource: BlobResource, credential: Credential | None) -> None:
        """Serve a blob while it arrives."""
        deadline = time.monotonic() + HEADERS_SECONDS_MAX
        hint = parse_range(exchange.request.headers.get("range"), BLOB_BYTES_MAX)
        start = hint[0] if hint else 0
        reading = self._downloads.reading(resource.registry, resource.repository, resource.digest, credential, start)
        try:
            with reading as reader:
                blob = reader.download.blob(HEADERS_SECONDS_MAX)
                self._await_first(exchange, blob, start, deadline)
                self._serve(exchange, resource, blob, reader)
        except StoreError as error:  # no disk, no cache: the bytes still stream through
            log.warning("%s is passed through from its registry: %s", resource.digest, error)
            self._pass_through(exchange, resource, credential)

    def _await_first(self, exchange: Exchange, blob: Blob, start: int, deadline: float) -> None:
        """Wait for the first byte before anything is promised: an error can still be told then."""
        while start < blob.size and blob.wait(start, LOOK_SECONDS) == start:
            if exchange.client_left():
                raise ClientGone
            if time.monotonic() > deadline:
                raise OriginError(504, f"no source of {blob.digest} sent anything in time")

    def _serve(self, exchange: Exchange, resource: BlobResource, blob: Blob, reader: Reader | None) -> None:
        """The head, and then each run of bytes as soon as it is there."""
        span = parse_range(exchange.request.headers.get("range"), blob.size)
        start, end = span or (0, blob.size)
        headers = {**_blob_headers(resource), "Content-Length": str(end - start)}
        if span:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{blob.size}"
        exchange.start(206 if span else 200, headers)
        if exchange.request.method == "HEAD":
            exchange.finish()
            return
        position = start
        while position < end:
            ready = min(blob.wait(position, LOOK_SECONDS), end)
            if ready > position:
                exchange.send_file(blob.fd, position, ready)
                position = ready
            elif exchange.client_left():
                raise ClientGone
            if reader:
                reader.offset = position
        exchange.finish()
        if reader is None:
            metrics.RECEIVED_BYTES.labels("store").inc(end - start)

    def _pass_through(self, exchange: Exchange, resource: BlobResource, credential: Credential | None) -> None:
        """The last resort, from the origin straight to the client. Nothing is kept; the last chunk waits for the digest."""
        if exchange.answered:
            raise StoreError("the store failed in the middle of a blob; the next try passes it through")
        stream = self._origin.open_blob(resource.registry, resource.repository, resource.digest, credential)
        try:
            exchange.start(200, {**_blob_headers(resource), "Content-Length": str(stream.size)})
            hasher = hashlib.sha256()
            held_back = b""
            for chunk in chunks(stream.read_into, stream.size):
                hasher.update(chunk)
                if held_back:
                    exchange.send(held_back)
                held_back = bytes(chunk)
            if "sha256:" + hasher.hexdigest() != resource.digest:
                raise DigestError(f"the registry {resource.registry} sent something else than {resource.digest}")
            if held_back:
                exchange.send(held_back)
            exchange.finish()
            metrics.RECEIVED_BYTES.labels("origin").inc(stream.size)
        finally:
            stream.close()


def _blob_headers(resource: BlobResource) -> dict[str, str]:
    return {
        "Content-Type": "application/octet-stream",
        "Docker-Content-Digest": resource.digest,
        "Accept-Ranges": "bytes",
        **VERSION,
    }
