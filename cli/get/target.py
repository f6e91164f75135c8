"""Where a file goes: a name that it gets when all of it is right, or a stream.

What has come is in FILE.part, and FILE.part.of says which version of which URL that is: whoever is interrupted goes on there, if
the server still has that version. Of the URL it has a hash alone, for a query may hold what proves who asks.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from cli.alone import open_alone
from cli.errors import ClosedPipe
from cli.get.errors import GetError, GetStatus, WrongDigestError
from cli.layout.files import digest_of

READ_BYTES = 1 << 20


class FileTarget:
    """Use it as a context manager; `finish` gives the file its name. Raises GetError."""

    def __init__(self, path: Path, url: str, digest: str) -> None:
        self.path = path
        self.position = 0
        """Bytes that are here."""
        self.validator = ""
        """Of the version that they are of; "" when nobody may go on with them."""
        self._url, self._digest = hashlib.sha256(url.encode()).hexdigest(), digest
        self._part = path.with_name(path.name + ".part")
        self._of = path.with_name(path.name + ".part.of")
        self._file: BinaryIO | None = None
        self._is_wrong = False
        """Whether what is in the file has turned out to be another one's bytes."""
        self._hasher = hashlib.sha256()

    def __enter__(self) -> FileTarget:
        with self._errors():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._file = open_alone(self._part)
            except BlockingIOError:
                raise GetError(GetStatus.FILE, f"{self.path}: another darner get is writing it") from None
            self.validator = self._written_of()
            if self.validator:
                while data := self._file.read(READ_BYTES):
                    self._hasher.update(data)
                    self.position += len(data)
        return self

    def __exit__(self, *_: object) -> None:
        if self._file:
            if self._is_wrong:
                self._part.unlink(missing_ok=True)
            self._file.close()

    def begin(self, start: int, validator: str) -> None:
        """Bytes come from `start` on: where the last ones ended, or the first one."""
        assert self._file  # noqa: S101 (entered)
        self._is_wrong = False
        with self._errors():
            if start != self.position:
                self._hasher, self.position = hashlib.sha256(), 0
            self._file.seek(self.position)
            self._file.truncate()
            if validator != self.validator or not start:
                self.validator = validator
                self._of.write_text(json.dumps({"url": self._url, "digest": self._digest, "validator": validator}))

    def write(self, data: memoryview) -> None:
        assert self._file  # noqa: S101
        with self._errors():
            self._file.write(data)
        self._hasher.update(data)
        self.position += len(data)

    def finish(self) -> None:
        """All of it is here. Raises WrongDigestError for bytes that do not have the digest, which are removed."""
        assert self._file  # noqa: S101
        found = f"sha256:{self._hasher.hexdigest()}"
        with self._errors():
            if self._digest and found != self._digest:
                self._of.unlink(missing_ok=True)
                self._hasher, self.position, self.validator, self._is_wrong = hashlib.sha256(), 0, "", True
                raise WrongDigestError(f"{self.path}: its bytes have the digest {found}, not {self._digest}; removed")
            self._file.flush()
            os.replace(self._part, self.path)
            self._of.unlink(missing_ok=True)

    def is_here(self) -> bool:
        """Whether the file is there already, with the digest that it has to have."""
        if not self._digest or not self.path.is_file():
            return False
        with self._errors(), self.path.open("rb") as file:
            return digest_of(file) == self._digest

    def _written_of(self) -> str:
        """The validator of what an earlier try has left; "" when that is of something else."""
        try:
            said = json.loads(self._of.read_text())
            is_same = (said["url"], said["digest"]) == (self._url, self._digest)
            return str(said["validator"]) if is_same else ""
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise GetError(GetStatus.FILE, f"{self.path} cannot be written: {error.strerror}") from None


class StreamTarget:
    """Standard output, a pipe or a device: what is written to it cannot be taken back."""

    def __init__(self, name: str, digest: str) -> None:
        """`-` is standard output."""
        self.path = Path(name)
        self.position = 0
        self.validator = ""
        self._name = "standard output" if name == "-" else name
        self._digest = digest
        self._stream: BinaryIO | None = None
        self._hasher = hashlib.sha256()

    def __enter__(self) -> StreamTarget:
        with self._errors():
            self._stream = sys.stdout.buffer if self._name == "standard output" else self.path.open("wb", buffering=0)
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream and self._stream is not sys.stdout.buffer:
            self._stream.close()

    def begin(self, start: int, validator: str) -> None:
        if start != self.position:
            words = f"the file has changed at its server after {self.position} bytes of it were written to {self._name}"
            raise GetError(GetStatus.PROBLEM, words)
        self.validator = validator

    def write(self, data: memoryview) -> None:
        assert self._stream  # noqa: S101 (entered)
        with self._errors():
            self._stream.write(data)
        self._hasher.update(data)
        self.position += len(data)

    def finish(self) -> None:
        assert self._stream  # noqa: S101
        with self._errors():
            self._stream.flush()
        found = f"sha256:{self._hasher.hexdigest()}"
        if self._digest and found != self._digest:
            words = f"what was written to {self._name} has the digest {found}, not {self._digest}"
            raise GetError(GetStatus.PROBLEM, words)

    def is_here(self) -> bool:
        return False

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            raise ClosedPipe from None
        except OSError as error:
            raise GetError(GetStatus.FILE, f"{self._name} cannot be written: {error.strerror}") from None


Target = FileTarget | StreamTarget
