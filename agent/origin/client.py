"""The origin client: what is asked of registries, and what their answers mean.

It speaks the pull half of the OCI distribution specification 1.1 with the credentials of whoever asked. Names, addresses and
redirects are `agent.origin.redirects`'s, challenges are `agent.origin.auth`'; manifests are checked here, blobs by whoever reads
them.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterable
from urllib.parse import urlsplit

from agent import metrics
from agent.http.client import StalledError, TransferError
from agent.http.ratelimit import Pace
from agent.origin.auth import Access, Authorizer
from agent.origin.blobstream import BlobStream, content_range, is_coded
from agent.origin.destinations import DestinationError, Destinations, LookUp
from agent.origin.documents import is_listing, is_manifest
from agent.origin.encodings import gunzipped, is_gzip
from agent.origin.proxies import Proxies
from agent.origin.redirects import Redirects
from agent.origin.reply import Reply
from agent.origin.shown import Sizes
from agent.origin.throttle import Throttle
from agent.values.credential import Credential
from agent.values.errors import DigestError, OriginError, UsageError
from agent.values.manifest import MANIFEST_BYTES_MAX, Manifest

ASK_SECONDS_MAX = 11.0
"""For the head of an answer and for a small body, tokens and redirects included. The supernode is asked first and may need as
long itself (see agent.swarm.supernodes): then an agent that asks once more still answers its runtime within 25 s."""

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
_CONDITIONAL = {"Range": 206, "If-None-Match": 304}
"""Headers that make another status than 200 a success."""
_UNKNOWN = {"manifest": "MANIFEST_UNKNOWN", "blob": "BLOB_UNKNOWN", "listing": "NAME_UNKNOWN"}


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
    ) -> None:
        """`paces` limit the bytes of blobs; `trusted_realms` are `agent.origin.auth`'s."""
        self._paces = [pace for pace in paces if pace]
        tls = ssl.create_default_context()
        for path in ca_files:
            try:
                tls.load_verify_locations(path)
            except OSError as error:
                raise UsageError(f"--ca-files: {path} cannot be used: {error}") from None
        self._destinations = Destinations(insecure_registries, look_up, proxies)
        self._redirects = Redirects(self._destinations, tls)
        self._authorizer = Authorizer(self._redirects, trusted_realms)
        self.sizes = Sizes()
        self.throttle = Throttle()

    def close(self) -> None:
        """End all that is under way."""
        self.throttle.close()
        self._redirects.close()

    def digest_of(
        self, registry: str, repository: str, reference: str, credential: Credential | None, known: str | None = None
    ) -> str | None:
        """The digest that a tag has now, or None when the registry tells it only to a GET. `known` is the last one."""
        headers = {"If-None-Match": f'"{known}"'} if known else {}
        access, path = Access(registry, repository, credential), f"/v2/{repository}/manifests/{reference}"
        try:
            with self._ask("HEAD", access, path, "manifest", {"Accept": ACCEPT, **headers}) as reply:
                return known if reply.status == 304 else reply.headers.get("docker-content-digest")
        except OriginError as error:
            if error.status in _HEAD_REFUSED:
                return None
            raise

    def manifest(self, registry: str, repository: str, reference: str, credential: Credential | None) -> Manifest:
        """The manifest that a tag or a digest names, verbatim. Raises DigestError when it is not what the digest names."""
        access, path = Access(registry, repository, credential), f"/v2/{repository}/manifests/{reference}"
        with self._ask("GET", access, path, "manifest", {"Accept": ACCEPT}) as reply:
            named = reference if reference.startswith("sha256:") else reply.headers.get("docker-content-digest", "")
            media_type, body = reply.headers.get("content-type", ""), _read(reply, registry, MANIFEST_BYTES_MAX)
            manifest = Manifest.of(media_type, body)
            if is_gzip(reply.headers) and manifest.digest != named:
                manifest = Manifest.of(media_type, gunzipped(body, MANIFEST_BYTES_MAX))
        if named.startswith("sha256:") and manifest.digest != named:
            raise DigestError(f"the registry {registry} sent something else than {named}")
        if reference != manifest.digest and not is_manifest(manifest.body):
            raise OriginError(502, f"the registry {registry} answered with something that is no manifest", "MANIFEST_INVALID")
        self.sizes.learn(registry, repository, manifest.sizes())
        return manifest

    def blob_size(self, registry: str, repository: str, digest: str, credential: Credential | None) -> int | None:
        """Bytes of a blob, or None when the repository does not hold it."""
        access, path = Access(registry, repository, credential), f"/v2/{repository}/blobs/{digest}"
        try:
            try:
                reply = self._ask("HEAD", access, path, "blob")
            except OriginError as error:
                if error.status not in _HEAD_REFUSED:
                    raise
                reply = self._ask("GET", access, path, "blob", {"Range": "bytes=0-0"}, big=True)
        except OriginError as error:
            if error.status == 404:
                return None
            raise
        with reply:
            size = content_range(reply.headers)[2] if reply.status == 206 else reply.length
        size = self.sizes.of(registry, repository, digest) if size in (None, -1) else size
        if size is None:
            raise OriginError(502, f"the registry {registry} does not say how long the blob is")
        return size

    def listing(self, registry: str, repository: str, path: str, credential: Credential | None) -> tuple[str, bytes]:
        """Media type and body of a small answer that is passed on as it is: tag lists and referrers."""
        with self._ask("GET", Access(registry, repository, credential), path, "listing") as reply:
            media_type, body = reply.headers.get("content-type", "application/json"), _read(reply, registry, MANIFEST_BYTES_MAX)
            body = gunzipped(body, MANIFEST_BYTES_MAX) if is_gzip(reply.headers) else body
        if not is_listing(body):
            raise OriginError(502, f"the registry {registry} answered with something that is no list")
        return media_type, body

    def open_blob(self, registry: str, repository: str, digest: str, credential: Credential | None, start: int = 0) -> BlobStream:
        """The bytes of a blob from `start` on. The caller reads them and closes the stream."""
        access, path = Access(registry, repository, credential), f"/v2/{repository}/blobs/{digest}"
        listed = self.sizes.of(registry, repository, digest)
        reply = self._ask("GET", access, path, "blob", {"Range": f"bytes={start}-"} if start else {}, big=True)
        if reply.status == 206 and is_coded(reply, listed):  # a part of the encoded bytes is of no use
            reply.close()
            reply = self._ask("GET", access, path, "blob", big=True)
        return BlobStream(reply, registry, start, self._paces, listed)

    def _ask(
        self, method: str, access: Access, path: str, what: str, headers: dict[str, str] | None = None, *, big: bool = False
    ) -> Reply:
        """The answer when it is a success; what is none, and no answer, becomes an OriginError."""
        until = time.monotonic() + ASK_SECONDS_MAX
        headers = headers or {}
        registry, repository, credential = access
        self.throttle.check(registry, credential)
        outcome = "unreachable"
        try:
            reply = self._authorized(method, access, path, headers, until, big)
            outcome = f"{reply.status // 100}xx"
            if reply.status in (200, *(_CONDITIONAL[name] for name in headers if name in _CONDITIONAL)):
                return reply
            with reply:
                raise reply.refusal(f"the registry {registry}", repository, credential is None, _UNKNOWN[what])
        except TransferError as error:
            outcome = "timeout" if isinstance(error, StalledError) else outcome
            raise _unanswered(registry, "cannot be reached", error) from None
        except DestinationError as error:
            raise OriginError(error.status, f"the registry {registry} cannot be asked: {error}", error.code) from None
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
    return OriginError(502, f"the registry {registry} {words}: {error}")
