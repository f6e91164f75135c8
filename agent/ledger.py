"""The ledger of a partial file: which pieces it has, written down as they arrive, so that a later try goes on from there.

A header with the blob's size and piece length, then a record for each piece, in order of arrival. It claims, and proves nothing:
a piece counts only when the bytes in the file have the digest that is written here (`agent.blob`).
"""

from __future__ import annotations

import logging
import os
import struct
import weakref
from pathlib import Path

from agent.pieces import Layout

log = logging.getLogger(__name__)

_HEADER = struct.Struct(">QQ")
_RECORD = struct.Struct(">I?32s")


class Ledger:
    def __init__(self, path: Path, layout: Layout) -> None:
        """Go on with the ledger at `path`, or begin it when there is none for a blob of this layout. Raises OSError."""
        header = _HEADER.pack(layout.size, layout.length)
        raw = path.read_bytes() if path.exists() else b""
        records = raw[len(header) :] if raw.startswith(header) else b""
        records = records[: len(records) // _RECORD.size * _RECORD.size]  # a record that a crash cut short is dropped
        self.earlier: dict[int, tuple[bytes, bool]] = {
            piece: (digest, checked) for piece, checked, digest in _RECORD.iter_unpack(records) if piece < layout.count
        }
        """Digest of each piece of an earlier try, and whether it was vouched for."""
        path.write_bytes(header + records)
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._fd)

    def append(self, piece: int, digest: bytes, checked: bool) -> None:
        try:
            os.write(self._fd, _RECORD.pack(piece, checked, digest))
        except OSError as error:  # the piece itself is there: what is lost is only that a restart would know of it
            log.warning("a piece is not written down: %s", error)
