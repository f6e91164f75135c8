"""Where keys and certificates are kept, and how several processes agree on them without speaking to each other.

A key store knows two operations, read and write-if-unchanged; `settle` builds create-or-read and every renewal from them. One is
a directory, the other a Secret of the cluster. What is in the files is nobody's business here.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

from webhook.errors import KeyStoreError, Unreachable
from webhook.kube.api import Api, ApiAnswer, Object, ObjectName, mapping_at, text_at

Files = Mapping[str, bytes]

ATTEMPTS_MAX = 8
"""Each lost attempt means that another process has won one, and then there is rarely anything left to do."""
FILE_BYTES_MAX = 1 << 20
LABELS = {"app.kubernetes.io/name": "darner", "app.kubernetes.io/managed-by": "darner-webhook"}
"""The labels of a Secret that is made here."""


class Stored(NamedTuple):
    files: Files
    version: str
    """Different for different files."""


class KeyStore(Protocol):
    def read(self) -> Stored | None:
        """What is stored, None if nothing ever was. Raises KeyStoreError or Unreachable."""

    def write(self, files: Files, version: str | None) -> bool:
        """Stores the files if what is stored still has this version (None: nothing is stored). False: it has not."""


def settle(store: KeyStore, wanted: Callable[[Files | None], Files]) -> Files:
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
        self._lock = self._path / ".lock"
        """Of whoever has written here."""

    def __str__(self) -> str:
        return f"the directory {self._path}"

    def read(self) -> Stored | None:
        """All files of one write: nobody is writing meanwhile."""
        if not self._lock.exists():
            found = self._found()
            if not self._lock.exists():
                return found
        try:
            with self._locked(os.O_RDONLY, fcntl.LOCK_SH):
                return self._found()
        except OSError as error:
            raise KeyStoreError(f"{self} cannot be read: {error.strerror}") from None

    def _found(self) -> Stored | None:
        try:
            files = {
                entry.name: _read_bounded(entry)
                for entry in sorted(self._path.iterdir())
                if not entry.name.startswith(".") and entry.is_file()
            }
        except FileNotFoundError:
            return None
        except OSError as error:
            raise KeyStoreError(f"{self} cannot be read: {error.strerror}") from None
        return Stored(files, _version(files)) if files else None

    def write(self, files: Files, version: str | None) -> bool:
        try:
            self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._locked(os.O_RDWR | os.O_CREAT, fcntl.LOCK_EX):
                stored = self._found()
                if (stored.version if stored else None) != version:
                    return False
                for name, content in files.items():
                    if stored is None or stored.files.get(name) != content:
                        self._replace(name, content)
        except OSError as error:
            raise KeyStoreError(f"{self} cannot be written: {error.strerror}") from None
        return True

    def _replace(self, name: str, content: bytes) -> None:
        # A crash between two files leaves a set that does not belong together; the next process that parses it makes another.
        temporary = self._path / f".{name}.{os.getpid()}"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._path / name)

    @contextmanager
    def _locked(self, flags: int, lock: int) -> Iterator[None]:
        descriptor = os.open(self._lock, flags, 0o600)
        try:
            fcntl.flock(descriptor, lock)
            yield
        finally:
            os.close(descriptor)


class SecretStore:
    """A Secret. Its resourceVersion decides which of several writers was first."""

    def __init__(self, api: Api, name: ObjectName) -> None:
        self._api = api
        self._name = name
        self._collection = f"/api/v1/namespaces/{name.namespace}/secrets"

    def __str__(self) -> str:
        return f"the Secret {self._name}"

    def read(self) -> Stored | None:
        secret = self._found()
        if secret is None:
            return None
        data = mapping_at(secret, "data")
        return Stored({name: base64.b64decode(text_at(data, name)) for name in data}, _resource_version(secret))

    def write(self, files: Files, version: str | None) -> bool:
        data = {name: base64.b64encode(content).decode() for name, content in files.items()}
        if version is None:
            metadata = {"name": self._name.name, "namespace": self._name.namespace, "labels": LABELS}
            secret = {"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": metadata, "data": data}
            answered = self._api.ask("POST", self._collection, secret)
        else:
            # The rest of the object is kept as it is: its type cannot change, and its labels are theirs who put them there.
            found = self._found()
            if found is None or _resource_version(found) != version:
                return False
            answered = self._api.ask("PUT", f"{self._collection}/{self._name.name}", {**found, "data": data})
        # Another writer was first, or it was deleted meanwhile and the next attempt makes it.
        if answered.status == 409 or (answered.status == 404 and version is not None):
            return False
        if answered.status not in (200, 201):
            raise self._refused(answered)
        return True

    def _found(self) -> Object | None:
        answered = self._api.ask("GET", f"{self._collection}/{self._name.name}")
        if answered.status == 404:
            return None
        if answered.status != 200:
            raise self._refused(answered)
        return answered.document

    def _refused(self, answered: ApiAnswer) -> Unreachable:
        reason = text_at(answered.document, "reason")
        return Unreachable(f"the API server answered {answered.status} {reason}".rstrip() + f" about {self}")


def _read_bounded(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(FILE_BYTES_MAX + 1)
    if len(content) > FILE_BYTES_MAX:
        raise KeyStoreError(f"{path} has more than {FILE_BYTES_MAX} bytes")
    return content


def _version(files: Files) -> str:
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name}\0{len(files[name])}\0".encode() + files[name])
    return digest.hexdigest()


def _resource_version(secret: Object) -> str:
    return text_at(mapping_at(secret, "metadata"), "resourceVersion")
