"""A file that one process at a time writes, under a name that is not its last one."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import BinaryIO


def open_alone(path: Path) -> BinaryIO:
    """The file, made if need be, to be read and written by nobody else until it is closed.

    Raises BlockingIOError while another process has it, also when that has given it another name meanwhile.
    """
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666), "r+b")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            is_here = os.path.samestat(os.fstat(file.fileno()), os.lstat(path))
        except FileNotFoundError:
            is_here = False
        if not is_here:  # its writer has finished between our two looks: what it wrote is not ours to cut
            raise BlockingIOError
    except BaseException:
        file.close()
        raise
    return file
