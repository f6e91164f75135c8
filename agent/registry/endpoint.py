"""The registry endpoint, from which the container runtime on this node pulls (OCI distribution specification 1.1, pull part).

Every request becomes a value (`agent.registry.target`), every answer comes from the ladder of sources: the store, the swarm, the
origin. Read only. A client may have what the origin allowed it (`agent.origin.shown`), whatever else is in the store.

A blob is answered from the store, while it arrives, or past a disk that fails. Nothing is said before its first byte is there, so
that an error can still be told; after that, an answer that cannot go on is cut off by a reset. A runtime gives up after 30 s, so
it is told before: registries, which may never answer, are asked in threads of their own, each with limits of its own, and a retry
finds what they brought.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from agent import metrics
from agent.download.download import Reader
from agent.download.manager import DownloadManager
from agent.http.server import ClientGone, Exchange, Listener, Request
from agent.http.wire import chunks
from agent.origin.client import ASK_SECONDS_MAX, Origin
from agent.origin.credential_provider import CredentialProviders
from agent.origin.shown import Permission
from agent.registry.manifests import Manifests
from agent.registry.node_credentials import Answer, NodeCredentials
from agent.registry.target import (
    BlobResource,
    ListingResource,
    ManifestResource,
    Ping,
    RangeError,
    Resource,
    parse_range,
    parse_target,
)
from agent.storage.blob import Blob
from agent.storage.store import Store
from agent.swarm.supernodes import Supernodes
from agent.values.address import Address
from agent.values.credential import Credential, from_authorization
from agent.values.errors import DarnerError, DigestError, OriginError, RequestError, StoreError
from agent.values.manifest import Manifest
from agent.values.pattern import Pattern, allowed

log = logging.getLogger(__name__)

CONNECTIONS_MAX = 512
IDLE_SECONDS = 90.0
HEAD_SECONDS_MAX = 24.5
"""For the head of an answer: containerd gives up when it has none after 30 s."""
BESIDE_SECONDS = 13.0
"""How long the swarm is asked alone. The supernode itself needs up to 11 s to learn that a registry cannot be reached."""
LOOK_SECONDS = 0.1
"""How soon a client that left while it waited is noticed."""
QUESTIONS_MAX = 256
"""That wait for registries."""

METHODS = ("GET", "HEAD")
CHALLENGE = {"WWW-Authenticate": 'Basic realm="darner"'}
VERSION = {"Docker-Distribution-Api-Version": "registry/2.0"}
BLOB = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes", **VERSION}
STALE = {"Warning": '110 darner "the registry cannot be asked; this is its last answer"'}

Reply = TypeVar("Reply")
Asked = TypeVar("Asked")


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


class Registry:
    def __init__(
        self,
        store: Store,
        downloads: DownloadManager,
        manifests: Manifests,
        permission: Permission,
        swarm: Supernodes,
        origin: Origin,
        head_seconds: float = HEAD_SECONDS_MAX,
        allow: tuple[Pattern, ...] = (),
        providers: CredentialProviders | None = None,
    ) -> None:
        """Without `providers` the node has no credentials of its own."""
        self._store = store
        self._downloads = downloads
        self._manifests = manifests
        self._permission = permission
        self._swarm = swarm
        self._origin = origin
        self._allow = allow
        self._head_seconds = head_seconds
        self._places = threading.BoundedSemaphore(QUESTIONS_MAX)
        self._node = NodeCredentials(providers, self._ask) if providers else None

    def listener(self, where: Address) -> Listener:
        return Listener(
            where,
            self.handle,
            name="registry endpoint",
            connections_max=CONNECTIONS_MAX,
            per_address_max=CONNECTIONS_MAX,  # all clients are on this node
            idle_seconds=IDLE_SECONDS,
        )

    def handle(self, exchange: Exchange) -> None:
        kind = "other"
        try:
            if exchange.request.method not in METHODS:
                raise RequestError(405, "UNSUPPORTED", "this registry is read only")
            resource = parse_target(exchange.request.target)
            kind = type(resource).__name__.removesuffix("Resource").lower()
            if (
                self._allow
                and isinstance(resource, Resource)
                and not allowed(self._allow, resource.registry, resource.repository)
            ):
                name = f"{resource.registry}/{resource.repository}"
                raise RequestError(403, "DENIED", f"{name} is not among --allow-registries, from which nodes pull")
            authorization = exchange.request.headers.get("authorization")
            credential = None if authorization is None else from_authorization(authorization)
            match resource:
                case Ping():
                    exchange.answer(200, {"Content-Type": "application/json", **VERSION}, b"{}")
                case ManifestResource():
                    self._answer(exchange, resource, credential, partial(self._manifest, exchange, resource))
                case BlobResource():
                    self._answer(exchange, resource, credential, partial(self._blob, exchange, resource))
                case ListingResource():
                    self._answer(exchange, resource, credential, partial(self._listing, exchange, resource))
            metrics.REGISTRY_ANSWERS.labels(kind, "ok").inc()
        except DarnerError as error:
            metrics.REGISTRY_ANSWERS.labels(kind, str(error.status)).inc()
            if exchange.answered:
                raise
            log.warning("%s: %d %s", exchange.request, error.status, error)
            exchange.fail(error, VERSION | _headers_of(error))

    def _answer(self, exchange: Exchange, resource: Resource, sent: Credential | None, answer: Answer) -> None:
        """With the credential that the client sent; without one, with none or with one of the node's."""
        if self._node and sent is None:
            self._node.answer(exchange, resource, answer)
        else:
            answer(sent)

    def _look(self, exchange: Exchange, registry: str, silent_since: float | None = None) -> None:
        """Raises when there is no use in waiting on: ClientGone, or OriginError 504 when the client is about to give up.

        The registry is blamed for that if it was asked from here, and silent for as long as any registry may be.
        """
        if exchange.client_left():
            raise ClientGone
        now = time.monotonic()
        if now - exchange.began <= self._head_seconds:
            return
        if silent_since is not None and now - silent_since >= ASK_SECONDS_MAX:
            raise OriginError(504, f"the registry {registry} did not answer in time")
        raise OriginError(504, f"neither other nodes nor the registry {registry} answered in time", certain=False)

    def _ask(
        self, exchange: Exchange, registry: str, question: Callable[[], Reply], swarm: Callable[[], Reply | None] | None = None
    ) -> Reply:
        """The reply to a question. Raises its errors and those of `_look`, and RequestError when too many wait already.

        The `swarm` is asked first, if it is given, and its error is final. When it has no reply, or none for long, the question
        is asked, beside it then. A question whose client has left, or was told an error, ends by its own limits.
        """
        theirs = self._begin(swarm) if swarm else None
        own: Future[Reply] | None = None
        began = time.monotonic()
        while True:
            if theirs and theirs.done():
                if (found := theirs.result()) is not None:
                    return found
                theirs = None
            if own and own.done() and (theirs is None or not _may_be_mended(own)):
                return own.result()
            if own is None and (theirs is None or time.monotonic() - began > BESIDE_SECONDS):
                own, began = self._begin(question), time.monotonic()
            running: list[Future[Any]] = [reply for reply in (own, theirs) if reply and not reply.done()]
            if not wait(running, LOOK_SECONDS, FIRST_COMPLETED).done:
                self._look(exchange, registry, began if own else None)

    def _begin(self, question: Callable[[], Asked]) -> Future[Asked]:
        """A question in a thread of its own."""
        if not self._places.acquire(blocking=False):
            raise RequestError(503, "TOOMANYREQUESTS", f"{QUESTIONS_MAX} requests wait for registries already")
        reply: Future[Asked] = Future()

        def answer() -> None:
            try:
                reply.set_result(question())
            except BaseException as error:
                reply.set_exception(error)
            finally:
                self._places.release()

        try:
            threading.Thread(target=answer, name="question", daemon=True).start()
        except RuntimeError:
            self._places.release()
            raise RequestError(503, "TOOMANYREQUESTS", "no thread is left to ask the registry with") from None
        return reply

    # Manifests and lists.

    def _manifest(self, exchange: Exchange, resource: ManifestResource, credential: Credential | None) -> None:
        registry, repository, reference = resource.registry, resource.repository, resource.reference
        # The origin is not asked again for a manifest that this credential was shown just now: a runtime asks for a tag, and next
        # for its digest.
        at = self._permission.shown_at(registry, repository, credential, reference, time.monotonic())
        manifest = self._manifests.kept(reference) if at is not None else None
        if at is None or manifest is None:
            # Others' credentials never leave this node but to the origin itself.
            swarm = partial(self._from_swarm, resource) if credential is None and self._swarm.channels else None
            own = partial(self._manifests.resolve, registry, repository, reference, credential)
            manifest = self._ask(exchange, registry, own, swarm)
            at = time.monotonic()
        self._permission.show(registry, repository, credential, [manifest.digest, *manifest.lists()], at)
        self._origin.sizes.learn(registry, repository, manifest.sizes())
        headers = {"Content-Type": manifest.media_type, "Docker-Content-Digest": manifest.digest, **VERSION}
        exchange.answer(200, headers | (STALE if manifest.stale else {}), manifest.body)

    def _from_swarm(self, resource: ManifestResource) -> Manifest | None:
        """What a supernode says that the name means now; None when none can say."""
        registry, repository, reference = resource.registry, resource.repository, resource.reference
        manifest = self._swarm.resolve(registry, repository, reference)
        if manifest and manifest.stale:
            self._manifests.keep(manifest)
        elif manifest:
            self._manifests.remember(registry, repository, reference, None, manifest)
        return manifest

    def _listing(self, exchange: Exchange, resource: ListingResource, credential: Credential | None) -> None:
        registry, repository = resource.registry, resource.repository
        path = f"/v2/{repository}/{resource.rest}"
        media_type, body = self._ask(exchange, registry, lambda: self._origin.listing(registry, repository, path, credential))
        exchange.answer(200, {"Content-Type": media_type, **VERSION}, body)

    # Blobs.

    def _blob(self, exchange: Exchange, resource: BlobResource, credential: Credential | None) -> None:
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
        size = self._ask(exchange, registry, lambda: self._origin.blob_size(registry, repository, digest, credential))
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
        """The arriving blob, once its size is known. Raises the download's error, and those of `_look`."""
        while not reader.download.known(LOOK_SECONDS):
            self._look(exchange, resource.registry)
        return reader.download.blob(0)

    def _start(self, exchange: Exchange, resource: BlobResource, part: Part) -> None:
        exchange.start(part.status, {"Docker-Content-Digest": resource.digest, **BLOB, **part.headers})

    def _send(self, exchange: Exchange, resource: BlobResource, blob: Blob, reader: Reader | None) -> None:
        """Each run of bytes as soon as it is there."""
        part = Part.wanted(exchange.request, blob.size)
        if reader:
            reader.offset = part.start
        while not _ready(blob, part.start):
            self._look(exchange, resource.registry)
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


def _may_be_mended(reply: Future[Any]) -> bool:
    """Whether a question failed in a way that another way to the registry need not share."""
    error = reply.exception()
    return isinstance(error, OriginError) and not error.answered


def _ready(blob: Blob, offset: int) -> bool:
    """Whether the byte at `offset` can be sent, after waiting for it a little; at the end, whether the blob is whole."""
    return blob.wait(offset, LOOK_SECONDS) > offset if offset < blob.size else blob.wait_whole(LOOK_SECONDS)


def _headers_of(error: DarnerError) -> dict[str, str]:
    """The header fields that HTTP wants with an error (RFC 9110, section 15.5)."""
    if isinstance(error, RangeError):
        return {"Content-Range": f"bytes */{error.size}"}
    if isinstance(error, OriginError) and error.retry_after:
        return {"Retry-After": str(error.retry_after)}
    return {401: CHALLENGE, 405: {"Allow": ", ".join(METHODS)}}.get(error.status, {})
