"""How a blob is cut into pieces, and sets of pieces as integers.

A set of pieces is an `int` whose bit i stands for piece i: intersections and differences of a thousand pieces cost tens of
nanoseconds, which is what the scheduler lives on. This module knows numbers only; bytes are the store's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

PIECE_BYTES_MIN = 256 << 10
"""Shorter ones are refused."""
PIECE_BYTES_CUT_MIN = 512 << 10
"""The shortest that a blob is cut into here: below that, what a piece costs a node is more than what its bytes cost
(docs/decisions/0014)."""
PIECE_BYTES_MAX = 16 << 20
PIECES_AIMED_MAX = 256
"""A blob is cut into 129 to 256 pieces where the two lengths above allow it: fewer make the last hop long, more cost messages."""
PIECES_MAX = 1 << 16
"""Of one blob: a set of so many takes 8 KiB."""
DIGEST_BYTES = 32
"""Of a piece: BLAKE3 (`agent.storage.disk.piece_hasher`)."""
BLOB_BYTES_MAX = PIECES_MAX * PIECE_BYTES_MAX
"""1 TiB. Larger blobs are refused."""


def piece_length(size: int) -> int:
    """The piece length, in bytes, of a blob of `size` bytes: the same power of two on every node."""
    length = PIECE_BYTES_CUT_MIN
    while length < PIECE_BYTES_MAX and size > length * PIECES_AIMED_MAX:
        length *= 2
    return length


@dataclass(frozen=True)
class Layout:
    """A blob of `size` bytes in pieces of `length` bytes, the last one shorter. Raises ValueError for one that cannot be."""

    size: int
    length: int

    def __post_init__(self) -> None:
        if not 0 <= self.size <= BLOB_BYTES_MAX:
            raise ValueError(f"a blob of {self.size} bytes is outside 0 to {BLOB_BYTES_MAX}")
        if not PIECE_BYTES_MIN <= self.length <= PIECE_BYTES_MAX or self.length & (self.length - 1):
            raise ValueError(f"a piece length of {self.length} bytes is not a power of two within the limits")
        if self.count > PIECES_MAX:
            raise ValueError(f"a blob of {self.count} pieces has more than {PIECES_MAX}")

    @classmethod
    def of(cls, size: int) -> Layout:
        return cls(size, piece_length(size))

    @cached_property
    def count(self) -> int:
        return -(-self.size // self.length)

    @cached_property
    def everything(self) -> int:
        """The set of all pieces."""
        return (1 << self.count) - 1

    @property
    def last(self) -> int:
        """The piece at the end, as a set; the empty set for a blob of no bytes."""
        return self.everything & ~(self.everything >> 1)

    def span(self, piece: int) -> tuple[int, int]:
        """First byte of a piece and the byte after its last. Raises IndexError for a piece that the blob does not have."""
        if not 0 <= piece < self.count:
            raise IndexError(f"piece {piece} of {self.count}")
        return piece * self.length, min((piece + 1) * self.length, self.size)

    def piece_at(self, offset: int) -> int:
        """The piece that holds a byte. Past the end it is the one that would."""
        return offset // self.length

    def run_end(self, have: int, offset: int) -> int:
        """The byte after the longest run of pieces in `have` that holds `offset`; `offset` itself when its piece is missing."""
        first = self.piece_at(offset)
        ahead = have >> first
        complete = lowest(~ahead)
        return max(offset, min((first + complete) * self.length, self.size)) if complete else offset


def lowest(pieces: int) -> int:
    """Number of the lowest piece in a set that is not empty."""
    return (pieces & -pieces).bit_length() - 1


def members(pieces: int) -> Iterator[int]:
    """The pieces of a set, lowest first."""
    while pieces:
        low = pieces & -pieces
        yield low.bit_length() - 1
        pieces ^= low


def to_bytes(pieces: int) -> bytes:
    """A set as it travels: bit i of byte n, lowest first, stands for piece 8n + i."""
    return pieces.to_bytes((pieces.bit_length() + 7) // 8, "little")


def from_bytes(raw: bytes, layout: Layout) -> int:
    """The set that `to_bytes` wrote; pieces that the blob does not have are dropped."""
    return int.from_bytes(raw, "little") & layout.everything
