"""Encodings of a body that nobody asked for, as registries and the stores behind them name them all the same.

Only gzip is undone (RFC 9110 section 8.4). Everything else is as if it were not said, `aws-chunked` among it, which some stores
leave in a head though the bytes are right: whether they are is told by their digest.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping

from agent.http.client import TransferError
from agent.http.wire import ReadInto

CODED_BYTES = 64 << 10
"""Encoded bytes that are taken at a time."""
_GZIP = 16 + zlib.MAX_WBITS


def is_gzip(headers: Mapping[str, str]) -> bool:
    """Whether a body is said to be in gzip."""
    return any(coding.strip().lower() in ("gzip", "x-gzip") for coding in headers.get("content-encoding", "").split(","))


def gunzipped(body: bytes, bytes_max: int) -> bytes:
    """A small body; as it is when it is not gzip, or is more than that."""
    decoder = zlib.decompressobj(_GZIP)
    try:
        decoded = decoder.decompress(body, bytes_max)
    except zlib.error:
        return body
    return decoded if decoder.eof else body


class Gunzip:
    """`read_into` of what is in gzip. Raises TransferError for what is not."""

    def __init__(self, read_into: ReadInto) -> None:
        self._read_into = read_into
        self._coded = memoryview(bytearray(CODED_BYTES))
        self._left = b""
        self._decoder = zlib.decompressobj(_GZIP)

    def __call__(self, buffer: memoryview) -> int:
        while True:
            if self._decoder.eof and self._left:  # another member (RFC 1952 section 2.2)
                self._decoder = zlib.decompressobj(_GZIP)
            decoder = self._decoder
            if not decoder.eof:
                try:
                    decoded = decoder.decompress(self._left, len(buffer))
                except zlib.error:
                    raise TransferError("it says that it sends gzip, and does not") from None
                self._left = decoder.unused_data if decoder.eof else decoder.unconsumed_tail
                if decoded:
                    buffer[: len(decoded)] = decoded
                    return len(decoded)
            if not self._left:
                count = self._read_into(self._coded)
                if not count and decoder.eof:
                    return 0
                if not count:
                    raise TransferError("it ended in the middle of what it sends in gzip")
                self._left = bytes(self._coded[:count])
