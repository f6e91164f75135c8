"""Which of containerd's files were found to have the digest that they are named by, remembered over restarts.

An entry is good for one file: with another inode, size or time of change the file counts as never checked. Entries are lines of
a file in this node's own store, which is written anew as a whole; an entry that is lost or cut short costs the work of checking
again, and nothing else.
"""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import NamedTuple

log = logging.getLogger(__name__)

VERIFIED_MAX = 100_000
"""Entries: more than any node has blobs."""

_LINE = re.compile(r"(sha256:[0-9a-f]{64}) (\d{1,20}) (\d{1,20}) (-?\d{1,20})")


class Identity(NamedTuple):
    """How a file is told from others, as long as nobody writes to it."""

    inode: int
    size: int
    changed_nanoseconds: int

    @classmethod
    def of(cls, status: os.stat_result) -> Identity:
        return cls(status.st_ino, status.st_size, status.st_mtime_ns)


class Verified:
    """The entries. One thread at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._proven: dict[str, Identity] = {}
        self._written: dict[str, Identity] = {}
        try:
            lines = path.read_text("ascii", "replace").splitlines()[:VERIFIED_MAX]
        except OSError:
            return
        for line in lines:
            if found := _LINE.fullmatch(line):
                self._proven[found[1]] = Identity(int(found[2]), int(found[3]), int(found[4]))
        self._written = dict(self._proven)

    def holds(self, digest: str, identity: Identity) -> bool:
        return self._proven.get(digest) == identity

    def add(self, digest: str, identity: Identity) -> None:
        if len(self._proven) < VERIFIED_MAX:
            self._proven[digest] = identity

    def forget(self, digest: str) -> None:
        self._proven.pop(digest, None)

    def keep_only(self, digests: set[str]) -> None:
        """Forget all other entries."""
        self._proven = {digest: identity for digest, identity in self._proven.items() if digest in digests}

    def write(self) -> None:
        """Write the file, if there is news."""
        if self._proven == self._written:
            return
        lines = [f"{digest} {' '.join(map(str, identity))}\n" for digest, identity in self._proven.items()]
        beside = self._path.with_suffix(".new")
        try:
            beside.write_text("".join(lines))
            os.replace(beside, self._path)
        except OSError as error:
            log.warning("which of containerd's blobs were checked is not written down: %s", error)
            return
        self._written = dict(self._proven)
