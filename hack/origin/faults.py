"""What can go wrong at an origin, as values: which requests are hit, and what happens to their answers.

A fault is switched on with `Origin.fail`, or as a habit with `Origin.behave`, and does all that it says at once. Owns the
breaking of a body as well, as a filter of chunks that is told how to wait; knows nothing of sockets.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any


class ResetError(Exception):
    """The connection is to end here with a TCP reset."""


@dataclass(frozen=True)
class Fault:
    """One way to break an answer.

    A body that ends early and cleanly is `headers={"Content-Length": "1000000", "Connection": "close"}`.
    """

    path: str = ""
    """A regular expression that is found in the paths to hit, such as `/blobs/`; every path by default."""
    methods: frozenset[str] = frozenset({"GET", "HEAD"})

    delay_seconds: float = 0
    """Silence before the answer begins. It ends early when the origin is stopped."""
    status: int | None = None
    """Answers this instead, with `body` and `headers`: 429, 503, 302 to elsewhere, 200 with a login page."""
    body: bytes = b""
    headers: Mapping[str, str | None] = field(default_factory=dict)
    """Headers to put in place of the right ones; None leaves one out, `Content-Length` included. `{path}` is the path asked."""

    flip_byte: int | None = None
    """The byte at this position of the blob arrives with all its bits inverted, whichever range it is sent in."""
    cut_after: int | None = None
    """The connection is reset after so many bytes of the body, whatever length was declared."""
    stall_after: int | None = None
    """Silence after so many bytes of the body, until the origin stops."""
    bytes_per_second: int | None = None
    """The body comes no faster than that."""
    chunked: bool = False
    """The body comes in chunks of HTTP, so that no head tells its length."""
    gzip: bool = False
    """What is found comes in gzip, whether that was asked for or not."""
    ignores_range: bool = False
    """A part is asked for, and the whole is sent."""
    etag: str = ""
    """The blob's own instead of its digest, also where a condition is compared with it: another version of the same."""
    at_once_max: int | None = None
    """Answers to requests that the fault hits, at a time; who comes on top of that is answered 429."""
    valid_seconds: float = 0
    """`{until}` in a header is the time at which a URL that is given out now runs out."""
    runs_out: bool = False
    """Answers 403 to a URL whose `until` is past, or that has none."""
    extra: bytes = b""
    """Sent after the end of the body."""

    def hits(self, method: str, path: str) -> bool:
        return method in self.methods and re.search(self.path, path) is not None

    def besides(self, other: Fault) -> Fault:
        """Both at once. What this one says counts more than what the other says."""
        said: dict[str, Any] = {item.name: getattr(self, item.name) for item in fields(self) if says(self, item.name)}
        return replace(other, **said | {"headers": {**other.headers, **self.headers}})

    def through(self, body: Iterator[bytes], start: int, wait: Callable[[float | None], object]) -> Iterator[bytes]:
        """The body as this fault lets it through; it begins at byte `start` of the blob. Raises ResetError where it is cut."""
        sent, began = 0, time.monotonic()
        for chunk in body:
            if self.flip_byte is not None:
                chunk = flipped(chunk, self.flip_byte - start - sent)
            for limit, then in ((self.cut_after, 0.0), (self.stall_after, None)):
                if limit is not None and limit <= sent + len(chunk):
                    yield chunk[: limit - sent]
                    wait(then)
                    raise ResetError
            yield chunk
            sent += len(chunk)
            if self.bytes_per_second:  # in all, so that a wait that took too long is made up for
                wait(max(0.0, began + sent / self.bytes_per_second - time.monotonic()))
        if self.extra:
            yield self.extra


def says(fault: Fault, field_name: str) -> bool:
    """Whether a fault says something of its own there."""
    return bool(getattr(fault, field_name) != getattr(NO_FAULT, field_name))


NO_FAULT = Fault()
TOO_MANY = Fault(status=429, headers={"Retry-After": "1"})


def flipped(chunk: bytes, position: int) -> bytes:
    """The chunk with the byte at `position` inverted, or as it is where that lies outside."""
    if not 0 <= position < len(chunk):
        return chunk
    return chunk[:position] + bytes([chunk[position] ^ 0xFF]) + chunk[position + 1 :]
