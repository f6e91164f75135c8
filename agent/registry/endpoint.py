"""The registry endpoint, from which the container runtime on this node pulls (OCI distribution specification 1.1, pull part).

Every request becomes a value (`agent.registry.target`), every answer comes from the ladder of sources: the store, the swarm, the
origin. Read only. A client may have what the origin allowed it (`agent.origin.shown`), whatever else is in the store, and of that
what came from this origin (`agent.registry.possession`).

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
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from agent import metrics
from agent.download.download import Download, Reader
from agent.download.manager import DownloadManager
from agent.http.server import ClientGone, Exchange, Listener, Request
from agent.http.wire import chunks
from agent.origin.blobstream import BlobStream
from agent.origin.client import ASK_SECONDS_MAX, BLOB_SECONDS_MAX, Origin
from agent.origin.credential_provider import CredentialProviders
from agent.origin.shares import Shares
from agent.origin.shown import Permission, WhenDown, key_of
from agent.pulls import BlobPull
from agent.registry.manifests import Manifests
from agent.registry.node_credentials import Answer, NodeCredentials
from agent.registry.possession import ForeignError, await_span, prove, span_of
from agent.registry.target import (
    BlobResource,
    ListingResource,
    ManifestResource,
    Ping,
    RangeError,
    Resource,
    names_an_end,
    parse_range,
    parse_target,
)
from agent.storage.blob import Blob
from agent.storage.store import Store
from agent.swarm import messages
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
LAZY_SECONDS = 0.2
"""How long the other nodes are waited for where a part of a blob may also be passed on from its registry."""
DOWNLOADS_TRIED_MAX = 3
"""Of others, whose registry may refuse them what this client's own would give."""
QUESTIONS_MAX = 512
"""That wait for registries, of which each has its share."""

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
        return cls.of(None if "if-range" in request.headers else request.headers.get("range"), size)

    @classmethod
    def of(cls, range_header: str | None, size: int) -> Part:
        """Raises RangeError."""
        span = parse_range(range_header, size)
        return cls(*span, size, 206) if span else cls(0, size, size, 200)

    @property
    def headers(self) -> dict[str, str]:
        length = {"Content-Length": str(self.end - self.start)}
        return length | ({"Content-Range": f"bytes {self.start}-{self.end - 1}/{self.size}"} if self.status == 206 else {})


