"""What the store has on disk: files, the journals of partial ones, and what of all that can be believed.

A journal says which pieces of a partial file are there, written down as they arrive, so that a later try goes on from there: a
header with the blob's size and piece length, then a record for each piece, in order of arrival. A record claims and proves
nothing: a piece counts when the bytes in the file have the digest that is written there. That digest is the piece's, or that of
the blob from its first byte to the piece's last one: a stream that comes in order has that at each piece's end for nothing, where
a digest of each piece would cost as much again as the blob's own.

What was written goes to the disk a little at a time, in a thread of its own (`WriteBack`). Left to the kernel it waits for half a
minute or for the blob's end, and then stands in front of whatever else the node has to write.

The disk may be full, failing or read-only: what is not needed for right bytes tells so, and does not raise. The blob decides what
follows from a digest that is right or wrong (`agent.storage.blob`), the store what becomes of each file (`agent.storage.store`).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import logging
import os
import stat
import struct
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from blake3 import blake3

from agent.http.wire import buffer
from agent.values.errors import UsageError
from agent.values.pieces import Layout

if TYPE_CHECKING:
    from hashlib import _Hash

log = logging.getLogger(__name__)

STAT_BLOCK_BYTES = 512
"""The unit of st_blocks (stat(2))."""
RESTORE_SECONDS_MAX = 5.0
"""For so long an earlier try is looked at; the pieces that were not reached are fetched anew, for a runtime waits."""

PUBLIC_MODE, PRIVATE_MODE = 0o644, 0o600
"""Of the files of blobs that everybody may have, and of the others."""

WRITE_BACK_BYTES = 4 << 20
"""What is on its way to the disk at once. Another process that waits for the disk (fsync(2)) waits for no more of ours, which is
a seventh of a second at 30 MiB/s; and a disk has enough to do with that."""
CLOSE_SECONDS_MAX = 5.0
"""How long what is just being settled is waited for at the end."""

_SYNC_WAIT_BEFORE, _SYNC_WRITE, _SYNC_WAIT_AFTER = 1, 2, 4  # <linux/fs.h>

_HEADER = struct.Struct(">QQ")
_RECORD = struct.Struct(">IB32s")


ENTRIES_MAX = 64
"""Registries and repositories of one blob."""


class Provenance:
    """The registries and repositories from which all is that is here of a blob, beside it in a file of its own.

    An entry is `REGISTRY`, or `REGISTRY/REPOSITORY`. What came from another node leaves only the entries that this one has too
    (`agent.swarm.piece_server`); a registry that has shown that it has the bytes is added.
    """

    def __init__(self, path: Path | None = None) -> None:
        """Without a path it is forgotten with the blob."""
        self._path = path
        self._lock = threading.Lock()
        self._entries: frozenset[str] | None = None if path else frozenset()
        self.wanted: tuple[str, ...] = ()
        """The entries of whoever is getting the blob now."""

    @property
    def entries(self) -> frozenset[str]:
        if self._entries is None:
            try:
                self._entries = frozenset(self._path.read_text().split()) if self._path else frozenset()
            except (OSError, UnicodeDecodeError):
                self._entries = frozenset()
        return self._entries

    def begin(self, registry: str, repository: str, is_empty: bool) -> None:
        """The blob is got for this repository; nothing of it is here yet if it `is_empty`."""
        self.wanted = (registry, f"{registry}/{repository}")
        if is_empty:
            self._put(frozenset(self.wanted))

    def keep(self, entries: Iterable[str]) -> None:
        """Something came that these can give, and nobody else."""
        with self._lock:
            if not self.entries.issubset(entries := frozenset(entries)):
                self._put(self.entries & entries)

    def add(self, *entries: str) -> None:
        with self._lock:
            if not self.entries.issuperset(entries) and len(self.entries) < ENTRIES_MAX:
                self._put(self.entries | set(entries))

    def settle(self, path: Path) -> None:
        """The blob is whole and right: what is known of it by now stays known, in this file."""
        with self._lock:
            self._path, earlier = path, Provenance(path).entries
            self._put(frozenset(sorted(self.entries | earlier)[:ENTRIES_MAX]))

    def _put(self, entries: frozenset[str]) -> None:
        self._entries = entries
        if self._path:
            try:
                self._path.write_text("\n".join(sorted(entries)))
            except OSError as error:  # what is on the disk may say too much then
                log.warning("it is not kept where a blob is from: %s", error)
                remove(self._path)


# Files.


def is_public(fd: int) -> bool:
    """What a blob's file says by its mode, which comes and goes with it."""
    return bool(os.fstat(fd).st_mode & stat.S_IROTH)


