"""Files in directories that belong to others: whose a file is, and how one of ours gets there whole.

The first line says whose it is. A file without that line is somebody else's and is neither changed nor removed, whatever its
name; one of ours is found again by the next agent, also after a crash.
"""

from __future__ import annotations

import os
from pathlib import Path

MARK = "# Written by Darner's agent on this node, which removes it when it stops. Without this line the file is left alone.\n"
_MARK_BYTES = MARK.encode()


def is_ours(file: Path) -> bool:
    """False also where there is no such file, or none that can be read: then it is not ours to touch."""
    try:
        fd = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.read(fd, len(_MARK_BYTES)) == _MARK_BYTES
    except OSError:
        return False
    finally:
        os.close(fd)


def put(file: Path, text: str) -> None:
    """Write the text as a new file that is on the disk when this returns. Raises OSError, and FileExistsError where there is one.

    Synchronous, because a file that a power failure leaves empty has no mark, and would be somebody else's for ever.
    """
    with file.open("x") as new:
        new.write(text)
        new.flush()
        os.fsync(new.fileno())


def says(file: Path, text: str) -> bool:
    """Whether that is all of a file, in which anybody may have written anything below our line. Raises OSError."""
    return file.read_bytes() == text.encode()


def replace(file: Path, text: str, part: Path) -> None:
    """Readers see the old file or the new one. `part` is its place until then, in the same directory. Raises OSError."""
    part.unlink(missing_ok=True)
    put(part, text)
    part.rename(file)
