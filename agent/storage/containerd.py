"""containerd's content store: the blobs that this node's runtime keeps, as a source beside the store. It is only read.

A file in blobs/sha256/ is whole when it is there, because containerd renames it into place, and may go at any time, by garbage
collection: a reader that has it open can still read it. Its digest is checked here before other nodes hear of it. That is
remembered over restarts (`agent.storage.verified`), but after one the file is checked once more before they get a byte
(docs/decisions/0018). `agent.storage.scrubber` decides when to look.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import stat
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

from agent.storage.blob import Blob
from agent.storage.disk import Provenance
from agent.storage.verified import Identity, Verified
from agent.values.errors import DarnerError, DigestError, StoreError
from agent.values.pieces import BLOB_BYTES_MAX, Layout

log = logging.getLogger(__name__)

BLOBS_MAX = 50_000
"""Files that are looked at: far more than a node has, and half of what a node may say it holds."""

_HEX = re.compile(r"[0-9a-f]{64}")

Turns = Callable[[int, int], Iterator[tuple[int, int]]]
"""Gives the bytes from one place to another in parts, each when its time has come."""


class ContainerdContent:
    """`on_change(digest, size, held)`, which the store sets, hears of every blob that can be offered now, or no longer."""

    def __init__(self, root: Path, verified: Verified) -> None:
        self.on_change: Callable[[str, int, bool], None] | None = None
        self._blobs = root / "blobs" / "sha256"
        self._verified = verified
        self._lock = threading.Lock()
        self._open: weakref.WeakValueDictionary[str, Blob] = weakref.WeakValueDictionary()
        self._offered: dict[str, Identity] = {}
        """The blobs that were there at the last look, and have the right digest."""
        self._offered_bytes = 0
        self._right: dict[str, Identity] = {}
        """Files that were found right since this process started."""
        self._wrong: dict[str, Identity] = {}
        """Files that are not used, because they were found wrong or could not be read."""
        self._trouble = ""
        """Why the directory could not be read at the last look."""

    def holdings(self) -> dict[str, int]:
        """The blobs that can be offered, and their sizes."""
        with self._lock:
            return {digest: identity.size for digest, identity in self._offered.items()}

    @property
    def offered_bytes(self) -> int:
        return self._offered_bytes

    def offers(self, digest: str) -> bool:
        with self._lock:
            return digest in self._offered

    def size(self, digest: str) -> int | None:
        """Bytes of a blob that containerd holds, right or wrong."""
        try:
            return self._path(digest).stat(follow_symlinks=False).st_size
        except OSError:
            return None

    def blob(self, digest: str, origins_of: Callable[[str], Provenance] = lambda _: Provenance()) -> Blob | None:
        """The blob, readable as long as the caller holds on to it, also when containerd removes it.

        It is `whole` from the start, or is being checked: then its end comes when that is done, or its error does.
        """
        with self._lock:
            blob = self._open.get(digest)
            if blob and not blob.error:
                return blob
            blob = None
            opened = self._opened(digest)
            gone = None if opened else self._withdraw(digest)
            if opened:
                fd, identity = opened
                is_right = self._right.get(digest) == identity
                layout, origins = Layout.of(identity.size), origins_of(digest)
                blob = Blob(
                    digest,
                    layout,
                    fd,
                    stored=True,
                    whole=is_right,
                    private=True,
                    provenance=origins,
                    on_end=self._checked,
                )
                self._open[digest] = blob
        if gone:
            self._tell(digest, gone.size, False)
        if blob and not blob.whole:
            blob.check_in_background("containerd's content store")
        return blob

    def has(self, blob: Blob) -> bool:
        """Whether the blob is one that was opened here."""
        with self._lock:
            return self._open.get(blob.digest) is blob

    def drop(self, blob: Blob) -> bool:
        """Whether the blob is one of containerd's; then it is not used any more, whatever becomes of it there."""
        with self._lock:
            if self._open.get(blob.digest) is not blob:
                return False
            del self._open[blob.digest]
        self._ruled(blob.digest, Identity.of(os.fstat(blob.fd)), right=False)
        return True

    def withhold(self, blob: Blob) -> None:
        """Offer a blob no more until the check that is under way has found it right, although an earlier process had."""
        with self._lock:
            if self._open.get(blob.digest) is not blob or blob.whole:
                return
            self._verified.forget(blob.digest)
            offered = self._withdraw(blob.digest)
        if offered:
            self._tell(blob.digest, offered.size, False)

    def _offer(self, digest: str, identity: Identity) -> bool:
        """Whether that is news. Called with the lock; `_tell` follows without it."""
        earlier = self._withdraw(digest)
        self._offered[digest] = identity
        self._offered_bytes += identity.size
        return earlier is None

    def _withdraw(self, digest: str) -> Identity | None:
        """The file that was offered. Called with the lock; `_tell` follows without it."""
        earlier = self._offered.pop(digest, None)
        if earlier:
            self._offered_bytes -= earlier.size
        return earlier

    def _tell(self, digest: str, size: int, held: bool) -> None:
        if self.on_change:
            self.on_change(digest, size, held)

    # Looking.

    def look(self) -> list[str]:
        """List the blobs that are there now. Returned are those that were not checked yet, the smallest first."""
        found = self._found()
        with self._lock:
            gone = [(digest, self._offered[digest].size) for digest in self._offered if digest not in found]
            for digest, _ in gone:
                self._withdraw(digest)
            fresh = {digest: identity for digest, identity in found.items() if self._offered.get(digest) != identity}
            for rulings in (self._right, self._wrong):
                for digest in rulings.keys() - found.keys():
                    del rulings[digest]
            proven = {digest for digest, identity in fresh.items() if self._verified.holds(digest, identity)}
            for digest in proven:
                self._offer(digest, found[digest])
            unknown = [
                digest for digest, identity in fresh.items() if digest not in proven and self._wrong.get(digest) != identity
            ]
            if not self._trouble:
                self._verified.keep_only(set(found))
        for digest, size in gone:
            self._tell(digest, size, False)
        for digest in proven:
            self._tell(digest, found[digest].size, True)
        return sorted(unknown, key=lambda digest: found[digest].size)

    def remember(self) -> None:
        """Write down which files were found right."""
        with self._lock:
            self._verified.write()

    def check(self, digest: str, turns: Turns) -> None:
        """Find out whether a blob is right, at the pace of `turns`, leaving no trace in the page cache. Raises OSError."""
        with self._lock:
            opened = None if digest in self._open else self._opened(digest)  # its reader has it checked
        if opened is None:
            return
        fd, identity = opened
        try:
            hasher = hashlib.sha256()
            for start, end in turns(0, identity.size):
                hasher.update(os.pread(fd, end - start, start))
                os.posix_fadvise(fd, start, end - start, os.POSIX_FADV_DONTNEED)
            self._ruled(digest, identity, right="sha256:" + hasher.hexdigest() == digest)
        finally:
            os.close(fd)

    def _path(self, digest: str) -> Path:
        return self._blobs / digest.removeprefix("sha256:")

    def _opened(self, digest: str) -> tuple[int, Identity] | None:
        """Descriptor and identity of a file that may be used."""
        try:
            fd = os.open(self._path(digest), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            if not isinstance(error, FileNotFoundError):
                log.debug("a blob of containerd's cannot be opened: %s", error)
            return None
        status = os.fstat(fd)
        identity = Identity.of(status)
        if not stat.S_ISREG(status.st_mode) or identity.size > BLOB_BYTES_MAX or self._wrong.get(digest) == identity:
            os.close(fd)
            return None
        return fd, identity

    def _found(self) -> dict[str, Identity]:
        """The files that containerd has now; none where its directory is not there or cannot be read."""
        found: dict[str, Identity] = {}
        trouble = ""
        try:
            with os.scandir(self._blobs) as entries:
                for entry in entries:
                    if _HEX.fullmatch(entry.name) and entry.is_file(follow_symlinks=False) and len(found) < BLOBS_MAX:
                        try:
                            found["sha256:" + entry.name] = Identity.of(entry.stat(follow_symlinks=False))
                        except FileNotFoundError:  # removed since it was listed
                            continue
        except OSError as error:
            trouble = str(error)
        if trouble and trouble != self._trouble:
            log.warning("containerd's content store is no source: %s", trouble)
        self._trouble = trouble
        return found

    def _checked(self, blob: Blob, error: DarnerError | None) -> None:
        """A blob that somebody has open was checked, or could not be."""
        if error is None or isinstance(error, DigestError | StoreError):
            self._ruled(blob.digest, Identity.of(os.fstat(blob.fd)), right=error is None)

    def _ruled(self, digest: str, identity: Identity, *, right: bool) -> None:
        """A file was found right, or wrong."""
        if not right:
            log.warning("containerd's %s does not have that digest, or cannot be read: it is not used", digest)
            with self._lock:
                self._wrong[digest] = identity
                self._verified.forget(digest)  # or the next look would offer it again
                withdrawn = self._withdraw(digest)
            if withdrawn:
                self._tell(digest, identity.size, False)
            return
        is_there = self._is_there(digest, identity)
        with self._lock:
            self._right[digest] = identity
            self._verified.add(digest, identity)
            is_news = is_there and self._offer(digest, identity)
        if is_news:
            self._tell(digest, identity.size, True)

    def _is_there(self, digest: str, identity: Identity) -> bool:
        try:
            return Identity.of(self._path(digest).stat(follow_symlinks=False)) == identity
        except OSError:
            return False
