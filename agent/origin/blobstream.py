"""The bytes of a blob on their way from a registry: one answer, whose place in the blob is known before its first byte is used.

Never spliced from two versions: whoever resumes says how long the blob was before. Whether the bytes are right is not known here;
that is the digest's business (`agent.storage.blob`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from agent.http.client import Answer, Connection, StalledError, TransferError
from agent.http.pool import ConnectionPool
from agent.http.ratelimit import Pace, slowed
from agent.origin.reply import Reply
from agent.values.errors import OriginError

DISCARD_CHUNK_BYTES = 256 << 10

_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})")


class BlobReply(Reply):
    """An answer over a socket of its own, whose bytes go straight into the reader's buffer."""

    def __init__(self, pool: ConnectionPool, connection: Connection, answer: Answer) -> None:
        super().__init__(connection.where, answer.status, answer.headers, answer.length)
        self._pool = pool
        self._connection = connection

    def close(self) -> None:
        self._pool.give_back(self._connection)

    def read(self, bytes_max: int) -> bytes:
        return self._connection.read_all(bytes_max)

    def read_into(self, buffer: memoryview) -> int:
        return self._connection.read_into(buffer)

    def abort(self) -> None:
        """Make another thread, which reads this, see its end at once."""
        self._connection.abort()


class BlobStream:
    """Raises OriginError: 504 when the registry stalls, 502 when it breaks off or answers something else than it was asked."""

    def __init__(self, reply: BlobReply, registry: str, start: int, paces: Iterable[Pace | None] = ()) -> None:
        """Takes the reply over, and skips to byte `start` where the registry does not know ranges."""
        self._reply = reply
        self._read_into = slowed(reply.read_into, *paces)
        self._registry = registry
        try:
            self.size = self._size(start)
            """Bytes of the whole blob."""
            if reply.status != 206:
                self._skip(start)
        except BaseException:
            reply.close()
            raise

    def read_into(self, buffer: memoryview) -> int:
        """Some bytes, at least one; 0 at the end."""
        try:
            return self._read_into(buffer)
        except StalledError:
            raise OriginError(504, f"the registry {self._registry} stopped sending in the middle of a blob") from None
        except TransferError as error:
            raise OriginError(502, f"the registry {self._registry} broke off in the middle of a blob: {error}") from None

    def abort(self) -> None:
        """Make another thread, which reads this stream, see its end at once."""
        self._reply.abort()

    def close(self) -> None:
        self._reply.close()

    def _size(self, start: int) -> int:
        length, headers = self._reply.length, self._reply.headers
        if length is None:
            raise OriginError(502, f"the registry {self._registry} does not say how long the blob is")
        if headers.get("content-encoding", "identity") != "identity":
            raise OriginError(502, f"the registry {self._registry} sends the blob in an encoding that it was not asked for")
        if self._reply.status != 206:
            return length
        found = _CONTENT_RANGE.fullmatch(headers.get("content-range", ""))
        first, last, size = (int(number) for number in found.groups()) if found else (-1, -1, -1)
        if (first, last + 1, length) != (start, size, size - start):
            raise OriginError(502, f"the registry {self._registry} answers another range than it was asked for")
        return size

    def _skip(self, count: int) -> None:
        if count > self.size:
            raise OriginError(502, f"the registry {self._registry} has a shorter blob than it had before")
        rest = memoryview(bytearray(min(count, DISCARD_CHUNK_BYTES)))
        while count > 0:
            skipped = self.read_into(rest[: min(count, len(rest))])
            if not skipped:
                raise OriginError(502, f"the registry {self._registry} has a shorter blob than it had before")
            count -= skipped
