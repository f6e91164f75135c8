"""The store: this node's blobs on disk, whole and arriving.

    DIR/lock             held while a process uses the directory
    DIR/blobs/sha256/    whole, verified blobs, named by their digest
    DIR/partial/         a sparse file for each blob that arrives, and a journal (`.pieces`) of the pieces it has
    DIR/origins/HEX      which registries and repositories have shown that they have a blob (of a partial file: `.origins`)

The mode of a blob's file says whether everybody may read it: what is not public by its mode is private (docs/decisions/0026).
Whatever the mode, nobody but root comes to the file: DIR is closed.

A blob enters `blobs/` by a rename after its digest was verified, so a crash shows nothing unverified; partial files resume.
Blobs that lay on the disk when the process started are offered to other nodes at once, and verified when they are first used.
A blob that has no place in the store is in `partial/` too, and in no directory once it is whole: it is gone with its last reader.
Until a blob was found right, this node's readers get all but its end, and other nodes get nothing of it (docs/decisions/0018).

When the quota or the disk is full, partial files that nobody writes to go first, then the least recently used blobs, of these the
ones first that containerd holds too; a blob that somebody has open, or that is pinned, never goes. A blob for which only the
quota has no room is let in for as long as it takes to arrive and be shared: a node that passed it through would ask the origin
for all of it, and so would every other node.

What containerd holds too, and was found right, goes as well when nobody has used it for a while, and is read from there then.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from agent import metrics
from agent.storage.blob import Blob
from agent.storage.containerd import ContainerdContent
from agent.storage.disk import (
    PRIVATE_MODE,
    PUBLIC_MODE,
    STAT_BLOCK_BYTES,
    Journal,
    Provenance,
    WriteBack,
    allocated,
    changed_at,
    claim,
    is_public,
    remove,
    touch,
)
from agent.values.errors import DarnerError, DigestError, StoreError
from agent.values.pieces import Layout
from agent.values.space import Percent

log = logging.getLogger(__name__)

SHARED_SECONDS = 60.0
"""How long a whole blob that has no place in the store is kept for other nodes, which get it at about the same time."""
SETTLE_SECONDS = 1.0
"""How long the thread that brings the last piece waits for the blob to be kept: longer than a disk needs that is not slow. For a
slow one nobody waits, so that the swarm hears of the last piece at once, and its source is free."""
SECOND_COPY_SECONDS = 600.0
"""How long a blob that containerd holds too is kept after its last use: through the rollout in which this node has got it."""
KUBELET_FREE = Percent(16)
"""A percent more than what is free when kubelets remove images (imageGCHighThresholdPercent 85) and evict pods (evictionHard:
imagefs.available 15%, nodefs.available 10%): their own defaults."""

MANIFESTS_PART = 8
"""They have this part of the quota at most: a few KiB each, unless somebody means to fill a disk."""

_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Room:
    """Bytes on the disk: what the store has, what it may have, and what is free beside it."""

    used: int
    quota: int
    free: int


class Store:
    """Sizes in bytes, limits in bytes or as percentages of the filesystem, ages in seconds.

    `on_change(digest, size, held)` hears of every blob that other nodes can have from now on, or no longer.
    """

    def __init__(
        self,
        root: Path,
        *,
        quota: int | Percent,
        free: int | Percent,
        age: float,
        limit: int = 0,
        containerd: ContainerdContent | None = None,
    ) -> None:
        self.root = root
        self.quota = quota
        self.free = free
        self.age = age
        self.limit = limit
        """Bytes that are never exceeded, not even by what only passes: beyond them a kubelet takes the volume. 0 for none."""
        self.on_change: Callable[[str, int, bool], None] | None = None
        self.beside = 0
        """Bytes of this directory that are no blobs, and count towards the quota all the same."""
        self._containerd = containerd
        if containerd:
            containerd.on_change = self._containerd_changed
        self._lock = threading.Lock()
        self._receiving = threading.Lock()
        """Taken before `_lock`: room is made for one blob at a time."""
        self._telling = threading.Lock()
        """Held while others are told of a change, so that the last that they hear of a blob is how it is."""
        self._open: weakref.WeakValueDictionary[str, Blob] = weakref.WeakValueDictionary()
        self._arriving: weakref.WeakValueDictionary[str, Blob] = weakref.WeakValueDictionary()
        self._passing: weakref.WeakSet[Blob] = weakref.WeakSet()
        """Those of the arriving blobs that have no place in the store."""
        self._shared: dict[Blob, float] = {}
        """Of these the whole ones, and since when, that other nodes may still want."""
        self._early: set[Blob] = set()
        """Whole ones that others hear of although the disk has not taken all of them."""
        self._write_back = WriteBack()
        self._lock_fd = claim(root)
        self._blobs = root / "blobs" / "sha256"
        self._partial = root / "partial"
        self._origins = root / "origins"
        for directory in (self._blobs, self._partial, self._origins):
            directory.mkdir(parents=True, exist_ok=True)
        self._sizes: dict[str, int] = {}
        """Whole blobs by digest, least recently used first."""
        self._proven: set[str] = set()
        """Blobs that this process has verified."""
        self._withheld: set[str] = set()
        """Blobs that are offered to nobody while they are being verified."""
        self._pins: Counter[str] = Counter()
        """How often each blob is pinned."""
        self._pinned: dict[str, int] = {}
        """Their sizes, of those too that are not here yet."""
        self._evicted: list[tuple[str, int]] = []
        """Digests and sizes of evicted blobs, of which others are still to be told."""
        for entry in sorted(os.scandir(self._blobs), key=lambda item: item.stat(follow_symlinks=False).st_mtime):
            if _HEX.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                self._sizes["sha256:" + entry.name] = entry.stat().st_size

    def close(self) -> None:
        self._write_back.close()
        os.close(self._lock_fd)

    def _path(self, digest: str) -> Path:
        """The file of a whole blob."""
        return self._blobs / digest.removeprefix("sha256:")

    def _partial_path(self, digest: str) -> Path:
        """The file of one that is arriving, or of which an earlier try left a part."""
        return self._partial / digest.removeprefix("sha256:")

    def holdings(self) -> dict[str, int]:
        """The whole blobs and their sizes, least recently used first."""
        with self._lock:
            return dict(self._sizes)

    def size_of(self, digest: str) -> int | None:
        """Bytes of a whole blob; None when it is not here."""
        return self._sizes.get(digest)

    # Offers to other nodes.

    def offered(self) -> dict[str, int]:
        """The blobs that others may have from this node: containerd's, and then its own, least recently used first."""
        theirs = self._containerd.holdings() if self._containerd else {}
        with self._lock:
            own = {digest: size for digest, size in self._sizes.items() if digest not in self._withheld}
            own |= {blob.digest: blob.size for blob in (*self._shared, *self._early)}
            return {digest: size for digest, size in theirs.items() if digest not in self._sizes} | own

    def withhold(self, blob: Blob) -> None:
        """Offer a stored blob no more until it was found right: its verification takes longer than other nodes wait."""
        if self._containerd:
            self._containerd.withhold(blob)
        with self._lock:
            if self._open.get(blob.digest) is not blob or blob.digest in self._proven or blob.digest in self._withheld:
                return
            self._withheld.add(blob.digest)
        self._tell(blob.digest, blob.size, False)

    def _offers(self, digest: str) -> bool:
        with self._lock:
            if digest in self._sizes:
                return digest not in self._withheld
            if any(blob.digest == digest for blob in (*self._shared, *self._early)):
                return True
        return bool(self._containerd and self._containerd.offers(digest))

    def _tell(self, digest: str, size: int, held: bool) -> None:
        """Others hear that a blob can be had, or no longer, if that is still so: containerd may hold it too, or it came again."""
        with self._telling:
            if self.on_change and self._offers(digest) is held:
                self.on_change(digest, size, held)

    def _containerd_changed(self, digest: str, size: int, held: bool) -> None:
        if digest not in self._sizes:
            self._tell(digest, size, held)

    # Whole blobs.

    def blob(self, digest: str) -> Blob | None:
        """The stored blob, or containerd's, kept from eviction as long as the caller holds on to it.

        It is `whole` from the start, or is being verified: then its end comes when that is done, or its error does.
        """
        return self._own(digest) or (self._containerd.blob(digest, self._origins_of) if self._containerd else None)

    def source_of(self, blob: Blob) -> str:
        """Where a stored blob lies, as metrics name it."""
        return "containerd" if self._containerd and self._containerd.has(blob) else "store"

    def _origins_of(self, digest: str) -> Provenance:
        return Provenance(self._origins / digest.removeprefix("sha256:"))

    def _own(self, digest: str) -> Blob | None:
        with self._lock:
            if digest not in self._sizes:
                arriving = self._arriving.get(digest)  # one that is to be kept has its place when the disk has its bytes
                return arriving if arriving and arriving.whole else None
            blob = self._open.get(digest) or self._opened(digest)
            if blob is None or blob.error:  # damaged, and about to be dropped
                return None
            self._sizes[digest] = self._sizes.pop(digest)
        return blob

    def _opened(self, digest: str) -> Blob | None:
        try:
            fd = os.open(self._path(digest), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            log.warning("a stored blob cannot be opened: %s", error)
            if isinstance(error, FileNotFoundError):
                del self._sizes[digest]
            return None
        touch(fd)
        proven = digest in self._proven
        layout = Layout.of(os.fstat(fd).st_size)
        blob = self._open[digest] = Blob(
            digest,
            layout,
            fd,
            stored=True,
            whole=proven,
            private=not is_public(fd),
            provenance=self._origins_of(digest),
            on_end=self._checked,
        )
        if not proven:
            blob.check_in_background("the store")
        return blob

    def _checked(self, blob: Blob, error: DarnerError | None) -> None:
        """A stored blob was verified, or could not be."""
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

    # Pinned blobs.

    def pin(self, sizes: Mapping[str, int]) -> None:
        """These blobs, by digest with their sizes, are never evicted until as many `unpin` them, and are kept as soon as they are
        here. Raises StoreError when the quota has no room for all that are pinned."""
        quota = self._quota_bytes - self.beside
        with self._lock:
            pinned = self._pinned | dict(sizes)
            total, before = sum(pinned.values()), sum(self._pinned.values())
            if total > quota:
                words = f"the quota of {self.root} is {quota} bytes, of which {before} are pinned"
                raise StoreError(f"{total - before} bytes more cannot be pinned: {words}")
            self._pinned = pinned
            self._pins.update(sizes.keys())

    def unpin(self, digests: Iterable[str]) -> None:
        with self._lock:
            for digest in digests:
                self._pins[digest] -= 1
                if self._pins[digest] <= 0:
                    del self._pins[digest]
                    self._pinned.pop(digest, None)

    def drop(self, blob: Blob) -> None:
        """Forget a stored blob that is damaged or cannot be read: the next reader gets it anew."""
        if self._containerd and self._containerd.drop(blob):
            return
        with self._lock:
            self._open.pop(blob.digest, None)
            held = self._sizes.pop(blob.digest, None)
            self._proven.discard(blob.digest)
            self._withheld.discard(blob.digest)
        remove(self._path(blob.digest))
        if held is not None:
            metrics.STORE_EVICTIONS.labels("damaged").inc()
            self._tell(blob.digest, blob.size, False)

    # Arriving blobs.

    def arriving(self, digest: str) -> Blob | None:
        """The blob that is being downloaded, if it is."""
        return self._arriving.get(digest)

    def keeps(self, blob: Blob) -> bool:
        """Whether an arriving blob has a place in the store: others are gone soon after they are whole."""
        with self._lock:
            return blob not in self._passing

    def receive(self, digest: str, layout: Layout, *, public: bool = False, contents: str | None = None) -> Blob:
        """A file for a blob that is about to arrive, with the pieces that an earlier try left. Raises StoreError.

        `public` when everybody may have it, as far as is known; what an earlier try knew better counts. With `contents` it is the
        file of a web server, which has no place in the store, for its name is no digest that it could be checked against later.
        """
        path = self._partial_path(digest)
        try:
            with self._receiving:
                earlier = self._arriving.get(digest)
                if earlier:
                    earlier.fail(StoreError(f"the download of {digest} was begun anew"))
                    if earlier.whole:  # it is about to be kept: its file must not be written to again
                        return earlier
                stays = self._make_room(path, layout.size, may_stay=contents is None)
                journal = Journal(path.with_suffix(".pieces"), layout)
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE_MODE)
                public = public and (is_public(fd) or not journal.earlier)
                os.fchmod(fd, PUBLIC_MODE if public else PRIVATE_MODE)
                origins = Provenance(path.with_suffix(".origins"))
                blob = Blob(
                    digest,
                    layout,
                    fd,
                    private=not public,
                    contents=contents,
                    journal=journal,
                    provenance=origins,
                    write_back=self._write_back if stays else None,
                    on_end=self._arrived,
                )
                os.ftruncate(fd, layout.size)  # an earlier try may have been told of another size
                with self._lock:
                    self._arriving[digest] = blob
                    if not stays:
                        self._passing.add(blob)
            blob.restore(journal.earlier)
        except OSError as error:
            raise StoreError(f"the store {self.root} cannot be used: {error.strerror}") from error
        finally:
            self._tell_evicted()
        return blob

    def _arrived(self, blob: Blob, error: DarnerError | None) -> None:
        """A blob that arrived is whole, or will not be."""
        if error is None and blob not in self._passing:
            self._write_back.settle(blob, partial(self._settled, blob), SETTLE_SECONDS)
            with self._lock:
                is_slow = self._arriving.get(blob.digest) is blob
                if is_slow:
                    self._early.add(blob)
            if is_slow:
                self._tell(blob.digest, blob.size, True)
            return
        self._write_back.forget(blob)
        if error is None:
            with self._lock:
                self._shared[blob] = time.monotonic()
            self._tell(blob.digest, blob.size, True)
        self._leave(blob, error)

    def _settled(self, blob: Blob, failure: OSError | None) -> None:
        """A whole blob is on the disk, but for its end, or the disk has failed."""
        self._keep(blob, failure)
        self._leave(blob, None)
        with self._lock:
            was_early = blob in self._early
            self._early.discard(blob)
        if was_early:
            self._tell(blob.digest, blob.size, False)  # if it was not kept

    def _leave(self, blob: Blob, error: DarnerError | None) -> None:
        """A blob is among the arriving ones no longer. The pieces that were verified one by one are kept for the next try."""
        path = self._partial_path(blob.digest)
        if error is None or isinstance(error, DigestError):
            remove(path)
            remove(path.with_suffix(".pieces"))
            remove(path.with_suffix(".origins"))
        with self._lock:  # only now: until here the blob is found among the arriving ones
            if self._arriving.get(blob.digest) is blob and blob not in self._shared:
                del self._arriving[blob.digest]

    def _keep(self, blob: Blob, failure: OSError | None) -> None:
        path = self._partial_path(blob.digest)
        try:
            if failure:
                raise failure
            os.fdatasync(blob.fd)
            os.rename(path, self._blobs / path.name)
        except OSError as error:
            log.warning("a blob stays out of the store: %s", error)
            return
        blob.provenance.settle(self._origins / path.name)
        with self._lock:
            self._sizes[blob.digest] = blob.size
            self._open[blob.digest] = blob
            self._proven.add(blob.digest)
        self._tell(blob.digest, blob.size, True)

    # Room.

    @property
    def used(self) -> int:
        """Bytes on the disk: of whole blobs, of what has come of the arriving ones, and what earlier tries left."""
        with self._lock:
            here = sum(self._sizes.values()) + sum(blob.size - blob.to_come for blob in self._arriving.values())
        return here + sum(allocated(path) for path in self._leftovers())

    @property
    def reserved(self) -> int:
        """Bytes that count towards the quota: of whole blobs, those that arriving ones will have, and what earlier tries left."""
        with self._lock:
            arriving = [blob.size for blob in self._arriving.values() if blob not in self._passing]
            settled = sum(self._sizes.values()) + sum(arriving)
        return settled + sum(allocated(path) for path in self._leftovers())

    @property
    def to_come(self) -> int:
        """Bytes that the disk has to take yet of the blobs that are arriving."""
        with self._lock:
            return sum(blob.to_come for blob in self._arriving.values())

    def shrink(self) -> None:
        """Make room for what is arriving when others fill the disk. If nothing else can go, what arrives is given up."""
        with self._receiving:
            self.let_go(time.monotonic() - SHARED_SECONDS)
            steps = self._steps()
            while not (has_room := self._disk_has(self.to_come)) or not self._quota_has(0):
                if (step := next(steps, None)) is None:
                    break
                step("quota" if has_room else "disk")
            given_up = 0
            for blob in self.unfinished():
                if self._disk_has(-given_up):
                    break
                given_up += os.fstat(blob.fd).st_blocks * STAT_BLOCK_BYTES  # free when its readers have left
                metrics.STORE_REFUSALS.inc()
                blob.fail(StoreError(f"the store {self.root} has no room any more: the disk is full"))
            if given_up:
                for path in self._leftovers():
                    remove(path)
        self._tell_evicted()

    def evict_old(self) -> None:
        """Remove the blobs that nobody has used for the store's age, and partial files that nobody resumed in that time."""
        limit = time.time() - self.age
        for digest in self.holdings():
            if changed_at(self._path(digest)) < limit:
                self._evict(digest, "age")
        for digest in self.second_copies():
            if self._containerd and self._containerd.offers(digest):
                self._evict(digest, "containerd")
        self._tell_evicted()
        with self._receiving:
            for path in self._leftovers():
                if changed_at(path) < limit:
                    remove(path)
        for path in list(self._origins.iterdir()):
            digest = f"sha256:{path.name}"
            if changed_at(path) < limit and not (digest in self._sizes or (self._containerd and self._containerd.size(digest))):
                remove(path)

    def second_copies(self) -> set[str]:
        """The blobs that containerd holds too, as far as sizes tell, and that nobody has used for a while."""
        if not self._containerd:
            return set()
        limit, held = time.time() - SECOND_COPY_SECONDS, self.holdings()
        twice = {digest for digest, size in held.items() if self._containerd.size(digest) == size}
        return {digest for digest in twice if changed_at(self._path(digest)) < limit}

    def let_go(self, before: float) -> None:
        """Keep no longer what has no place in the store and was whole before that monotonic time. `_tell_evicted` follows."""
        with self._lock:
            for blob in [blob for blob, since in self._shared.items() if since < before]:
                del self._shared[blob]
                self._evicted.append((blob.digest, blob.size))

    def unfinished(self) -> list[Blob]:
        """The blobs that are arriving, those first that have no place in the store, of these the ones with most to come."""
        with self._lock:
            arriving = [blob for blob in self._arriving.values() if not blob.whole]
        return sorted(arriving, key=lambda blob: (blob not in self._passing, -blob.to_come))

    def _make_room(self, path: Path, size: int, *, may_stay: bool) -> bool:
        """Remove leftovers, then evict, until `size` bytes in the partial file `path` fit. Raises StoreError when they cannot.

        Whether the blob stays when it is whole; otherwise it is for those alone who are getting it now, and nothing goes for want
        of quota.
        """
        more = size - allocated(path)
        stays = may_stay and size <= self._quota_bytes - self.beside
        steps = self._steps(apart_from=path.stem)
        while not (has_room := self._disk_has(self.to_come + more)) or (stays and not self._quota_has(more)):
            if step := next(steps, None):
                step("quota" if has_room else "disk")
            elif stays:
                stays = False
            else:
                metrics.STORE_REFUSALS.inc()
                raise StoreError(f"the store {self.root} has no room for {size} bytes: the disk is full")
        return stays

    def _steps(self, apart_from: str = "") -> Iterator[Callable[[str], object]]:
        """What can go, in this order, each to be called with the reason."""
        yield from [partial(_remove_leftover, path) for path in self._leftovers() if path.stem != apart_from]
        now = time.monotonic()
        yield lambda _: self.let_go(now)
        held = self.holdings()
        in_order = sorted(held, key=lambda digest: not self._containerd or self._containerd.size(digest) != held[digest])
        yield from [partial(self._evict, digest) for digest in in_order]

    def _evict(self, digest: str, reason: str) -> None:
        """Remove a blob, unless it is pinned, open or its file cannot be removed. `_tell_evicted` has to follow."""
        with self._lock:
            size = self._sizes.get(digest)
            if size is None or digest in self._pins or digest in self._open or not remove(self._path(digest)):
                return
            del self._sizes[digest]
            self._proven.discard(digest)
            self._evicted.append((digest, size))
        metrics.STORE_EVICTIONS.labels(reason).inc()

    def _tell_evicted(self) -> None:
        """Called without a lock: telling others may take as long as a full socket, and no download would begin meanwhile."""
        with self._lock:
            evicted, self._evicted = self._evicted, []
        for digest, size in evicted:
            self._tell(digest, size, False)

    def _leftovers(self) -> list[Path]:
        """Partial files and journals that nobody writes to, the oldest first."""
        found = [(changed_at(path), path) for path in self._partial.iterdir() if "sha256:" + path.stem not in self._arriving]
        return [path for _, path in sorted(found)]

    def room_for_manifests(self) -> int:
        """Bytes of the quota that manifests may have."""
        return self._quota_bytes // MANIFESTS_PART

    @property
    def _quota_bytes(self) -> int:
        return _in_bytes(self.quota, shutil.disk_usage(self.root).total)

    def room(self) -> Room:
        """As it is now."""
        return Room(self.used, self._quota_bytes, shutil.disk_usage(self.root).free)

    def _quota_has(self, size: int) -> bool:
        """Whether so many bytes more keep to the quota."""
        return self.reserved + self.beside + size <= self._quota_bytes

    def _disk_has(self, size: int) -> bool:
        """Whether so many bytes more leave the disk free enough, and keep to the store's own limit.

        Only an operator who asks for no free disk gets nearer to a kubelet's limit.
        """
        if self.limit and self.used + self.beside + size > self.limit:
            return False
        usage = shutil.disk_usage(self.root)
        free = _in_bytes(self.free, usage.total)
        return usage.free - size >= (max(free, _in_bytes(KUBELET_FREE, usage.total)) if free else 0)


def _remove_leftover(path: Path, _: str) -> None:
    """No blob is lost with it, whatever the reason."""
    remove(path)


def _in_bytes(amount: int | Percent, filesystem_bytes: int) -> int:
    return filesystem_bytes * amount.number // 100 if isinstance(amount, Percent) else amount
