"""The bytes of a trial: of each piece its first sixteen count, the rest of a file is a hole.

So a blob of megabytes costs as much as its few marks, and yet files, claims, digests and journals are the product's own
(`agent.storage.blob`).
"""

from __future__ import annotations

import hashlib
import os
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

from agent.storage.blob import Blob, Claim
from agent.storage.disk import Proof, Record
from agent.values.errors import DarnerError, DigestError, SupersededError
from agent.values.pieces import Layout

if TYPE_CHECKING:
    from hashlib import _Hash

MARK_BYTES = 16


class Content:
    """A blob as its registry has it."""

    def __init__(self, name: str, size: int) -> None:
        self.name = name
        self.layout = Layout.of(size)
        self.marks = [hashlib.sha256(f"{name} {piece}".encode()).digest()[:MARK_BYTES] for piece in range(self.layout.count)]
        self.digest = "sha256:" + hashlib.sha256(b"".join(self.marks)).hexdigest()


def wrong(mark: bytes) -> bytes:
    return bytes(byte ^ 0xFF for byte in mark)


def mark_of(blob: Blob, piece: int) -> bytes:
    return os.pread(blob.fd, MARK_BYTES, blob.layout.span(piece)[0])


def hash_marks(fd: int, hasher: _Hash, start: int, _end: int) -> None:
    """In place of hashing the span: pieces are hashed one by one, and of each its mark counts."""
    hasher.update(os.pread(fd, MARK_BYTES, start))


class Partial:
    """A file of an arriving blob and its journal, as they outlive a process."""

    def __init__(self, digest: str, layout: Layout) -> None:
        self.layout = layout
        self.records: dict[int, Record] = {}
        self.fd = os.memfd_create(digest[:19])
        os.ftruncate(self.fd, layout.size)
        weakref.finalize(self, os.close, self.fd)

    def append(self, piece: int, digest: bytes, proof: Proof) -> None:
        self.records[piece] = Record(digest, proof)


class ArrivingBlob(Blob):
    """Tells the writer of a piece that another one has claimed it: with the next bytes that come, it would notice itself.

    Of each piece half of its mark is written when it begins to come, the other half when it ends, so that two writers of one
    piece leave something wrong, unless the blob sees to it that there is one.
    """

    def __init__(self, digest: str, partial: Partial, on_end: Callable[[Blob, DarnerError | None], None]) -> None:
        super().__init__(digest, partial.layout, os.dup(partial.fd), journal=partial, on_end=on_end)
        self.writers: dict[int, Callable[[], None]] = {}
        """By piece, whom to tell."""

    def claim_for(self, piece: int, superseded: Callable[[], None]) -> Claim:
        earlier, self.writers[piece] = self.writers.get(piece), superseded
        claim = self.claim(piece)
        if earlier:
            earlier()
        return claim

    def is_claimed_anew(self, piece: int, claim: Claim | None) -> bool:
        """Whether the next bytes of whoever has this claim would be refused. Raises the blob's error."""
        try:
            self.write(self.layout.span(piece)[0], b"", claim)
        except SupersededError:
            return True
        return False

    def begin(self, piece: int, mark: bytes, claim: Claim | None) -> None:
        """The first bytes of a piece came."""
        if not self.error:
            self.write(self.layout.span(piece)[0], mark[: MARK_BYTES // 2], claim)

    def end(self, piece: int, mark: bytes, claim: Claim | None) -> None:
        """The last ones. Raises SupersededError and the blob's error."""
        self.write(self.layout.span(piece)[0] + MARK_BYTES // 2, mark[MARK_BYTES // 2 :], claim)


class Shelf:
    """A node's store, as far as a trial needs one. It outlives the process, unless the disk is wiped."""

    def __init__(self) -> None:
        self.on_change: Callable[[str, int, bool], None] = lambda _digest, _size, _held: None
        self.wholes: dict[str, Blob] = {}
        self.arriving: dict[str, ArrivingBlob] = {}
        self.lost = 0
        """Files that were, with what was in them."""
        self._partials: dict[str, Partial] = {}

    def put(self, content: Content) -> None:
        """A blob that is there whole, from an earlier time."""
        partial = Partial(content.digest, content.layout)
        for piece, mark in enumerate(content.marks):
            os.pwrite(partial.fd, mark, content.layout.span(piece)[0])
        self.wholes[content.digest] = Blob(content.digest, content.layout, os.dup(partial.fd), stored=True, whole=True)

    def blob(self, digest: str) -> Blob | None:
        return self.wholes.get(digest)

    def find(self, digest: str) -> Blob | None:
        return self.arriving.get(digest) or self.wholes.get(digest)

    def receive(self, digest: str, layout: Layout) -> ArrivingBlob:
        """A file for a blob, with what an earlier try left."""
        partial = self._partials.get(digest)
        if partial is None or partial.layout != layout:
            partial = self._partials[digest] = Partial(digest, layout)
        blob = self.arriving[digest] = ArrivingBlob(digest, partial, self._arrived)
        blob.restore(dict(partial.records))
        return blob

    def evict(self, digest: str) -> None:
        blob = self.wholes.pop(digest, None)
        if blob:
            self.on_change(digest, blob.size, False)

    def crash(self, *, wiped: bool) -> None:
        """The process ends: what was arriving is what the journal says."""
        self.arriving.clear()
        if wiped:
            self.lost += 1
            self.wholes.clear()
            self._partials.clear()

    def _arrived(self, blob: Blob, error: DarnerError | None) -> None:
        if self.arriving.get(blob.digest) is not blob:  # of a process that has crashed
            return
        if error is None:
            self.wholes[blob.digest] = blob
        self.lost += isinstance(error, DigestError)
        if error is None or isinstance(error, DigestError):
            self._partials.pop(blob.digest, None)
        del self.arriving[blob.digest]
        if error is None:
            self.on_change(blob.digest, blob.size, True)