@dataclass(frozen=True)
class Right:
    """That a client may have a blob: the registry has said so, or cannot be asked and the operator wants it so all the same."""

    resource: BlobResource
    credential: Credential | None
    size: int | None = None
    """As the registry says, if it was asked just now."""
    down: OriginError | None = None
    """Why it cannot be asked."""
    unproven: bool = False
    """Whether a manifest that lists the blob is enough then, wherever the bytes are from."""
    is_loaded: bool = False
    """Whether an operator has put it into the supernodes, for everybody: then the bytes may be from anywhere."""


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
        when_down: WhenDown = WhenDown.SAME_IMAGE,
        *,
        lazy: bool = False,
    ) -> None:
        """Without `providers` the node has no credentials of its own. `lazy`: parts of blobs need not wait for their proof."""
        self._store = store
        self._downloads = downloads
        self._manifests = manifests
        self._permission = permission
        self._swarm = swarm
        self._origin = origin
        self._allow = allow
        self._when_down = when_down
        self._lazy = lazy
        self._head_seconds = head_seconds
        self._shares = Shares(QUESTIONS_MAX, prompt=origin.prompt)
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
            metrics.REGISTRY_ANSWERS.labels(kind, metrics.status_label(error.status)).inc()
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
        self,
        exchange: Exchange,
        registry: str,
        question: Callable[[], Reply],
        swarm: Callable[[], Reply | None] | None = None,
        meanwhile: Callable[[], Reply | None] = lambda: None,
    ) -> Reply:
        """The reply to a question. Raises its errors and those of `_look`, and RequestError when too many wait already.

        The `swarm` is asked first, if it is given, and its error is final. When it has no reply, or none for long, the question
        is asked, beside it then. So it is when the swarm's reply is an old one: that is taken when the registry has failed this
        node too, or was silent for as long as any may be. A question whose client has left, or was told an error, ends by its
        own limits. What is known `meanwhile` is a reply too.
        """
        theirs = self._begin(registry, swarm) if swarm else None
        own: Future[Reply] | None = None
        old: Reply | None = None
        began = time.monotonic()
        while True:
            if theirs and theirs.done():
                found, theirs = theirs.result(), None
                if isinstance(found, Manifest) and found.stale:
                    old = found
                elif found is not None:
                    return found
            if own and own.done() and (theirs is None or not _may_be_mended(own)):
                return own.result() if old is None or not _failed_there(own) else old
            if old is not None and own and time.monotonic() - began >= ASK_SECONDS_MAX:
                return old
            if own is None and (theirs is None or time.monotonic() - began > BESIDE_SECONDS):
                own, began = self._begin(registry, question), time.monotonic()
            running: list[Future[Any]] = [reply for reply in (own, theirs) if reply and not reply.done()]
            if not wait(running, LOOK_SECONDS, FIRST_COMPLETED).done:
                if (found := meanwhile()) is not None:
                    return found
                self._look(exchange, registry, began if own else None)

    def _begin(self, registry: str, question: Callable[[], Asked]) -> Future[Asked]:
        """A question in a thread of its own."""
        place = self._shares.take(registry)
        if place is None:
            raise RequestError(503, "TOOMANYREQUESTS", f"too many requests wait for registries already, {registry} among them")
        reply: Future[Asked] = Future()

        def answer() -> None:
            with place:
                try:
                    reply.set_result(question())
                except BaseException as error:
                    reply.set_exception(error)

        try:
            threading.Thread(target=answer, name="question", daemon=True).start()
        except RuntimeError:
            place.give_back()
            raise RequestError(503, "TOOMANYREQUESTS", "no thread is left to ask the registry with") from None
        return reply

    # Manifests and lists.

    def _manifest(self, exchange: Exchange, resource: ManifestResource, credential: Credential | None) -> None:
        registry, repository, reference = resource.registry, resource.repository, resource.reference
        # The origin is not asked again for a manifest that this credential was shown just now: a runtime asks for a tag, and next
        # for its digest.
        path = f"manifests/{reference}"
        at = self._permission.shown_at(registry, repository, credential, path, time.monotonic())
        manifest = self._manifests.kept(reference) if at is not None else None
        if at is None or manifest is None:
            # Others' credentials never leave this node but to the origin itself.
            swarm = partial(self._from_swarm, resource) if credential is None and self._swarm.channels else None
            own = partial(self._manifests.resolve, registry, repository, reference, credential)
            try:
                manifest = self._ask(exchange, registry, own, swarm)
            except OriginError as error:
                if error.status in (401, 403):
                    self._permission.refuse_images(registry, repository, credential)
                raise
            at = time.monotonic()
        if manifest.stale and self._when_down is WhenDown.DENY:
            raise OriginError(503, f"the registry {registry} cannot be asked, and nothing is given without that")
        self._permission.show(registry, repository, credential, f"manifests/{manifest.digest}", at)
        self._permission.show_image(registry, repository, credential, manifest.lists())
        self._origin.sizes.learn(registry, repository, manifest.sizes())
        self._downloads.pulls.named(registry, repository, reference, manifest)
        headers = {"Content-Type": manifest.media_type, "Docker-Content-Digest": manifest.digest, **VERSION}
        exchange.answer(200, headers | (STALE if manifest.stale else {}), manifest.body)

    def _from_swarm(self, resource: ManifestResource) -> Manifest | None:
        """What a supernode says that the name means now; None when none can say."""
        registry, repository, reference = resource.registry, resource.repository, resource.reference

        def ask() -> Manifest | None:
            manifest = self._swarm.resolve(registry, repository, reference)
            if manifest and manifest.stale:
                self._manifests.keep(manifest)
            elif manifest:
                self._manifests.remember(registry, repository, reference, None, manifest)
            return manifest

        try:
            return self._manifests.together(f"{registry}/{repository}:{reference}", ask)
        except TimeoutError:
            return None

    def _listing(self, exchange: Exchange, resource: ListingResource, credential: Credential | None) -> None:
        registry, repository = resource.registry, resource.repository
        path = f"/v2/{repository}/{resource.rest}"
        media_type, body = self._ask(exchange, registry, lambda: self._origin.listing(registry, repository, path, credential))
        exchange.answer(200, {"Content-Type": media_type, **VERSION}, body)

    # Blobs.

    def _blob(self, exchange: Exchange, resource: BlobResource, credential: Credential | None) -> None:
        """The answer to a HEAD or a GET: may this client have the blob, how large is it, and its bytes."""
        registry, repository, digest = resource.registry, resource.repository, resource.digest
        with ExitStack() as reading:
            reader: Reader | None = None  # of a blob that is on its way while permission is asked for
            right = self._known(resource, credential)
            if right is None:
                is_get = exchange.request.method == "GET"
                is_listed = self._permission.is_of_image(registry, repository, credential, digest)
                if is_get and is_listed and not self._store.blob(digest):
                    reader = reading.enter_context(self._reading(exchange, resource, credential))
                right = self._right(exchange, resource, credential, reader.download if reader else None)
            if exchange.request.method == "HEAD":
                self._tell_size(exchange, right)
                return
            try:
                self._serve(exchange, right, reader)
            except OriginError as error:
                if error.answered:
                    self._refused(resource, credential, error)
                raise

    def _tell_size(self, exchange: Exchange, right: Right) -> None:
        """The answer to a HEAD."""
        resource, size = right.resource, right.size
        blob = self._store.blob(resource.digest) or self._store.arriving(resource.digest)
        if size is None and blob and _is_given(blob, right):
            size = blob.size
        if size is None:
            try:
                size = self._size_at_origin(exchange, resource, right.credential)
            except OriginError as error:
                if error.answered:
                    raise
                with self._reading(exchange, resource, right.credential) as reader:
                    blob = self._await_blob(exchange, resource, reader)
                    while not _ready(blob, 0):  # only then it is known where it comes from
                        self._look(exchange, resource.registry)
                    if not _is_given(blob, right):
                        raise
                    size = blob.size
        self._start(exchange, resource, Part(0, size, size, 200))  # ranges are for GET alone (RFC 9110 section 14.2)
        exchange.finish()

    # Permission.

    def _right(self, exchange: Exchange, resource: BlobResource, credential: Credential | None, coming: Download | None) -> Right:
        """Raises OriginError for whoever may not have the blob, alike whether it is here or not.

        The other nodes are asked, by way of a supernode, and then the registry. One that begins to send the blob meanwhile has
        allowed it too.
        """
        known, registry = partial(self._known, resource, credential), resource.registry

        def is_over() -> bool:
            self._look(exchange, registry)
            return known() is not None

        self._hear(resource, credential, is_over)
        return known() or self._ask(exchange, registry, partial(self._judge, resource, credential, coming), meanwhile=known)

    def _hear(self, resource: BlobResource, credential: Credential | None, is_over: Callable[[], bool]) -> None:
        """What other nodes were told by the registry, unless it `is_over` before they say so. Raises what that raises."""
        registry, repository, path = resource.registry, resource.repository, f"blobs/{resource.digest}"
        said = self._swarm.verdict(registry, repository, path, credential, is_over)
        if said and said.age is not None and not said.is_yours:
            self._permission.show(registry, repository, credential, path, time.monotonic() - said.age)
            if said.is_loaded:
                self._permission.show(registry, repository, credential, _loaded(resource), time.monotonic() - said.age)

    def _known(self, resource: BlobResource, credential: Credential | None) -> Right | None:
        path = f"blobs/{resource.digest}"
        shown_at = partial(self._permission.shown_at, resource.registry, resource.repository, credential)
        now = time.monotonic()
        if shown_at(path, now) is None:
            return None
        return Right(resource, credential, is_loaded=shown_at(_loaded(resource), now) is not None)

    def _judge(self, resource: BlobResource, credential: Credential | None, coming: Download | None) -> Right:
        """Asks the registry, in a thread of its own.

        Without a supernode the blob is `coming` from the registry, whose answer to that is as good as to another question.
        """
        registry, repository, digest = resource.registry, resource.repository, resource.digest
        path = f"blobs/{digest}"
        if coming and not self._swarm.owners(digest):
            coming.known(BLOB_SECONDS_MAX)
            if right := self._known(resource, credential):
                return right
        try:
            size = self._origin.blob_size(registry, repository, digest, credential, BLOB_SECONDS_MAX)
            if size is None:
                raise _unknown(resource)
        except OriginError as error:
            if error.answered:
                self._refused(resource, credential, error)
                raise
            self._swarm.told(registry, repository, path, credential, messages.UNANSWERED)
            is_of_image = self._permission.is_of_image(registry, repository, credential, digest)
            if self._when_down is WhenDown.ALLOW:
                return Right(resource, credential, down=error, unproven=is_of_image)
            if self._when_down is WhenDown.DENY or not is_of_image:
                raise
            return Right(resource, credential, down=error)
        self.shown(registry, repository, digest, credential)
        return Right(resource, credential, size)

    def shown(self, registry: str, repository: str, digest: str, credential: Credential | None) -> None:
        """The registry has itself told this node that this credential may have this blob. Called by any thread."""
        path = f"blobs/{digest}"
        self._permission.show(registry, repository, credential, path, time.monotonic())
        self._swarm.told(registry, repository, path, credential, messages.ALLOWED)

    def _refused(self, resource: BlobResource, credential: Credential | None, error: OriginError) -> None:
        registry, repository, path = resource.registry, resource.repository, f"blobs/{resource.digest}"
        if error.status in (401, 403):
            self._permission.refuse_images(registry, repository, credential)
        self._permission.refuse(registry, repository, path, key_of(credential))
        self._swarm.told(registry, repository, path, credential, messages.REFUSED)

    def _check_given(self, exchange: Exchange, right: Right, blob: Blob, reader: Reader | None) -> None:
        """Raises ForeignError, or OriginError while the registry cannot be asked, unless the bytes that are here may be given."""
        if _is_given(blob, right):
            return
        if right.down:
            raise right.down.again()
        start, end = span_of(blob)
        if reader:
            reader.offset = start
        registry = right.resource.registry
        await_span(blob, start, end, LOOK_SECONDS, lambda: self._look(exchange, registry))
        self._ask(exchange, registry, partial(prove, self._origin, right.resource, right.credential, blob, start, end))

    def _size_at_origin(self, exchange: Exchange, resource: BlobResource, credential: Credential | None) -> int:
        """Bytes of the blob, if the origin shows it to this credential. Raises OriginError."""
        registry, repository, digest = resource.registry, resource.repository, resource.digest
        size = self._ask(exchange, registry, lambda: self._origin.blob_size(registry, repository, digest, credential))
        if size is None:
            raise _unknown(resource)
        return size

    # Bytes.

    def _serve(self, exchange: Exchange, right: Right, early: Reader | None) -> None:
        """From the store, or while the blob arrives; past a store that fails, straight from the origin.

        Past the store too, if what is in there is another registry's: as it would be answered if it were not there.
        """
        resource, credential = right.resource, right.credential
        blob = None if early else self._store.blob(resource.digest)
        try:
            if blob:
                self._send(exchange, right, blob, None)
                return
            for tries_left in reversed(range(DOWNLOADS_TRIED_MAX)):
                with nullcontext(early) if early else self._reading(exchange, resource, credential) as reader:
                    early = None
                    try:
                        blob = self._await_blob(exchange, resource, reader)
                        self._send(exchange, right, blob, reader)
                        return
                    except (OriginError, DigestError):
                        is_own = reader.download.is_from(resource.registry, resource.repository, credential)
                        if is_own or exchange.answered or not tries_left:
                            raise
        except DigestError:
            if exchange.answered or not (blob and blob.stored):
                raise
            self._serve(exchange, right, None)  # the stored blob is damaged, and dropped by now: get it anew
        except ForeignError as error:
            log.warning("%s is passed through from its registry: %s", resource.digest, error)
            self._pass_through(exchange, resource, credential, blob if exchange.answered else None)
        except StoreError as error:
            log.warning("%s is passed through from its registry: %s", resource.digest, error)
            if blob and blob.stored:
                self._store.drop(blob)
            self._pass_through(exchange, resource, credential, blob)

    def _reading(
        self, exchange: Exchange, resource: BlobResource, credential: Credential | None
    ) -> AbstractContextManager[Reader]:
        registry, repository, digest = resource.registry, resource.repository, resource.digest
        return self._downloads.reading(registry, repository, digest, credential, 0, _asker(exchange))

    def _await_blob(self, exchange: Exchange, resource: BlobResource, reader: Reader) -> Blob:
        """The arriving blob, once its size is known. Raises the download's error, and those of `_look`."""
        while not reader.download.known(LOOK_SECONDS):
            self._look(exchange, resource.registry)
        return reader.download.blob(0)

    def _start(self, exchange: Exchange, resource: BlobResource, part: Part) -> None:
        exchange.start(part.status, {"Docker-Content-Digest": resource.digest, **BLOB, **part.headers})

    def _part(self, exchange: Exchange, right: Right, blob: Blob, reader: Reader | None) -> Part:
        try:
            return Part.wanted(exchange.request, blob.size)
        except RangeError:  # which tells the size
            self._check_given(exchange, right, blob, reader)
            raise

    @contextmanager
    def _pulling(self, exchange: Exchange, resource: BlobResource) -> Iterator[BlobPull]:
        """A pull that is no download of this node's own: from the block's begin to its end."""
        pull = BlobPull(f"{resource.registry}/{resource.repository}", resource.digest, _asker(exchange))
        error: str | None = None
        try:
            yield pull
        except DarnerError as failed:
            error = str(failed)
            raise
        finally:
            self._downloads.pulls.ended(pull, error)

    @contextmanager
    def _stored(self, exchange: Exchange, resource: BlobResource, blob: Blob, part: Part) -> Iterator[BlobPull | None]:
        """A part of what this node has. The one that begins with the first byte is the pull, of all of the blob."""
        source = self._store.source_of(blob)
        try:
            with nullcontext() if part.start else self._pulling(exchange, resource) as pull:
                if pull:
                    pull.sources[source] += blob.size
                yield pull
        finally:
            metrics.RECEIVED_BYTES.labels(source).inc(exchange.body_sent)

    def _send(self, exchange: Exchange, right: Right, blob: Blob, reader: Reader | None) -> None:
        """Each run of bytes as soon as it is there; the last byte when all of them are known to be right."""
        resource = right.resource
        if right.credential:
            blob.hide()
        part = self._part(exchange, right, blob, reader)
        if reader:
            reader.offset = part.start
        if reader and self._is_lazy(exchange, part) and self._passed_lazily(exchange, right, blob, part, reader):
            return
        with nullcontext(reader.download.pull) if reader else self._stored(exchange, resource, blob, part) as pull:
            while not _ready(blob, part.start):
                self._look(exchange, resource.registry)
            self._check_given(exchange, right, blob, reader)
            self._start(exchange, resource, part)
            self._send_part(exchange, right, blob, part, reader, pull)
            exchange.finish()

    def _send_part(
        self, exchange: Exchange, right: Right, blob: Blob, part: Part, reader: Reader | None, pull: BlobPull | None
    ) -> None:
        while (position := part.start + exchange.body_sent) < part.end:
            if reader:
                reader.offset = position
            ready = min(blob.wait(position, LOOK_SECONDS), part.end)
            if ready == part.end and not blob.wait_proven(part.start, part.end, LOOK_SECONDS if position == ready - 1 else 0.0):
                ready -= 1
            if ready > position:
                self._check_given(exchange, right, blob, reader)  # other nodes bring more of it all the time
            if pull and pull.first_byte_at is None and ready > position:
                pull.first_byte_at = time.monotonic()
            exchange.send_file(blob.fd, position, ready)  # or the head alone, which is not to wait for the proof of a byte
            if ready == position and exchange.client_left():
                raise ClientGone

    def _is_lazy(self, exchange: Exchange, part: Part) -> bool:
        is_part = part.status == 206 and part.end - part.start < part.size
        return self._lazy and is_part and names_an_end(exchange.request.headers.get("range"))

    def _passed_lazily(self, exchange: Exchange, right: Right, blob: Blob, part: Part, reader: Reader) -> bool:
        """Whether the registry has sent the part, of which no other node had all bytes. The blob comes behind it, to its end.

        Not where the store has no room for the blob: each part that is read would bring all of it again.
        """
        if self._store.keeps(blob):
            reader.download.keep()
        if right.down or right.is_loaded or blob.wait_proven(part.start, part.end, LAZY_SECONDS):
            return False
        try:
            stream = self._opened_unless_proven(exchange, right, blob, part)
            if stream is None:
                return False
            with closing(stream):
                self._pass_part(exchange, right.resource, part, stream, reader.download.pull)
        except (OriginError, RequestError):
            if exchange.answered:
                raise
            return False  # it comes later, from whoever has it
        return True

    def _opened_unless_proven(self, exchange: Exchange, right: Right, blob: Blob, part: Part) -> BlobStream | None:
        """The registry's bytes of the part; None when the part is here before the registry has answered."""
        registry, repository, digest = right.resource.registry, right.resource.repository, right.resource.digest
        ask = partial(self._origin.open_blob, registry, repository, digest, right.credential, part.start, end=part.end)
        opening = self._begin(registry, ask)
        with ExitStack() as unused:
            unused.callback(opening.add_done_callback, _close_opened)
            while not wait([opening], LOOK_SECONDS).done:
                if blob.wait_proven(part.start, part.end, 0.0):
                    return None
                self._look(exchange, registry)
            stream = opening.result()
            unused.pop_all()
            return stream

    def _pass_part(self, exchange: Exchange, resource: BlobResource, part: Part, stream: BlobStream, pull: BlobPull) -> None:
        """As it comes: a client that asks for a part checks the whole itself. Beside the `pull` that brings the blob."""
        if stream.size != part.size:
            raise _another_size(resource)
        self._start(exchange, resource, part)
        for chunk in chunks(stream.read_into, part.end - part.start):
            pull.first_byte_at = pull.first_byte_at or time.monotonic()
            exchange.send(chunk)
        exchange.finish()
        metrics.RECEIVED_BYTES.labels("origin").inc(part.end - part.start)

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
        opened = partial(self._origin.open_blob, registry, resource.repository, resource.digest, credential, position)
        pulling = nullcontext() if part.start else self._pulling(exchange, resource)  # of several parts the first is the pull
        with pulling as pull, closing(opened()) as stream:
            if stream.size != part.size:
                raise _another_size(resource)
            if not exchange.answered:
                self._start(exchange, resource, part)
            held_back = b""
            for chunk in chunks(stream.read_into, part.end - position):
                hasher.update(chunk)
                if held_back and pull and pull.first_byte_at is None:
                    pull.first_byte_at = time.monotonic()
                exchange.send(held_back)
                held_back = bytes(chunk)
            if whole and "sha256:" + hasher.hexdigest() != resource.digest:
                raise DigestError(f"the registry {registry} sent something else than {resource.digest}")
            exchange.send(held_back)
            exchange.finish()
            if pull:
                pull.sources["origin"] += part.end - position
            metrics.RECEIVED_BYTES.labels("origin").inc(part.end - position)


