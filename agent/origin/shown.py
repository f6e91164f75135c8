"""What registries have shown, remembered for a while: to whom, and how long blobs are by the descriptors that list them.

The store is by digest and does not know whose a blob is. A verdict is that a registry has a digest, in a repository, for a
credential. It comes from the registry's own answer about that digest: that a manifest lists it proves nothing, for whoever may
push can list what he likes. Nobody is asked here: the origin is asked again for what was forgotten, and being used makes no
verdict longer. Pure but for the locks: the clock is the caller's.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import NamedTuple

from agent.values.credential import Credential
from agent.values.manifest import Manifest

SHOWN_MAX = 1 << 16
"""Verdicts in all: some thousand images. Those that were given longest ago are forgotten first."""
SIZES_MAX = 1 << 16
"""Blobs in all, likewise."""
REMEMBERED_SECONDS = 300.0
"""How long a verdict is good."""
IMAGES_MAX = 1 << 12
"""Repositories, by credential, whose images are remembered."""
LISTED_MAX = 1 << 13
"""Digests of each of them."""


def key_of(credential: Credential | None) -> str:
    """What a client is remembered by that sends this credential, or none."""
    return credential.key if credential else ""


class WhenDown(Enum):
    """Who is given what is here while its registry cannot be asked, and no verdict is young enough."""

    DENY = "deny"
    SAME_IMAGE = "same-image"
    """Those who were given this image before."""
    ALLOW = "allow"


class Said(NamedTuple):
    """What other nodes were told by a registry, as a supernode repeats it."""

    is_yours: bool
    """Whether this node is to ask the registry, for all who wait; what else is here is old then, or one node's word."""
    age: float | None
    """Seconds since the registry allowed it; None when nobody is believed who says so."""
    manifest: Manifest | None
    is_loaded: bool = False
    """Whether an operator has put it into the supernodes for everybody."""


class Permission:
    """What was shown to (registry, repository, credential). A path is `blobs/DIGEST` or `manifests/DIGEST`.

    `loaded/DIGEST` says of a blob besides that its bytes may come from anywhere.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._shown: OrderedDict[tuple[str, str, str, str], float] = OrderedDict()
        self._images: OrderedDict[tuple[str, str, str], OrderedDict[str, None]] = OrderedDict()

    def show(self, registry: str, repository: str, credential: Credential | None, path: str, at: float) -> None:
        """The origin let this credential have this path of this repository at that time."""
        entry = (registry, repository, key_of(credential), path)
        with self._lock:
            if at >= self._shown.get(entry, at):
                self._shown[entry] = at
                self._shown.move_to_end(entry)
            while len(self._shown) > SHOWN_MAX:
                self._shown.popitem(last=False)

    def shown_at(self, registry: str, repository: str, credential: Credential | None, path: str, now: float) -> float | None:
        """When this credential was last allowed this path; None when that is too long ago, or never was."""
        with self._lock:
            at = self._shown.get((registry, repository, key_of(credential), path))
        return at if at is not None and now - at <= REMEMBERED_SECONDS else None

    def refuse(self, registry: str, repository: str, path: str, key: str) -> None:
        """The origin refuses what it allowed before, to whom is remembered by this key."""
        with self._lock:
            self._shown.pop((registry, repository, key, path), None)

    def refuse_images(self, registry: str, repository: str, credential: Credential | None) -> None:
        """The origin refuses this credential in this repository."""
        with self._lock:
            self._images.pop((registry, repository, key_of(credential)), None)

    # Images.

    def show_image(self, registry: str, repository: str, credential: Credential | None, listed: Iterable[str]) -> None:
        """This credential was given a manifest of this repository that lists these digests, which opens none of them."""
        key = (registry, repository, key_of(credential))
        with self._lock:
            digests = self._images.setdefault(key, OrderedDict())
            self._images.move_to_end(key)
            for digest in listed:
                digests[digest] = None
                digests.move_to_end(digest)
            while len(digests) > LISTED_MAX:
                digests.popitem(last=False)
            while len(self._images) > IMAGES_MAX:
                self._images.popitem(last=False)

    def is_of_image(self, registry: str, repository: str, credential: Credential | None, digest: str) -> bool:
        """Whether this credential was given a manifest of this repository that lists the digest."""
        with self._lock:
            return digest in self._images.get((registry, repository, key_of(credential)), ())


class Sizes:
    """For registries that do not say the length with the blob.

    A descriptor is somebody's word, so the registry's own length is taken before it, and the blob's digest decides in the end.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sizes: OrderedDict[tuple[str, str, str], int] = OrderedDict()

    def learn(self, registry: str, repository: str, sizes: Mapping[str, int]) -> None:
        with self._lock:
            for digest, size in sizes.items():
                self._sizes[registry, repository, digest] = size
                self._sizes.move_to_end((registry, repository, digest))
            while len(self._sizes) > SIZES_MAX:
                self._sizes.popitem(last=False)

    def of(self, registry: str, repository: str, digest: str) -> int | None:
        with self._lock:
            return self._sizes.get((registry, repository, digest))