def claim(root: Path) -> int:
    """Make the store's directory if need be, and lock it. The descriptor holds the lock. Raises UsageError."""
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--store {root} cannot be made: {error.strerror}") from None
    status = os.lstat(root)
    if stat.S_ISLNK(status.st_mode):
        raise UsageError(f"--store {root} is a symbolic link; name the directory itself")
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


def remove(path: Path) -> bool:
    """Whether the file is gone. On a disk that became read-only it stays, and can still be read."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("a file cannot be removed: %s", error)
        return False
    return True


def touch(fd: int) -> None:
    """Write down that the file was used now."""
    try:
        os.utime(fd)
    except OSError as error:  # the file only loses its place in the order of eviction
        log.debug("the use of a file is not written down: %s", error)


def changed_at(path: Path) -> float:
    """Unix seconds; now for a file that another thread just removed."""
    try:
        return path.stat().st_mtime
    except OSError:
        return time.time()


def allocated(path: Path) -> int:
    """Bytes that a sparse file takes up, 0 when there is none."""
    try:
        return path.stat().st_blocks * STAT_BLOCK_BYTES
    except OSError:
        return 0


# Journals.


class Proof(IntEnum):
    """Which bytes the digest of a record covers, and who says so."""

    OWN = 0
    """The piece's digest, as it came."""
    VOUCHED = 1
    """The piece's digest, and the supernode named the same."""
    SO_FAR = 2
    """The digest of all up to the piece's end."""


class Record(NamedTuple):
    digest: bytes
    proof: Proof


_PROOF_NUMBERS = frozenset(Proof)


class Journal:
    """Any thread may append."""

    def __init__(self, path: Path, layout: Layout) -> None:
        """Go on with the journal at `path`, or begin it when there is none for a blob of this layout. Raises OSError."""
        header = _HEADER.pack(layout.size, layout.length)
        raw = path.read_bytes() if path.exists() else b""
        records = raw[len(header) :] if raw.startswith(header) else b""
        records = records[: len(records) // _RECORD.size * _RECORD.size]  # a record that a crash cut short is dropped
        self.earlier: dict[int, Record] = {
            piece: Record(digest, Proof(proof))
            for piece, proof, digest in _RECORD.iter_unpack(records)
            if piece < layout.count and proof in _PROOF_NUMBERS
        }
        """The records that an earlier try left, in the order in which they came."""
        path.write_bytes(header + records)
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._fd)

    def append(self, piece: int, digest: bytes, proof: Proof) -> None:
        try:
            os.write(self._fd, _RECORD.pack(piece, proof, digest))
        except OSError as error:  # the piece itself is there: a restart will not know of it
            log.warning("a piece is not written down: %s", error)


# Write-back.


class Written(Protocol):
    """A file that is being written, open for as long as somebody has this."""

    @property
    def fd(self) -> int: ...


def _sync_file_range() -> Callable[[int, int, int, int], int] | None:
    """sync_file_range(2), which Python does not have; None where the C library has none either."""
    try:
        function = ctypes.CDLL(None, use_errno=True).sync_file_range
    except (OSError, AttributeError):
        return None
    function.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    function.restype = ctypes.c_int
    return lambda fd, start, count, flags: int(function(fd, start, count, flags))


_sync = _sync_file_range()


def bring_to_disk(fd: int, start: int, end: int) -> None:
    """Wait until these bytes of the file are on the disk, as far as it can be said which; they stay in memory for readers.

    Where this cannot be done the kernel does it in its own time. Raises OSError when the disk does not take them: that is told
    once for each descriptor, so that fdatasync(2) would find nothing wrong afterwards.
    """
    if _sync and _sync(fd, start, end - start, _SYNC_WAIT_BEFORE | _SYNC_WRITE | _SYNC_WAIT_AFTER):
        number = ctypes.get_errno()
        if number not in (errno.ENOSYS, errno.EINVAL, errno.ESPIPE, errno.EPERM):
            raise OSError(number, os.strerror(number))


