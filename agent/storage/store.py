"""The store: this node's blobs on disk.

    DIR/lock             held while a process uses the directory
    DIR/blobs/sha256/    whole, verified blobs, named by their digest
    DIR/partial/         a sparse file for each blob that arrives, and a journal (`.pieces`) of the pieces it has

A blob enters `blobs/` by a rename after its digest was verified, so a crash shows nothing unverified; partial files resume.
What lay on the disk when the process started is offered to other nodes at once, and verified once more when it is first used:
this node's reader gets all but the end meanwhile, other nodes get nothing before it was found right. A blob whose verification
takes longer than they wait is offered again when that is done.
Eviction is least recently used first, by quota, free disk and age, and never takes what somebody has open. What containerd holds
as well (`agent.storage.containerd`) goes first, and is served from there.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path

from agent.storage.blob import Blob
from agent.storage.containerd import ContainerdContent
from agent.storage.files import allocated, changed_at, claim, remove, touch
from agent.storage.journal import Journal
from agent.values.errors import DarnerError, DigestError, StoreError
from agent.values.pieces import Layout

log = logging.getLogger(__name__)

_HEX = re.compile(r"[0-9a-f]{64}")


class Store:
    """Sizes and limits in bytes, ages in seconds. `on_change(digest, size, held)` hears of every blob that comes or goes."""

    def __init__(self, root: Path, *, quota: int, free: int, age: float, containerd: ContainerdContent | None = None) -> None:
        self.root = root
        self.quota = quota
        self.free = free
        self.age = age
        self.on_change: Callable[[str, int, bool], None] = _nobody_listens
        self._containerd = containerd
        if containerd:
            containerd.on_change = self._changed_containerd
        self._lock = threading.Lock()
        self._receiving = threading.Lock()
        """Taken before `_lock`: room is made for one blob at a time."""
        self._telling = threading.Lock()
        """Held while others are told of a change, so that the last that they hear of a blob is how it is."""
        self._open: weakref.WeakValueDictionary[str, Blob] = weakref.WeakValueDictionary()
        self._arriving: weakref.WeakValueDictionary[str, Blob] = weakref.WeakValueDictionary()
        self._lock_fd = claim(root)
        self._blobs = root / "blobs" / "sha256"
        self._partial = root / "partial"
        for directory in (self._blobs, self._partial):
            directory.mkdir(parents=True, exist_ok=True)
        self._sizes: dict[str, int] = {}
        """Whole blobs by digest, least recently used first."""
        self._proven: set[str] = set()
        """Those that this process has verified."""
        self._withheld: set[str] = set()
        """Those that are offered to nobody while they are being verified."""
        for entry in sorted(os.scandir(self._blobs), key=lambda item: item.stat(follow_symlinks=False).st_mtime):
            if _HEX.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                self._sizes["sha256:" + entry.name] = entry.stat().st_size

    def close(self) -> None:
        os.close(self._lock_fd)

    def holdings(self) -> dict[str, int]:
        """The whole blobs and their sizes, least recently used first."""
        with self._lock:
            return dict(self._sizes)

    def offered(self) -> dict[str, int]:
        """What others may have from this node: containerd's blobs, and then its own, least recently used first."""
        theirs = self._containerd.holdings() if self._containerd else {}
        with self._lock:
            own = {digest: size for digest, size in self._sizes.items() if digest not in self._withheld}
            return {digest: size for digest, size in theirs.items() if digest not in self._sizes} | own

    def _offers(self, digest: str) -> bool:
        with self._lock:
            if digest in self._sizes:
                return digest not in self._withheld
        return bool(self._containerd and self._containerd.offers(digest))

    def _tell(self, digest: str, size: int, held: bool) -> None:
        """Others hear that a blob can be had, or no longer, if that is still so: containerd may hold it too, or it came again."""
        with self._telling:
            if self._offers(digest) is held:
                self.on_change(digest, size, held)

    def _changed_containerd(self, digest: str, size: int, held: bool) -> None:
        if digest not in self._sizes:
            self._tell(digest, size, held)

    def withhold(self, blob: Blob) -> None:
        """Offer a stored blob no more until it was found right: its verification takes longer than other nodes wait."""
        if self._containerd:
            self._containerd.withhold(blob)
        with self._lock:
            if self._open.get(blob.digest) is not blob or blob.digest in self._proven or blob.digest in self._withheld:
                return
            self._withheld.add(blob.digest)
        self._tell(blob.digest, blob.size, False)

    @property
    def used(self) -> int:
        """Bytes of whole blobs, those that the arriving ones will have, and what earlier tries left."""
        with self._lock:
            settled = sum(self._sizes.values()) + sum(blob.size for blob in self._arriving.values())
        return settled + sum(allocated(path) for path in self._leftovers())

    def blob(self, digest: str) -> Blob | None:
        """The stored blob, or containerd's, kept from eviction as long as the caller holds on to it.

        It is `whole` from the start, or is being verified: then its end comes when that is done, or its error does.
        """
        return self._own(digest) or (self._containerd.blob(digest) if self._containerd else None)

    def _own(self, digest: str) -> Blob | None:
        with self._lock:
            if digest not in self._sizes:
                return None
            blob = self._open.get(digest) or self._opened(digest)
            if blob is None or blob.error:  # damaged, and about to be dropped
                return None
            self._sizes[digest] = self._sizes.pop(digest)
        return blob

    def _opened(self, digest: str) -> Blob | None:
        path = self._blobs / digest.removeprefix("sha256:")
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            log.warning("a stored blob cannot be opened: %s", error)
            if isinstance(error, FileNotFoundError):
                del self._sizes[digest]
            return None
        touch(fd)
        proven = digest in self._proven
        layout = Layout.of(os.fstat(fd).st_size)
        blob = self._open[digest] = Blob(digest, layout, fd, stored=True, whole=proven, on_end=self._looked_at)
        if not proven:
            threading.Thread(target=self._look_at, args=(blob,), name=f"verify {digest[:19]}", daemon=True).start()
        return blob

    def _look_at(self, blob: Blob) -> None:
        try:
            blob.check()
        except OSError as error:
            blob.fail(StoreError(f"{blob.digest} cannot be read from the store: {error.strerror}"))

    def _looked_at(self, blob: Blob, error: DarnerError | None) -> None:
        if error is None:
            with self._lock:
                self._proven.add(blob.digest)
                was_withheld = blob.digest in self._withheld
                self._withheld.discard(blob.digest)
            if was_withheld:
                self._tell(blob.digest, blob.size, True)
        elif isinstance(error, DigestError | StoreError):
            log.warning("a stored blob is damaged and dropped: %s", error)
            self.drop(blob)

    def drop(self, blob: Blob) -> None:
        """A stored blob that is damaged or cannot be read: whoever comes next gets it anew."""
        if self._containerd and self._containerd.drop(blob):
            return
        with self._lock:
            self._open.pop(blob.digest, None)
            held = self._sizes.pop(blob.digest, None)
            self._proven.discard(blob.digest)
            self._withheld.discard(blob.digest)
        remove(self._blobs / blob.digest.removeprefix("sha256:"))
        if held is not None:
            self._tell(blob.digest, blob.size, False)

    # Arriving.

    def arriving(self, digest: str) -> Blob | None:
        """The blob that is being downloaded, if it is."""
        return self._arriving.get(digest)

    def receive(self, digest: str, layout: Layout) -> Blob:
        """A file for a blob that is about to arrive, with the pieces that an earlier try left. Raises StoreError."""
        path = self._partial / digest.removeprefix("sha256:")
        evicted: list[tuple[str, int]] = []
        try:
            with self._receiving:
                earlier = self._arriving.get(digest)
                if earlier:
                    earlier.fail(StoreError(f"the download of {digest} was begun anew"))
                    if earlier.whole:  # it is about to be kept: its file must not be written to again
                        return earlier
                self._make_room(path, layout.size, evicted)
                journal = Journal(path.with_suffix(".pieces"), layout)
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
                blob = Blob(digest, layout, fd, journal=journal, on_end=self._ended)
                os.ftruncate(fd, layout.size)  # an earlier try may have been told of another size
                with self._lock:
                    self._arriving[digest] = blob
            blob.restore(journal.earlier)
        except OSError as error:
            raise StoreError(f"the store {self.root} cannot be used: {error.strerror}") from error
        finally:  # after the lock is released: telling others may take as long as a full socket
            for gone, size in evicted:
                self._tell(gone, size, False)
        return blob

    def _ended(self, blob: Blob, error: DarnerError | None) -> None:
        """A blob that arrived is whole, or will not be. What was verified piece by piece is kept for the next try."""
        path = self._partial / blob.digest.removeprefix("sha256:")
        if error is None:
            self._keep(blob, path)
        if error is None or isinstance(error, DigestError):
            remove(path)
            remove(path.with_suffix(".pieces"))
        with self._lock:  # only now: until here the blob is found among the arriving ones
            if self._arriving.get(blob.digest) is blob:
                del self._arriving[blob.digest]

    def _keep(self, blob: Blob, path: Path) -> None:
        try:
            os.fdatasync(blob.fd)
            os.rename(path, self._blobs / path.name)
        except OSError as failure:
            log.warning("a blob stays out of the store: %s", failure)
            return
        with self._lock:
            self._sizes[blob.digest] = blob.size
            self._open[blob.digest] = blob
            self._proven.add(blob.digest)
        self._tell(blob.digest, blob.size, True)

    # Room.

    def _make_room(self, path: Path, size: int, evicted: list[tuple[str, int]]) -> None:
        """Drop what earlier tries left, then evict, until `size` bytes in the partial file `path` fit. Raises StoreError.

        Digests and sizes of the blobs that went are added to `evicted`, also when it raises.
        """
        if size > self.quota:
            raise StoreError(f"a blob of {size} bytes does not fit the store's quota of {self.quota}")
        there = allocated(path)
        leftovers = iter([other for other in self._leftovers() if other.stem != path.stem])
        evictable = iter(self._evictable())
        while not self._fits(size - there):
            if leftover := next(leftovers, None):
                remove(leftover)
            elif digest := next(evictable, None):
                if (freed := self._evict(digest)) is not None:
                    evicted.append((digest, freed))
            else:
                raise StoreError(
                    f"the store {self.root} has no room for {size} bytes: its quota or the disk is full of blobs in use"
                )

    def _evictable(self) -> list[str]:
        """The whole blobs: those first that containerd holds too, each kind least recently used first."""
        held = self.holdings()
        if self._containerd is None:
            return list(held)
        containerd = self._containerd
        return sorted(held, key=lambda digest: containerd.size(digest) != held[digest])

    def _fits(self, size: int) -> bool:
        """Whether so many bytes more keep to the quota and leave the disk free enough, when all that arrives has arrived."""
        with self._lock:
            to_come = sum(blob.missing.bit_count() * blob.layout.length for blob in self._arriving.values())
        return self.used + size <= self.quota and shutil.disk_usage(self.root).free - to_come - size >= self.free

    def _leftovers(self) -> list[Path]:
        """Partial files and journals that nobody writes to, the oldest first."""
        found = [(changed_at(path), path) for path in self._partial.iterdir() if "sha256:" + path.stem not in self._arriving]
        return [path for _, path in sorted(found)]

    def evict_old(self) -> None:
        """Drop what nobody has used for the store's age, and partial files that nobody resumed in that time."""
        limit = time.time() - self.age
        for digest in self.holdings():
            if changed_at(self._blobs / digest.removeprefix("sha256:")) < limit:
                freed = self._evict(digest)
                if freed is not None:
                    self._tell(digest, freed, False)
        with self._receiving:
            for path in self._leftovers():
                if changed_at(path) < limit:
                    remove(path)

    def _evict(self, digest: str) -> int | None:
        """The bytes of a blob that went, for the caller to tell others; None when it stays."""
        with self._lock:
            size = self._sizes.get(digest)
            if size is None or digest in self._open or not remove(self._blobs / digest.removeprefix("sha256:")):
                return None
            del self._sizes[digest]
            self._proven.discard(digest)
        return size


def _nobody_listens(digest: str, size: int, held: bool) -> None:  # noqa: ARG001 (the default of Store.on_change)
    return
