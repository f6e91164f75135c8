"""A manifest: bytes that are passed on verbatim, with the media type they came with. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

from agent.ociformat import listing_of

MANIFEST_BYTES_MAX = 4 << 20
"""What registries accept (distribution and Docker Hub cap manifests at 4 MiB)."""
LISTED_MAX = 4096
"""Contents of one manifest that are remembered as belonging to its repository."""
MEDIA_TYPE_DEFAULT = "application/vnd.oci.image.manifest.v1+json"


@dataclass(frozen=True)
class Manifest:
    """A manifest, an index or an artifact."""

    digest: str
    media_type: str
    body: bytes
    stale: bool = False
    """Whether its origin could not be asked, and this is the last that it said."""

    @classmethod
    def of(cls, media_type: str, body: bytes) -> Manifest:
        plain = media_type.partition(";")[0].strip()
        if not plain or not plain.isascii() or not plain.isprintable():
            plain = listing_of(body).media_type or MEDIA_TYPE_DEFAULT
        return cls("sha256:" + hashlib.sha256(body).hexdigest(), plain, body)

    def as_stale(self) -> Manifest:
        return replace(self, stale=True)

    def lists(self) -> list[str]:
        """The digests that it names as its own: config, layers, and the manifests of an index. `urls` are not looked at."""
        listing = listing_of(self.body)
        single = [descriptor for descriptor in (listing.config, listing.subject) if descriptor]
        named = [*single, *listing.layers, *listing.manifests, *listing.blobs]
        return [descriptor.digest for descriptor in named[:LISTED_MAX] if descriptor.digest]
