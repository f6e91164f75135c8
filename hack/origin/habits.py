"""Habits that registries have, the stores and token services behind them included, by name.

Each is what a `Site` of two servers does, alone or together with others in the order of the table: of two that say something
about the same part of an answer, the first counts. tests/integration/test_containerd_habits.py walks the table, and
tests/unit/hack/test_habits.py tells of a field of `Fault` or `Access` that no habit has.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping

from hack.origin.access import Access
from hack.origin.faults import Fault
from hack.origin.image import CONFIG, LAYER, MANIFEST, Image
from hack.origin.server import Origin
from hack.secrecy import secret

REPOSITORY, TAG = "team/app", "1"
USER, PASSWORD = "alice", secret("s3cret", "a password")
SLOW_SECONDS = 14.0
INDEX = "application/vnd.oci.image.index.v1+json"
_DOCKER = {
    MANIFEST: "application/vnd.docker.distribution.manifest.v2+json",
    CONFIG: "application/vnd.docker.container.image.v1+json",
    LAYER: "application/vnd.docker.image.rootfs.diff.tar",
}
_USERS = {USER: PASSWORD}
_SIGNATURE = secret("signature=a%2Fb%2Bc%3D&expires=86400", "the query of a signed URL")
URL_SECONDS = 3.0
"""For which a signed URL is good that runs out in the middle of a layer."""


class Site:
    """A registry, and the other server to which it may send its users: a store of blobs, a registry, a token service."""

    def __init__(self, registry: Origin, other: Origin, image: Image) -> None:
        self.registry, self.other = registry, other
        self.credentials = ""
        """USER:PASSWORD of whoever may pull; everybody if empty."""
        self.first_layer = f"/blobs/{image.layers[0]}"
        """A path that the config has not."""
        self.push(image)

    @property
    def servers(self) -> tuple[Origin, Origin]:
        return self.registry, self.other

    @property
    def digests(self) -> set[str]:
        """All that a client has after a pull."""
        return {self.image.digest, *self.image.blobs}

    def push(self, image: Image) -> None:
        self.image = image
        for server in self.servers:
            server.push(REPOSITORY, TAG, image)

    def behave(self, path: str = "", **said: object) -> None:
        """Both servers answer so, whichever of them is asked."""
        for server in self.servers:
            server.behave(Fault(path=path, **said))  # type: ignore[arg-type]

    def once(self, path: str = "", **said: object) -> None:
        """The first GET at the registry goes like that."""
        self.registry.fail(Fault(path=path, methods=frozenset({"GET"}), **said), times=1)  # type: ignore[arg-type]

    def redirects(self, path: str, location: str) -> None:
        self.registry.behave(Fault(path=path, status=307, headers={"Location": location}))

    def may(self, server: Origin, **rules: object) -> None:
        """Further rules of who may pull."""
        server.repositories.access = dataclasses.replace(server.repositories.access, **rules)  # type: ignore[arg-type]

    def is_private(self, **rules: object) -> None:
        self.credentials = f"{USER}:{PASSWORD}"
        self.may(self.registry, users=_USERS, private=frozenset({REPOSITORY}), **rules)


def together(site: Site, names: Iterable[str]) -> None:
    for name in names:
        HABITS[name](site)


def _headers(path: str, **headers: str | None) -> Callable[[Site], None]:
    return lambda site: site.behave(path, headers={name.replace("_", "-"): value for name, value in headers.items()})


def _head_is_refused(status: int) -> Callable[[Site], None]:
    return lambda site: site.behave(methods=frozenset({"HEAD"}), status=status)


def _in_dockers_types(site: Site) -> None:
    manifest = site.image.manifest.decode()
    for oci, docker in _DOCKER.items():
        manifest = manifest.replace(f'"{oci}"', f'"{docker}"')
    site.push(Image(manifest.encode(), site.image.blobs, _DOCKER[MANIFEST]))


def _in_an_index(site: Site) -> None:
    child = site.image
    platform = {"architecture": "amd64", "os": "linux"}
    listed = {"mediaType": child.media_type, "digest": child.digest, "size": len(child.manifest), "platform": platform}
    index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [listed]}).encode()
    site.push(Image(index, {child.digest: child.manifest, **child.blobs}, INDEX))


def _by_signed_url(site: Site) -> None:
    """A store that wants the URL exactly as it was given out."""
    site.redirects("/blobs/", f"{site.other.url}{{path}}?{_SIGNATURE}")
    site.other.behave(Fault(path=rf"/blobs/(?!.*\?{_SIGNATURE}$)", status=403))


def _by_a_url_that_runs_out(site: Site) -> None:
    """The first layer comes so slowly at first, and then breaks off, that the rest needs another URL."""
    location = f"{site.other.url}{{path}}?{_SIGNATURE}&until={{until}}"
    site.registry.behave(Fault(path="/blobs/", status=307, headers={"Location": location}, valid_seconds=URL_SECONDS))
    site.other.behave(Fault(path="/blobs/", runs_out=True))
    rate = int(500_000 / URL_SECONDS)
    slow = Fault(path=site.first_layer, methods=frozenset({"GET"}), bytes_per_second=rate, cut_after=600_000)
    site.other.fail(slow, times=1)


def _from_another_version(site: Site) -> None:
    """After a break the layer is another one by its ETag, and its first bytes were wrong."""
    site.once(site.first_layer, cut_after=500_000, flip_byte=100_000, etag='"first"')
    site.behave(site.first_layer, etag='"second"')


def _at_a_registry_of_its_own(site: Site) -> None:
    site.redirects("/blobs/", f"{site.other.url}{{path}}?{_SIGNATURE}")
    site.may(site.other, users=_USERS, bearer=True)


def _with_tokens_from_elsewhere(site: Site) -> None:
    site.is_private(bearer=True, realm=f"{site.other.url}/token")
    site.may(site.other, users=_USERS)


HABITS: Mapping[str, Callable[[Site], None]] = {
    # What is refused or fails at first, or all the time.
    "HEAD is answered 405": _head_is_refused(405),
    "HEAD is answered 401": _head_is_refused(401),
    "HEAD is answered 403": _head_is_refused(403),
    "429 at first, Retry-After": lambda site: site.once("/manifests/", status=429, headers={"Retry-After": "1"}),
    "429 at first": lambda site: site.once("/manifests/", status=429),
    "429 for a layer at first, Retry-After": lambda site: site.once(
        site.first_layer, status=429, headers={"Retry-After": "1"}, body=b"slow down"
    ),
    "500 at first": lambda site: site.once("/manifests/", status=500),
    "502 at first": lambda site: site.once("/manifests/", status=502),
    "503 at first, Retry-After": lambda site: site.once("/manifests/", status=503, headers={"Retry-After": "1"}),
    "503 for a layer at first": lambda site: site.once(site.first_layer, status=503),
    "a layer breaks off at first": lambda site: site.once(site.first_layer, cut_after=500_000),
    "a layer stalls at first": lambda site: site.once(site.first_layer, stall_after=500_000),
    "a layer is wrong at first": lambda site: site.once(site.first_layer, flip_byte=500_000),
    "a layer is another version after a break": _from_another_version,
    "four blobs at a time": lambda site: site.behave("/blobs/", at_once_max=4),
    # Types and forms.
    "Docker's media types": _in_dockers_types,
    "an index": _in_an_index,
    "manifests of a type with a parameter": _headers("/manifests/", Content_Type=f"{MANIFEST}; charset=utf-8"),
    "manifests of no type": _headers("/manifests/", Content_Type=None),
    "manifests without their digest": _headers("/manifests/", Docker_Content_Digest=None, ETag=None),
    "manifests in chunks": lambda site: site.behave("/manifests/", chunked=True),
    "manifests in gzip": lambda site: site.behave("/manifests/", gzip=True),
    "blobs in chunks": lambda site: site.behave("/blobs/", chunked=True),
    "blobs that end with their connection": _headers("/blobs/", Content_Length=None),
    "blobs of an odd type": _headers("/blobs/", Content_Type="text/html", Docker_Content_Digest=None),
    "blobs without validators": _headers("/blobs/", ETag=None, Accept_Ranges=None),
    "blobs in gzip": lambda site: site.behave("/blobs/", gzip=True),
    "blobs in aws-chunked": _headers("/blobs/", Content_Encoding="aws-chunked"),
    "Range is ignored": lambda site: site.behave(ignores_range=True),
    "Range is ignored, as is said": lambda site: site.behave("/blobs/", ignores_range=True, headers={"Accept-Ranges": "none"}),
    "bytes after the end": lambda site: site.behave(extra=b"\r\n"),
    # Time.
    "a second before every answer": lambda site: site.behave(delay_seconds=1.0),
    "manifests after 14 s": lambda site: site.behave("/manifests/", delay_seconds=SLOW_SECONDS),
    "blobs after 14 s": lambda site: site.behave("/blobs/", delay_seconds=SLOW_SECONDS),
    "a slow line": lambda site: site.behave("/blobs/", bytes_per_second=500_000),
    # Elsewhere.
    "a redirect to a path": lambda site: site.redirects(r"^[^?]*/blobs/[^?]*$", "{path}?moved"),
    "a redirect of manifests": lambda site: site.redirects("/manifests/", f"{site.other.url}{{path}}"),
    "a redirect to a signed URL": _by_signed_url,
    "a redirect to a URL that runs out in mid-layer": _by_a_url_that_runs_out,
    "a redirect to a registry that wants a token": _at_a_registry_of_its_own,
    # Who may pull.
    "tokens for everybody": lambda site: site.may(site.registry, bearer=True),
    "tokens that live for a second": lambda site: site.may(site.registry, bearer=True, token_seconds=1),
    "private": lambda site: site.is_private(),
    "private, with tokens": lambda site: site.is_private(bearer=True),
    "private, with tokens from another domain": _with_tokens_from_elsewhere,
}


def faults_of(name: str) -> tuple[list[Fault], list[Access]]:
    """What a habit does, for whoever looks whether all is done by some habit."""
    site = Site(Origin(port=1), Origin(port=2), Image.of([b"layer"]))
    HABITS[name](site)
    return [fault for server in site.servers for fault in server.faults], [server.repositories.access for server in site.servers]
