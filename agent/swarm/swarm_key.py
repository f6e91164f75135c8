"""The swarm's key: read from a file that somebody else keeps, such as a mounted Secret, and read again when it changes."""

from __future__ import annotations

import os
from pathlib import Path

from agent.values.errors import DarnerError

KEY_BYTES_MIN = 16
KEY_BYTES_MAX = 4096


class SwarmKeyError(DarnerError):
    """The key cannot be read now: nothing is served to, or fetched from, other nodes until it can."""

    status = 503
    code = "UNAVAILABLE"


class SwarmKey:
    """Calling it gives the key, or None when no file is configured, which is for laboratories only."""

    def __init__(self, path: str) -> None:
        self._path = Path(path) if path else None
        self._read: tuple[int, bytes] | None = None

    def __call__(self) -> bytes | None:
        if self._path is None:
            return None
        try:
            changed = os.stat(self._path).st_mtime_ns
            if self._read is None or self._read[0] != changed:
                with self._path.open("rb") as file:
                    key = file.read(KEY_BYTES_MAX + 1).strip()
                if not KEY_BYTES_MIN <= len(key) <= KEY_BYTES_MAX:
                    raise SwarmKeyError(f"{self._path} holds {len(key)} bytes; a key has {KEY_BYTES_MIN} to {KEY_BYTES_MAX}")
                self._read = (changed, key)
        except OSError as error:
            raise SwarmKeyError(f"the swarm key {self._path} cannot be read: {error.strerror}") from None
        return self._read[1]
