"""Small operations on files, for a disk that may be full, failing or read-only: they tell, and do not raise.

Only `claim` raises, at the start of a process, when a directory is not safe to use. The store knows the meaning of each file.
"""

from __future__ import annotations

import fcntl
import logging
import os
import stat
import time
from pathlib import Path

from agent.values.errors import UsageError

log = logging.getLogger(__name__)

STAT_BLOCK_BYTES = 512
"""The unit of st_blocks (stat(2))."""


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
