"""A Unix socket that a process listens at: its directory, its mode, and one that an earlier process has left."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path

from agent.values.errors import UsageError

DIRECTORY_MODE = 0o755
PATH_BYTES_MAX = 107
"""Of a socket's name (unix(7))."""


@dataclass(frozen=True)
class UnixSocket:
    path: Path
    mode: int
    """Who may connect: to write to the file is to connect."""

    def listen(self, backlog: int) -> socket.socket:
        """Raises UsageError in one line where the path cannot be used, or another process listens there."""
        if len(os.fsencode(self.path)) > PATH_BYTES_MAX or not self.path.is_absolute():
            raise UsageError(f"the socket {self.path} has no absolute path of at most {PATH_BYTES_MAX} bytes")
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.path.parent.mkdir(DIRECTORY_MODE, parents=True, exist_ok=True)
            self._remove_stale()
            before = os.umask(0o777 & ~self.mode)  # never open to more than it is meant for, not even for a moment
            try:
                sock.bind(os.fspath(self.path))
            finally:
                os.umask(before)
            sock.listen(backlog)
        except OSError as error:
            sock.close()
            raise UsageError(f"the socket {self.path} cannot be made: {error.strerror}") from None
        except UsageError:
            sock.close()
            raise
        return sock

    def _remove_stale(self) -> None:
        """What a process left that was killed. A file that is no socket stays, and is in the way."""
        try:
            if not stat.S_ISSOCK(self.path.lstat().st_mode):
                raise UsageError(f"the socket {self.path} cannot be made: there is something else")
        except FileNotFoundError:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)  # whoever listens there and accepts nobody is not waited for
            try:
                probe.connect(os.fspath(self.path))
            except ConnectionRefusedError:
                self.path.unlink()
            else:
                raise UsageError(f"the socket {self.path} cannot be made: another process listens there")

    def remove(self) -> None:
        with contextlib.suppress(OSError):
            self.path.unlink()
