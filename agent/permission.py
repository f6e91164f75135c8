"""Who may read which blob: whoever was served a manifest that lists it, or was told by the origin that the repository holds it.

The store is by digest and does not know whose a blob is. This module remembers, for (registry, repository, credential), the
digests that were shown to it, for a few minutes after the last use; it never asks anybody. Pure: the clock is the caller's.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable

from agent.credentials import Credential, key_of

REPOSITORIES_MAX = 4096
DIGESTS_MAX = 8192
"""For each (registry, repository, credential): two manifests of the largest size, or some hundred usual ones."""
REMEMBERED_SECONDS = 900.0
"""Longer than the minutes of a verdict: a slow pull asks for its last layer long after its manifest."""

Who = tuple[str, str, str]


class Permission:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._shown: OrderedDict[Who, OrderedDict[str, float]] = OrderedDict()

    def show(self, registry: str, repository: str, credential: Credential | None, digests: Iterable[str], now: float) -> None:
        """The origin let this credential see these digests in this repository."""
        who = (registry, repository, key_of(credential))
        with self._lock:
            shown = self._shown.setdefault(who, OrderedDict())
            self._shown.move_to_end(who)
            for digest in digests:
                shown[digest] = now
                shown.move_to_end(digest)
            while len(shown) > DIGESTS_MAX:
                shown.popitem(last=False)
            while len(self._shown) > REPOSITORIES_MAX:
                self._shown.popitem(last=False)

    def covers(self, registry: str, repository: str, credential: Credential | None, digest: str, now: float) -> bool:
        """Whether this credential was shown this digest not long ago."""
        who = (registry, repository, key_of(credential))
        with self._lock:
            shown = self._shown.get(who, OrderedDict())
            at = shown.get(digest)
            if at is None or now - at > REMEMBERED_SECONDS:
                return False
            shown[digest] = now
            return True
