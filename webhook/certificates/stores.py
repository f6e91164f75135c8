"""Where small secret things are kept, and how several processes agree on them without speaking to each other.

A store knows two operations, read and write-if-unchanged; `settle` builds create-or-read and every renewal from them. The
directory is here; the Secret of a cluster is `webhook.kube.client`'s. What is in the files is nobody's business here.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

from agent.values.errors import DarnerError

Files = Mapping[str, bytes]

ATTEMPTS_MAX = 8
"""Each lost attempt means that another process has won one, and then there is rarely anything left to do."""
FILE_BYTES_MAX = 1 << 20


class StoreError(DarnerError):
    """The store's fault: a directory or a cluster that cannot be read or written now."""


class Unreachable(StoreError):  # noqa: N818 (it says what the matter is)
    """The cluster's, or the network's: what may be otherwise in a moment."""


class Stored(NamedTuple):
    files: Files
    version: str
    """Different for different files."""


class Store(Protocol):
    def read(self) -> Stored | None:
        """What is stored, None if nothing ever was. Raises StoreError."""

    def write(self, files: Files, version: str | None) -> bool:
        """Stores the files if what is stored still has this version (None: nothing is stored). False: it has not."""


def settle(store: Store, wanted: Callable[[Files | None], Files]) -> Files:
    """Stores what `wanted` makes of what is stored, and returns what then is; of several processes one wins, for all of them."""
    for _ in range(ATTEMPTS_MAX):
        stored = store.read()
        files = wanted(stored.files if stored else None)
        if (stored and files == stored.files) or store.write(files, stored.version if stored else None):
            return files
    raise Unreachable(f"{store} was changed by others {ATTEMPTS_MAX} times in a row")


class DirectoryStore:
    """A directory of files, for its owner alone. One that cannot be written, such as a mounted Secret, can still be read."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)

    def __str__(self) -> str:
        return f"the directory {self._path}"

    def read(self) -> Stored | None:
        try:
            files = {
                entry.name: _read_bounded(entry)
                for entry in sorted(self._path.iterdir())
                if not entry.name.startswith(".") and entry.is_file()
            }
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"{self} cannot be read: {error.strerror}") from None
        return Stored(files, _version(files)) if files else None

    def write(self, files: Files, version: str | None) -> bool:
        try:
            self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._locked():
                stored = self.read()
                if (stored.version if stored else None) != version:
                    return False
                for name, content in files.items():
                    if stored is None or stored.files.get(name) != content:
                        self._replace(name, content)
        except OSError as error:
            raise StoreError(f"{self} cannot be written: {error.strerror}") from None
        return True

    def _replace(self, name: str, content: bytes) -> None:
        # A crash between two files leaves a set that does not belong together; whoever parses it makes another.
        temporary = self._path / f".{name}.{os.getpid()}"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._path / name)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = os.open(self._path / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _read_bounded(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(FILE_BYTES_MAX + 1)
    if len(content) > FILE_BYTES_MAX:
        raise StoreError(f"{path} has more than {FILE_BYTES_MAX} bytes")
    return content


def _version(files: Files) -> str:
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name}\0{len(files[name])}\0".encode() + files[name])
    return digest.hexdigest()
