"""Which client may read which blob: one that was served a manifest that lists it, or that the origin lets see it.

The store is by digest and does not know whose a blob is. This module remembers what was shown to (registry, repository,
credential), for a while after the origin was asked: being used makes no permission longer. It never asks anybody, and the origin
is asked again for permissions that it has forgotten. Pure but for its lock: the clock is the caller's.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable

from agent.values.credential import Credential

SHOWN_MAX = 1 << 16
"""Digests in all: some thousand images. Those that were shown longest ago are forgotten first."""
REMEMBERED_SECONDS = 900.0
"""Longer than the minutes of a verdict: a slow pull asks for its last layer long after its manifest."""


class Permission:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._shown: OrderedDict[tuple[str, str, str, str], float] = OrderedDict()

    def show(self, registry: str, repository: str, credential: Credential | None, digests: Iterable[str], at: float) -> None:
        """The origin let this credential see these digests in this repository at that time, or something that lists them."""
        key = credential.key if credential else ""
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
        key = credential.key if credential else ""
        with self._lock:
            at = self._shown.get((registry, repository, key, digest))
        return at if at is not None and now - at <= REMEMBERED_SECONDS else None
