"""One blob's file: which pieces are there, who waits for them, and when it may be believed.

Pieces are written in any order by any thread; readers wait for the run of bytes that they need next. The end of the blob is held
back until the whole has the digest that it is named by (`agent.storage.disk`), so that no reader of a blob ever ends cleanly
with wrong bytes. Where the file lies, and when it is removed, is the store's affair (`agent.storage.store`).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from agent.storage import disk
from agent.values.errors import DarnerError, DigestError, StoreError, SupersededError
from agent.values.pieces import Layout

if TYPE_CHECKING:
    from hashlib import _Hash

END_SECONDS_MAX = 5.0
"""How long the end of a failed blob is waited for: its file is removed meanwhile, or stays for the next try."""


class PieceLog(Protocol):
    """Where a blob writes down each piece, so that it can be resumed after a crash (`agent.storage.disk`)."""

    def append(self, piece: int, digest: bytes, proof: disk.Proof) -> None: ...


class Claim:
    """To be the one writer of a piece, until another one claims it. Only `Blob` looks inside."""

    __slots__ = ("position", "so_far")

    def __init__(self, position: int, so_far: _Hash | None) -> None:
        self.position = position
        """The byte behind the last that was written."""
        self.so_far = so_far
        """The digest of the blob up to there, of a piece that follows what is hashed: its bytes need not be read back then."""


class Blob:
    """A blob, whole or arriving. `held` and `checked` are sets of pieces (see agent.values.pieces).

    `stored` says that all of it was in the file from the start, and `whole` that the bytes are known to be right. Of a stored
    blob that is not whole yet, other nodes get nothing before `check` has found it right. `private` says that somebody needed a
    credential for it, or that nobody knows: other nodes do not get its pieces in clear. `on_end(blob, error)` hears once that the
    blob is whole, with None, or that it never will be.

    `contents` is the digest that the bytes must have: the one that the blob is named by, unless it is a file of a web server
    (`agent.values.web_file`). Of a file it may be "": then all pieces make it whole, each of which somebody has vouched for.
    """

    def __init__(
        self,
        digest: str,
        layout: Layout,
        fd: int,
        *,
        stored: bool = False,
        whole: bool = False,
        private: bool = False,
        contents: str | None = None,
        journal: PieceLog | None = None,
        provenance: disk.Provenance | None = None,
        write_back: disk.WriteBack | None = None,
        on_end: Callable[[Blob, DarnerError | None], None] | None = None,
    ) -> None:
        self.digest = digest
        self.layout = layout
        self.fd = fd
        self.stored = stored
        self.held = layout.everything if stored else 0
        self.checked = self.held if whole else 0
        """Pieces whose digest the supernode vouched for, or all of a blob that is right: the ones that other nodes may have."""
        self.digests: dict[int, bytes] = {}
        self.whole = whole
        self.private = private
        self.contents = digest if contents is None else contents
        self.error: DarnerError | None = None
        self.provenance = provenance or disk.Provenance()
        self._journal = journal
        self._write_back = write_back
        self._on_end = on_end
        self._changed = threading.Condition()
        self._awaited: list[int] = []
        """A piece for each reader that waits: the others wake nobody."""
        self.written_at = 0.0
        """When bytes last came (monotonic)."""
        self._came_to = 0
        """The byte after the last that came of the piece that may be passed on while it comes."""
        self._writing = threading.Lock()
        """Taken before `_changed`: a piece that is held, or a blob that has failed, is never written to again."""
        self._claims: dict[int, Claim] = {}
        """By piece, its last claim: only that writer may go on."""
        self._is_over = threading.Event()
        """Set when `on_end` has heard that the blob failed."""
        self._hashing = threading.Lock()
        """Held while `_prefix` is carried on."""
        self._prefix = disk.Prefix(fd, layout)
        weakref.finalize(self, os.close, fd)

    @property
    def size(self) -> int:
        return self.layout.size

    @property
    def missing(self) -> int:
        return self.layout.everything & ~self.held

    @property
    def to_come(self) -> int:
        """Bytes that are missing, of pieces that are not complete."""
        return min(self.size, self.missing.bit_count() * self.layout.length)

    def hide(self) -> None:
        """Private from now on, also after a restart, unless the disk takes nothing any more."""
        if not self.private:
            self.private = True
            with contextlib.suppress(OSError):
                os.fchmod(self.fd, disk.PRIVATE_MODE)

    # Readers.

    def wait(self, offset: int, seconds: float) -> int:
        """The byte after the longest readable run that holds `offset`, after waiting for one; `offset` when none came in time.

        Raises the blob's error when it will never come.
        """
        end = time.monotonic() + seconds
        piece = self.layout.piece_at(offset)
        with self._changed:
            while True:
                readable = self.layout.run_end(self._readable, offset)
                if readable > offset:
                    return readable
                if self.error:
                    raise self.error.again()
                left = end - time.monotonic()
                if left <= 0:
                    return offset
                self._awaited.append(piece)
                self._changed.wait(left)
                self._awaited.remove(piece)

    @property
    def _readable(self) -> int:
        return self.held if self.whole else self.held & ~self.layout.last

    def wait_to_share(self, piece: int, offset: int, seconds: float) -> int:
        """The byte after the last of `piece` that other nodes may have, after waiting until there is one behind `offset`.

        That is the piece's end as soon as the piece is checked; of a stored blob, when the whole is. `offset` when nothing more
        came in time, or none of it is coming. Raises the blob's error when it will never come.
        """
        until = time.monotonic() + seconds
        start, end = self.layout.span(piece)
        with self._changed:
            while True:
                if self.checked >> piece & 1:
                    return end
                if self.error:
                    raise self.error.again()
                came_to = self._came_to
                if offset < came_to < end:
                    return came_to
                left = until - time.monotonic()
                if left <= 0 or not (self.stored or start < came_to < end):
                    return offset
                self._awaited.append(piece)
                self._changed.wait(left)
                self._awaited.remove(piece)

    def wait_proven(self, start: int, end: int, seconds: float) -> bool:
        """Whether all bytes from `start` to `end` were known to be right within that time, by their pieces or by the whole blob.

        Raises the blob's error when they never will be.
        """
        first, last = self.layout.piece_at(start), self.layout.piece_at(end - 1)
        wanted = (1 << last + 1) - (1 << first)
        with self._changed:
            self._changed.wait_for(lambda: not wanted & ~self.checked or self.error, seconds)
            if wanted & ~self.checked and self.error:
                raise self.error.again()
            return not wanted & ~self.checked

    def wait_whole(self, seconds: float) -> bool:
        """Whether the blob was whole within that time. Raises the blob's error when it never will be."""
        with self._changed:
            self._changed.wait_for(lambda: self.whole or self.error, seconds)
            if self.error:
                raise self.error.again()
            return self.whole

    def hash_to(self, end: int) -> _Hash:
        """The SHA-256 of the first `end` bytes of the file, for a reader that gets the others elsewhere. Raises StoreError."""
        hasher = hashlib.sha256()
        try:
            disk.hash_span(self.fd, hasher, 0, end)
        except OSError as error:
            raise StoreError(f"{self.digest} cannot be read from the store: {error.strerror}") from error
        return hasher

    # Writers.

    def claim(self, piece: int) -> Claim:
        """Become the one writer of a piece, from its first byte to its last: an earlier one, stalled perhaps, is none now."""
        so_far = None
        if self._hashing.acquire(blocking=False):
            so_far = self._prefix.copy() if self._prefix.pieces == piece else None
            self._hashing.release()
        claim = Claim(self.layout.span(piece)[0], so_far)
        with self._writing:
            self._claims[piece] = claim
        return claim

    def write(self, offset: int, data: memoryview | bytes, claim: Claim | None = None) -> None:
        """Put bytes of one piece into the file. They count for nothing until `add` says that their piece is complete.

        Bytes of a piece that is held already are dropped. Raises OSError, SupersededError when another one has claimed the piece,
        and the blob's error when nobody needs more of it.
        """
        view = memoryview(data)
        begin, piece = offset, self.layout.piece_at(offset)
        with self._writing:
            if self.error:
                raise self.error.again()
            self._check_claim(piece, claim)
            self.written_at = time.monotonic()
            while view and not self.held >> piece & 1:
                written = os.pwrite(self.fd, view, offset)
                offset += written
                view = view[written:]
        if claim and claim.so_far:
            if begin == claim.position:
                claim.so_far.update(data)
                claim.position += len(data)
            else:
                claim.so_far = None

    def _check_claim(self, piece: int, claim: Claim | None) -> None:
        if self._claims.get(piece) is not claim and not self.held >> piece & 1:
            raise SupersededError(f"piece {piece} of {self.digest} is brought by another source now")

    def came(self, position: int) -> None:
        """A piece is in the file up to `position`, and may be passed on before it is complete."""
        with self._changed:
            self._came_to = position
            if self.layout.piece_at(position) in self._awaited:
                self._changed.notify_all()

    def follows(self, piece: int) -> bool:
        """Whether the blob's digest has come to this piece: then it covers the piece as soon as that is here."""
        return self._prefix.pieces == piece

    def add(self, piece: int, digest: bytes | None, *, checked: bool, claim: Claim | None = None) -> None:
        """A piece is in the file, and this is the digest of what was written. `checked` when that is what it should be.

        Raises SupersededError when another writer has claimed it since: then it may be half overwritten.

        A piece that `follows` needs no digest of its own, unless other nodes are to have it before the blob is whole.
        The thread that adds the last missing piece verifies the blob, which may take as long as hashing all of it.
        """
        bit = 1 << piece
        with self._writing, self._changed:
            if self.whole or self.error or self.held & bit:
                return
            self._check_claim(piece, claim)
            if digest is not None:
                self.digests[piece] = digest
            self.held |= bit
            if checked:
                self.checked |= bit
            complete = not self.missing
            if piece in self._awaited:
                self._changed.notify_all()
        if self._write_back:
            self._write_back.wrote(self, *self.layout.span(piece))
        if digest is not None and self._journal:
            self._journal.append(piece, digest, disk.Proof.VOUCHED if checked else disk.Proof.OWN)
        self._hash_prefix(wait=complete, claim=claim)
        if complete:
            self._verify()

    def confirm(self, piece: int, digest: bytes) -> bool:
        """The supernode names a piece's digest. Whether this node holds that piece already, with that digest."""
        with self._changed:
            if self.digests.get(piece) != digest or not self.held >> piece & 1:
                return self.whole
            self.checked |= 1 << piece
            return True

    def fail(self, error: DarnerError) -> None:
        """The blob will not come. Readers that have what they need go on; those that wait are told.

        When this returns, `on_end` is done with the file, even if another thread said so first: a next try may make it anew.
        """
        with self._writing, self._changed:
            if self.whole:
                return
            is_first = self.error is None
            self.error = self.error or error.again()
            self._changed.notify_all()
        if not is_first:
            self._is_over.wait(END_SECONDS_MAX)
            return
        try:
            if self._on_end:
                self._on_end(self, error)
        finally:
            self._is_over.set()

    def finish_if_empty(self) -> None:
        """A blob of no bytes has no last piece that would verify it."""
        if not self.layout.count and not self.whole:
            self._verify()

    # Verification.

    def restore(self, records: Mapping[int, disk.Record]) -> None:
        """Take back the pieces that an earlier try left. Called before anybody else has the blob. Raises OSError."""
        found = disk.restore(self.fd, self.layout, records)
        self.held, self.checked, self.digests, self._prefix = found.held, found.checked, found.digests, found.prefix

    def check(self) -> None:
        """Find out whether all that is in the file is right, which takes as long as reading it. Raises OSError."""
        self._hash_prefix(wait=True)
        self._verify()

    def check_in_background(self, where: str) -> None:
        """Check a stored blob in a thread of its own. `where` names the place that it lies in, should it be unreadable."""

        def check() -> None:
            try:
                self.check()
            except OSError as error:
                self.fail(StoreError(f"{self.digest} cannot be read from {where}: {error.strerror}"))

        try:
            threading.Thread(target=check, name=f"check {self.digest[:19]}", daemon=True).start()
        except RuntimeError:  # no thread is left: the caller waits for it
            check()

    def _hash_prefix(self, wait: bool, claim: Claim | None = None) -> None:
        """Carry the blob's digest on over all that is there without a gap: one thread does, the others leave it to that one.

        The bytes come from the file, but for those of the piece that was written under `claim` and hashed on the way.
        """
        if not self._hashing.acquire(blocking=wait):
            return
        try:
            while self.held >> (piece := self._prefix.pieces) & 1:
                if claim and claim.so_far and claim.position == self.layout.span(piece)[1]:
                    self._prefix.take_next(claim.so_far)
                else:
                    self._prefix.add_next()
                if self._journal and piece not in self.digests:
                    self._journal.append(piece, self._prefix.digest(), disk.Proof.SO_FAR)
        finally:
            self._hashing.release()

    def _verify(self) -> None:
        if self.contents and self._prefix.digest().hex() != self.contents.removeprefix("sha256:"):
            self.fail(DigestError(f"the bytes of {self.contents} do not have that digest"))
            return
        with self._changed:
            if self.error:  # given up in the last moment: the next try finds the pieces
                return
            self.whole = True
            self.checked = self.layout.everything
            self._journal = None
            self._changed.notify_all()
        if self._on_end:
            self._on_end(self, None)
