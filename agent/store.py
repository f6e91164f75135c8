"""The store: this node's blobs on disk.

    DIR/lock             held while a process uses the directory
    DIR/blobs/sha256/    whole, verified blobs, named by their digest
    DIR/partial/         a sparse file for each blob that arrives, and a ledger (`.pieces`) of the pieces it has

A blob enters `blobs/` by a rename after its digest was verified, so a crash shows nothing unverified; partial files resume.
Eviction is least recently used first, by quota, free disk and age, and never takes what somebody has open.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import shutil
import stat
import struct
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path

from agent.blob import Blob
from agent.errors import DarnerError, DigestError, StoreError, UsageError
from agent.pieces import Layout

log = logging.getLogger(__name__)

_HEX = re.compile(r"[0-9a-f]{64}")
_LEDGER_HEADER = struct.Struct(">QQ")
_LEDGER_RECORD = struct.Struct(">I?32s")


class Store:
    """Sizes and limits in bytes, ages in seconds. `on_change(digest, size, held)` hears of every blob that comes or goes."""

    def __init__(self, root: Path, *, quota: int, free: int, age: float) -> None:
        self.root = root
        self.quota = quota
        self.free = free
        self.age = age
        self.on_change: Callable[[str, int, bool], None] = _nobody_listens
        self._lock = threading.Lock()
        self._open: weakref.WeakValueDictionary[str, Blob] = weakref.WeakValueDictionary()
        self._arriving: weakref.WeakValueDictionary[str, Blob] = weakref.WeakValueDictionary()
        self._lock_fd = _claim(root)
        self._blobs = root / "blobs" / "sha256"
        self._partial = root / "partial"
        for directory in (self._blobs, self._partial):
            directory.mkdir(parents=True, exist_ok=True)
        self._sizes: dict[str, int] = {}
        """Whole blobs by digest, least recently used first."""
        for entry in sorted(os.scandir(self._blobs), key=lambda item: item.stat().st_mtime):
            if _HEX.fullmatch(entry.name):
                self._sizes["sha256:" + entry.name] = entry.stat().st_size

    def close(self) -> None:
        os.close(self._lock_fd)

    def holdings(self) -> dict[str, int]:
        """The whole blobs and their sizes, least recently used first."""
        with self._lock:
            return dict(self._sizes)

    @property
    def used(self) -> int:
        """Bytes of whole blobs, and those that the arriving ones will have."""
        with self._lock:
            return sum(self._sizes.values()) + sum(blob.size for blob in self._arriving.values())

    def blob(self, digest: str) -> Blob | None:
        """The whole blob, kept from eviction as long as the caller holds on to it."""
        with self._lock:
            if digest not in self._sizes:
                return None
            blob = self._open.get(digest)
            if blob is None:
                path = self._blobs / digest.removeprefix("sha256:")
                try:
                    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
                    os.utime(fd)
                except OSError as error:
                    log.warning("a stored blob cannot be opened and is forgotten: %s", error)
                    del self._sizes[digest]
                    return None
                blob = self._open[digest] = Blob(digest, Layout.of(os.fstat(fd).st_size), fd, whole=True)
            self._sizes[digest] = self._sizes.pop(digest)
            return blob

    def arriving(self, digest: str) -> Blob | None:
        """The blob that is being downloaded, if it is."""
        return self._arriving.get(digest)

    def receive(self, digest: str, layout: Layout) -> Blob:
        """A file for a blob that is about to arrive, with the pieces that an earlier try left. Raises StoreError."""
        self._make_room(layout.size)
        path = self._partial / digest.removeprefix("sha256:")
        try:
            ledger = _Ledger(path.with_suffix(".pieces"), layout)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(f"the store {self.root} cannot be written: {error.strerror}") from error
        blob = Blob(digest, layout, fd, ledger=ledger, on_end=self._ended)
        blob.restore(ledger.earlier)
        with self._lock:
            self._arriving[digest] = blob
        return blob

    def _ended(self, blob: Blob, error: DarnerError | None) -> None:
        """A blob that arrived is whole, or will not be. What was verified piece by piece is kept for the next try."""
        path = self._partial / blob.digest.removeprefix("sha256:")
        if error is None:
            self._keep(blob, path)
        with self._lock:  # only now: until here the blob is found among the arriving ones
            self._arriving.pop(blob.digest, None)
        if error is None or isinstance(error, DigestError):
            _unlink(path)
            _unlink(path.with_suffix(".pieces"))

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
        self.on_change(blob.digest, blob.size, True)

    def _make_room(self, size: int) -> None:
        """Evict until `size` bytes more fit the quota and the disk. Raises StoreError when they cannot."""
        if size > self.quota:
            raise StoreError(f"a blob of {size} bytes does not fit the store's quota of {self.quota}")
        for digest in self.holdings():
            if self.used + size <= self.quota and shutil.disk_usage(self.root).free - size >= self.free:
                return
            self._evict(digest)
        if self.used + size > self.quota or shutil.disk_usage(self.root).free - size < self.free:
            raise StoreError(f"the store {self.root} has no room for {size} bytes: its quota or the disk is full of blobs in use")

    def evict_old(self) -> None:
        """Drop what nobody has used for the store's age, and partial files that nobody resumed in that time."""
        limit = time.time() - self.age
        for digest in self.holdings():
            path = self._blobs / digest.removeprefix("sha256:")
            if path.exists() and path.stat().st_mtime < limit:
                self._evict(digest)
        for path in self._partial.iterdir():
            if path.stat().st_mtime < limit and "sha256:" + path.stem not in self._arriving:
                _unlink(path)

    def _evict(self, digest: str) -> None:
        with self._lock:
            size = self._sizes.get(digest)
            if size is None or digest in self._open:
                return
            del self._sizes[digest]
            _unlink(self._blobs / digest.removeprefix("sha256:"))
        self.on_change(digest, size, False)


