"""What is made of files that somebody else changes, such as a mounted Secret, and is made anew once they have changed.

Kubelets put another version of a Secret or a ConfigMap into a volume as a new directory, all files at once, and tell nobody. So
the files are looked at before each use, which takes a call of the system for each. What to do with files that cannot be used is
their reader's affair: it may raise, or go on with what it made of them before.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")

_Stamp = tuple[tuple[int, int, int] | None, ...]


class Reread(Generic[T]):
    """Calling it gives what `read` makes of the files as they are now. Raises what `read` raises, which is tried again then."""

    def __init__(self, read: Callable[[T | None], T], *paths: str | Path) -> None:
        """`read` is given what it made before, and None at first. A file that is missing is one that may come."""
        self._read = read
        self._paths = paths
        self._made: tuple[_Stamp, T] | None = None

    def __call__(self) -> T:
        # Before they are read: what changes meanwhile is seen the next time. Two threads may read at once, which does no harm.
        stamp, made = tuple(map(_stamp, self._paths)), self._made
        if made is None or made[0] != stamp:
            made = self._made = stamp, self._read(made[1] if made else None)
        return made[1]


def _stamp(path: str | Path) -> tuple[int, int, int] | None:
    """By which a change is seen: also one within a tick of the filesystem's clock, to another file of the same length."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
