"""Room for blobs: which go when the quota or the disk is full, or when nobody has used them for long.

Least recently used blobs go first, of these the ones first that containerd holds too; a blob that somebody has open never goes.
Partial files that nobody writes to go before any blob. This module decides; the store removes files and tells others of it
(`agent.storage.store`).
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Protocol

from agent.storage.files import allocated, changed_at, remove
from agent.values.errors import StoreError


class Evictable(Protocol):
    """Blobs that room is made among. Limits and sizes in bytes, ages in seconds."""

    root: Path
    quota: int
    free: int
    age: float

    @property
    def used(self) -> int:
        """Bytes of whole blobs, those that the arriving ones will have, and what earlier tries left."""

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

    def evict(self, digest: str) -> None:
        """Remove a blob, unless somebody has it open or its file cannot be removed."""


def make_room(store: Evictable, path: Path, size: int) -> None:
    """Remove leftovers, then evict, until `size` bytes in the partial file `path` fit. Raises StoreError when they cannot."""
    if size > store.quota:
        raise StoreError(f"a blob of {size} bytes does not fit the store's quota of {store.quota}")
    there = allocated(path)
    leftovers = iter([other for other in store.leftovers() if other.stem != path.stem])
    blobs = iter(_in_order(store))
    while not _fits(store, size - there):
        if leftover := next(leftovers, None):
            remove(leftover)
        elif digest := next(blobs, None):
            store.evict(digest)
        else:
            raise StoreError(
                f"the store {store.root} has no room for {size} bytes: its quota or the disk is full of blobs in use"
            )


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


def _in_order(store: Evictable) -> list[str]:
    """The whole blobs in the order in which they go."""
    held = store.holdings()
    return sorted(held, key=lambda digest: not store.is_held_by_containerd(digest, held[digest]))


def _fits(store: Evictable, size: int) -> bool:
    """Whether so many bytes more keep to the quota and leave the disk free enough, when all that arrives has arrived."""
    return store.used + size <= store.quota and shutil.disk_usage(store.root).free - store.to_come - size >= store.free
