"""The registry endpoint, from which the container runtime on this node pulls (OCI distribution specification 1.1, pull part).

Every request becomes a value (`agent.registry.target`), every answer comes from the ladder of sources: the store, the swarm, the
origin. Read only. A client may have what the origin allowed it (`agent.registry.permission`), whatever else is in the store.
"""

from __future__ import annotations

import logging
import time
from functools import partial

from agent import metrics
from agent.download.manager import DownloadManager
from agent.http.server import Exchange, Listener
from agent.origin.client import Origin
from agent.origin.credential_provider import CredentialProviders
from agent.registry.blobs import Blobs
from agent.registry.client_wait import HEAD_SECONDS_MAX, ClientWait
from agent.registry.manifests import Manifests
from agent.registry.node_credentials import NodeCredentials
from agent.registry.permission import Permission
from agent.registry.target import BlobResource, ListingResource, ManifestResource, Ping, RangeError, Resource, parse_target
from agent.storage.store import Store
from agent.swarm.supernodes import Supernodes
from agent.values.address import Address
from agent.values.credential import Credential, from_authorization
from agent.values.errors import DarnerError, OriginError, RequestError
from agent.values.manifest import Manifest
from agent.values.pattern import Pattern, allowed

log = logging.getLogger(__name__)

CONNECTIONS_MAX = 512
IDLE_SECONDS = 90.0

METHODS = ("GET", "HEAD")
CHALLENGE = {"WWW-Authenticate": 'Basic realm="darner"'}
VERSION = {"Docker-Distribution-Api-Version": "registry/2.0"}
STALE = {"Warning": '110 darner "the registry cannot be asked; this is its last answer"'}


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
        self._manifests = manifests
        self._permission = permission
        self._swarm = swarm
        self._origin = origin
        self._allow = allow
        self._client_wait = ClientWait(head_seconds)
        self._node = NodeCredentials(providers or CredentialProviders.of_node("", ""), self._client_wait)
        self._blobs = Blobs(store, downloads, origin, permission, self._client_wait, VERSION)

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
            if isinstance(resource, Resource) and not allowed(self._allow, resource.registry, resource.repository):
                name = f"{resource.registry}/{resource.repository}"
                raise RequestError(403, "DENIED", f"{name} is not among --allow-registries, from which nodes pull")
            authorization = exchange.request.headers.get("authorization")
            credential = None if authorization is None else from_authorization(authorization)
            match resource:
                case Ping():
                    exchange.answer(200, {"Content-Type": "application/json", **VERSION}, b"{}")
                case ManifestResource():
                    self._node.answer(exchange, resource, credential, partial(self._manifest, exchange, resource))
                case BlobResource():
                    self._node.answer(exchange, resource, credential, partial(self._blobs.answer, exchange, resource))
                case ListingResource():
                    self._node.answer(exchange, resource, credential, partial(self._listing, exchange, resource))
            metrics.REGISTRY_ANSWERS.labels(kind, "ok").inc()
        except DarnerError as error:
            metrics.REGISTRY_ANSWERS.labels(kind, str(error.status)).inc()
            if exchange.answered:
                raise
            log.warning("%s: %d %s", exchange.request, error.status, error)
            exchange.fail(error, VERSION | _headers_of(error))

    # Manifests.

    def _manifest(self, exchange: Exchange, resource: ManifestResource, credential: Credential | None) -> None:
        registry, repository, reference = resource.registry, resource.repository, resource.reference
        # The origin is not asked again for a manifest that this credential was shown just now: a runtime asks for a tag, and next
        # for its digest.
        at = self._permission.shown_at(registry, repository, credential, reference, time.monotonic())
        manifest = self._manifests.kept(reference) if at is not None else None
        if at is None or manifest is None:
            manifest = self._client_wait.ask(exchange, registry, lambda: self._resolve(resource, credential))
            at = time.monotonic()
        self._permission.show(registry, repository, credential, [manifest.digest, *manifest.lists()], at)
        self._origin.sizes.learn(registry, repository, manifest.sizes())
        headers = {"Content-Type": manifest.media_type, "Docker-Content-Digest": manifest.digest, **VERSION}
        exchange.answer(200, headers | (STALE if manifest.stale else {}), manifest.body)

    def _resolve(self, resource: ManifestResource, credential: Credential | None) -> Manifest:
        """The manifest that the name means now: the supernode's answer, or the origin's."""
        registry, repository, reference = resource.registry, resource.repository, resource.reference
        if credential is None:  # others' credentials never leave this node but to the origin itself
            manifest = self._swarm.resolve(registry, repository, reference)
            if manifest:
                if manifest.stale:
                    self._manifests.keep(manifest)
                else:
                    self._manifests.remember(registry, repository, reference, None, manifest)
                return manifest
        return self._manifests.resolve(registry, repository, reference, credential)

    def _listing(self, exchange: Exchange, resource: ListingResource, credential: Credential | None) -> None:
        registry, repository = resource.registry, resource.repository
        path = f"/v2/{repository}/{resource.rest}"
        media_type, body = self._client_wait.ask(
            exchange, registry, lambda: self._origin.listing(registry, repository, path, credential)
        )
        exchange.answer(200, {"Content-Type": media_type, **VERSION}, body)


def _headers_of(error: DarnerError) -> dict[str, str]:
    """The header fields that HTTP wants with an error (RFC 9110, section 15.5)."""
    if isinstance(error, RangeError):
        return {"Content-Range": f"bytes */{error.size}"}
    if isinstance(error, OriginError) and error.retry_after:
        return {"Retry-After": str(error.retry_after)}
    return {401: CHALLENGE, 405: {"Allow": ", ".join(METHODS)}}.get(error.status, {})
