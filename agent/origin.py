"""The origin client: the only code that talks to registries.

It speaks the pull half of the OCI distribution specification 1.1 with the credentials of whoever asked: anonymously, by Basic,
or by the Bearer token flow. Names are resolved and checked here, on every hop of a redirect; credentials stay with the host
that they are for. Manifests and tokens come through httpx, blob bytes through `agent.transfer`, for their cost.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, TypeVar
from urllib.parse import urljoin, urlsplit

import httpx

from agent import destinations, metrics
from agent.credentials import Challenge, Credential, key_of, parse_challenge, realm_belongs
from agent.errors import DigestError, OriginError, UsageError
from agent.manifest import MANIFEST_BYTES_MAX, Manifest
from agent.ociformat import TokenAnswer, token_of, what_it_said
from agent.reference import DOCKER_HUB
from agent.settings import Address
from agent.transfer import Answer, Connection, StalledError, TransferError

DOCKER_HUB_HOST = "registry-1.docker.io"
CONNECT_SECONDS_MAX = 5.0
ANSWER_SECONDS_MAX = 8.0
"""To the head of an answer. With one retry for a token this ends well before a runtime gives up after 30 s."""
BODY_STALL_SECONDS_MAX = 15.0
REDIRECTS_MAX = 5
TOKENS_MAX = 1024
TOKEN_SECONDS_MAX = 300.0
SMALL_BYTES_MAX = 4 << 20
DISCARD_CHUNK_BYTES = 256 << 10

ACCEPT = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v2+json",
        "*/*",
    )
)


class Reply(Protocol):
    """An answer whose head is here and whose body is not read yet."""

    status: int
    headers: dict[str, str]

    def close(self) -> None: ...


AnyReply = TypeVar("AnyReply", bound=Reply)
Send = Callable[["Hop", dict[str, str]], AnyReply]


@dataclass(frozen=True)
class Hop:
    """One place to ask: a URL whose host has been resolved and may be connected to."""

    scheme: str
    host: str
    """As the server knows itself: for the Host header and for its certificate."""
    address: Address
    target: str

    @property
    def authority(self) -> str:
        default = destinations.HTTPS_PORT if self.scheme == "https" else destinations.HTTP_PORT
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.address.port == default else f"{host}:{self.address.port}"


class Origin:
    """Asks registries. Every method raises OriginError: with the registry's own status, or 502 and 504 when it did not answer."""

    def __init__(self, insecure_registries: Iterable[str], ca_files: Iterable[str]) -> None:
        self._insecure = frozenset(name.lower() for name in insecure_registries)
        self._tls = ssl.create_default_context()
        for path in ca_files:
            try:
                self._tls.load_verify_locations(path)
            except OSError as error:
                raise UsageError(f"--ca-files: {path} cannot be used: {error}") from None
        timeout = httpx.Timeout(ANSWER_SECONDS_MAX, connect=CONNECT_SECONDS_MAX)
        # Proxies in the environment are not used yet: the address that was checked has to be the one connected to.
        self._client = httpx.Client(verify=self._tls, timeout=timeout, follow_redirects=False, trust_env=False)
        self._tokens: dict[tuple[str, str, str], tuple[float, str]] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        self._client.close()

    def digest_of(self, registry: str, repository: str, reference: str, credential: Credential | None) -> str | None:
        """The digest that a tag has now, or None when the registry tells it only with the manifest."""
        path = f"/v2/{repository}/manifests/{reference}"
        with self._small("HEAD", registry, repository, path, credential, "manifest") as reply:
            return reply.headers.get("docker-content-digest")

    def manifest(self, registry: str, repository: str, reference: str, credential: Credential | None) -> Manifest:
        """The manifest that a tag or a digest names, verbatim. Raises DigestError when it is not what the digest names."""
        path = f"/v2/{repository}/manifests/{reference}"
        with self._small("GET", registry, repository, path, credential, "manifest") as reply:
            body = reply.read(MANIFEST_BYTES_MAX)
            manifest = Manifest.of(reply.headers.get("content-type", ""), body)
        if reference.startswith("sha256:") and manifest.digest != reference:
            raise DigestError(f"the registry {registry} sent something else than {reference}")
        return manifest

    def blob_size(self, registry: str, repository: str, digest: str, credential: Credential | None) -> int | None:
        """Bytes of a blob, or None when the repository does not hold it."""
        try:
            with self._small("HEAD", registry, repository, f"/v2/{repository}/blobs/{digest}", credential, "blob") as reply:
                length = reply.headers.get("content-length", "")
        except OriginError as error:
            if error.status == 404:
                return None
            raise
        if not length.isdigit():
            raise OriginError(502, f"the registry {registry} does not say how long the blob is")
        return int(length)

    def listing(self, registry: str, repository: str, path: str, credential: Credential | None) -> tuple[str, bytes]:
        """Media type and body of a small answer that is passed on as it is: tag lists and referrers."""
        with self._small("GET", registry, repository, path, credential, "listing") as reply:
            return reply.headers.get("content-type", "application/json"), reply.read(SMALL_BYTES_MAX)

    def open_blob(self, registry: str, repository: str, digest: str, credential: Credential | None, start: int = 0) -> BlobStream:
        """The bytes of a blob from `start` on. The caller reads them and closes the stream."""

        def send(hop: Hop, headers: dict[str, str]) -> BlobStream:
            wanted = {**headers, "Range": f"bytes={start}-"} if start else headers
            tls = self._tls if hop.scheme == "https" else None
            connection = Connection(hop.address, tls=tls, server_name=hop.host, stall_seconds=BODY_STALL_SECONDS_MAX)
            try:
                return BlobStream(connection, connection.get(hop.target, {"Host": hop.authority, **wanted}))
            except TransferError:
                connection.close()
                raise

        stream = self._ask(registry, repository, f"/v2/{repository}/blobs/{digest}", credential, "blob", send)
        try:
            stream.expect(registry, start)
        except BaseException:
            stream.close()
            raise
        return stream

    def _small(
        self, method: str, registry: str, repository: str, path: str, credential: Credential | None, what: str
    ) -> _SmallReply:
        def send(hop: Hop, headers: dict[str, str]) -> _SmallReply:
            host = f"[{hop.address.host}]" if ":" in hop.address.host else hop.address.host
            url = f"{hop.scheme}://{host}:{hop.address.port}{hop.target}"
            lines = {"Host": hop.authority, "Accept": ACCEPT, "Accept-Encoding": "identity", **headers}
            request = self._client.build_request(method, url, headers=lines, extensions={"sni_hostname": hop.host})
            return _SmallReply(self._client.send(request, stream=True))

        return self._ask(registry, repository, path, credential, what, send)

    def _ask(
        self,
        registry: str,
        repository: str,
        path: str,
        credential: Credential | None,
        what: str,
        send: Send[AnyReply],
    ) -> AnyReply:
        """Ask, meet one challenge, and turn what is no success into an OriginError."""
        key = (registry, repository, key_of(credential))
        authorization = self._remembered(key)
        try:
            reply = self._follow(registry, path, authorization, send)
            if reply.status == 401:
                challenge = parse_challenge(reply.headers.get("www-authenticate", ""))
                authorization = self._meet(registry, repository, challenge, credential, key)
                if authorization:
                    reply.close()
                    reply = self._follow(registry, path, authorization, send)
        except (httpx.TimeoutException, StalledError):
            metrics.ORIGIN_REQUESTS.labels(what, "timeout").inc()
            raise OriginError(504, f"the registry {registry} did not answer in time") from None
        except (httpx.HTTPError, httpx.InvalidURL, TransferError) as error:
            metrics.ORIGIN_REQUESTS.labels(what, "unreachable").inc()
            raise OriginError(502, f"the registry {registry} cannot be reached: {error}") from None
        metrics.ORIGIN_REQUESTS.labels(what, f"{reply.status // 100}xx").inc()
        if reply.status in (200, 206):
            return reply
        try:
            raise _refusal(registry, repository, reply)
        finally:
            reply.close()

    def _follow(self, registry: str, path: str, authorization: str | None, send: Send[AnyReply]) -> AnyReply:
        scheme = "http" if registry in self._insecure else "https"
        url = f"{scheme}://{DOCKER_HUB_HOST if registry == DOCKER_HUB else registry}{path}"
        headers = {"Authorization": authorization} if authorization else {}
        first = urlsplit(url).netloc
        for _ in range(REDIRECTS_MAX + 1):
            reply = send(self._hop(url), headers)
            location = reply.headers.get("location")
            if reply.status not in (301, 302, 303, 307, 308) or not location:
                return reply
            reply.close()
            url = urljoin(url, location)
            if urlsplit(url).netloc != first:
                headers = {}
        raise OriginError(502, f"the registry {registry} redirects more than {REDIRECTS_MAX} times")

    def _hop(self, url: str) -> Hop:
        parts = urlsplit(url)
        try:
            port = parts.port or (destinations.HTTP_PORT if parts.scheme == "http" else destinations.HTTPS_PORT)
        except ValueError:
            raise OriginError(502, "a registry redirects to an address that is not one") from None
        host = parts.hostname or ""
        listed = f"{host}:{port}" in self._insecure or host in self._insecure
        if parts.scheme not in ("https", "http") or (parts.scheme == "http" and not listed):
            raise OriginError(403, f"{host} is asked over HTTPS only; list it as insecure if it has none", "DENIED")
        address = destinations.resolve(Address(host, port), listed=listed)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return Hop(parts.scheme, host, address, target)

    # What proves who asks.

    def _remembered(self, key: tuple[str, str, str]) -> str | None:
        with self._lock:
            expires, authorization = self._tokens.get(key, (0.0, ""))
        return authorization if time.monotonic() < expires else None

    def _meet(
        self,
        registry: str,
        repository: str,
        challenge: Challenge | None,
        credential: Credential | None,
        key: tuple[str, str, str],
    ) -> str | None:
        """What to send in answer to a challenge, or None when nothing can be."""
        if challenge is None:
            return None
        if challenge.scheme == "basic":
            if credential is None:
                return None
            authorization, seconds = credential.header, TOKEN_SECONDS_MAX
        else:
            answer = self._token(registry, repository, challenge, credential)
            authorization, seconds = f"Bearer {answer.value}", answer.seconds
        with self._lock:
            while len(self._tokens) >= TOKENS_MAX:
                self._tokens.pop(next(iter(self._tokens)))
            self._tokens[key] = (time.monotonic() + min(seconds, TOKEN_SECONDS_MAX), authorization)
        return authorization

    def _token(self, registry: str, repository: str, challenge: Challenge, credential: Credential | None) -> TokenAnswer:
        realm = urlsplit(challenge.realm)
        registry_host = destinations.split(DOCKER_HUB_HOST if registry == DOCKER_HUB else registry, destinations.HTTPS_PORT).host
        if credential and not realm_belongs(realm.hostname or "", registry_host):
            raise OriginError(401, f"{registry} sends its users to {realm.hostname}, which is not of its domain", "UNAUTHORIZED")
        query = httpx.QueryParams({"service": challenge.service, "scope": challenge.scope or f"repository:{repository}:pull"})
        url = f"{challenge.realm}{'&' if realm.query else '?'}{query}"
        hop = self._hop(url)
        headers = {"Authorization": credential.header} if credential else {}
        host = f"[{hop.address.host}]" if ":" in hop.address.host else hop.address.host
        request = self._client.build_request(
            "GET",
            f"{hop.scheme}://{host}:{hop.address.port}{hop.target}",
            headers={"Host": hop.authority, **headers},
            extensions={"sni_hostname": hop.host},
        )
        with _SmallReply(self._client.send(request, stream=True)) as reply:
            if reply.status != 200:
                raise _refusal(registry, repository, reply, of="the token service of the registry")
            return token_of(registry, reply.read(SMALL_BYTES_MAX))


