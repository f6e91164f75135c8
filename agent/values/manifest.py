"""A manifest: bytes that are passed on verbatim, with the media type they came with, and what they list. Pure."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

import msgspec

MANIFEST_BYTES_MAX = 4 << 20
"""What registries accept (distribution and Docker Hub cap manifests at 4 MiB)."""
LISTED_MAX = 4096
"""Contents of one manifest that are remembered as belonging to its repository."""
MEDIA_TYPE_DEFAULT = "application/vnd.oci.image.manifest.v1+json"

_MEDIA_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,127}/[A-Za-z0-9!#$&^_.+-]{1,127}")
"""RFC 6838 section 4.2: it goes into headers and messages, so nothing else does."""
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")

Document = TypeVar("Document")


def decoded(body: bytes, document: type[Document]) -> Document | None:
    """A JSON document of that form, or None. Encoders in Go write `null` for an empty list, so every member may be null."""
    try:
        return msgspec.json.decode(body, type=document)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None


class Descriptor(msgspec.Struct):
    digest: str | None = None
    size: int | None = None
    urls: list[str] | None = None


class Listing(msgspec.Struct):
    """The members of a manifest or an index by which it lists other contents (OCI image specification 1.1)."""

    config: Descriptor | None = None
    layers: list[Descriptor] | None = None
    manifests: list[Descriptor] | None = None
    blobs: list[Descriptor] | None = None
    media_type: str | None = msgspec.field(name="mediaType", default=None)


def listing_of(body: bytes) -> Listing:
    """What a manifest lists; nothing when it is not a manifest of a known form."""
    return decoded(body, Listing) or Listing()


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
        """A manifest as it came; where its media type was not told with it, it is what the manifest itself says."""
        told = media_type.partition(";")[0].strip()
        if not _MEDIA_TYPE.fullmatch(told):
            said = listing_of(body).media_type or ""
            told = said if _MEDIA_TYPE.fullmatch(said) else MEDIA_TYPE_DEFAULT
        return cls("sha256:" + hashlib.sha256(body).hexdigest(), told, body)

    def as_stale(self) -> Manifest:
        return replace(self, stale=True)

    def lists(self) -> list[str]:
        """The digests that its repository has to hold: config, layers, and the manifests of an index.

        Its subject, and layers that are to be had elsewhere (`urls`), a registry takes without looking for them.
        """
        return [digest for digest, _ in self._listed]

    def sizes(self) -> dict[str, int]:
        """How long it says that those are."""
        return {digest: size for digest, size in self._listed if size is not None and size >= 0}

    @property
    def tells_all_sizes(self) -> bool:
        """Whether it lists something, and says of all of that how long it is."""
        return bool(self._listed) and self.sizes().keys() == set(self.lists())

    @cached_property
    def is_index(self) -> bool:
        """Whether it lists manifests, one for each platform, and no contents of its own."""
        return bool(listing_of(self.body).manifests)

    @cached_property
    def _listed(self) -> list[tuple[str, int | None]]:
        listing = listing_of(self.body)
        named = [
            *([listing.config] if listing.config else []),
            *(listing.layers or []),
            *(listing.manifests or []),
            *(listing.blobs or []),
        ]
        found = [(descriptor.digest or "", descriptor.size) for descriptor in named[:LISTED_MAX] if not descriptor.urls]
        return [(digest, size) for digest, size in found if _DIGEST.fullmatch(digest)]