@dataclass
class _Unwritten:
    """What is in memory of a file, and not known to be on the disk."""

    spans: list[tuple[int, int]] = field(default_factory=list)
    error: OSError | None = None
    settle: Callable[[OSError | None], None] | None = None
    """To be called when nothing is left: no more will be written."""
    is_over: threading.Event = field(default_factory=threading.Event)
    """Set when that was called, and nobody here has the file any more."""
    is_worth_a_thread: bool = False
    """Enough has come, and then all of it goes: pieces come out of order, and one taken from among them would make each that
    follows worth a thread of its own."""

    @property
    def is_due(self) -> bool:
        return self.settle is not None or self.is_worth_a_thread

    @property
    def size(self) -> int:
        return sum(end - start for start, end in self.spans)

    def add(self, start: int, end: int) -> None:
        if self.spans and self.spans[-1][1] == start:
            start = self.spans.pop()[0]
        self.spans.append((start, end))
        self.is_worth_a_thread = self.is_worth_a_thread or self.size >= WRITE_BACK_BYTES

    def take(self) -> tuple[int, int]:
        """The next bytes that go to the disk in one go: from the beginning of the file on, whatever the order they came in."""
        self.spans.sort()
        start, end = self.spans.pop(0)
        while self.spans and self.spans[0][0] == end and end - start < WRITE_BACK_BYTES:
            end = self.spans.pop(0)[1]
        if end - start > WRITE_BACK_BYTES:
            self.spans.insert(0, (start + WRITE_BACK_BYTES, end))
            end = start + WRITE_BACK_BYTES
        self.is_worth_a_thread = bool(self.spans)
        return start, end


class WriteBack:
    """Brings files to the disk while they are written, turn about, in one thread that is there while there is something to do."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._files: weakref.WeakKeyDictionary[Written, _Unwritten] = weakref.WeakKeyDictionary()
        """Whose turn is next comes first. What nobody has any more is gone from here too."""
        self._thread: threading.Thread | None = None
        self._closed = False

    def wrote(self, file: Written, start: int, end: int) -> None:
        """These bytes are in the file. Returns at once: they go to the disk when it is worth a request."""
        with self._lock:
            if not self._closed:
                self._unwritten(file).add(start, end)
                with contextlib.suppress(RuntimeError):  # no thread is left: the kernel does it
                    self._work()

    def settle(self, file: Written, settled: Callable[[OSError | None], None], seconds: float) -> None:
        """Call `settled` when all that was written to the file is on the disk, as good as, with what the disk said if it failed.

        It is called by another thread, and waited for so long: the caller has other things to do than to wait for a slow disk.
        """
        with self._lock:
            unwritten = self._unwritten(file)
            unwritten.settle = settled
            is_over = unwritten.is_over
            try:
                self._work()
                is_taken = True
            except RuntimeError:  # no thread is left
                del self._files[file]
                is_taken = False
        if is_taken:
            del unwritten
            is_over.wait(seconds)
        else:
            settled(unwritten.error)

    def forget(self, file: Written) -> None:
        """Nobody needs it on the disk."""
        with self._lock:
            self._files.pop(file, None)

    def close(self) -> None:
        """What is not settled by now is for the next process to find, as it is in the file."""
        with self._lock:
            self._closed = True
            self._files.clear()
            thread = self._thread
        if thread:
            thread.join(CLOSE_SECONDS_MAX)

    def _unwritten(self, file: Written) -> _Unwritten:
        """Made for a file's first bytes alone: it is asked for after each piece."""
        unwritten = self._files.get(file)
        if unwritten is None:
            unwritten = self._files[file] = _Unwritten()
        return unwritten

    def _work(self) -> None:
        """Raises RuntimeError when there is no thread for it."""
        if self._thread is None and any(unwritten.is_due for unwritten in self._files.values()):
            thread = threading.Thread(target=self._run, name="write-back", daemon=True)
            thread.start()
            self._thread = thread

    def _run(self) -> None:
        while turn := self._turn():
            file, unwritten, span = turn
            if span:
                try:
                    bring_to_disk(file.fd, *span)
                except OSError as error:
                    unwritten.error = error
            else:
                self._settle(unwritten)
            is_over = None if span else unwritten.is_over
            del turn, file, unwritten  # a file that nobody else has is closed now
            if is_over:
                is_over.set()

    @staticmethod
    def _settle(unwritten: _Unwritten) -> None:
        try:
            if unwritten.settle:
                unwritten.settle(unwritten.error)
        except Exception:
            log.exception("a file was not settled")

    def _turn(self) -> tuple[Written, _Unwritten, tuple[int, int] | None] | None:
        """What is next: bytes of a file, or its end when little is left. None if nothing is, and then the thread ends."""
        with self._lock:
            for file, unwritten in list(self._files.items()):
                if unwritten.is_due:
                    del self._files[file]
                    if unwritten.size <= WRITE_BACK_BYTES and unwritten.settle:
                        return file, unwritten, None
                    self._files[file] = unwritten
                    return file, unwritten, unwritten.take()
            self._thread = None
            return None


