"""The origin client: what is asked of registries, and what their answers mean.

It speaks the pull half of the OCI distribution specification 1.1 with the credentials of whoever asked. Names, addresses and
redirects are `agent.origin.redirects`'s, challenges are `agent.origin.auth`'; manifests are checked here, blobs by whoever reads
them.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import NamedTuple, TypeVar
from urllib.parse import urlencode, urlsplit

from agent import metrics
from agent.http.client import NotTriedError, StalledError, TransferError
from agent.http.ratelimit import Pace
from agent.origin.auth import Access, Authorizer
from agent.origin.blobstream import BlobStream, content_range, is_coded
from agent.origin.destinations import DestinationError, Destinations, Forbidden, LookUp
from agent.origin.documents import is_listing, is_manifest
from agent.origin.encodings import gunzipped, is_gzip
from agent.origin.mirrors import Mirror, Mirrors
from agent.origin.proxies import Proxies
from agent.origin.redirects import Redirects
from agent.origin.reply import Reply
from agent.origin.shares import Prompt, Shares
from agent.origin.shown import Sizes
from agent.origin.throttle import Throttle
from agent.origin.tls import RegistryTls, TlsFiles
from agent.origin.web import WebServers
from agent.values.credential import Credential
from agent.values.errors import DigestError, OriginError, RangesError
from agent.values.manifest import MANIFEST_BYTES_MAX, Manifest

ASK_SECONDS_MAX = 11.0
"""For the head of an answer and for a small body, tokens, redirects and mirrors included. The supernode is asked first and may
need as long itself: then an agent that asks once more still answers its runtime within 25 s (see agent.registry.endpoint)."""
BLOB_SECONDS_MAX = 22.0
"""For the head of a blob's answer, which a registry may have to get from elsewhere first: what a runtime waits, less a margin."""

PATIENCE_SECONDS = 60.0
PLACE_SECONDS = 60.0
"""How long a registry need not be asked again where a blob is that it sent this client elsewhere for: such URLs are good for
minutes, and one that is so no more is asked for anew."""
PLACES_MAX = 1024

ACCEPT = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v2+json",
        "*/*",
    )
)
_HEAD_REFUSED = (400, 401, 403, 405)
"""Answers to a HEAD that are no word on a GET: some registries, and signed URLs that they redirect to, know no HEAD."""
_WHO_ASKS = (401, 403)
"""Answers that another credential may mend."""
_CONDITIONAL = {"Range": 206, "If-None-Match": 304}
"""Headers that make another status than 200 a success."""
_UNKNOWN = {"manifest": "MANIFEST_UNKNOWN", "blob": "BLOB_UNKNOWN", "listing": "NAME_UNKNOWN"}


T = TypeVar("T")


class Patience:
    """With registries that are slow to begin: a runtime gives up before that, and its next try finds what has come meanwhile.

    `most` questions may have it at once. Others fail sooner, so that a registry that is silent leaves threads for the rest.
    """

    def __init__(self, most: int) -> None:
        self._shares = Shares(most)

    @contextlib.contextmanager
    def seconds(self, registry: str) -> Iterator[float | None]:
        """How long the registry may take; None, as for any question, where there is no place."""
        with self._shares.take(registry) or contextlib.nullcontext() as place:
            yield PATIENCE_SECONDS if place else None


class _Endpoint(NamedTuple):
    """Where a question goes: to a registry, or to a mirror in its place."""

    access: Access
    until: float
    """When the head of an answer, and a small body, have to be here, in monotonic time."""
    mirror: Mirror | None = None


