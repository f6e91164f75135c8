"""The files in a directory or in a tar, by their paths. Nothing is ever unpacked, so no path leads anywhere.

A tar may be compressed by gzip, or come by standard input: then it is in a temporary file meanwhile, for it is read more than
once. Any number of threads may read.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import os
import posixpath
import shutil
import stat
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from cli.errors import CommandError

MEMBERS_MAX = 100_000
CHUNK_BYTES = 1 << 20
GZIP_MAGIC = b"\x1f\x8b"
LINKS_MAX = 8
"""From one name to the next: docker's older versions write a layer once, and links to it."""


class BadArchive(CommandError):  # noqa: N818 (it says what the matter is)
    """What should be read is no archive of images, or not all of it."""


class ImageFiles(Protocol):
    name: str
    """As a person knows it."""

    def size(self, path: str) -> int | None:
        """Bytes of a file; None when there is none."""

    def open(self, path: str) -> BinaryIO:
        """Raises BadArchive."""


def digest_of(file: BinaryIO) -> str:
    """Of all that is left to be read."""
    return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"  # type: ignore[arg-type]


@contextlib.contextmanager
def opened(where: str) -> Iterator[ImageFiles]:
    """`where` is a directory, a tar, or `-`. Raises CommandError."""
    if where == "-":
        with _spooled(sys.stdin.buffer, "standard input") as file:
            yield TarFiles(file, "standard input")
        return
    if Path(where).is_dir():
        yield DirectoryFiles(Path(where))
        return
    with contextlib.ExitStack() as closing:
        try:
            file = closing.enter_context(Path(where).open("rb"))
            is_compressed = file.read(2) == GZIP_MAGIC
            file.seek(0)
        except OSError as error:
            raise CommandError(f"{where} cannot be read: {error.strerror}") from None
        yield TarFiles(closing.enter_context(_spooled(file, where)) if is_compressed else file, where)


@contextlib.contextmanager
def _spooled(source: BinaryIO, name: str) -> Iterator[BinaryIO]:
    """All of it, uncompressed."""
    with unnamed_file() as file:
        peeked = io.BufferedReader(source)  # type: ignore[type-var]
        try:
            if peeked.peek(2)[:2] == GZIP_MAGIC:
                with gzip.open(peeked) as plain:
                    shutil.copyfileobj(plain, file, CHUNK_BYTES)
            else:
                shutil.copyfileobj(peeked, file, CHUNK_BYTES)
        except (EOFError, zlib.error, gzip.BadGzipFile):
            raise BadArchive(f"{name} is cut short or damaged; copy it again") from None
        except OSError as error:
            raise _no_room(name, error) from None
        finally:
            peeked.detach()
        with kept(name):
            file.seek(0)
        yield file


@contextlib.contextmanager
def unnamed_file() -> Iterator[BinaryIO]:
    """For what has to be read once more: a file that is gone at the end. What is written to it is `kept`."""
    with kept("what is read twice"):
        file = tempfile.TemporaryFile()  # noqa: SIM115 (closing it fails too when there is no room)
    try:
        yield file
    finally:
        with contextlib.suppress(OSError):  # of what had no room, which is said
            file.close()


@contextlib.contextmanager
def kept(name: str) -> Iterator[None]:
    """For each write to an unnamed file. Raises CommandError where there is no room."""
    try:
        yield
    except OSError as error:
        raise _no_room(name, error) from None


def _no_room(name: str, error: OSError) -> CommandError:
    return CommandError(f"{name} cannot be kept in {tempfile.gettempdir()}: {error.strerror}; set TMPDIR to a larger place")


class DirectoryFiles:
    def __init__(self, root: Path) -> None:
        self.name = str(root)
        self._root = root

    def size(self, path: str) -> int | None:
        try:
            status = os.lstat(self._root / _inside(path, self.name))
        except OSError:
            return None
        return status.st_size if stat.S_ISREG(status.st_mode) else None

    def open(self, path: str) -> BinaryIO:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # what is no file at all is not waited for
        try:
            return os.fdopen(os.open(self._root / _inside(path, self.name), flags), "rb")
        except OSError as error:
            raise BadArchive(f"{self.name} has no {ascii(path)[1:-1]} that can be read: {error.strerror}") from None


class TarFiles:
    def __init__(self, file: BinaryIO, name: str) -> None:
        """Raises BadArchive for what is no tar, or only the begin of one."""
        self.name = name
        self._fd = file.fileno()
        self._spans: dict[str, tuple[int, int]] = {}
        """First byte and length of each file."""
        self._links: dict[str, str] = {}
        end = os.fstat(self._fd).st_size
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for number, member in enumerate(tar):
                    self._add(member, number, end)
        except (tarfile.TarError, ValueError, EOFError, OSError) as error:
            said = "is cut short; copy it again" if "unexpected end" in str(error) else "is no tar, nor a directory"
            raise BadArchive(f"{name} {said}") from None

    def _add(self, member: tarfile.TarInfo, number: int, end: int) -> None:
        path = _inside(member.name, self.name)
        if number >= MEMBERS_MAX:
            raise BadArchive(f"{self.name} has more than {MEMBERS_MAX} files")
        if member.issym():
            self._links[path] = _inside(posixpath.join(posixpath.dirname(path), member.linkname), self.name)
        elif member.islnk():
            self._links[path] = _inside(member.linkname, self.name)
        elif member.isreg() and not member.issparse():
            if member.offset_data + member.size > end:
                raise BadArchive(f"{self.name} is cut short; copy it again")
            self._spans[path] = member.offset_data, member.size

    def _span(self, path: str) -> tuple[int, int] | None:
        path = _inside(path, self.name)
        for _ in range(LINKS_MAX):
            if path not in self._links:
                break
            path = self._links[path]
        return self._spans.get(path)

    def size(self, path: str) -> int | None:
        span = self._span(path)
        return span[1] if span else None

    def open(self, path: str) -> BinaryIO:
        span = self._span(path)
        if span is None:
            raise BadArchive(f"{self.name} has no {ascii(path)[1:-1]}")
        return io.BufferedReader(_Span(self._fd, *span), 1 << 18)


class _Span(io.RawIOBase):
    """Some bytes of a file, read without moving its position."""

    def __init__(self, fd: int, start: int, length: int) -> None:
        self._fd, self._position, self._end = fd, start, start + length

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        view = memoryview(buffer)[: self._end - self._position]
        count = os.preadv(self._fd, [view], self._position) if view else 0
        self._position += count
        return count


def _inside(path: str, name: str) -> str:
    """The path without detours. Raises BadArchive for one that leads out."""
    found = posixpath.normpath(path)
    if found == ".." or found.startswith(("/", "../")) or "\0" in found:
        raise BadArchive(f"{name} has the path {path!a}, which leads out of it; it is not trusted")
    return found
