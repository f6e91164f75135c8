"""The bytes of a blob on their way from a registry: one answer, whose place in the blob is known before its first byte is used.

Never spliced from two versions: whoever resumes says how long the blob was before. Whether the bytes are right is not known here;
that is the digest's business (`agent.storage.blob`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from agent.http.client import StalledError, TransferError
from agent.http.ratelimit import Pace, slowed
from agent.http.wire import chunks
from agent.origin.encodings import Gunzip, is_gzip
from agent.origin.reply import Reply
from agent.values.errors import DarnerError, DigestError, OriginError, RangesError

_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})")


class BlobStream:
    """Raises OriginError: 504 when the registry stalls, 502 when it breaks off or answers something else than it was asked."""

    def __init__(
        self,
        reply: Reply,
        registry: str,
        start: int,
        paces: Sequence[Pace],
        listed: int | None = None,
        blame: Callable[[DarnerError], None] | None = None,
        end: int | None = None,
    ) -> None:
        """Takes the reply over, and skips to byte `start` where the registry does not know ranges.

        Where bytes up to `end` (not included) were asked for, a registry that sends all of them is a RangesError.

        `listed` is the blob's size as its manifest says it, for a registry that does not say it itself. `blame` hears what goes
        wrong with the bytes of a mirror, for which no registry is charged.
        """
        self._blame = blame
        self._reply = reply
        read_into = reply.connection.read_into
        self._read_into = slowed(read_into, *paces) if paces else read_into
        self._registry = registry
        try:
            self.size = self._size(start, end, listed)
            """Bytes of the whole blob."""
            if is_coded(reply, listed):
                self._read_into = Gunzip(self._read_into)
            if reply.status != 206 and (start > self.size or sum(map(len, chunks(self.read_into, start))) < start):
                raise OriginError(502, f"the registry {registry} has a shorter blob than it had before")
        except BaseException:
            reply.close()
            raise

    def read_into(self, buffer: memoryview) -> int:
        """Some bytes, at least one; 0 at the end."""
        try:
            return self._read_into(buffer)
        except StalledError:
            raise self._failed(504, "stopped sending in the middle of a blob") from None
        except TransferError as error:
            raise self._failed(502, f"broke off in the middle of a blob: {error}") from None

    def _failed(self, status: int, words: str) -> OriginError:
        error = OriginError(status, f"the registry {self._registry} {words}", certain=self._blame is None)
        if self._blame:
            self._blame(error)
        return error

    def deny(self, error: DarnerError | None) -> None:
        """How it went with the whole blob: if these bytes were not its, a mirror is not asked for it again soon."""
        if self._blame and isinstance(error, DigestError):
            self._blame(error)

    def abort(self) -> None:
        """Make another thread, which reads this stream, see its end at once: nobody's fault."""
        self._blame = None
        self._reply.connection.abort()

    def close(self) -> None:
        self._reply.close()

    def _size(self, start: int, end: int | None, listed: int | None) -> int:
        length, headers = self._reply.length, self._reply.headers
        if self._reply.status != 206 and end is not None:
            raise RangesError(502, f"the registry {self._registry} sends no part of a blob")
        if self._reply.status != 206:
            size = listed if length is None or is_coded(self._reply, listed) else length
            if size is None:
                raise OriginError(502, f"the registry {self._registry} does not say how long the blob is")
            return size
        first, last, whole = content_range(headers)
        until = whole if end is None else end
        if (first, last + 1) != (start, until) or length not in (None, until - start):
            raise OriginError(502, f"the registry {self._registry} answers another range than it was asked for")
        return whole


def is_coded(reply: Reply, listed: int | None) -> bool:
    """Whether a blob comes in gzip, so that its bytes are others than those of its digest: its size tells.

    A store may say gzip of a layer because the layer itself is gzip. Then it has the length that its manifest says.
    """
    whole = content_range(reply.headers)[2] if reply.status == 206 else reply.length
    return listed is not None and whole != listed and is_gzip(reply.headers)


def content_range(headers: Mapping[str, str]) -> tuple[int, int, int]:
    """First and last byte, and the size of the whole, that a 206 says it has; -1 for each when it does not say."""
    found = _CONTENT_RANGE.fullmatch(headers.get("content-range", ""))
    first, last, whole = (int(number) for number in found.groups()) if found else (-1, -1, -1)
    return first, last, whole
