"""Room for blobs: which go when the quota or the disk is full, or when nobody has used them for long.

Least recently used blobs go first, of these the ones first that containerd holds too; a blob that somebody has open never goes.
Partial files that nobody writes to go before any blob. A blob for which only the quota has no room is let in for as long as it
takes to arrive and be shared: a node that passed it through would ask the origin for all of it, and so would every other node.
This module decides; the store removes files and tells others of it (`agent.storage.store`).
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Protocol

from agent.storage.blob import Blob
from agent.storage.files import STAT_BLOCK_BYTES, allocated, changed_at, remove
from agent.values.errors import StoreError
from agent.values.space import Percent, in_bytes

KUBELET_FREE = Percent(16)
"""A percent more than what is free when kubelets remove images (imageGCHighThresholdPercent 85) and evict pods (evictionHard:
imagefs.available 15%, nodefs.available 10%): their own defaults."""


class Evictable(Protocol):
    """Blobs that room is made among. Bytes or percentages of the filesystem; ages in seconds."""

    root: Path
    quota: int | Percent
    free: int | Percent
    age: float

    @property
    def reserved(self) -> int:
        """Bytes that count towards the quota: of whole blobs, those that arriving ones will have, and what earlier tries left."""

    @property
    def to_come(self) -> int:
        """Bytes that the disk has to take yet of the blobs that are arriving."""

    def holdings(self) -> dict[str, int]:
        """The whole blobs and their sizes, least recently used first."""

    def path(self, digest: str) -> Path:
        """The file of a whole blob."""

    def is_held_by_containerd(self, digest: str, size: int) -> bool:
        """Whether a blob can be read elsewhere on this node as well."""

    def leftovers(self) -> list[Path]:
        """Partial files and journals that nobody writes to, the oldest first."""

    def let_go(self, before: float) -> None:
        """Keep no longer what has no place in the store and was whole before that time, monotonic."""

    def evict(self, digest: str) -> None:
        """Remove a blob, unless somebody has it open or its file cannot be removed."""

    def unfinished(self) -> list[Blob]:
        """The blobs that are arriving, those first that have no place in the store, of these the ones with most to come."""


def make_room(store: Evictable, path: Path, size: int) -> bool:
    """Remove leftovers, then evict, until `size` bytes in the partial file `path` fit. Raises StoreError when they cannot.

    Whether the blob may stay when it is whole; otherwise it is for those alone who are getting it now.
    """
    more = size - allocated(path)
    stays = size <= _quota(store)
    steps = _steps(store, apart_from=path.stem)
    while not _disk_has(store, store.to_come + more) or (stays and not _quota_has(store, more)):
        if step := next(steps, None):
            step()
        elif stays:
            stays = False
        else:
            raise StoreError(f"the store {store.root} has no room for {size} bytes: the disk is full")
    return stays


def shrink(store: Evictable) -> None:
    """Make room for what is arriving when others fill the disk. If nothing else can go, what arrives is given up."""
    steps = _steps(store)
    while not (_disk_has(store, store.to_come) and _quota_has(store, 0)) and (step := next(steps, None)):
        step()
    given_up = 0
    for blob in store.unfinished():
        if _disk_has(store, -given_up):
            break
        given_up += os.fstat(blob.fd).st_blocks * STAT_BLOCK_BYTES  # free when its readers have left
        blob.fail(StoreError(f"the store {store.root} has no room any more: the disk is full"))
    if given_up:
        for path in store.leftovers():
            remove(path)


def evict_old(store: Evictable) -> None:
    """Evict the blobs that nobody has used for the store's age."""
    limit = time.time() - store.age
    for digest in store.holdings():
        if changed_at(store.path(digest)) < limit:
            store.evict(digest)


def remove_old_leftovers(store: Evictable) -> None:
    """Remove partial files that nobody has resumed for the store's age."""
    limit = time.time() - store.age
    for path in store.leftovers():
        if changed_at(path) < limit:
            remove(path)


def _steps(store: Evictable, apart_from: str = "") -> Iterator[Callable[[], object]]:
    """What can go, in this order."""
    yield from [partial(remove, path) for path in store.leftovers() if path.stem != apart_from]
    yield partial(store.let_go, time.monotonic())
    held = store.holdings()
    in_order = sorted(held, key=lambda digest: not store.is_held_by_containerd(digest, held[digest]))
    yield from [partial(store.evict, digest) for digest in in_order]


def _quota(store: Evictable) -> int:
    return in_bytes(store.quota, shutil.disk_usage(store.root).total)


def _quota_has(store: Evictable, size: int) -> bool:
    """Whether so many bytes more keep to the quota."""
    return store.reserved + size <= _quota(store)


def _disk_has(store: Evictable, size: int) -> bool:
    """Whether so many bytes more leave the disk free enough. Only who asks for no free disk gets nearer to a kubelet's limit."""
    usage = shutil.disk_usage(store.root)
    free = in_bytes(store.free, usage.total)
    return usage.free - size >= (max(free, in_bytes(KUBELET_FREE, usage.total)) if free else 0)
