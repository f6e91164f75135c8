"""Where the socket is by which images are loaded: in the store's directory, which is closed to everybody else."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from agent.values.errors import UsageError

SOCKET = "load.sock"
STORE = "DARNER_STORE"
"""The setting of the supernode in whose container a command is typed."""


def store_of(environment: Mapping[str, str]) -> Path:
    """Raises UsageError where no supernode's settings are."""
    if not environment.get(STORE):
        raise UsageError(f"{STORE} names no directory: this is typed in the container of a supernode")
    return Path(environment[STORE])


@contextlib.contextmanager
def socket_path(root: Path) -> Iterator[str]:
    """The socket by a name that is short, however long that of the store is: 107 characters at most (unix(7)). Raises OSError."""
    directory = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{SOCKET}"
    finally:
        os.close(directory)
