"""How far a blob was hashed, and which pieces of an earlier process can be taken up again.

The blob's own digest is carried on from its first byte over all pieces that are there without a gap, so that little is left to
hash when the last one comes. A journal's records claim and prove nothing: a piece counts when the bytes in the file have the
digest that is written there. Both read the file, because the file is what readers are sent. The blob decides what follows from
a digest that is right or wrong (`agent.storage.blob`).
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agent.http.wire import buffer
from agent.storage.journal import Proof, Record
from agent.values.pieces import Layout

if TYPE_CHECKING:
    from hashlib import _Hash

RESTORE_SECONDS_MAX = 5.0
"""For so long an earlier try is looked at; the pieces that were not reached are fetched anew, for a runtime waits."""


def hash_span(fd: int, hasher: _Hash, start: int, end: int) -> None:
    """Show `hasher` the bytes `start` to `end` of the file. Raises OSError."""
    view = buffer()
    while start < end and (count := os.preadv(fd, [view[: end - start]], start)):
        hasher.update(view[:count])
        start += count


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
        hasher = hashlib.sha256()
        hash_span(fd, hasher, *layout.span(piece))
        if hasher.digest() == record.digest:
            found.held |= 1 << piece
            found.digests[piece] = record.digest
            found.checked |= int(record.proof is Proof.VOUCHED) << piece
    if found.held == layout.everything:  # all there, but never verified: the last piece is to arrive again
        found.held &= ~layout.last
        found.checked &= ~layout.last
        found.prefix = Prefix(fd, layout)  # the bytes that will be written are not those that were hashed
    return found
