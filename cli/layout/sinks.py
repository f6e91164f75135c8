"""Where files of an image are written: a directory, a tar, or standard output as a tar.

A tar has its name when all of it is there, and a file in a directory when all of that file is. What is written comes in chunks,
which may raise whatever reading them raises; what writing raises is a CommandError, in words. One command at a time writes there.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from cli.alone import open_alone
from cli.errors import ClosedPipe, CommandError, WrongUsage

STANDARD_OUTPUT = "-"
PARTIAL = ".partial"
FILE_MODE = 0o644


class Sink(Protocol):
    name: str
    """As a person knows it."""

    def open(self, path: str) -> BinaryIO | None:
        """A file that an earlier command has left; None where there is none."""

    def put(self, path: str, size: int, chunks: Iterable[bytes]) -> None:
        """A file of so many bytes."""

    def finish(self) -> None:
        """All is there."""


@contextlib.contextmanager
def sink_at(where: str) -> Iterator[Sink]:
    """A tar for a name that ends in `.tar`, else a directory; `-` is standard output. Raises CommandError."""
    path = Path(where)
    if where == STANDARD_OUTPUT:
        if sys.stdout.isatty():
            raise WrongUsage("an archive is not written to a terminal; write -o FILE.tar")
        yield TarSink("standard output", sys.stdout.buffer)
    elif path.name.endswith(".tar"):
        partial = path.with_name(path.name + PARTIAL)
        with _written(where), _one_at_a_time(where):
            file = open_alone(partial)
        with file:
            try:
                with _written(where):
                    file.truncate()
                yield TarSink(where, file)
                with _written(where):
                    os.replace(partial, path)
            except BaseException:
                partial.unlink(missing_ok=True)
                raise
    else:
        sink = DirectorySink(path)
        with _written(where):
            directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with _written(where), _one_at_a_time(where):
                fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield sink
        finally:
            os.close(directory)


class TarSink:
    """The ustar format, with PAX headers for what that cannot say."""

    def __init__(self, name: str, file: BinaryIO) -> None:
        self.name = name
        self._file = file

    def open(self, path: str) -> BinaryIO | None:  # noqa: ARG002 (nothing was left)
        return None

    def put(self, path: str, size: int, chunks: Iterable[bytes]) -> None:
        member = tarfile.TarInfo(path)
        member.size, member.mode = size, FILE_MODE
        self._write(member.tobuf(tarfile.PAX_FORMAT))
        for chunk in chunks:
            self._write(chunk)
        self._write(bytes(-size % tarfile.BLOCKSIZE))

    def finish(self) -> None:
        self._write(bytes(2 * tarfile.BLOCKSIZE))
        with _written(self.name):
            self._file.flush()

    def _write(self, data: bytes) -> None:
        with _written(self.name):
            self._file.write(data)


class DirectorySink:
    def __init__(self, root: Path) -> None:
        """Raises CommandError for what is a file, or a directory of something else."""
        self.name = str(root)
        self._root = root
        with _written(self.name):
            root.mkdir(parents=True, exist_ok=True)
            is_other = any(root.iterdir()) and not (root / "oci-layout").is_file() and not (root / "blobs").is_dir()
        if is_other:
            raise WrongUsage(f"{root} is a directory of something else; name one that is not there, or an OCI layout")

    def open(self, path: str) -> BinaryIO | None:
        try:
            return (self._root / path).open("rb")
        except OSError:
            return None

    def put(self, path: str, size: int, chunks: Iterable[bytes]) -> None:  # noqa: ARG002 (a file has its own)
        place = self._root / path
        partial = place.with_name(place.name + PARTIAL)
        try:
            with _written(self.name):
                place.parent.mkdir(parents=True, exist_ok=True)
                file = partial.open("wb")
            with file:
                for chunk in chunks:
                    with _written(self.name):
                        file.write(chunk)
            with _written(self.name):
                os.replace(partial, place)
        finally:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)

    def finish(self) -> None:
        """Each file is there already."""


@contextlib.contextmanager
def _one_at_a_time(name: str) -> Iterator[None]:
    """Two that wrote at once would cut each other's files, and the later list of images would be without the other's."""
    try:
        yield
    except BlockingIOError:
        raise CommandError(f"{name} is being written by another command; wait for that") from None


@contextlib.contextmanager
def _written(name: str) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise ClosedPipe from None
    except OSError as error:
        raise CommandError(f"{name} cannot be written: {error.strerror}; nothing of it counts") from None
