"""One blob's file: which pieces are there, who waits for them, and when it may be believed.

Pieces are written in any order by any thread; readers wait for the run of bytes that they need next. The last piece to arrive
is held back until the whole blob has the digest that it is named by, so that no reader ever ends cleanly with wrong bytes.
Where the file lies, and what becomes of it, is the store's affair (`agent.store`).
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Protocol

from agent.errors import DarnerError, DigestError
from agent.pieces import Layout, members

HASH_CHUNK_BYTES = 1 << 20


class Ledger(Protocol):
    """What a blob writes down of each piece, so that it can be resumed after a crash."""

    def append(self, piece: int, digest: bytes, checked: bool) -> None: ...


class Blob:
    """A blob, whole or arriving. `held` and `checked` are sets of pieces (see agent.pieces)."""

    def __init__(
        self,
        digest: str,
        layout: Layout,
        fd: int,
        *,
        whole: bool = False,
        ledger: Ledger | None = None,
        on_end: Callable[[Blob, DarnerError | None], None] | None = None,
    ) -> None:
        self.digest = digest
        self.layout = layout
        self.fd = fd
        self.held = layout.everything if whole else 0
        self.checked = self.held
        """Pieces whose digest the supernode vouched for: the ones that other nodes may have."""
        self.digests: dict[int, bytes] = {}
        self.whole = whole
        self.error: DarnerError | None = None
        self._held_back = 0
        self._ledger = ledger
        self._on_end = on_end
        self._changed = threading.Condition()
        self._hashing = threading.Lock()
        self._hasher = hashlib.sha256()
        self._hashed = 0
        weakref.finalize(self, os.close, fd)

    @property
    def size(self) -> int:
        return self.layout.size

    @property
    def missing(self) -> int:
        return self.layout.everything & ~self.held

    # Readers.

    def wait(self, offset: int, seconds: float) -> int:
        """The byte after the longest readable run that holds `offset`, after waiting for one; `offset` when none came in time.

        Raises the blob's error when it will never come.
        """
        end = time.monotonic() + seconds
        with self._changed:
            while True:
                readable = self.layout.run_end(self.held & ~self._held_back, offset)
                if readable > offset:
                    return readable
                if self.error:
                    raise self.error
                left = end - time.monotonic()
                if left <= 0:
                    return offset
                self._changed.wait(left)

    def wait_whole(self, seconds: float) -> bool:
        """Whether the blob was whole within that time. Raises the blob's error when it never will be."""
        with self._changed:
            self._changed.wait_for(lambda: self.whole or self.error, seconds)
            if self.error:
                raise self.error
            return self.whole

    # Writers.

    def write(self, offset: int, data: memoryview | bytes) -> None:
        """Put bytes into the file. They count for nothing until `add` says that their piece is complete. Raises OSError."""
        view = memoryview(data)
        while view:
            written = os.pwrite(self.fd, view, offset)
            offset += written
            view = view[written:]

    def add(self, piece: int, digest: bytes, *, checked: bool) -> None:
        """A piece is in the file, and this is the SHA-256 of what was written. `checked` when that is what it should be.

        The thread that adds the last piece verifies the blob, which may take as long as hashing all of it.
        """
        bit = 1 << piece
        with self._changed:
            if self.whole or self.error or self.held & bit:
                return
            self.digests[piece] = digest
            self.held |= bit
            if checked:
                self.checked |= bit
            last = not self.missing
            if last:
                self._held_back = bit
            self._changed.notify_all()
        if self._ledger:
            self._ledger.append(piece, digest, checked)
        self._hash_prefix(wait=last)
        if last:
            self._verify()

    def confirm(self, piece: int, digest: bytes) -> bool:
        """The supernode names a piece's digest. Whether this node holds that piece already, with that digest."""
        with self._changed:
            if self.digests.get(piece) != digest or not self.held >> piece & 1:
                return self.whole
            self.checked |= 1 << piece
            return True

    def fail(self, error: DarnerError) -> None:
        """The blob will not come. Readers that have what they need go on; those that wait are told."""
        with self._changed:
            if self.whole or self.error:
                return
            self.error = error
            self._changed.notify_all()
        if self._on_end:
            self._on_end(self, error)

    def finish_if_empty(self) -> None:
        """A blob of no bytes has no last piece that would verify it."""
        if not self.layout.count and not self.whole:
            self._verify()

    def _hash_prefix(self, wait: bool) -> None:
        """Carry the digest of the whole blob on over what is there without a gap: one thread does, others leave it to that one."""
        if not self._hashing.acquire(blocking=wait):
            return
        try:
            while self.held >> self._hashed & 1:
                start, end = self.layout.span(self._hashed)
                for offset in range(start, end, HASH_CHUNK_BYTES):
                    self._hasher.update(os.pread(self.fd, min(HASH_CHUNK_BYTES, end - offset), offset))
                self._hashed += 1
        finally:
            self._hashing.release()

    def _verify(self) -> None:
        if self._hasher.hexdigest() != self.digest.removeprefix("sha256:"):
            self.fail(DigestError(f"the bytes that arrived for {self.digest} do not have that digest"))
            return
        with self._changed:
            self.whole = True
            self.checked = self.layout.everything
            self._held_back = 0
            self._changed.notify_all()
        if self._on_end:
            self._on_end(self, None)

    def restore(self, pieces: dict[int, tuple[bytes, bool]]) -> None:
        """Take back what a ledger says was here before a restart, as far as the file still has those bytes."""
        for piece, (digest, checked) in pieces.items():
            start, end = self.layout.span(piece)
            if hashlib.sha256(os.pread(self.fd, end - start, start)).digest() == digest:
                self.held |= 1 << piece
                self.digests[piece] = digest
                self.checked |= int(checked) << piece
        if self.layout.count and not self.missing:  # all there, but never verified: let the last piece arrive again
            last = max(members(self.held))
            self.held &= ~(1 << last)
            self.checked &= ~(1 << last)
