"""How long blobs are, by the descriptors that list them: for registries that do not say it with the blob.

A descriptor is somebody's word, so the registry's own length is taken before it, and the blob's digest decides in the end.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping

SIZES_MAX = 1 << 16
"""Blobs in all: some thousand images. Those that were listed longest ago are forgotten first."""


class Sizes:
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
