"""What registries have shown, remembered for a while: to whom, and how long blobs are by the descriptors that list them.

The store is by digest and does not know whose a blob is. A client may read a blob if it was served a manifest that lists it, or
if the origin lets it see the blob; being used makes no permission longer. Nobody is asked here: the origin is asked again for
what was forgotten. Pure but for the locks: the clock is the caller's.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping

from agent.values.credential import Credential

SHOWN_MAX = 1 << 16
"""Digests in all: some thousand images. Those that were shown longest ago are forgotten first."""
SIZES_MAX = 1 << 16
"""Blobs in all, likewise."""
REMEMBERED_SECONDS = 900.0
"""Longer than the minutes of a verdict: a slow pull asks for its last layer long after its manifest."""


def key_of(credential: Credential | None) -> str:
    """What a client is remembered by that sends this credential, or none."""
    return credential.key if credential else ""


class Permission:
    """What was shown to (registry, repository, credential)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._shown: OrderedDict[tuple[str, str, str, str], float] = OrderedDict()

    def show(self, registry: str, repository: str, credential: Credential | None, digests: Iterable[str], at: float) -> None:
        """The origin let this credential see these digests in this repository at that time, or something that lists them."""
        key = key_of(credential)
        with self._lock:
            for digest in digests:
                entry = (registry, repository, key, digest)
                if at >= self._shown.get(entry, at):
                    self._shown[entry] = at
                    self._shown.move_to_end(entry)
            while len(self._shown) > SHOWN_MAX:
                self._shown.popitem(last=False)

    def shown_at(self, registry: str, repository: str, credential: Credential | None, digest: str, now: float) -> float | None:
        """When this credential was shown this digest in this repository; None when that is too long ago, or never was."""
        key = key_of(credential)
        with self._lock:
            at = self._shown.get((registry, repository, key, digest))
        return at if at is not None and now - at <= REMEMBERED_SECONDS else None


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