def _asker(exchange: Exchange) -> str:
    """What the client calls itself: runtimes tell their name and version."""
    return exchange.request.headers.get("user-agent", "")


def _unknown(resource: BlobResource) -> OriginError:
    return OriginError(404, f"{resource.repository} has no {resource.digest}", "BLOB_UNKNOWN")


def _another_size(resource: BlobResource) -> OriginError:
    return OriginError(502, f"the registry {resource.registry} names another size for {resource.digest} than before")


def _close_opened(opening: Future[BlobStream]) -> None:
    if opening.exception() is None:
        opening.result().close()


def _loaded(resource: BlobResource) -> str:
    """The path of a verdict."""
    return f"loaded/{resource.digest}"


def _is_given(blob: Blob, right: Right) -> bool:
    """Whether the bytes that are here are this registry's: it had them, or those who gave them had them from it.

    Of a blob of which nothing is here yet that is not known. While the registry cannot be asked it cannot be known either whether
    this repository has them, unless they came from there.
    """
    registry = right.resource.registry
    if right.is_loaded:
        return True
    if not blob.held and blob.size:
        return False
    if right.down:
        return right.unproven or f"{registry}/{right.resource.repository}" in blob.provenance.entries
    return registry in blob.provenance.entries


def _may_be_mended(reply: Future[Any]) -> bool:
    """Whether a question failed in a way that another way to the registry need not share."""
    error = reply.exception()
    return isinstance(error, OriginError) and not error.answered


def _failed_there(reply: Future[Any]) -> bool:
    """Whether the registry was asked from here, and could not say."""
    error = reply.exception()
    return isinstance(error, OriginError) and error.failed_there


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