class _Ledger:
    """The pieces of a partial file: a header with size and piece length, then a record for each piece, in order of arrival."""

    def __init__(self, path: Path, layout: Layout) -> None:
        self.earlier: dict[int, tuple[bytes, bool]] = {}
        header = _LEDGER_HEADER.pack(layout.size, layout.length)
        raw = path.read_bytes() if path.exists() else b""
        whole_records = len(header) + (len(raw) - len(header)) // _LEDGER_RECORD.size * _LEDGER_RECORD.size
        if raw.startswith(header):
            for piece, checked, digest in _LEDGER_RECORD.iter_unpack(raw[len(header) : whole_records]):
                if piece < layout.count:
                    self.earlier[piece] = (digest, checked)
            raw = raw[:whole_records]  # a record that a crash cut short is dropped
        else:
            raw = header
        path.write_bytes(raw)
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._fd)

    def append(self, piece: int, digest: bytes, checked: bool) -> None:
        try:
            os.write(self._fd, _LEDGER_RECORD.pack(piece, checked, digest))
        except OSError as error:  # the piece itself is there: what is lost is only that a restart would know of it
            log.warning("a piece is not written down: %s", error)


def _claim(root: Path) -> int:
    """Make the directory if need be, and lock it. Raises UsageError for one that is not safe to use."""
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--store {root} cannot be made: {error.strerror}") from None
    status = os.lstat(root)
    if stat.S_ISLNK(status.st_mode) or not stat.S_ISDIR(status.st_mode):
        raise UsageError(f"--store {root} is not a directory of its own; symbolic links are not followed")
    if status.st_uid != os.geteuid():
        raise UsageError(f"--store {root} belongs to user {status.st_uid}; it must belong to user {os.geteuid()}")
    if status.st_mode & 0o022:
        raise UsageError(f"--store {root} can be written by others; chmod it to 0700")
    try:
        fd = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UsageError(f"--store {root} cannot be written: {error.strerror}") from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise UsageError(f"--store {root} is in use by another process") from None
    return fd


def _unlink(path: Path) -> None:
    path.unlink(missing_ok=True)


def _nobody_listens(digest: str, size: int, held: bool) -> None:  # noqa: ARG001 (the default of Store.on_change)
    return