class _SmallReply:
    """An answer through httpx, read whole but bounded."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self.status = response.status_code
        self.headers = {name.lower(): value for name, value in response.headers.items()}

    def __enter__(self) -> _SmallReply:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._response.close()

    def read(self, bytes_max: int) -> bytes:
        body = b""
        try:
            for chunk in self._response.iter_raw():
                body += chunk
                if len(body) > bytes_max:
                    raise OriginError(502, f"a registry's answer is over {bytes_max} bytes", "SIZE_INVALID")
        except httpx.HTTPError as error:
            raise OriginError(502, f"a registry's answer broke off: {error}") from None
        return body


class BlobStream:
    """The bytes of a blob on their way from a registry."""

    def __init__(self, connection: Connection, answer: Answer) -> None:
        self._connection = connection
        self._length = answer.length
        self.status = answer.status
        self.headers = answer.headers
        self.size = 0
        """Bytes of the whole blob."""

    def expect(self, registry: str, start: int) -> None:
        """Learn the size, and skip to `start` where the registry does not know ranges."""
        if self._length is None or "content-encoding" in self.headers:
            raise OriginError(502, f"the registry {registry} does not say how long the blob is")
        if self.status == 206:
            unit, _, rest = self.headers.get("content-range", "").partition(" ")
            span, _, size = rest.partition("/")
            if unit != "bytes" or not size.isdigit() or span != f"{start}-{int(size) - 1}":
                raise OriginError(502, f"the registry {registry} answers another range than it was asked for")
            self.size = int(size)
            return
        self.size = self._length
        skip = memoryview(bytearray(DISCARD_CHUNK_BYTES))
        while start > 0:
            count = self.read_into(skip[: min(start, len(skip))])
            if not count:
                raise OriginError(502, f"the registry {registry} has a shorter blob than it had before")
            start -= count

    def read_into(self, buffer: memoryview) -> int:
        """Some bytes, at least one; 0 at the end. Raises OriginError when the stream stalls or breaks."""
        try:
            return self._connection.read_into(buffer)
        except StalledError as error:
            raise OriginError(504, str(error)) from None
        except TransferError as error:
            raise OriginError(502, str(error)) from None

    def read(self, bytes_max: int) -> bytes:
        buffer = bytearray(min(bytes_max, self._length or 0))
        return bytes(buffer[: self.read_into(memoryview(buffer))]) if buffer else b""

    def close(self) -> None:
        self._connection.close()


def _refusal(registry: str, repository: str, reply: _SmallReply | BlobStream | Reply, of: str = "the registry") -> OriginError:
    said = ""
    if isinstance(reply, _SmallReply | BlobStream):
        try:
            said = what_it_said(reply.read(SMALL_BYTES_MAX))
        except OriginError:
            said = ""
    status = reply.status if 400 <= reply.status < 500 else 502
    code = {401: "UNAUTHORIZED", 403: "DENIED", 404: "MANIFEST_UNKNOWN", 429: "TOOMANYREQUESTS"}.get(status, "UNAVAILABLE")
    words = f"{of} {registry} answered {reply.status} for {repository}"
    return OriginError(status, f"{words}: {said}" if said else words, code)
