"""The journal of a partial file: which pieces it has, written down as they arrive, so that a later try goes on from there.

A header with the blob's size and piece length, then a record for each piece, in order of arrival. It claims, and proves nothing:
a piece counts only when the bytes in the file have the digest that is written here (`agent.storage.blob`).

A record's digest is the piece's, or that of the blob from its first byte to the piece's last one: a stream that comes in order
has that at each piece's end for nothing, where a digest of each piece would cost as much again as the blob's own.
"""

from __future__ import annotations

import logging
import os
import struct
import weakref
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

from agent.values.pieces import Layout

log = logging.getLogger(__name__)

_HEADER = struct.Struct(">QQ")
_RECORD = struct.Struct(">IB32s")


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