# Bytes that are right.


class Hasher(Protocol):
    def update(self, data: memoryview, /) -> object: ...

    def digest(self) -> bytes: ...


def piece_hasher() -> Hasher:
    """Of a single piece: BLAKE3, of which a byte costs less than a third of SHA-256 (docs/decisions/0035)."""
    return blake3()


def hash_span(fd: int, hasher: Hasher, start: int, end: int) -> None:
    """Show `hasher` the bytes `start` to `end` of the file. Raises OSError."""
    view = buffer()
    while start < end and (count := os.preadv(fd, [view[: end - start]], start)):
        hasher.update(view[:count])
        start += count


def piece_digest(fd: int, layout: Layout, piece: int) -> bytes:
    """Of a piece as the file has it. Raises OSError."""
    hasher = piece_hasher()
    hash_span(fd, hasher, *layout.span(piece))
    return hasher.digest()


class Prefix:
    """The digest of a blob's first pieces. One thread at a time."""

    def __init__(self, fd: int, layout: Layout) -> None:
        self._fd = fd
        self._layout = layout
        self._hasher = hashlib.sha256()
        self.pieces = 0
        """How many were hashed, which is also the number of the next one."""

    def digest(self) -> bytes:
        return self._hasher.digest()

    def copy(self) -> _Hash:
        """To be shown the next piece while that is written (see `take_next`)."""
        return self._hasher.copy()

    def take_next(self, hasher: _Hash) -> None:
        """Go on over the next piece, which this `copy` was shown."""
        self._hasher = hasher
        self.pieces += 1

    def add_next(self) -> None:
        """Go on over the next piece. Raises OSError."""
        hash_span(self._fd, self._hasher, *self._layout.span(self.pieces))
        self.pieces += 1

    def add_next_if(self, digest: bytes) -> bool:
        """Go on over the next piece if that leads to `digest`. Raises OSError."""
        hasher = self._hasher.copy()
        hash_span(self._fd, hasher, *self._layout.span(self.pieces))
        if hasher.digest() != digest:
            return False
        self._hasher = hasher
        self.pieces += 1
        return True


@dataclass
class Restored:
    """The pieces that an earlier process left: `held` and `checked` are sets of pieces, `digests` belong to single ones."""

    prefix: Prefix
    held: int = 0
    checked: int = 0
    digests: dict[int, bytes] = field(default_factory=dict)


def restore(fd: int, layout: Layout, records: Mapping[int, Record]) -> Restored:
    """Take up the pieces of a journal's records, in their order, as far as the file still has those bytes. Raises OSError."""
    end_at = time.monotonic() + RESTORE_SECONDS_MAX
    found = Restored(Prefix(fd, layout))
    for piece, record in records.items():
        if time.monotonic() > end_at:
            break
        if record.proof is Proof.SO_FAR:  # the piece is right if all before it is, too
            while found.held >> found.prefix.pieces & 1:
                found.prefix.add_next()
            if found.prefix.pieces == piece and found.prefix.add_next_if(record.digest):
                found.held |= 1 << piece
            continue
        if piece_digest(fd, layout, piece) == record.digest:
            found.held |= 1 << piece
            found.digests[piece] = record.digest
            found.checked |= int(record.proof is Proof.VOUCHED) << piece
    if found.held == layout.everything:  # all there, but never verified: the last piece is to arrive again
        found.held &= ~layout.last
        found.checked &= ~layout.last
        found.prefix = Prefix(fd, layout)  # the bytes that will be written are not those that were hashed
    return found
