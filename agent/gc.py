"""The garbage collector: what nobody has used for long goes, in the background, and blobs that the disk has no room for any more.

It also tells the metrics how full the store is. Which blobs go, and room for a blob that arrives, is the store's own affair
(`agent.storage.store`). A failing disk is no reason to stop.
"""

from __future__ import annotations

import logging
import threading
import time

from agent import metrics
from agent.registry.manifests import Manifests
from agent.storage.store import Store

log = logging.getLogger(__name__)

LOOK_SECONDS = 3.0
"""How often the disk is looked at: kubelets look every 10 s, and remove images or evict pods when they find too little free."""
EVICT_SECONDS = 600.0
"""How often old blobs and manifests are removed."""


class GarbageCollector:
    """One thread of its own; `start` and `stop` are called by another one."""

    def __init__(self, store: Store, manifests: Manifests) -> None:
        self._store = store
        self._manifests = manifests
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="garbage collector", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()

    def _run(self) -> None:
        evict_at = time.monotonic() + EVICT_SECONDS
        while not self._stopping.wait(LOOK_SECONDS):
            due = time.monotonic() >= evict_at
            evict_at += EVICT_SECONDS if due else 0.0
            try:
                self.look(evict=due)
            except OSError as error:
                log.warning("the store cannot be looked after: %s", error)

    def look(self, *, evict: bool) -> None:
        self._store.beside = self._manifests.bytes_kept
        self._store.shrink()
        room = self._store.room()
        metrics.STORE_BYTES.set(room.used)
        metrics.STORE_QUOTA_BYTES.set(room.quota)
        metrics.STORE_FREE_BYTES.set(room.free)
        if evict:
            self._store.evict_old()
            self._manifests.evict_old(self._store.age)