class _Places:
    """Where registries sent a client for a blob: URLs that prove by themselves who may read there, for that client alone."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[Access, str], tuple[str, float]] = OrderedDict()

    def note(self, what: tuple[Access, str], url: str) -> None:
        with self._lock:
            self._known[what] = url, time.monotonic() + PLACE_SECONDS
            if len(self._known) > PLACES_MAX:
                self._known.popitem(last=False)

    def of(self, what: tuple[Access, str]) -> str | None:
        with self._lock:
            url, until = self._known.get(what, ("", 0.0))
            return url if url and time.monotonic() < until else None

    def forget(self, what: tuple[Access, str]) -> None:
        with self._lock:
            self._known.pop(what, None)


class Origin:
    """Asks registries. Every method raises OriginError: with the registry's own status, or 502 and 504 when it did not answer."""

    def __init__(
        self,
        insecure_registries: Iterable[str],
        ca_files: Iterable[str],
        look_up: LookUp | None = None,
        paces: Iterable[Pace | None] = (),
        proxies: Proxies | None = None,
        trusted_realms: Iterable[str] = (),
        mirrors: Iterable[Mirror] = (),
        registry_tls: Iterable[TlsFiles] = (),
        credentials: Callable[[str], list[Credential]] | None = None,
        forbidden: Forbidden | None = None,
    ) -> None:
        """`paces` limit the bytes of blobs; `trusted_realms` are `agent.origin.auth`'s.

        `credentials` are what this node has for an image of a mirror, by its name there.
        """
        self._paces = [pace for pace in paces if pace]
        mirrors = tuple(mirrors)
        self._mirrors = Mirrors(mirrors)
        self._credentials = credentials
        listed = [*insecure_registries, *(mirror.listed for mirror in mirrors)]
        self._destinations = Destinations(listed, look_up, proxies, forbidden)
        self._redirects = Redirects(self._destinations, RegistryTls(ca_files, registry_tls))
        self._authorizer = Authorizer(self._redirects, trusted_realms)
        self.web = WebServers(self._redirects, self._paces)
        """Which are no registries."""
        self._places = _Places()
        self.sizes = Sizes()
        self.on_shown: Callable[[str, str, str, Credential | None], None] = lambda *_: None
        """Told of each blob that a registry has begun to send: which, and to whom."""
        self.throttle = Throttle()
        self.prompt = Prompt()

    def close(self) -> None:
        """End all that is under way."""
        self.throttle.close()
        self._redirects.close()

    def digest_of(
        self, registry: str, repository: str, reference: str, credential: Credential | None, known: str | None = None
    ) -> str | None:
        """The digest that a tag has now, or None when the registry tells it only to a GET. `known` is the last one."""
        headers = {"If-None-Match": f'"{known}"'} if known else {}

        def ask(at: _Endpoint) -> str | None:
            try:
                with self._ask("HEAD", at, f"manifests/{reference}", "manifest", {"Accept": ACCEPT, **headers}) as reply:
                    return known if reply.status == 304 else reply.headers.get("docker-content-digest")
            except OriginError as error:
                if error.status not in _HEAD_REFUSED or (at.mirror and error.status in _WHO_ASKS):
                    raise
                return None

        return self._first(registry, repository, credential, ask)

    def manifest(
        self, registry: str, repository: str, reference: str, credential: Credential | None, seconds: float | None = None
    ) -> Manifest:
        """The manifest that a tag or a digest names, verbatim. Raises DigestError when it is not what the digest names.

        The registry itself may take `seconds`; without them, as long as for any question.
        """

        def ask(at: _Endpoint) -> Manifest:
            asked = at.access.registry
            with self._ask("GET", at, f"manifests/{reference}", "manifest", {"Accept": ACCEPT}) as reply:
                named = reference if reference.startswith("sha256:") else reply.headers.get("docker-content-digest", "")
                media_type, body = reply.headers.get("content-type", ""), _read(reply, asked, MANIFEST_BYTES_MAX)
                manifest = Manifest.of(media_type, body)
                if is_gzip(reply.headers) and manifest.digest != named:
                    manifest = Manifest.of(media_type, gunzipped(body, MANIFEST_BYTES_MAX))
            if named.startswith("sha256:") and manifest.digest != named:
                raise DigestError(f"the registry {asked} sent something else than {named}")
            if reference != manifest.digest and not is_manifest(manifest.body):
                raise OriginError(502, f"the registry {asked} answered with something that is no manifest", "MANIFEST_INVALID")
            return manifest

        manifest = self._first(registry, repository, credential, ask, seconds)
        self.sizes.learn(registry, repository, manifest.sizes())
        return manifest

    def blob_size(
        self, registry: str, repository: str, digest: str, credential: Credential | None, seconds: float | None = None
    ) -> int | None:
        """Bytes of a blob, or None when the repository does not hold it. The registry itself may take `seconds`."""
        listed = self.sizes.of(registry, repository, digest)

        def ask(at: _Endpoint) -> int:
            try:
                reply = self._ask("HEAD", at, f"blobs/{digest}", "blob")
            except OriginError as error:
                if error.status not in _HEAD_REFUSED:
                    raise
                reply = self._ask("GET", at, f"blobs/{digest}", "blob", {"Range": "bytes=0-0"}, big=True)
            with reply:
                size = content_range(reply.headers)[2] if reply.status == 206 else reply.length
            size = listed if size in (None, -1) else size
            if size is None:
                raise OriginError(502, f"the registry {at.access.registry} does not say how long the blob is")
            return size

        try:
            return self._first(registry, repository, credential, ask, seconds, digest)
        except OriginError as error:
            if error.status == 404:
                return None
            raise

    def listing(self, registry: str, repository: str, path: str, credential: Credential | None) -> tuple[str, bytes]:
        """Media type and body of a small answer that is passed on as it is: tag lists and referrers."""

        def ask(at: _Endpoint) -> tuple[str, bytes]:
            asked = at.access.registry
            with self._ask("GET", at, path.removeprefix(f"/v2/{repository}/"), "listing") as reply:
                media_type, body = reply.headers.get("content-type", "application/json"), _read(reply, asked, MANIFEST_BYTES_MAX)
                body = gunzipped(body, MANIFEST_BYTES_MAX) if is_gzip(reply.headers) else body
            if not is_listing(body):
                raise OriginError(502, f"the registry {asked} answered with something that is no list")
            return media_type, body

        return self._first(registry, repository, credential, ask)

    def open_blob(
        self,
        registry: str,
        repository: str,
        digest: str,
        credential: Credential | None,
        start: int = 0,
        seconds: float | None = None,
        end: int | None = None,
    ) -> BlobStream:
        """The bytes of a blob from `start` on, which the registry itself may take `seconds` to begin with; or as long as usual.

        With `end` not those from there on; RangesError where the registry sends whole blobs only. The caller reads them and
        closes the stream.
        """
        listed = self.sizes.of(registry, repository, digest)

        def ask(at: _Endpoint) -> BlobStream:
            last = "" if end is None else str(end - 1)
            headers = {"Range": f"bytes={start}-{last}"} if start or last else {}
            reply = self._where_it_was(at, digest, headers) if last else None
            if reply is None:
                reply = self._ask("GET", at, f"blobs/{digest}", "blob", headers, big=True)
                if reply.foreign:
                    self._places.note((at.access, digest), reply.url)
            if reply.status == 206 and is_coded(reply, listed):  # a part of the encoded bytes is of no use
                reply.close()
                reply = self._ask("GET", at, f"blobs/{digest}", "blob", big=True)
            blame = partial(self._mirrors.failed, at.mirror, digest=digest) if at.mirror else None
            return BlobStream(reply, at.access.registry, start, self._paces, listed, blame, end)

        stream = self._first(registry, repository, credential, ask, seconds or BLOB_SECONDS_MAX, digest)
        self.on_shown(registry, repository, digest, credential)
        return stream

    def _where_it_was(self, at: _Endpoint, digest: str, headers: dict[str, str]) -> Reply | None:
        """A further part of a blob from where the registry sent this client for it lately; None when it has to be asked again."""
        url = self._places.of((at.access, digest))
        if url is None:
            return None
        try:
            reply = self._redirects.ask("GET", url, headers, None, at.until, big=True)
            if reply.status == 206:
                return reply
            reply.close()
        except (TransferError, DestinationError):
            pass  # the registry may know another place
        self._places.forget((at.access, digest))
        return None

    def _first(
        self,
        registry: str,
        repository: str,
        credential: Credential | None,
        ask: Callable[[_Endpoint], T],
        seconds: float | None = None,
        digest: str = "",
    ) -> T:
        """What the first endpoint answers that has it: the mirrors, the registry itself, and then mirrors that failed lately.

        The registry's own error counts in the end. A mirror has its share of the time, so that one is left for the registry; and
        where there are mirrors, the registry alone is not blamed for its silence: nodes may have no other way than the mirrors.
        """
        now = began = time.monotonic()
        mirrors, avoided = self._mirrors.of(registry, digest)
        for number, mirror in enumerate(mirrors):
            share = (began + ASK_SECONDS_MAX - now) / (len(mirrors) - number + 1)
            try:
                return self._at_mirror(mirror, repository, now + share, ask)
            except RangesError:  # it has the blob, and is asked for the whole next, as a cache is that just gets it
                raise
            except (OriginError, DigestError) as error:
                self._mirrors.failed(mirror, error)
            now = time.monotonic()
        until = began + (ASK_SECONDS_MAX if seconds is None else seconds)
        try:
            return ask(_Endpoint(Access(registry, repository, credential), until))
        except OriginError as error:
            if error.answered or not (mirrors or avoided):
                raise
            for mirror in avoided:
                with contextlib.suppress(OriginError, DigestError):
                    return self._at_mirror(mirror, repository, until, ask)
            error.phrase = "" if error.status != 429 else error.phrase
            raise

    def _at_mirror(self, mirror: Mirror, repository: str, until: float, ask: Callable[[_Endpoint], T]) -> T:
        """A mirror is asked with what this node has for the mirror's own name, or as nobody: never with a pull's credential."""
        name = mirror.repository(repository)
        known = self._credentials(f"{mirror.server}/{name}") if self._credentials else []
        credentials: list[Credential | None] = [*known] or [None]
        while True:
            try:
                answer = ask(_Endpoint(Access(mirror.server, name, credentials.pop(0)), until, mirror))
            except OriginError as error:
                if error.status not in _WHO_ASKS or not credentials:
                    raise
            else:
                self._mirrors.worked(mirror)
                return answer

    def _ask(
        self, method: str, at: _Endpoint, rest: str, what: str, headers: dict[str, str] | None = None, *, big: bool = False
    ) -> Reply:
        """The answer when it is a success; what is none, and no answer, becomes an OriginError. `rest` follows the repository."""
        headers = headers or {}
        registry, repository, credential = at.access
        path = f"/v2/{repository}/{rest}"
        if at.mirror and at.mirror.namespace:
            path += f"{'&' if '?' in rest else '?'}{urlencode({'ns': at.mirror.namespace})}"
        self.throttle.check(registry, credential)
        outcome = "unreachable"
        try:
            reply = self._authorized(method, at.access, path, headers, at.until, big)
            outcome = f"{reply.status // 100}xx"
            if reply.status in (200, *(_CONDITIONAL[name] for name in headers if name in _CONDITIONAL)):
                return reply
            with reply:
                raise reply.refusal(f"the registry {registry}", repository, credential is None, _UNKNOWN[what])
        except TransferError as error:
            outcome = "timeout" if isinstance(error, StalledError) else outcome
            raise _unanswered(registry, "cannot be reached", error) from None
        except DestinationError as error:
            words = f"the registry {registry} cannot be asked: {error}"
            raise OriginError(error.status, words, error.code, asked=error.asked) from None
        except OriginError as error:
            self.throttle.keep(registry, credential, error)
            raise
        finally:
            metrics.ORIGIN_REQUESTS.labels(what, outcome).inc()

    def _authorized(self, method: str, access: Access, path: str, headers: dict[str, str], until: float, big: bool) -> Reply:
        """What the registry answers to this access, after one challenge at the most."""
        url = self._destinations.url(access.registry, path)
        sent = self._authorizer.remembered(access)
        reply = self._redirects.ask(method, url, headers, sent, until, big=big)
        if reply.status != 401:
            return reply
        if reply.foreign:  # a server that a redirect led to gets nothing of what is the registry's
            access, url, sent = access._replace(registry=urlsplit(reply.url).netloc, credential=None), reply.url, None
        try:
            authorization = self._authorizer.meet(access, reply.headers.get("www-authenticate", ""), sent, until)
        except BaseException:
            reply.close()
            raise
        if authorization is None:
            return reply
        reply.close()
        return self._redirects.ask(method, url, headers, authorization, until, big=big)


def _read(reply: Reply, registry: str, bytes_max: int) -> bytes:
    try:
        return reply.read(bytes_max)
    except TransferError as error:
        raise _unanswered(registry, "did not answer whole", error) from None


def _unanswered(registry: str, words: str, error: TransferError) -> OriginError:
    if isinstance(error, StalledError):
        return OriginError(504, f"the registry {registry} did not answer in time")
    return OriginError(502, f"the registry {registry} {words}: {error}", asked=not isinstance(error, NotTriedError))
